package notify

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWebhook_IsSignedAndHasAStableID(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	body := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body <- b
		got <- r
		_, _ = io.WriteString(w, "thanks")
	}))
	defer server.Close()
	s, err := newSender(Receiver{Name: "r", Kind: "webhook", URL: server.URL + "/hook?token=hunter2", Secret: "key"}, "v9", time.Minute)
	require.NoError(t, err)
	a, err := s.send(t.Context(), messages()["opened"])
	require.NoError(t, err)
	require.Equal(t, Answer{"200 OK", "thanks"}, a)
	b, r := <-body, <-got
	require.Equal(t, messages()["opened"].ID, r.Header.Get(HeaderID))
	require.Equal(t, "leat/v9", r.Header.Get("User-Agent"))
	stamp, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get(HeaderSignature), "t="), ",")
	var unix int64
	_, err = fmt.Sscan(stamp, &unix)
	require.NoError(t, err)
	require.Equal(t, Sign("key", time.Unix(unix, 0), b), r.Header.Get(HeaderSignature))
	require.NotEqual(t, Sign("other", time.Unix(unix, 0), b), r.Header.Get(HeaderSignature))
}

func TestSend_TellsWhatIsForGoodAndHidesTheAddress(t *testing.T) {
	t.Parallel()
	var status int
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), header)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "cannot POST "+r.URL.Path+" "+r.URL.RawQuery)
	}))
	defer server.Close()
	s, err := newSender(Receiver{Name: "r", Kind: "slack", URL: server.URL + "/services/T0000000/hunter2hunter2?k=hunter2"}, "v", time.Minute)
	require.NoError(t, err)
	for _, tt := range []struct {
		status int
		header http.Header
		final  bool
		after  time.Duration
		text   string
	}{
		{400, nil, true, 0, "answers 400 Bad Request cannot POST /[secret]/[secret]/[secret] k=[secret]"},
		{404, nil, true, 0, "answers 404 Not Found"},
		{429, http.Header{"Retry-After": {"30"}}, false, 30 * time.Second, "answers 429"},
		{503, nil, false, 0, "answers 503"},
		{302, http.Header{"Location": {"http://127.0.0.1:1/hunter2"}}, true, 0, "redirections are not followed"},
	} {
		status, header = tt.status, tt.header
		_, err := s.send(t.Context(), messages()["opened"])
		var r *refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, tt.final, r.final, err)
		require.Equal(t, tt.after, r.after)
		require.ErrorContains(t, err, tt.text)
		require.NotContains(t, err.Error(), "hunter2")
	}
	server.Close()
	_, err = s.send(t.Context(), messages()["opened"])
	require.ErrorContains(t, err, "no answer")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestSend_EndsInTime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	s, err := newSender(Receiver{Name: "r", Kind: "slack", URL: server.URL}, "v", 50*time.Millisecond)
	require.NoError(t, err)
	_, err = s.send(t.Context(), messages()["opened"])
	require.ErrorContains(t, err, "no answer")

	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	require.NoError(t, err)
	defer l.Close()
	m, err := newSender(Receiver{
		Name: "m", Kind: "email", URL: "smtp://" + l.Addr().String(), From: "a@example.com", To: []string{"b@example.com"},
	}, "v", 50*time.Millisecond)
	require.NoError(t, err)
	_, err = m.send(t.Context(), messages()["opened"])
	require.ErrorContains(t, err, "connecting to the mail server")
}

// mailServer speaks as much SMTP as a client needs, and keeps what it hears.
type mailServer struct {
	l        net.Listener
	tls      *tls.Config
	starttls bool
	refuse   string // an address it does not take
	heard    chan string
}

func newMailServer(t *testing.T, implicit bool) (*mailServer, *tls.Config) {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(web.Close)
	s := &mailServer{tls: &tls.Config{Certificates: web.TLS.Certificates}, starttls: true, heard: make(chan string, 1)}
	var err error
	s.l, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	if implicit {
		s.l = tls.NewListener(s.l, s.tls)
	}
	t.Cleanup(func() { _ = s.l.Close() })
	go func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s, &tls.Config{RootCAs: web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
}

func (s *mailServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var log strings.Builder
	in := bufio.NewReader(conn)
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 here")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		log.WriteString(line)
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			say("250-here")
			if s.starttls {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go")
			conn = tls.Server(conn, s.tls)
			in = bufio.NewReader(conn)
			log.WriteString("(encrypted)\r\n")
		case "AUTH":
			say("235 ok")
		case "DATA":
			say("354 go")
			for line != ".\r\n" {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
				log.WriteString(line)
			}
			s.heard <- log.String()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			if s.refuse != "" && strings.Contains(line, s.refuse) {
				say("550 no such user")
				continue
			}
			say("250 ok")
		}
	}
}

func TestEmail_IsEncryptedBeforeItSaysWhoItIs(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"smtp", "smtps"} {
		server, roots := newMailServer(t, scheme == "smtps")
		s, err := newSender(Receiver{
			Name: "m", Kind: "email", URL: scheme + "://leat:hunter2@" + server.l.Addr().String(), From: "Leat <leat@example.com>",
			To: []string{"ops@example.com", "Ana <ana@example.com>"}, TLS: roots,
		}, "v", time.Minute)
		require.NoError(t, err)
		a, err := s.send(t.Context(), messages()["opened"])
		require.NoError(t, err)
		require.Equal(t, "taken by 127.0.0.1 for ops@example.com, ana@example.com", a.Status)
		heard := <-server.heard
		if scheme == "smtp" {
			clear, _, ok := strings.Cut(heard, "(encrypted)")
			require.True(t, ok)
			require.Equal(t, "EHLO localhost\r\nSTARTTLS\r\n", clear)
		}
		require.Contains(t, heard, "AUTH PLAIN ")
		require.Contains(t, heard, "MAIL FROM:<leat@example.com>")
		require.Contains(t, heard, "RCPT TO:<ana@example.com>")
		require.Contains(t, heard, "Subject: Leat error, opened: normalize mapping\r\n")
	}
}

func TestEmail_RefusesWhatIsNotSafeAndTellsWhatIsForGood(t *testing.T) {
	t.Parallel()
	server, roots := newMailServer(t, false)
	try := func(url string, roots *tls.Config) error {
		s, err := newSender(Receiver{
			Name: "m", Kind: "email", URL: url, From: "leat@example.com", To: []string{"gone@example.com"}, TLS: roots,
		}, "v", time.Minute)
		require.NoError(t, err)
		_, err = s.send(context.Background(), messages()["opened"])
		return err
	}
	address := server.l.Addr().String()
	require.ErrorContains(t, try("smtp://u:hunter2@"+address, nil), "certificate")
	server.starttls = false
	require.ErrorContains(t, try("smtp://u:hunter2@"+address, roots), "the server offers no STARTTLS")
	server.refuse = "gone@"
	err := try("smtp-plain://"+address, nil)
	require.EqualError(t, err, "naming the recipient gone@example.com: the server answers 550 no such user")
	var r *refusal
	require.ErrorAs(t, err, &r)
	require.True(t, r.final)
	require.NotContains(t, err.Error(), "hunter2")
}
