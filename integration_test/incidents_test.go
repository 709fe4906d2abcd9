package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/operations/notify"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// chat is a receiver of notifications. The first request is told to arrived and never answered.
type chat struct {
	arrived chan struct{}

	mu   sync.Mutex
	got  []notify.Notification
	hung bool
}

func (c *chat) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	var m notify.Message
	_ = json.NewDecoder(req.Body).Decode(&m)
	c.mu.Lock()
	c.got = append(c.got, m.Notifications...)
	first := !c.hung
	c.hung = true
	c.mu.Unlock()
	if first {
		close(c.arrived)
		<-req.Context().Done() // until the notifier is dead
	}
}

// told are the kinds of what has arrived, each notification once however often it was sent.
func (c *chat) told() (kinds []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, n := range c.got {
		if !seen[n.ID] {
			kinds = append(kinds, string(n.Kind))
		}
		seen[n.ID] = true
	}
	return kinds
}

// TestIncident_OneMessageForABrokenMapping breaks a mapping under 500 records of five tenants, kills the notifiers in the middle of the message,
// corrects the mapping, and breaks it again.
func TestIncident_OneMessageForABrokenMapping(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	c := &chat{arrived: make(chan struct{})}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	r.extendConfig(fmt.Sprintf(`control:
  url: %s
incidents:
  wait: 2s
notify:
  per_minute: 600
  receivers:
    - {name: ops, kind: webhook, url: %q, secret: hunter2}
`, testenv.Postgres(t), server.URL+"/hunter2"))
	r.run("migrate", "up", "control")
	correct := r.editMapping("contact_id: customer_id", "contact_id: no_such_field")
	r.invoices(0, 500)
	others := []*process{r.start("one", "relay", "run"), r.start("one", "index", "run")}
	normalize := r.start("one", "normalize", "run")
	notifiers := []*process{r.start("one", "notify", "run"), r.start("two", "notify", "run")}

	<-c.arrived
	for _, p := range notifiers {
		p.kill()
	}
	notifiers = []*process{r.start("three", "notify", "run"), r.start("four", "notify", "run")}
	eventually(t, "the message again", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.got) >= 2 })
	require.Equal(t, c.got[0].ID, c.got[1].ID, "the same message")
	fp := c.got[0].Incident.Fingerprint
	eventually(t, "all failures in one incident", func() bool { return r.incident(fp).Failures == 500 })
	d := r.incident(fp)
	require.Equal(t, []int64{500, 500, 5}, []int64{d.Dead, d.Keys, int64(len(d.Tenants))})
	require.Equal(t, "finance.invoice.v?: field contact_id: found nothing (path no_such_field), want a value (the field is required)", d.Message)
	require.Equal(t, []string{"opened"}, c.told())

	normalize.stop()
	correct()
	normalize = r.start("one", "normalize", "run")
	r.run("incidents", "resolve", fp, "--reason", "mapping corrected")
	r.invoices(500, 600)
	eventually(t, "the good news", func() bool { return len(c.told()) == 2 })
	require.Equal(t, []string{"opened", "closed"}, c.told())
	eventually(t, "the invoices as finance records", func() bool { return r.outcome("normalized", "") == 100 })
	require.Equal(t, incidents.Resolved, r.incident(fp).State)

	normalize.stop()
	r.editMapping("contact_id: customer_id", "contact_id: no_such_field")
	normalize = r.start("one", "normalize", "run")
	r.invoices(600, 610)
	eventually(t, "the bad news", func() bool { return len(c.told()) == 3 })
	require.Equal(t, []string{"opened", "closed", "regressed"}, c.told())
	eventually(t, "what was refused and why", func() bool { return r.outcome("dead_letter", "mapping") == 510 })
	require.Equal(t, incidents.Regressed, r.incident(fp).State)
	require.Contains(t, r.run("audit", "--action", "incidents"), "mapping corrected")
	for _, p := range append(append(notifiers, others...), normalize) {
		p.stop()
		require.NotContains(t, p.log.String(), "hunter2", "the address is a secret")
	}
}

// editMapping changes the mapping of invoices, and returns what takes that back.
func (r *rig) editMapping(from, to string) (undo func()) {
	r.t.Helper()
	path := filepath.Join(filepath.Dir(r.config), "mappings", "invoice.yaml")
	before, err := os.ReadFile(path)
	require.NoError(r.t, err)
	after := strings.Replace(string(before), from, to, 1)
	require.NotEqual(r.t, string(before), after)
	require.NoError(r.t, os.WriteFile(path, []byte(after), 0o600))
	return func() { require.NoError(r.t, os.WriteFile(path, before, 0o600)) }
}

// invoices commits an event for each invoice from one number to before another, of five tenants in turn.
func (r *rig) invoices(from, to int) {
	r.t.Helper()
	ctx := r.t.Context()
	tx, err := r.source.Begin(ctx)
	require.NoError(r.t, err)
	defer tx.Rollback(context.WithoutCancel(ctx))
	for i := from; i < to; i++ {
		id := fmt.Sprintf("i%d", i)
		require.NoError(r.t, outbox.Write(ctx, tx, outbox.Event{
			ID: uuid.Must(uuid.NewV7()), Tenant: fmt.Sprintf("tenant%d", i%5), Entity: "invoice", Key: id, Operation: topics.Upsert,
			Payload: invoicePayload(id, state{1, 1250}),
		}))
	}
	require.NoError(r.t, tx.Commit(ctx))
}

// incident is what the command shows of an incident.
func (r *rig) incident(fingerprint string) (d incidents.Detail) {
	r.t.Helper()
	r.decode(&d, "incidents", "show", fingerprint)
	return d
}

// outcome sums up an outcome of all tenants.
func (r *rig) outcome(outcome, detail string) (n int64) {
	r.t.Helper()
	var rows []struct {
		Outcome, Detail string
		Count           int64
	}
	r.decode(&rows, "outcomes", "--stage", "normalize")
	for _, row := range rows {
		if row.Outcome == outcome && row.Detail == detail {
			n += row.Count
		}
	}
	return n
}

// decode reads the JSON that a command prints.
func (r *rig) decode(v any, args ...string) {
	r.t.Helper()
	out := r.run(append(args, "-o", "json")...)
	require.NoError(r.t, json.NewDecoder(bytes.NewReader([]byte(out))).Decode(v), out)
}
