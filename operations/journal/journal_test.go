package journal_test

import (
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/operations/journal"
	"github.com/leat-io/leat/topics"
)

func database(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	url := testenv.Postgres(tb)
	old, err := sql.Open("pgx", url)
	require.NoError(tb, err)
	_, err = migrations.Up(tb.Context(), old, migrations.Control)
	require.NoError(tb, err)
	require.NoError(tb, old.Close())
	db, err := pgxpool.New(tb.Context(), url)
	require.NoError(tb, err)
	tb.Cleanup(db.Close)
	return db
}

// event is a record of a source or finance topic.
func event(topic string, offset int64, at time.Time, e topics.Envelope) *kgo.Record {
	e.Tenant, e.System, e.Operation, e.Time = "acme", "shop", topics.Upsert, at.Add(-time.Second)
	e.Kind, e.Epoch = "source.invoice", 1
	rec := &kgo.Record{Topic: topic, Offset: offset, Timestamp: at, Key: topics.Key(e.Tenant, e.System, e.Subject), Value: []byte("{}")}
	for _, h := range e.Append(nil) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
	}
	return rec
}

func apply(tb testing.TB, db *pgxpool.Pool, p index.Projection, recs ...*kgo.Record) {
	tb.Helper()
	ctx := index.WithTopicIDs(tb.Context(), map[string][16]byte{"source.shop.invoice": {1}, "finance.invoice.v1": {2}})
	require.NoError(tb, pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return p.Apply(ctx, tx, recs) }))
}

func upkeep(tb testing.TB, db *pgxpool.Pool, k index.Keeper) {
	tb.Helper()
	require.NoError(tb, pgx.BeginFunc(tb.Context(), db, func(tx pgx.Tx) error { return k.Upkeep(tb.Context(), tx) }))
}

func dump(tb testing.TB, db *pgxpool.Pool, query string) []string {
	tb.Helper()
	rows, err := db.Query(tb.Context(), query)
	require.NoError(tb, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(tb, err)
	return list
}

const journalText = `select format('%s %s/%s/%s %s %s:%s %s', t.topic, t.topic_id, j.partition, j."offset", j.event_id, s.system, j.sequence, j.key)
from leat_control.journal j join leat_control.journal_topics t on t.id = j.topic join leat_control.journal_systems s on s.id = j.system
order by t.topic, t.topic_id, j.partition, j."offset"`

func TestJournal_HasARowForEachEvent(t *testing.T) {
	t.Parallel()
	db, j := database(t), journal.New(0)
	now := time.Now()
	foreign := event("source.shop.invoice", 4, now, topics.Envelope{ID: uuid.NewString(), Subject: "1", Sequence: 1})
	foreign.Headers = foreign.Headers[1:]
	nul := event("source.shop.invoice", 5, now, topics.Envelope{ID: uuid.NewString(), Subject: "a\x00b", Sequence: 1})
	odd := event("source.shop.invoice", 6, now, topics.Envelope{ID: "not-a-uuid", Subject: "1", Sequence: 1})
	in := uuid.MustParse("01936d00-0000-7000-8000-000000000001")
	apply(t, db, j,
		event("source.shop.invoice", 7, now, topics.Envelope{ID: in.String(), Subject: "42", Sequence: 9}),
		event("source.shop.invoice", 8, now.Add(-200*24*time.Hour), topics.Envelope{ID: uuid.NewString(), Subject: "too old", Sequence: 9}),
		event("source.shop.invoice", 9, now.Add(999*24*time.Hour), topics.Envelope{ID: in.String(), Subject: "from the future", Sequence: 10}),
		foreign, nul, odd)
	apply(t, db, j, event("finance.invoice.v1", 3, now, topics.Envelope{ID: topics.OutputID(in.String(), 0), Subject: "42", Sequence: 9}))
	require.Equal(t, []string{
		"finance.invoice.v1 02000000-0000-0000-0000-000000000000/0/3 " + topics.OutputID(in.String(), 0) + " shop:9 acme/shop/42",
		"source.shop.invoice 01000000-0000-0000-0000-000000000000/0/7 " + in.String() + " shop:9 acme/shop/42",
		"source.shop.invoice 01000000-0000-0000-0000-000000000000/0/9 " + in.String() + " shop:10 acme/shop/from the future",
	}, dump(t, db, journalText))
}

func TestJournal_NamesSurviveATransactionThatComesToNothing(t *testing.T) {
	t.Parallel()
	db, j := database(t), journal.New(0)
	rec := event("source.shop.invoice", 1, time.Now(), topics.Envelope{ID: uuid.NewString(), Subject: "1", Sequence: 1})
	upkeep(t, db, j)
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, j.Apply(t.Context(), tx, []*kgo.Record{rec}))
	require.NoError(t, tx.Rollback(t.Context()))
	apply(t, db, j, rec)
	apply(t, db, j, rec)
	require.Len(t, dump(t, db, journalText), 2, "each row finds its names")
}

