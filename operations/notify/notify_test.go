package notify

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/topics"
)

// rig is a control database, and a receiver that keeps what it is told.
type rig struct {
	t      *testing.T
	url    string
	db     *pgxpool.Pool
	server *httptest.Server
	policy incidents.Policy

	mu     sync.Mutex
	got    []Message
	bodies []string
	before func(n int) int // called with the number of the request; returns its status, 200 to take it

	retryAfter string // header of what is not taken
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, url: testenv.Postgres(t), policy: incidents.Policy{Wait: time.Nanosecond}}
	std, err := sql.Open("pgx", r.url)
	require.NoError(t, err)
	_, err = migrations.Up(t.Context(), std, migrations.Control)
	require.NoError(t, err)
	require.NoError(t, std.Close())
	r.db = r.pool()
	requests := 0
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		requests++
		n, before := requests, r.before
		r.mu.Unlock()
		if before != nil {
			if status := before(n); status != http.StatusOK {
				w.Header().Set("Retry-After", r.retryAfter)
				w.WriteHeader(status)
				return
			}
		}
		var m Message
		_ = json.Unmarshal(body, &m) // Alertmanager's form is another one
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, m)
		r.bodies = append(r.bodies, string(body))
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) pool() *pgxpool.Pool {
	r.t.Helper()
	db, err := pgxpool.New(r.t.Context(), r.url)
	require.NoError(r.t, err)
	r.t.Cleanup(db.Close)
	return db
}

// start runs a notifier until the test ends, or until stop is called.
func (r *rig) start(c Config) (n *Notifier, stop func()) {
	r.t.Helper()
	if c.DB == nil {
		c.DB = r.db
	}
	if c.Receivers == nil {
		c.Receivers = []Receiver{r.receiver("ops")}
	}
	c.Policy, c.Backoff = r.policy, time.Millisecond
	c.Interval = cmp.Or(c.Interval, 20*time.Millisecond)
	c.Logger = slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	if c.PerMinute == 0 {
		c.PerMinute = 1000
	}
	n, err := New(c)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	r.t.Cleanup(stop)
	return n, stop
}

func (r *rig) receiver(name string) Receiver {
	return Receiver{Name: name, Kind: "webhook", URL: r.server.URL + "/" + name}
}

// told are the notifications that have arrived, in order, as "<kind> <code>".
func (r *rig) told() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.got {
		for _, n := range m.Notifications {
			out = append(out, string(n.Kind)+" "+n.Incident.Code)
		}
	}
	return out
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, time.Minute, 10*time.Millisecond, what)
}

func (r *rig) awaitTold(want ...string) {
	r.t.Helper()
	r.eventually(fmt.Sprint(want), func() bool { return len(r.told()) >= len(want) })
	require.Equal(r.t, want, r.told())
}

// fail writes n dead letters of one cause for each of tenants, as the index does, and returns their fingerprint.
func (r *rig) fail(code string, n int, tenants ...string) string {
	r.t.Helper()
	return r.failAs(topics.DispositionPermanent, code, n, tenants...)
}

func (r *rig) failAs(d topics.Disposition, code string, n int, tenants ...string) string {
	r.t.Helper()
	fp := topics.Fingerprint("normalize", "permanent", code, "it does not fit", "")
	var recs []*kgo.Record
	for _, tenant := range tenants {
		for i := range n {
			f := topics.Failure{
				Topic: "source.shop.invoice", Offset: int64(i), Group: "normalize", Handler: "normalize", Attempt: 1, LastFailedAt: time.Now(),
				Class: "permanent", Code: code, Message: "it does not fit", Disposition: d, Fingerprint: fp,
			}
			rec := &kgo.Record{Topic: "source.shop.invoice.normalize.dlq", Key: []byte(fmt.Sprintf("%s/shop/%d", tenant, i))}
			for _, h := range f.Append([]topics.Header{{Key: topics.HeaderTenant, Value: []byte(tenant)}}) {
				rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
			}
			recs = append(recs, rec)
		}
	}
	require.NoError(r.t, pgx.BeginFunc(r.t.Context(), r.db, func(tx pgx.Tx) error {
		return incidents.Projection{}.Apply(r.t.Context(), tx, recs)
	}))
	return fp
}

// counted sums the series of a counter.
func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (r *rig) resolve(fingerprint string) {
	r.t.Helper()
	_, err := incidents.Resolve(r.t.Context(), r.db, audit.Operator{Name: "ana", Reason: "fixed"}, r.policy, fingerprint)
	require.NoError(r.t, err)
}

