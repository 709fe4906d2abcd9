package notify

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/incidents"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "%s; with -update it is written anew", path)
}

var at = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)

func opened() Notification {
	return Notification{
		ID: "0193a000-0000-7000-8000-000000000001", Kind: Opened, At: at, Severity: incidents.Error, Why: "500 records were given up",
		Incident: Subject{
			Fingerprint: "v1:0123456789abcdef", Stage: "normalize", Groups: []string{"normalize"}, Class: "permanent", Code: "mapping",
			Message: "finance.invoice.v?: field total: found ? (path total & <!channel>), want a `decimal` number", State: incidents.New, Episode: 1,
			OpenedAt: at.Add(-10 * time.Second), FirstSeen: at.Add(-12 * time.Second), LastSeen: at.Add(-time.Second), Failures: 500, DeadLetters: 500,
			OpenDeadLetters: 498, Keys: 499, Tenants: []incidents.Tenant{
				{Tenant: "acme", Failures: 480, Dead: 480, Keys: 479, Last: at}, {Tenant: "", Failures: 20, Dead: 20, Keys: 20, Last: at},
			},
			MoreTenants: 3, Example: incidents.Example{
				Event: "0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11", Tenant: "acme", Topic: "source.shop.invoice", Partition: 3, Offset: 1234,
			},
		},
		Commands: commands("v1:0123456789abcdef", false), Link: "https://console.example.com/incidents/v1:0123456789abcdef",
	}
}

func closed() Notification {
	n := opened()
	n.ID, n.Kind, n.Why, n.Incident.State = "0193a000-0000-7000-8000-000000000002", Closed, "resolved by ana: mapping corrected", incidents.Resolved
	n.Incident.MoreKeys, n.Incident.Owner, n.Link = true, "bo", ""
	return n
}

func down() Notification {
	return Notification{
		ID: "0193a000-0000-7000-8000-000000000003", Kind: Opened, At: at, Severity: incidents.Critical,
		Why: "its target or a dependency is down since 2026-11-24 12:29:00 UTC",
		Incident: Subject{
			Fingerprint: "breaker:publish/reporting", Systemic: true, Stage: "publish", Groups: []string{"reporting"}, Class: "systemic",
			Code: "breaker_open", Message: "the handler reports connection: dial tcp ?: connection refused", State: incidents.New, Episode: 1,
			OpenedAt: at, FirstSeen: at.Add(-time.Minute), LastSeen: at, Failures: 1, Tenants: []incidents.Tenant{},
		},
		Commands: commands("breaker:publish/reporting", true),
	}
}

func messages() map[string]*Message {
	one := func(n Notification) *Message {
		return &Message{Schema: Schema, ID: n.ID, Notifications: []Notification{n}}
	}
	return map[string]*Message{
		"opened": one(opened()), "closed": one(closed()), "down": one(down()),
		"digest": {Schema: Schema, ID: "0193a000-0000-7000-8000-000000000009", Digest: true, Notifications: []Notification{opened(), down(), closed()}},
	}
}

func TestForms_AreExactlyThese(t *testing.T) {
	t.Parallel()
	for _, r := range []Receiver{
		{Name: "w", Kind: "webhook", URL: "https://hooks.example.com/x"},
		{Name: "s", Kind: "slack", URL: "https://hooks.example.com/x"},
		{Name: "a", Kind: "alertmanager", URL: "http://alertmanager:9093"},
		{Name: "m", Kind: "email", URL: "smtp://mail.example.com", From: "Leat <leat@example.com>", To: []string{"ops@example.com", "Ana <ana@example.com>"}},
	} {
		s, err := newSender(r, "v", time.Second)
		require.NoError(t, err)
		for name, m := range messages() {
			body, err := s.body(m)
			require.NoError(t, err)
			if r.Kind == "email" {
				letter, err := s.letter(m, body, at)
				require.NoError(t, err)
				golden(t, "email_"+name+".txt", bytes.ReplaceAll(letter, []byte("\r\n"), []byte("\n")))
				continue
			}
			var indented bytes.Buffer
			require.NoError(t, json.Indent(&indented, body, "", "  "))
			golden(t, r.Kind+"_"+name+".json", append(indented.Bytes(), '\n'))
		}
	}
}

