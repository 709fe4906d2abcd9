package deadletters_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

const (
	patience   = 90 * time.Second
	partitions = 4
)

// rig is one source topic, groups that read it, a control database with its index, and the office.
type rig struct {
	t       *testing.T
	brokers []string
	in      string
	db      *pgxpool.Pool
	client  *kgo.Client
	admin   *kadm.Client
	office  *deadletters.Office
	op      audit.Operator

	mu     sync.Mutex
	stages map[string]*stage

	runners map[string]*processors.Runner
}

// stage is a group's handler: it notes what it handles, and fails what is broken.
type stage struct {
	mu      sync.Mutex
	broken  func(m *processors.Message) error
	handled []string // values, in order
}

func (s *stage) Handle(_ context.Context, batch []processors.Message) []processors.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]processors.Result, len(batch))
	for i := range batch {
		if results[i].Err = s.broken(&batch[i]); results[i].Err == nil {
			results[i].Outcome = "handled"
			s.handled = append(s.handled, string(batch[i].Key)+"="+string(batch[i].Value))
		}
	}
	return results
}

func (s *stage) set(broken func(m *processors.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *stage) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.handled...)
}

func healthy(*processors.Message) error { return nil }

func broken(*processors.Message) error {
	return processors.Permanent("contract", errors.New(`field total: found "12,50", want a decimal`))
}

func newRig(t *testing.T, brokers []string) *rig {
	t.Helper()
	r := &rig{
		t: t, brokers: brokers, in: testenv.Name("source.test.in"), op: audit.Operator{Name: "ana", Reason: "the mapping is corrected"},
		stages: map[string]*stage{}, runners: map[string]*processors.Runner{},
	}
	url := testenv.Postgres(t)
	old, err := sql.Open("pgx", url)
	require.NoError(t, err)
	_, err = migrations.Up(t.Context(), old, migrations.Control)
	require.NoError(t, err)
	require.NoError(t, old.Close())
	r.db, err = pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(r.db.Close)
	r.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(r.client.Close)
	r.admin = kadm.NewClient(r.client)
	r.create(partitions, r.in)
	if listed, err := r.admin.ListTopics(t.Context(), topics.Cursors); err != nil || !listed.Has(topics.Cursors) {
		_, _ = r.admin.CreateTopic(t.Context(), topics.CursorPartitions, 1, compacted(), topics.Cursors) // another test may be faster
	}
	r.office = r.newOffice()
	return r
}

// newOffice is an office of its own, as another process has it.
func (r *rig) newOffice() *deadletters.Office {
	return &deadletters.Office{
		DB: r.db, Kafka: []kgo.Opt{kgo.SeedBrokers(r.brokers...)}, AllowEdit: true,
		Stage: func(_ context.Context, group string) (deadletters.Stage, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			s := r.stages[group]
			if s == nil {
				return deadletters.Stage{}, fmt.Errorf("no handler of group %s is known here", group)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return deadletters.Stage{Handler: processors.HandlerFunc((&stage{broken: s.broken}).Handle)}, nil
		},
	}
}

func compacted() map[string]*string { return map[string]*string{"cleanup.policy": new("compact")} }

func (r *rig) create(n int32, names ...string) {
	r.t.Helper()
	rs, err := r.admin.CreateTopics(r.t.Context(), n, 1, nil, names...)
	require.NoError(r.t, err)
	require.NoError(r.t, rs.Error())
}

// group makes the topics of a new group and starts a member of it.
func (r *rig) group(broken func(m *processors.Message) error) (name string, s *stage) {
	r.t.Helper()
	name, s = testenv.Name("g"), &stage{broken: broken}
	r.create(partitions, topics.DLQ(r.in, name))
	_, err := r.admin.CreateTopic(r.t.Context(), partitions, 1, compacted(), topics.Retry(r.in, name))
	require.NoError(r.t, err)
	r.mu.Lock()
	r.stages[name] = s
	r.mu.Unlock()
	runner, err := processors.NewRunner(processors.Config{
		Name: "copy", Group: name, Topics: []string{r.in}, Instance: "one", Handler: s, Kafka: []kgo.Opt{kgo.SeedBrokers(r.brokers...)},
		AppVersion: "test", Systemic: processors.SystemicPolicy{Off: true},
		Retry: processors.RetryPolicy{MaxAttempts: 2, Base: 10 * time.Millisecond, Max: 20 * time.Millisecond},
	})
	require.NoError(r.t, err)
	r.runners[name] = runner
	r.background(runner.Run)
	return name, s
}

func (r *rig) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// background runs something until the test ends, or until the returned function is called.
func (r *rig) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(r.t, <-done)
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) indexConfig(foreign ...string) index.Config {
	return index.Config{
		DB: r.db, Kafka: []kgo.Opt{kgo.SeedBrokers(r.brokers...)}, Projections: []index.Projection{deadletters.NewProjection(foreign)},
		Topics: func(context.Context) ([]string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			names := append([]string{}, foreign...)
			for g := range r.stages {
				names = append(names, topics.DLQ(r.in, g), topics.Retry(r.in, g))
			}
			return names, nil
		},
		Logger: r.log(), Linger: time.Millisecond, Refresh: 200 * time.Millisecond,
	}
}

