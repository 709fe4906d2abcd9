package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Explain adds the remedy to an error of a Kafka client that was not let in: which setting of the configuration to look at.
// Other errors it returns as they are.
func Explain(err error) error {
	if _, database := errors.AsType[*pgconn.ConnectError](err); err == nil || database {
		return err // its certificates are another matter
	}
	if remedy := remedy(err); remedy != "" {
		return fmt.Errorf("%w (%s)", err, remedy)
	}
	return err
}

func remedy(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		early     *kgo.ErrFirstReadEOF
	)
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "check kafka.sasl: username, password and mechanism"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return "kafka.sasl.mechanism is not one that this listener of the broker takes"
	case errors.As(err, &authority):
		return "kafka.tls.ca_file must hold the certificate of the authority that signed the broker's"
	case errors.As(err, &name):
		return "kafka.brokers must name the broker as its certificate does, or kafka.tls.server_name must say that name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the broker's certificate must be renewed, or the clock of this machine is wrong"
	case errors.As(err, &record):
		return "the listener does not speak TLS: take its TLS port in kafka.brokers, or leave kafka.tls out"
	case errors.As(err, &early):
		return "compare kafka.tls and kafka.sasl with what the listener asks for"
	}
	return fromText(err.Error())
}

// fromText finds the remedy for errors that have no type: what a broker says of our certificate before it hangs up, and what the
// client makes of a TLS alert that it does not expect.
func fromText(text string) string {
	_, says, refused := strings.Cut(text, "remote error: tls: ")
	switch {
	case strings.Contains(text, "plaintext connection speaking to a tls endpoint"):
		return "the listener speaks TLS: set kafka.tls.enabled"
	case !refused:
		return ""
	case strings.HasPrefix(says, "certificate required"), strings.HasPrefix(says, "bad certificate"):
		return "the broker asks for a client certificate that it knows: set kafka.tls.cert_file and kafka.tls.key_file"
	default:
		return "the broker does not take the client certificate in kafka.tls.cert_file: who signed it, and until when is it valid?"
	}
}

// explaining adds the remedies to what clients log: a process that waits for its broker tells no more than that.
type explaining struct{ kgo.Logger }

func (l explaining) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	for i, v := range keyvals {
		if err, ok := v.(error); ok {
			keyvals[i] = Explain(err)
		}
	}
	l.Logger.Log(level, msg, keyvals...)
}
