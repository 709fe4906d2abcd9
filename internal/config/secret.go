package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const redacted = "[secret]"

// Secret is text that no log, error, JSON or debugger's %+v shows. It holds a pointer, because fmt prints the unexported
// fields of a struct without asking their methods.
type Secret struct{ text *string }

// NewSecret makes a secret of s.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns the text, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// String says only whether there is a text.
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter: whatever the verb, the text is not printed.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText implements encoding.TextMarshaler, for YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// DatabaseURL is the address of a Postgres database, as a URL or in key=value form. It prints as user, host and database,
// without its password and its parameters.
type DatabaseURL struct{ Secret }

// NewDatabaseURL makes a database URL of s, which is not checked.
func NewDatabaseURL(s string) DatabaseURL { return DatabaseURL{NewSecret(s)} }

// String names user, host and database.
func (u DatabaseURL) String() string {
	if u.Empty() {
		return ""
	}
	c, err := pgconn.ParseConfig(u.Reveal())
	if err != nil {
		return redacted
	}
	return "postgres://" + c.User + "@" + c.Host + ":" + strconv.Itoa(int(c.Port)) + "/" + c.Database
}

// Format implements fmt.Formatter: whatever the verb, String is printed.
func (u DatabaseURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalJSON implements json.Marshaler.
func (u DatabaseURL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// MarshalText implements encoding.TextMarshaler, for YAML.
func (u DatabaseURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// LogValue implements slog.LogValuer.
func (u DatabaseURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

func (u DatabaseURL) check() error {
	_, err := pgconn.ParseConfig(u.Reveal())
	if err == nil {
		return nil
	}
	// The error shows the text without its password, as far as it knows which part that is. What could not be read at all may be nothing
	// but a password, so only the reason is told.
	_, reason, found := strings.Cut(err.Error(), "`: ")
	if !found {
		reason = "neither a URL nor a list of key=value"
	}
	return errors.New("cannot parse: " + reason)
}