func TestNotifier_OneMessageForOneCauseWhateverItHits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fp := r.fail("mapping", 100, "acme", "bolt", "cube", "dora", "echo")
	r.start(Config{Link: "https://console/{fingerprint}"})
	r.awaitTold("opened mapping")
	for range 5 {
		r.fail("mapping", 10, "acme") // and on it goes
	}
	r.resolve(fp)
	r.awaitTold("opened mapping", "closed mapping")
	r.fail("mapping", 1, "bolt")
	r.awaitTold("opened mapping", "closed mapping", "regressed mapping")
	r.resolve(fp)
	r.awaitTold("opened mapping", "closed mapping", "regressed mapping", "closed mapping")

	first := r.got[0]
	require.Equal(t, Schema, first.Schema)
	require.False(t, first.Digest)
	n := first.Notifications[0]
	require.Equal(t, "500 records were given up", n.Why)
	require.Equal(t, incidents.Error, n.Severity)
	require.Equal(t, []int64{500, 500, 500, 5}, []int64{n.Incident.Failures, n.Incident.DeadLetters, n.Incident.Keys, int64(len(n.Incident.Tenants))})
	require.Equal(t, []string{"leat incidents show " + fp, "leat dlq list --fingerprint " + fp}, n.Commands)
	require.Equal(t, "https://console/"+fp, n.Link)
	require.Equal(t, "resolved by ana: fixed", r.got[1].Notifications[0].Why)
	require.Regexp(t, "^failed again at .*; 1 records were given up$", r.got[2].Notifications[0].Why)
	d, err := incidents.Show(t.Context(), r.db, r.policy, fp)
	require.NoError(t, err)
	require.Len(t, d.Notices, 4)
	require.Equal(t, 2, d.Episode)
}

func TestNotifier_SilenceUntilItIsWorthAMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fp := r.failAs(topics.DispositionRetry, "deadlock", 4, "acme")
	r.resolve(r.failAs(topics.DispositionRetry, "blip", 1, "acme")) // nobody heard of it: nobody hears of its end
	r.start(Config{})
	loud := r.fail("mapping", 1, "acme")
	r.awaitTold("opened mapping")
	muted := r.fail("muted", 1, "acme")
	_, err := incidents.Mute(t.Context(), r.db, audit.Operator{Name: "ana", Reason: "known"}, r.policy, loud, incidents.Silence{})
	require.NoError(t, err)
	r.awaitTold("opened mapping", "opened muted")
	r.fail("mapping", 100, "acme")
	r.resolve(muted)
	r.awaitTold("opened mapping", "opened muted", "closed muted")
	r.failAs(topics.DispositionRetry, "deadlock", 1, "acme")
	r.awaitTold("opened mapping", "opened muted", "closed muted", "opened deadlock")
	require.Equal(t, incidents.Warning, r.got[3].Notifications[0].Severity)
	r.resolve(fp)
	r.resolve(loud)
	r.eventually("both closed", func() bool { return len(r.told()) == 6 })
}

func TestNotifier_AStormIsADigest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 40 {
		r.fail(fmt.Sprintf("code%d", i), 1, "acme")
	}
	r.start(Config{PerMinute: 3, Interval: 3 * time.Second})
	r.eventually("all of them", func() bool { return len(r.told()) == 40 })
	told := r.told()
	slices.Sort(told)
	require.Len(t, slices.Compact(told), 40, "each once")
	require.LessOrEqual(t, len(r.got), 3)
	require.True(t, slices.ContainsFunc(r.got, func(m Message) bool { return m.Digest }))
}

func TestNotifier_SeveralShareTheWorkAndKeepTheOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 4 {
		r.start(Config{DB: r.pool()})
	}
	var fps []string
	for i := range 15 {
		fps = append(fps, r.fail(fmt.Sprintf("code%02d", i), 1, "acme"))
	}
	r.eventually("openings", func() bool { return len(r.told()) == 15 })
	for _, fp := range fps {
		r.resolve(fp)
	}
	r.eventually("closings", func() bool { return len(r.told()) == 30 })
	for i := range fps {
		code := fmt.Sprintf("code%02d", i)
		opened, closed := slices.Index(r.told(), "opened "+code), slices.Index(r.told(), "closed "+code)
		require.True(t, 0 <= opened && opened < closed, "%s: %d, %d", code, opened, closed)
	}
}

