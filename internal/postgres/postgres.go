// Package postgres says in words of the configuration what is wrong with a connection to a database, or with the address of one.
//
// It opens no connection: whoever needs one uses pgx with the address as it is.
package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Explain adds the remedy to an error of a connection that was not made: which part of the database's url to look at. Other errors it
// returns as they are. The error shows user, host and database, never a password.
func Explain(err error) error {
	var failed *pgconn.ConnectError
	if !errors.As(err, &failed) {
		return err
	}
	if remedy := remedy(failed); remedy != "" {
		c := failed.Config
		return fmt.Errorf("%w (url of %s@%s:%d/%s: %s)", err, c.User, c.Host, c.Port, c.Database, remedy)
	}
	return err
}

func remedy(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		refused   *pgconn.PgError
	)
	text := err.Error()
	switch {
	case errors.As(err, &authority):
		return "sslrootcert must name the certificate of the authority that signed the server's"
	case errors.As(err, &name):
		return "it must name the host as the server's certificate does"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate must be renewed, or the clock of this machine is wrong"
	case strings.Contains(text, "server refused TLS connection"):
		return "the server does not speak TLS: set ssl = on there; without it everything can be read on its way"
	case strings.Contains(text, "remote error: tls: "):
		return "the server does not take the certificate of sslcert: who signed it, and until when is it valid?"
	case !errors.As(err, &refused):
		return ""
	case refused.Code == "28P01":
		return "check user and password"
	case refused.Code == "28000" && strings.Contains(refused.Message, "client certificate"):
		return "the server asks for a client certificate of an authority that it knows: set sslcert and sslkey"
	case refused.Code == "28000" && strings.Contains(text, "no encryption"):
		return "the server asks for TLS: set sslmode=verify-full and sslrootcert"
	case refused.Code == "28000" && strings.Contains(refused.Message, "certificate authentication failed"):
		return "the common name of sslcert must be the user, or be mapped to it in pg_ident.conf"
	}
	return ""
}

// Exposed says how others on the network could read a connection to that address, or answer in the server's place; "" if they could
// not: the server is verified, or on this machine.
func Exposed(address string) string {
	c, err := pgconn.ParseConfig(address)
	if err != nil {
		return "" // told by the configuration
	}
	worst := ""
	for _, way := range ways(c) {
		switch {
		case local(way.Host):
		case way.TLSConfig == nil:
			return "it may travel in clear text, with its password: set sslmode=verify-full and sslrootcert in it"
		case way.TLSConfig.InsecureSkipVerify && way.TLSConfig.VerifyPeerCertificate == nil && way.TLSConfig.VerifyConnection == nil:
			worst = "it is encrypted, but who answers is not verified: set sslmode=verify-full and sslrootcert in it"
		case way.TLSConfig.InsecureSkipVerify && worst == "":
			worst = "any server with a certificate of that authority may answer: set sslmode=verify-full in it"
		}
	}
	return worst
}

// ways are all in which a connection may be made: sslmode=prefer, the default, tries one without TLS too.
func ways(c *pgconn.Config) []*pgconn.FallbackConfig {
	return append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// Explaining is a handler that adds the remedies to errors in a log: a process that waits for its database tells no more than that.
func Explaining(h slog.Handler) slog.Handler { return explaining{h} }

type explaining struct{ slog.Handler }

// Handle implements slog.Handler.
func (h explaining) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.AnyValue(Explain(err))
		}
		out.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (h explaining) WithAttrs(attrs []slog.Attr) slog.Handler {
	return explaining{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h explaining) WithGroup(name string) slog.Handler { return explaining{h.Handler.WithGroup(name)} }