func TestJournal_DropsOldWeeksWhole(t *testing.T) {
	t.Parallel()
	db := database(t)
	long, short := journal.New(400*24*time.Hour), journal.New(30*24*time.Hour)
	now := time.Now()
	apply(t, db, long,
		event("source.shop.invoice", 1, now.Add(-300*24*time.Hour), topics.Envelope{ID: uuid.NewString(), Subject: "old", Sequence: 1}),
		event("source.shop.invoice", 2, now.Add(-20*24*time.Hour), topics.Envelope{ID: uuid.NewString(), Subject: "young", Sequence: 2}))
	require.Len(t, dump(t, db, journalText), 2)
	tables := `select relname::text from pg_class where relname ~ '^journal_\d' and relkind = 'r'`
	require.Greater(t, len(dump(t, db, tables)), 58)
	upkeep(t, db, short)
	require.Less(t, len(dump(t, db, tables)), 9)
	left := dump(t, db, journalText)
	require.Len(t, left, 1)
	require.Contains(t, left[0], "young")

	// Somebody who reads an old partition holds up its drop, and nothing else.
	upkeep(t, db, long)
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select from leat_control.journal`)
	require.NoError(t, err)
	upkeep(t, db, short)
	require.Greater(t, len(dump(t, db, tables)), 58)
	require.NoError(t, tx.Rollback(t.Context()))
	upkeep(t, db, short)
	require.Less(t, len(dump(t, db, tables)), 9)
}

// failed is rec as it stands on a retry or dead-letter topic.
func failed(rec *kgo.Record, topic string, f topics.Failure) *kgo.Record {
	f.Topic, f.Partition, f.Offset, f.Group, f.Handler = rec.Topic, rec.Partition, rec.Offset, "normalize", "normalize"
	f.Key, f.Time = rec.Key, rec.Timestamp
	out := *rec
	out.Topic, out.Key = topic, []byte(topics.ParkedID(rec.Partition, rec.Offset))
	if topic[len(topic)-4:] == ".dlq" {
		out.Key, f.Key = rec.Key, nil
	}
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	out.Headers = nil
	for _, h := range f.Append(hs) {
		out.Headers = append(out.Headers, kgo.RecordHeader(h))
	}
	return &out
}

const attemptsText = `select format('%s/%s %s %s/%s/%s %s %s %s %s%s', topic, "offset", event_id, tenant, system, source_id, attempt, disposition, code, message,
  case when settled_at is not null then ' settled' end)
from leat_control.attempts order by topic, partition, "offset"`

func TestAttempts_HasARowForEachFailedAttempt(t *testing.T) {
	t.Parallel()
	db, a := database(t), journal.NewAttempts(time.Hour)
	id := uuid.NewString()
	rec := event("source.shop.invoice", 7, time.Now(), topics.Envelope{ID: id, Subject: "42", Sequence: 9})
	retry, dlq := "source.shop.invoice.normalize.retry", "source.shop.invoice.normalize.dlq"
	on := func(r *kgo.Record, offset int64) *kgo.Record { r.Offset = offset; return r }
	apply(t, db, a,
		on(failed(rec, retry, topics.Failure{Attempt: 1, Disposition: topics.DispositionRetry, Code: "io", Message: "a\x00b"}), 1),
		on(failed(rec, retry, topics.Failure{Disposition: topics.DispositionBlockedBy}), 2),
		on(failed(rec, retry, topics.Failure{Disposition: topics.DispositionManual}), 3),
		on(&kgo.Record{Topic: retry, Key: []byte(topics.ParkedID(0, 7)), Timestamp: time.Now()}, 4), // taken off
		on(&kgo.Record{Topic: dlq, Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "kafka_dlt-exception-fqcn", Value: []byte("x")}}}, 1),
		on(failed(rec, dlq, topics.Failure{Attempt: 8, Disposition: topics.DispositionExhausted, Code: "io", Message: "no"}), 2),
	)
	want := []string{
		dlq + "/2 " + id + " acme/shop/42 8 exhausted io no",
		retry + "/1 " + id + " acme/shop/42 1 retry io ab settled",
	}
	require.Equal(t, want, dump(t, db, attemptsText))
	apply(t, db, a, on(failed(rec, dlq, topics.Failure{Attempt: 8, Disposition: topics.DispositionExhausted, Code: "io", Message: "no"}), 2))
	require.Equal(t, want, dump(t, db, attemptsText), "a record of the same place replaces it")
	again := failed(rec, retry, topics.Failure{Attempt: 1, Disposition: topics.DispositionRetry, Code: "io", Message: "again"})
	apply(t, db, a, on(again, 5))
	require.Contains(t, dump(t, db, attemptsText), retry+"/5 "+id+" acme/shop/42 1 retry io again", "it waits once more")
	apply(t, db, a, on(&kgo.Record{Topic: retry, Key: []byte(topics.ParkedID(0, 7)), Timestamp: time.Now()}, 6))
	want = append(want, retry+"/5 "+id+" acme/shop/42 1 retry io again settled")
	require.Equal(t, want, dump(t, db, attemptsText))

	old := on(failed(rec, dlq, topics.Failure{Attempt: 1, Disposition: topics.DispositionPermanent}), 3)
	old.Timestamp = time.Now().Add(-2 * time.Hour)
	apply(t, db, a, old)
	require.Len(t, dump(t, db, attemptsText), 4)
	upkeep(t, db, a)
	require.Equal(t, want, dump(t, db, attemptsText))
	require.NoError(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return a.Forget(t.Context(), tx, dlq) }))
	require.Equal(t, want[1:], dump(t, db, attemptsText))
}

func TestReads(t *testing.T) {
	t.Parallel()
	j, a := journal.New(0), journal.NewAttempts(0)
	for topic, want := range map[string]string{
		"source.shop.invoice": "j", "finance.invoice.v1": "j", "source.shop.invoice.normalize.retry": "a",
		"finance.invoice.v1.reporting.dlq": "a", "leat.relay.dlq": "a", "leat.cursors": "",
	} {
		got := ""
		if j.Reads(topic) {
			got += "j"
		}
		if a.Reads(topic) {
			got += "a"
		}
		require.Equal(t, want, got, topic)
	}
}

// TestRebuild_EqualsWhatWas compares the tables of a live index with those that a rebuild makes of the same topics.
func TestRebuild_EqualsWhatWas(t *testing.T) {
	t.Parallel()
	db, brokers, system := database(t), testenv.Kafka(t), testenv.Name("shop")
	source := topics.Source(system, "invoice")
	retry, dlq := topics.Retry(source, "normalize"), topics.DLQ(source, "normalize")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	_, err = kadm.NewClient(cl).CreateTopics(t.Context(), 2, 1, nil, source, retry, dlq)
	require.NoError(t, err)
	c := index.Config{
		DB: db, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)}, Projections: []index.Projection{journal.New(0), journal.NewAttempts(0)},
		Topics:  func(context.Context) ([]string, error) { return []string{source, retry, dlq}, nil },
		Refresh: 200 * time.Millisecond, Batch: 100,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	x, err := index.New(c)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	var recs []*kgo.Record
	for i := range 500 {
		rec := event(source, int64(i), time.Now(), topics.Envelope{ID: uuid.NewString(), Subject: strconv.Itoa(i % 50), Sequence: int64(i + 1)})
		recs = append(recs, rec)
		if i%10 == 0 {
			recs = append(recs, failed(rec, retry, topics.Failure{Attempt: 1, Disposition: topics.DispositionRetry}))
			recs = append(recs, failed(rec, dlq, topics.Failure{Attempt: 2, Disposition: topics.DispositionExhausted}))
		}
	}
	require.NoError(t, cl.ProduceSync(t.Context(), recs...).FirstErr())
	full := func() {
		deadline := time.Now().Add(time.Minute)
		for len(dump(t, db, journalText)) != 500 || len(dump(t, db, attemptsText)) != 100 {
			require.False(t, time.Now().After(deadline), "%d and %d rows; %v", len(dump(t, db, journalText)), len(dump(t, db, attemptsText)), x.Ready())
			<-time.After(20 * time.Millisecond)
		}
	}
	full()
	rows, attempts := dump(t, db, journalText), dump(t, db, attemptsText)
	require.NoError(t, index.Rebuild(t.Context(), db, audit.Operator{Name: "ana", Reason: "a test"}, c.Projections...))
	full()
	require.Equal(t, rows, dump(t, db, journalText))
	require.Equal(t, attempts, dump(t, db, attemptsText))
	cancel()
	require.NoError(t, <-done)
}

func FuzzAttempt(f *testing.F) {
	f.Add("leat_original_topic", []byte("t"), "ce_id", []byte("\x00\xff"), []byte("a/b/c"))
	db, a := database(f), journal.NewAttempts(0)
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2, key []byte) {
		rec := failed(event("source.shop.invoice", 1, time.Now(), topics.Envelope{ID: uuid.NewString(), Subject: "1", Sequence: 1}),
			"source.shop.invoice.normalize.dlq", topics.Failure{Attempt: 1, Disposition: topics.DispositionPermanent})
		rec.Key = key
		for i := range rec.Headers { // replaced, so that most inputs still decode
			switch rec.Headers[i].Key {
			case k1:
				rec.Headers[i].Value = v1
			case k2:
				rec.Headers[i].Value = v2
			}
		}
		require.NoError(t, pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return a.Apply(t.Context(), tx, []*kgo.Record{rec}) }))
	})
}

func FuzzJournal(f *testing.F) {
	f.Add("ce_subject", []byte("a"), "ce_time", []byte("2026-01-02T03:04:05Z"), []byte("a/b/c"))
	db, j := database(f), journal.New(0)
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2, key []byte) {
		rec := event("source.shop.invoice", 1, time.Now(), topics.Envelope{ID: uuid.NewString(), Subject: "1", Sequence: 1})
		rec.Key = key
		for i := range rec.Headers {
			switch rec.Headers[i].Key {
			case k1:
				rec.Headers[i].Value = v1
			case k2:
				rec.Headers[i].Value = v2
			}
		}
		apply(t, db, j, rec)
	})
}

// BenchmarkJournal_Apply is the writing of rows into tables with all their indexes, without the reading of topics.
func BenchmarkJournal_Apply(b *testing.B) {
	db, j := database(b), journal.New(0)
	const batch = 20_000
	recs := make([]*kgo.Record, batch)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		for i := range recs {
			id := uuid.Must(uuid.NewV7())
			seq := int64(n*batch + i)
			recs[i] = event("source.shop.invoice", seq, time.Now(), topics.Envelope{ID: id.String(), Subject: strconv.FormatInt(seq, 10), Sequence: seq + 1})
			if i%2 == 1 {
				recs[i] = event("finance.invoice.v1", seq, time.Now(),
					topics.Envelope{ID: topics.OutputID(id.String(), 0), Subject: strconv.FormatInt(seq, 10), Sequence: seq + 1})
			}
		}
		b.StartTimer()
		apply(b, db, j, recs...)
	}
	b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkIndex_Journal is the whole way from topics to rows.
func BenchmarkIndex_Journal(b *testing.B) {
	db, brokers, system := database(b), testenv.Kafka(b), testenv.Name("shop")
	source := topics.Source(system, "invoice")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.MaxBufferedRecords(100_000))
	require.NoError(b, err)
	defer cl.Close()
	_, err = kadm.NewClient(cl).CreateTopics(b.Context(), 4, 1, nil, source)
	require.NoError(b, err)
	const records = 300_000
	for i := range records {
		id := uuid.Must(uuid.NewV7())
		rec := event(source, 0, time.Now(), topics.Envelope{ID: id.String(), Subject: strconv.Itoa(i), Sequence: int64(i + 1)})
		rec.Value = make([]byte, 400)
		cl.Produce(b.Context(), rec, nil)
	}
	require.NoError(b, cl.Flush(b.Context()))
	c := index.Config{
		DB: db, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)}, Projections: []index.Projection{journal.New(0)},
		Topics: func(context.Context) ([]string, error) { return []string{source}, nil },
	}
	for b.Loop() {
		x, err := index.New(c)
		require.NoError(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		for rows := 0; rows < records; {
			<-time.After(20 * time.Millisecond)
			require.NoError(b, db.QueryRow(b.Context(), `select coalesce(sum(next_offset), 0) from leat_control.positions`).Scan(&rows))
		}
		cancel()
		require.NoError(b, <-done)
		require.NoError(b, index.Rebuild(b.Context(), db, audit.Operator{Name: "ana", Reason: "again"}, c.Projections...))
	}
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}
