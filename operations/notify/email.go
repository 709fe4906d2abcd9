package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"
)

// mail delivers m by SMTP. Every step is bounded by ctx.
func (s *sender) mail(ctx context.Context, m *Message) (Answer, error) {
	body, err := s.body(m)
	if err != nil {
		return Answer{}, &refusal{text: err.Error(), final: true}
	}
	letter, err := s.letter(m, body, time.Now())
	if err != nil {
		return Answer{}, &refusal{text: err.Error(), final: true}
	}
	c, err := s.dial(ctx)
	if err != nil {
		return Answer{}, mailError("connecting to the mail server", err)
	}
	defer func() { _ = c.Close() }() // after Quit, if it came so far
	from, to := s.addresses()
	if err := c.Mail(from); err != nil {
		return Answer{}, mailError("naming the sender", err)
	}
	for _, a := range to {
		if err := c.Rcpt(a); err != nil {
			return Answer{}, mailError("naming the recipient "+a, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return Answer{}, mailError("beginning the text", err)
	}
	if _, err := w.Write(letter); err != nil {
		return Answer{}, mailError("sending the text", err)
	}
	if err := w.Close(); err != nil { // the server has taken it when this succeeds
		return Answer{}, mailError("sending the text", err)
	}
	_ = c.Quit() // it has been taken whatever comes now
	return Answer{Status: fmt.Sprintf("taken by %s for %s", s.url.Hostname(), strings.Join(to, ", "))}, nil
}

// dial connects and, but for smtp-plain, encrypts and says who we are. A server that offers no STARTTLS gets nothing.
func (s *sender) dial(ctx context.Context) (*smtp.Client, error) {
	host, port := s.url.Hostname(), s.url.Port()
	if port == "" {
		port = map[string]string{"smtps": "465", "smtp": "587"}[s.url.Scheme]
	}
	if port == "" {
		port = "25"
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.TLS != nil {
		config = s.TLS.Clone()
	}
	config.ServerName = host
	var conn net.Conn
	var err error
	if address := net.JoinHostPort(host, port); s.url.Scheme == "smtps" {
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // the connection of this call only
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := s.authenticate(c, config); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (s *sender) authenticate(c *smtp.Client, config *tls.Config) error {
	if s.url.Scheme == "smtp" {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errors.New("the server offers no STARTTLS: use smtps://, or smtp-plain:// for one on this host")
		}
		if err := c.StartTLS(config); err != nil {
			return err
		}
	}
	if s.url.User == nil || s.url.Scheme == "smtp-plain" {
		return nil
	}
	password, _ := s.url.User.Password()
	return c.Auth(smtp.PlainAuth("", s.url.User.Username(), password, s.url.Hostname()))
}

// mailError tells a refusal for good (5xx) from one for now.
func mailError(what string, err error) error {
	if te := (*textproto.Error)(nil); errors.As(err, &te) {
		return &refusal{text: fmt.Sprintf("%s: the server answers %d %s", what, te.Code, te.Msg), final: te.Code >= 550 && te.Code < 560}
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (s *sender) addresses() (from string, to []string) {
	bare := func(a string) string {
		if p, err := mail.ParseAddress(a); err == nil {
			return p.Address
		}
		return a
	}
	for _, a := range s.To {
		to = append(to, bare(a))
	}
	return bare(s.From), to
}

// letter is the mail as it goes over the wire. Nothing that comes from an incident can become a header: the subject is the only one that has any
// of it, and is encoded as a whole if it holds anything but printable ASCII.
func (s *sender) letter(m *Message, body []byte, now time.Time) ([]byte, error) {
	subject := []rune(m.title())
	if len(subject) > 200 {
		subject = append(subject[:200], '…')
	}
	from, err := mail.ParseAddress(s.From)
	if err != nil {
		return nil, fmt.Errorf("the sender is not a mail address: %w", err)
	}
	var to []string
	for _, a := range s.To {
		p, err := mail.ParseAddress(a)
		if err != nil {
			return nil, fmt.Errorf("a recipient is not a mail address: %w", err)
		}
		to = append(to, p.String())
	}
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", from.String()},
		{"To", strings.Join(to, ", ")},
		{"Subject", mime.QEncoding.Encode("utf-8", string(subject))},
		{"Date", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000")},
		{"Message-ID", "<" + m.ID + "@leat>"},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		if strings.ContainsAny(h[1], "\r\n") {
			return nil, fmt.Errorf("header %s would have more than one line", h[0])
		}
		if h[0] == "To" { // a line has its limit
			h[1] = strings.ReplaceAll(h[1], ">, <", ">,\r\n <")
		}
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	if _, err := q.Write(body); err != nil {
		return nil, err
	}
	return b.Bytes(), q.Close()
}