func TestSlack_StaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	n := opened()
	n.Incident.Message = strings.Repeat("<x>", 2000)
	m := &Message{Notifications: []Notification{n}}
	for range 100 {
		m.Notifications = append(m.Notifications, opened())
	}
	for _, digest := range []bool{false, true} {
		if m.Digest = digest; !digest {
			m = &Message{Notifications: m.Notifications[:1]}
		} else {
			m = &Message{Digest: true, Notifications: append(make([]Notification, 0, 100), repeat(n, 100)...)}
		}
		var got struct {
			Blocks []struct{ Text struct{ Text string } }
		}
		text, err := json.Marshal(slackMessage(m))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &got))
		require.LessOrEqual(t, len(got.Blocks), 50)
		for _, b := range got.Blocks {
			require.LessOrEqual(t, len([]rune(b.Text.Text)), 3000)
		}
	}
}

func repeat(n Notification, times int) (out []Notification) {
	for range times {
		out = append(out, n)
	}
	return out
}

func FuzzLetter_NothingOfAnIncidentBecomesAHeader(f *testing.F) {
	f.Add("normalize\r\nBcc: evil@example.com", "mapping\n\nbody", "message\r\n.\r\n")
	f.Add("é\u2028x", "\x00", "\r")
	f.Fuzz(func(t *testing.T, stage, code, message string) {
		n := opened()
		n.Incident.Stage, n.Incident.Code, n.Incident.Message = stage, code, message
		m := &Message{ID: n.ID, Notifications: []Notification{n}}
		s := &sender{Receiver: Receiver{Kind: "email", From: "leat@example.com", To: []string{"ops@example.com"}}}
		body, err := s.body(m)
		require.NoError(t, err)
		letter, err := s.letter(m, body, at)
		require.NoError(t, err)
		got, err := mail.ReadMessage(bytes.NewReader(letter))
		require.NoError(t, err)
		require.Len(t, got.Header, 9)
		head, _, _ := bytes.Cut(letter, []byte("\r\n\r\n"))
		require.Equal(t, 8, bytes.Count(head, []byte("\n")))
	})
}

func TestReceiver_NeverPrintsItsSecrets(t *testing.T) {
	t.Parallel()
	r := Receiver{Name: "ops", Kind: "webhook", URL: "https://u:hunter2@h/hunter2", Secret: "hunter2"}
	text, err := json.Marshal(struct{ R Receiver }{r})
	require.NoError(t, err)
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		require.NotContains(t, fmt.Sprintf(verb+verb, r, []Receiver{r}), "hunter2")
	}
	b.Write(text)
	require.NotContains(t, b.String(), "hunter2")
	require.Contains(t, b.String(), "ops (webhook)")
}

func TestNewSender_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	mailTo := []string{"ops@example.com"}
	for want, r := range map[string]Receiver{
		"its url is not one":                                   {Kind: "slack", URL: "hunter2"},
		"its url must begin with http:// or https://":          {Kind: "slack", URL: "ftp://h/hunter2"},
		`kind "pager" is unknown`:                              {Kind: "pager", URL: "https://h/hunter2"},
		"its url must begin with smtp://, smtps:// or":         {Kind: "email", URL: "https://h/hunter2", From: "a@b", To: mailTo},
		"nobody to write to":                                   {Kind: "email", URL: "smtp://h", From: "a@b"},
		`"x" is not a mail address`:                            {Kind: "email", URL: "smtp://h", From: "x", To: mailTo},
		"alertmanager has no template":                         {Kind: "alertmanager", URL: "http://h", Template: "x"},
		"its template: template: r:1: unclosed action":         {Kind: "webhook", URL: "http://h", Template: "{{"},
		"its template does not work on a sample: filling in":   {Kind: "webhook", URL: "http://h", Template: "{{.Nothing}}"},
		"the template does not give JSON; write values as {{j": {Kind: "webhook", URL: "http://h", Template: "{{.ID}}"},
	} {
		r.Name = "r"
		_, err := newSender(r, "v", time.Second)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	s, err := newSender(Receiver{
		Name: "r", Kind: "webhook", URL: "http://h", Template: `{"text": {{json (index .Notifications 0).Why}}}`,
	}, "v", time.Second)
	require.NoError(t, err)
	body, err := s.body(messages()["closed"])
	require.NoError(t, err)
	require.JSONEq(t, `{"text": "resolved by ana: mapping corrected"}`, string(body))
	_, err = newSenders([]Receiver{{Name: "a", Kind: "slack", URL: "http://h"}, {Name: "a", Kind: "slack", URL: "http://h"}}, "v", time.Second)
	require.ErrorContains(t, err, `receiver "a": want a name that no other has`)
}
