package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/leat-io/leat/operations/incidents"
)

// Receiver says whom to tell, how, and of what. However it is printed, it shows its name and kind only.
type Receiver struct {
	Name string
	Kind string // webhook, slack, alertmanager or email

	// URL is where to send: http or https; for email smtp://[user:password@]host:port, which demands STARTTLS, smtps:// for TLS from
	// the beginning, or smtp-plain:// for a server on this host, without credentials. It is a secret.
	URL    string
	Secret string   // webhook: the key of the signature; optional
	From   string   // email
	To     []string // email

	// Template is a Go template that is given a Message: of the body, for email of the text. Optional; not for alertmanager. Its
	// function json writes a value as JSON.
	Template string

	MinSeverity incidents.Severity // what is less bad is not told; default warning: everything
	Tenants     []string           // only incidents that hit one of these; default all

	TLS *tls.Config // of email and https; default: the system's roots
}

// Format keeps the secrets out of whatever prints a Receiver.
func (r Receiver) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.Name+" ("+r.Kind+")") }

// MarshalText keeps the secrets out of JSON and YAML.
func (r Receiver) MarshalText() ([]byte, error) { return []byte(r.Name + " (" + r.Kind + ")"), nil }

// LogValue keeps the secrets out of logs.
func (r Receiver) LogValue() slog.Value { return slog.StringValue(r.Name + " (" + r.Kind + ")") }

// wants reports whether r is to hear of an incident that hits these tenants.
func (r *Receiver) wants(severity incidents.Severity, tenants []string) bool {
	return severity.Rank() >= cmp.Or(r.MinSeverity, incidents.Warning).Rank() &&
		(len(r.Tenants) == 0 || slices.ContainsFunc(tenants, func(t string) bool { return slices.Contains(r.Tenants, t) }))
}

// Answer is what a receiver says to a message, without its secrets.
type Answer struct {
	Status string `json:"status"`
	Body   string `json:"body,omitempty"` // the beginning of it
}

// refusal is an error of a receiver. One that is final comes again whenever the same message is sent.
type refusal struct {
	text  string
	final bool
	after time.Duration // it asks for so much patience
}

func (e *refusal) Error() string { return e.text }

// sender delivers messages to one receiver.
type sender struct {
	Receiver
	url      *url.URL
	template *template.Template
	deliver  func(ctx context.Context, m *Message) (Answer, error)
	timeout  time.Duration
}

func newSender(r Receiver, version string, timeout time.Duration) (*sender, error) {
	s := &sender{Receiver: r, timeout: timeout}
	fail := func(format string, args ...any) (*sender, error) {
		return nil, fmt.Errorf("receiver %s: "+format, append([]any{r.Name}, args...)...)
	}
	var err error
	if s.url, err = url.Parse(r.URL); err != nil || s.url.Host == "" {
		return fail("its url is not one") // what it is may be a secret
	}
	if r.Template != "" {
		if s.template, err = template.New(r.Name).Option("missingkey=error").Funcs(template.FuncMap{"json": asJSON}).Parse(r.Template); err != nil {
			return fail("its template: %w", err)
		}
	}
	web := s.url.Scheme == "http" || s.url.Scheme == "https"
	switch r.Kind {
	case "webhook", "slack":
		s.deliver = s.post(version)
	case "alertmanager":
		if r.Template != "" {
			return fail("alertmanager has no template: its form is fixed")
		}
		if !strings.HasSuffix(s.url.Path, "/api/v2/alerts") {
			s.url = s.url.JoinPath("api/v2/alerts")
		}
		s.deliver = s.post(version)
	case "email":
		if web = true; !slices.Contains([]string{"smtp", "smtps", "smtp-plain"}, s.url.Scheme) {
			return fail("its url must begin with smtp://, smtps:// or smtp-plain://")
		}
		s.deliver = s.mail
		if err := checkAddresses(r); err != nil {
			return fail("%w", err)
		}
	default:
		return fail("kind %q is unknown", r.Kind)
	}
	if !web {
		return fail("its url must begin with http:// or https://")
	}
	if s.template != nil {
		if _, err := s.body(Sample(time.Unix(0, 0).UTC())); err != nil {
			return fail("its template does not work on a sample: %w", err)
		}
	}
	return s, nil
}

func checkAddresses(r Receiver) error {
	if len(r.To) == 0 {
		return errors.New("nobody to write to")
	}
	for _, a := range append([]string{r.From}, r.To...) {
		if _, err := mail.ParseAddress(a); err != nil || strings.ContainsAny(a, "\r\n") {
			return fmt.Errorf("%.100q is not a mail address", a)
		}
	}
	return nil
}

func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// send delivers m in bounded time. Its error shows no secret.
func (s *sender) send(ctx context.Context, m *Message) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	a, err := s.deliver(ctx, m)
	a.Body = s.hide(a.Body)
	var r *refusal
	switch {
	case errors.As(err, &r):
		return a, &refusal{s.hide(r.text), r.final, r.after}
	case err != nil:
		return a, errors.New(s.hide(err.Error())) // unwrapped: what is below may tell the address
	}
	return a, nil
}

// hide takes the secrets of the receiver out of a text that others have written.
func (s *sender) hide(text string) string {
	password, _ := s.url.User.Password()
	secrets := []string{s.URL, s.url.String(), s.url.RequestURI(), s.Secret, password}
	for part := range strings.SplitSeq(s.url.EscapedPath(), "/") {
		if len(part) >= 8 { // tokens; api and v2 are none
			secrets = append(secrets, part)
		}
	}
	for _, values := range s.url.Query() {
		secrets = append(secrets, values...)
	}
	for _, secret := range secrets {
		if len(secret) > 3 {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return text
}

// body writes m in the form that the receiver understands.
func (s *sender) body(m *Message) ([]byte, error) {
	if s.template != nil {
		var b bytes.Buffer
		if err := s.template.Execute(&b, m); err != nil {
			return nil, fmt.Errorf("filling in the template: %w", err)
		}
		if s.Kind != "email" && !json.Valid(b.Bytes()) {
			return nil, errors.New("the template does not give JSON; write values as {{json .Why}}")
		}
		return b.Bytes(), nil
	}
	switch s.Kind {
	case "slack":
		return json.Marshal(slackMessage(m))
	case "alertmanager":
		return json.Marshal(alerts(m))
	case "email":
		return []byte(text(m)), nil
	}
	return json.Marshal(m)
}