// TestNotifier_DiesBetweenClaimAndCommit cuts the connection of a notifier while its message is under way: another one sends it again, with
// the same id.
func TestNotifier_DiesBetweenClaimAndCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.before = func(n int) int {
		if n == 1 {
			close(arrived)
			<-release
		}
		return http.StatusOK
	}
	r.fail("mapping", 1, "acme")
	r.start(Config{DB: r.pool()})
	<-arrived
	_, err := r.db.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and state = 'idle in transaction'`)
	require.NoError(t, err)
	r.start(Config{DB: r.pool()})
	r.eventually("the message", func() bool { return len(r.told()) == 1 })
	close(release)
	r.eventually("the message of the dead one", func() bool { return len(r.told()) == 2 })
	require.Equal(t, r.got[0].ID, r.got[1].ID)
	require.Equal(t, r.got[0].Notifications[0].ID, r.got[1].Notifications[0].ID)
	r.resolve(r.got[0].Notifications[0].Incident.Fingerprint)
	r.awaitTold("opened mapping", "opened mapping", "closed mapping")
}

func TestNotifier_TriesAgainInOrderAndGivesUpVisibly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.before = func(n int) int {
		switch {
		case n <= 3:
			return http.StatusServiceUnavailable
		case n == 5:
			return http.StatusBadRequest
		}
		return http.StatusOK
	}
	reg := prometheus.NewRegistry()
	n, _ := r.start(Config{Registerer: reg})
	r.fail("mapping", 1, "acme")
	r.awaitTold("opened mapping")
	lost := r.fail("lost", 1, "acme")
	r.eventually("that it was given up", func() bool {
		list, err := incidents.List(t.Context(), r.db, r.policy, incidents.Filter{})
		require.NoError(t, err)
		return slices.ContainsFunc(list, func(i incidents.Incident) bool { return i.Code == "lost" && i.NotifyFailed })
	})
	d, err := incidents.Show(t.Context(), r.db, r.policy, lost)
	require.NoError(t, err)
	require.Equal(t, "failed", d.Notices[0].State)
	require.Equal(t, "answers 400 Bad Request", d.Notices[0].Error)
	require.InDelta(t, 1, counted(t, reg, "leat_notify_failed_total"), 0)
	require.InDelta(t, 4, counted(t, reg, "leat_notify_errors_total"), 0)
	r.fail("next", 1, "acme")
	r.awaitTold("opened mapping", "opened next")
	require.NoError(t, n.Ready())
}

// TestNotifier_NothingOvertakes has a message under way, and one that waits for its next attempt: what comes after must wait too.
func TestNotifier_NothingOvertakes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.before = func(n int) int {
		switch n {
		case 1:
			close(arrived)
			<-release
			return http.StatusTooManyRequests
		case 2:
			t.Error("it has asked for an hour of patience")
		}
		return http.StatusOK
	}
	r.retryAfter = "3600"
	r.fail("first", 1, "acme")
	n, _ := r.start(Config{DB: r.pool()})
	<-arrived
	r.fail("second", 1, "acme")
	waiting := func(condition string) bool {
		var count int
		require.NoError(t, r.db.QueryRow(t.Context(), `select count(*) from leat_control.notifications
			where state = 'pending' and `+condition).Scan(&count))
		return count == 1
	}
	r.eventually("the second", func() bool { return waiting("document->'incident'->>'code' = 'second' and due < clock_timestamp()") })
	more, err := n.deliver(t.Context(), n.senders[0]) // as another notifier does
	require.NoError(t, err)
	require.False(t, more, "the first is under way")
	close(release)
	r.eventually("the first to wait", func() bool { return waiting("attempts = 1 and due > clock_timestamp() + interval '50 minutes'") })
	more, err = n.deliver(t.Context(), n.senders[0])
	require.NoError(t, err)
	require.False(t, more, "the first waits for its next attempt")
	require.Empty(t, r.told())
	r.mu.Lock()
	r.before = nil
	r.mu.Unlock()
	_, err = r.db.Exec(t.Context(), `update leat_control.notifications set due = clock_timestamp()`)
	require.NoError(t, err)
	r.awaitTold("opened first", "opened second")
}

func TestNotifier_TellsEachReceiverWhatConcernsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bolt, bad, gone := r.receiver("bolt"), r.receiver("bad"), r.receiver("gone")
	bolt.Tenants = []string{"bolt"}
	bad.MinSeverity = incidents.Error
	gone.Tenants = []string{"nobody"}
	r.start(Config{Receivers: []Receiver{bolt, bad, gone}})
	fp := r.failAs(topics.DispositionRetry, "deadlock", 5, "acme")
	r.failAs(topics.DispositionRetry, "deadlock", 2, "bolt")
	r.awaitTold("opened deadlock") // to bolt
	n := r.got[0].Notifications[0]
	require.Equal(t, "2 attempts have failed and 0 records were given up, of the tenants of this receiver", n.Why)
	require.EqualValues(t, 2, n.Incident.Failures)
	require.NotContains(t, r.bodies[0], "acme")
	r.fail("other", 1, "acme") // another cause, of which bolt must not hear
	r.awaitTold("opened deadlock", "opened other")
	_ = fp
	require.Equal(t, incidents.Error, r.got[1].Notifications[0].Severity)
}
