// Package kafka makes the options of our Kafka clients (addresses, TLS, SASL, logging, metrics) and brings a cluster's topics
// to what the catalogue in topics says. It reads and writes no business records.
package kafka

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kslog"
)

// Config says where the brokers are and how to talk to them.
type Config struct {
	Brokers  []string // host:port; at least one
	ClientID string   // default leat
	TLS      TLS
	SASL     SASL
}

// TLS is off unless Enabled.
type TLS struct {
	Enabled    bool
	CAFile     string // PEM; default: the system's roots
	CertFile   string // PEM, with KeyFile: a client certificate
	KeyFile    string // PEM
	ServerName string // default: the broker's host name
	Insecure   bool   // do not verify the broker's certificate
}

// SASL is off unless Mechanism is set. However it is printed, it does not show the password.
type SASL struct {
	Mechanism string // plain, scram-sha-256 or scram-sha-512, in any case
	Username  string
	Password  string
}

// Format keeps the password out of whatever prints a SASL or a Config, with any verb.
func (s SASL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.redacted()) }

// MarshalText keeps the password out of JSON and YAML.
func (s SASL) MarshalText() ([]byte, error) { return []byte(s.redacted()), nil }

// LogValue keeps the password out of logs.
func (s SASL) LogValue() slog.Value { return slog.StringValue(s.redacted()) }

func (s SASL) redacted() string {
	if s.Mechanism == "" {
		return "none"
	}
	return strings.ToLower(s.Mechanism) + " user " + s.Username
}

// Validate joins every problem of the configuration. It opens no file.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		bad("brokers: none given")
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			bad("brokers: %q is not host:port", b)
		}
	}
	t := c.TLS
	if !t.Enabled && t != (TLS{}) {
		bad("tls: has settings, but is not enabled")
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		bad("tls: certificate and key file go together")
	}
	switch s := c.SASL; {
	case s.Mechanism == "" && (s.Username != "" || s.Password != ""):
		bad("sasl: has a user or password, but no mechanism")
	case s.Mechanism == "":
	default:
		if _, err := s.mechanism(); err != nil {
			errs = append(errs, err)
		}
		if s.Username == "" || s.Password == "" {
			bad("sasl: user and password are required")
		}
	}
	return errors.Join(errs...)
}

// Options are what every client of ours begins with; the caller adds what the client is for. They may make any number of
// clients, whose metrics (leat_kafka_*) are added up. Call Options once for a registerer; nil means no metrics.
func Options(c Config, logger *slog.Logger, reg prometheus.Registerer) ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("kafka configuration: %w", err)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(cmp.Or(c.ClientID, "leat")),
		kgo.WithLogger(explaining{kslog.New(logger)}),
	}
	if c.TLS.Enabled {
		t, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.SASL.Mechanism != "" {
		m, err := c.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(c.SASL.Mechanism, "plain") && !c.TLS.Enabled {
			logger.Warn("kafka password travels in clear text: sasl plain without tls")
		}
		opts = append(opts, kgo.SASL(m))
	}
	if reg != nil {
		m, err := newMetrics(reg)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.WithHooks(m))
	}
	return opts, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToLower(s.Mechanism) {
	case "plain":
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("sasl: mechanism %q is not plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}

func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.Insecure, // asked for by name in the configuration
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading kafka CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading kafka CA file: no certificate in %s", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading kafka client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
