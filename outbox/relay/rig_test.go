package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/topics"
)

// patience bounds every wait; no test takes that long by itself.
const patience = 90 * time.Second

// rig is one source with topics of its own, and what a test looks at.
type rig struct {
	t       *testing.T
	brokers []string
	system  string
	group   string
	url     string
	db      *pgxpool.Pool
	admin   *kadm.Client
	kafka   *kgo.Client
}

// newDatabase is a rig without Kafka.
func newDatabase(t *testing.T) *rig {
	t.Helper()
	return newDatabaseAt(t, testenv.Postgres(t))
}

func newDatabaseAt(t *testing.T, url string) *rig {
	t.Helper()
	r := &rig{t: t, system: testenv.Name("shop"), group: testenv.Name("relay"), url: url}
	r.migrate(r.url)
	pool, err := pgxpool.New(t.Context(), r.url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	r.db = pool
	return r
}

func newRig(t *testing.T, brokers []string, entities ...string) *rig {
	t.Helper()
	return newDatabase(t).with(brokers, entities...)
}

// with gives the rig a Kafka with the topics of entities.
func (r *rig) with(brokers []string, entities ...string) *rig {
	t := r.t
	t.Helper()
	r.brokers = brokers
	var err error
	r.kafka, err = kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(r.kafka.Close)
	r.admin = kadm.NewClient(r.kafka)
	r.create(topics.Cursors, topics.CursorPartitions, nil)
	r.create(topics.RelayDLQ, 4, map[string]string{"max.message.bytes": strconv.Itoa(1<<20 + topics.FailureHeadroom)})
	for _, e := range entities {
		r.create(topics.Source(r.system, e), 4, map[string]string{"max.message.bytes": strconv.Itoa(1 << 20)})
	}
	return r
}

func (r *rig) migrate(url string) {
	r.t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(r.t, err)
	defer db.Close()
	_, err = migrations.Up(r.t.Context(), db, migrations.Outbox)
	require.NoError(r.t, err)
}

func (r *rig) create(topic string, partitions int32, config map[string]string) {
	r.t.Helper()
	values := map[string]*string{}
	for k, v := range config {
		values[k] = new(v)
	}
	_, err := r.admin.CreateTopic(r.t.Context(), partitions, 1, values, topic)
	if !errors.Is(err, kerr.TopicAlreadyExists) {
		require.NoError(r.t, err)
	}
	r.eventually("topic "+topic, func() bool {
		listed, err := r.admin.ListTopics(r.t.Context(), topic)
		return err == nil && listed.Has(topic) && len(listed[topic].Partitions) > 0
	})
}

func (r *rig) config() Config {
	level := slog.LevelWarn
	if os.Getenv("LEAT_TEST_VERBOSE") != "" {
		level = slog.LevelInfo
	}
	return Config{
		Sources: []Source{{Name: r.system, URL: r.url}}, Kafka: []kgo.Opt{kgo.SeedBrokers(r.brokers...)}, Group: r.group,
		Logger:     slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: level})),
		Registerer: prometheus.NewRegistry(), PollIdle: 5 * time.Millisecond, Grace: 2 * time.Second,
	}
}

// start runs a relay and returns it with a function that ends it and waits.
func (r *rig) start(c Config) (*Relay, func()) {
	r.t.Helper()
	c.Registerer = prometheus.NewRegistry()
	relay, err := New(c)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			require.NoError(r.t, err)
		case <-time.After(patience):
			r.t.Error("the relay did not end")
		}
	}
	r.t.Cleanup(stop)
	return relay, stop
}

func (r *rig) exec(query string, args ...any) {
	r.t.Helper()
	_, err := r.db.Exec(r.t.Context(), query, args...)
	require.NoError(r.t, err)
}

const insert = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
	select gen_random_uuid(), 'acme', $1, $2, 'upsert', $3`

func (r *rig) insert(entity, key string, payload []byte) {
	r.t.Helper()
	r.exec(insert, entity, key, payload)
}

// fill inserts n rows, each with a payload of size bytes, over keys keys.
func (r *rig) fill(entity string, n, size, keys int) {
	r.t.Helper()
	r.exec(`insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'acme', $1, (g % $4)::text, 'upsert', convert_to(repeat('x', $3), 'UTF8') from generate_series(1, $2) g`,
		entity, n, size, keys)
}

// read returns the committed records of a topic, each partition in order.
func (r *rig) read(topic string) []*kgo.Record {
	r.t.Helper()
	return testenv.ReadCommitted(r.t, r.brokers, topic)
}

// await waits until the topic has n committed records, and checks the count.
func (r *rig) await(topic string, n int) []*kgo.Record {
	r.t.Helper()
	var recs []*kgo.Record
	r.eventually(fmt.Sprintf("%d records on %s", n, topic), func() bool {
		recs = r.read(topic)
		return len(recs) >= n
	})
	require.Len(r.t, recs, n)
	return recs
}

// delivered are the dead letters of this rig's source.
func (r *rig) deadLetters() []*kgo.Record {
	r.t.Helper()
	return slices.DeleteFunc(r.read(topics.RelayDLQ), func(rec *kgo.Record) bool {
		return header(rec, topics.HeaderSourceSystem) != r.system
	})
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		require.False(r.t, time.Now().After(deadline), "waited in vain for: %s", what)
		<-tick.C
	}
}

func (r *rig) cursor() *cursor {
	r.t.Helper()
	c, err := readCursor(r.t.Context(), []kgo.Opt{kgo.SeedBrokers(r.brokers...)}, r.system, topics.CursorPartitions)
	require.NoError(r.t, err)
	return c
}

func header(rec *kgo.Record, name string) string {
	for _, h := range rec.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func envelope(t *testing.T, rec *kgo.Record) topics.Envelope {
	t.Helper()
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header{Key: h.Key, Value: h.Value}
	}
	e, err := topics.DecodeEnvelope(hs)
	require.NoError(t, err)
	return e
}

// count demands that every outbox row is on the topics exactly once, and each key's in the order of ids.
func (r *rig) count(recs []*kgo.Record) {
	r.t.Helper()
	rows, err := r.db.Query(r.t.Context(), "select event_id::text from leat.outbox")
	require.NoError(r.t, err)
	want := map[string]bool{}
	for rows.Next() {
		var id string
		require.NoError(r.t, rows.Scan(&id))
		want[id] = true
	}
	require.NoError(r.t, rows.Err())
	last := map[string]int64{}
	for _, rec := range recs {
		e := envelope(r.t, rec)
		require.True(r.t, want[e.ID], "event %s is delivered twice or was never committed", e.ID)
		delete(want, e.ID)
		require.Greater(r.t, e.Sequence, last[string(rec.Key)], "events of key %s are out of order", rec.Key)
		last[string(rec.Key)] = e.Sequence
	}
	require.Empty(r.t, want, "events that were not delivered")
}