// startIndex runs the index.
func (r *rig) startIndex(foreign ...string) (stop func()) {
	r.t.Helper()
	x, err := index.New(r.indexConfig(foreign...))
	require.NoError(r.t, err)
	return r.background(x.Run)
}

// source writes n records to the source topic, values from, from+1, ..., over keys keys.
func (r *rig) source(from, n, keys int) {
	r.t.Helper()
	recs := make([]*kgo.Record, n)
	for i := range recs {
		e := topics.Envelope{
			ID: fmt.Sprintf("event-%d", from+i), Tenant: "acme", System: "shop", Kind: topics.SourceKind("in"), Operation: topics.Upsert,
			Subject: strconv.Itoa(i % keys), Time: time.Now(), Sequence: int64(from + i), Epoch: 1,
			TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		}
		rec := &kgo.Record{Topic: r.in, Key: topics.Key("acme", "shop", e.Subject), Value: []byte(strconv.Itoa(from + i))}
		for _, h := range append(e.Append(nil), topics.Header{Key: "batch", Value: []byte("monday")}, topics.Header{Key: "__replicator_id", Value: []byte{1}}) {
			rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
		}
		recs[i] = rec
	}
	require.NoError(r.t, r.client.ProduceSync(r.t.Context(), recs...).FirstErr())
}

// states counts the letters of a group by state.
func (r *rig) states(group string) map[deadletters.State]int64 {
	r.t.Helper()
	l, err := r.office.List(r.t.Context(), deadletters.Selection{Group: group}, 1)
	require.NoError(r.t, err)
	states := map[deadletters.State]int64{}
	for _, c := range l.States {
		states[deadletters.State(c.Name)] = c.Letters
	}
	return states
}

// waitFor waits until the letters of a group are in exactly these states.
func (r *rig) waitFor(group string, want map[deadletters.State]int64) {
	r.t.Helper()
	var got map[deadletters.State]int64
	eventually(r.t, fmt.Sprint(want), func() bool {
		got = r.states(group)
		return fmt.Sprint(got) == fmt.Sprint(want)
	}, func() string { return fmt.Sprint(got) })
}

func (r *rig) letters(s deadletters.Selection) []deadletters.Letter {
	r.t.Helper()
	l, err := r.office.List(r.t.Context(), s, 1<<20)
	require.NoError(r.t, err)
	return l.Letters
}

func (r *rig) read(topic string) []*kgo.Record {
	r.t.Helper()
	return testenv.ReadCommitted(r.t, r.brokers, topic)
}

// dump is the whole table of the index, as text.
func (r *rig) dump() string {
	r.t.Helper()
	rows, err := r.db.Query(r.t.Context(), `select coalesce(string_agg(d::text, e'\n' order by topic, partition, "offset"), '') from leat_control.dead_letters d`)
	require.NoError(r.t, err)
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	require.NoError(r.t, err)
	return text
}

func eventually(t *testing.T, what string, ok func() bool, last ...func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			said := ""
			if len(last) > 0 {
				said = last[0]()
			}
			require.FailNow(t, "waited in vain", "%s for: %s; last: %s", patience, what, cmp.Or(said, "-"))
		}
		<-tick.C
	}
}
