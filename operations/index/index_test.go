package index_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/index"
)

const patience = 90 * time.Second

// rig is a control database and topics of the test's own.
type rig struct {
	t       *testing.T
	brokers []string
	prefix  string
	url     string
	db      *pgxpool.Pool
	admin   *kadm.Client
}

func newRig(t *testing.T, brokers []string) *rig {
	t.Helper()
	r := &rig{t: t, brokers: brokers, prefix: testenv.Name("index"), url: testenv.Postgres(t)}
	old, err := sql.Open("pgx", r.url)
	require.NoError(t, err)
	_, err = migrations.Up(t.Context(), old, migrations.Control)
	require.NoError(t, err)
	require.NoError(t, old.Close())
	r.db, err = pgxpool.New(t.Context(), r.url)
	require.NoError(t, err)
	t.Cleanup(r.db.Close)
	_, err = r.db.Exec(t.Context(), `create table seen (projection text, topic text, partition int, "offset" bigint, topic_id uuid, value text)`)
	require.NoError(t, err)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	r.admin = kadm.NewClient(cl)
	return r
}

func (r *rig) topic(name string) string { return r.prefix + "." + name }

func (r *rig) create(name string, partitions int32, config map[string]*string) string {
	r.t.Helper()
	topic := r.topic(name)
	_, err := r.admin.CreateTopic(r.t.Context(), partitions, 1, config, topic)
	require.NoError(r.t, err)
	eventually(r.t, "topic "+topic, func() bool {
		listed, err := r.admin.ListTopics(r.t.Context(), topic)
		return err == nil && listed.Has(topic) && len(listed[topic].Partitions) == int(partitions)
	})
	return topic
}

// produce writes n records in transactions of ten, each third of which it aborts.
func (r *rig) produce(topic string, n int) {
	r.t.Helper()
	require.NoError(r.t, produce(r.t.Context(), r.brokers, topic, n))
}

func produce(ctx context.Context, brokers []string, topic string, n int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(testenv.Name("txn")))
	if err != nil {
		return err
	}
	defer cl.Close()
	for i := 0; i < n && err == nil; i += 10 {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		for j := i; j < min(n, i+10); j++ {
			cl.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(j % 7)), Value: []byte(strconv.Itoa(j))}, nil)
		}
		err = errors.Join(cl.Flush(ctx), cl.EndTransaction(ctx, kgo.TransactionEndTry(i/10%3 != 1)))
	}
	return err
}

// config is an index of one projection for all topics that begin with the rig's prefix.
func (r *rig) config(ps ...index.Projection) index.Config {
	return index.Config{
		DB: r.db, Kafka: []kgo.Opt{kgo.SeedBrokers(r.brokers...)}, Projections: ps,
		Topics: func(ctx context.Context) ([]string, error) {
			all, err := r.admin.ListTopics(ctx)
			return all.Names(), err
		},
		Logger: slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Batch:  50, Linger: time.Millisecond, Refresh: 200 * time.Millisecond,
	}
}

// start runs an index and returns it with a function that ends it.
func (r *rig) start(c index.Config) (*index.Index, func()) {
	r.t.Helper()
	x, err := index.New(c)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	var once atomic.Bool
	stop := func() {
		if once.CompareAndSwap(false, true) {
			cancel()
			require.NoError(r.t, <-done)
		}
	}
	r.t.Cleanup(stop)
	return x, stop
}

// table writes each record as a row, and counts the same row twice if it comes twice.
type table struct {
	name   string
	prefix string
	fail   atomic.Pointer[error]
	gate   atomic.Pointer[chan struct{}] // holds up Apply until it is closed, after the rows are written
}

func (p *table) Name() string            { return p.name }
func (p *table) Reads(topic string) bool { return strings.HasPrefix(topic, p.prefix+".") }

func (p *table) Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error {
	if err := p.fail.Load(); err != nil {
		return *err
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"seen"}, []string{"projection", "topic", "partition", "offset", "topic_id", "value"},
		pgx.CopyFromSlice(len(recs), func(i int) ([]any, error) {
			id := index.TopicID(ctx, recs[i].Topic)
			return []any{p.name, recs[i].Topic, recs[i].Partition, recs[i].Offset, id, string(recs[i].Value)}, nil
		}))
	if gate := p.gate.Load(); gate != nil {
		<-*gate
	}
	return err
}

func (p *table) Reset(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `delete from seen where projection = $1`, p.name)
	return err
}

func (p *table) Forget(ctx context.Context, tx pgx.Tx, topic string) error {
	_, err := tx.Exec(ctx, `delete from seen where projection = $1 and topic = $2`, p.name, topic)
	return err
}

// rows are the rows of a projection as text, by topic, partition and offset.
func (r *rig) rows(projection string) []string {
	r.t.Helper()
	rows, err := r.db.Query(r.t.Context(), `select format('%s/%s/%s=%s', topic, partition, "offset", value) from seen
		where projection = $1 order by topic, partition, "offset"`, projection)
	require.NoError(r.t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(r.t, err)
	return list
}

// records are the committed records of a topic in the form of rows.
func (r *rig) records(topics ...string) []string {
	r.t.Helper()
	list := []string{}
	for _, topic := range topics {
		byPartition := map[int32][]string{}
		var n int32
		for _, rec := range testenv.ReadCommitted(r.t, r.brokers, topic) {
			byPartition[rec.Partition] = append(byPartition[rec.Partition],
				fmt.Sprintf("%s/%d/%d=%s", topic, rec.Partition, rec.Offset, rec.Value))
			n = max(n, rec.Partition+1)
		}
		for p := range n {
			list = append(list, byPartition[p]...)
		}
	}
	return list
}

// caughtUp waits until nothing is unread. The end of a topic counts, not its last stable offset: a transaction that was ended
// holds the latter until its marker has been written.
func (r *rig) caughtUp(c index.Config) {
	r.t.Helper()
	eventually(r.t, "the index to have read everything", func() bool {
		ends, err := r.admin.ListEndOffsets(r.t.Context(), r.names()...)
		require.NoError(r.t, err)
		ok := true
		for _, p := range c.Projections {
			ends.Each(func(o kadm.ListedOffset) {
				var next int64
				_ = r.db.QueryRow(r.t.Context(), `select next_offset from leat_control.positions
					where projection = $1 and topic = $2 and partition = $3`, p.Name(), o.Topic, o.Partition).Scan(&next)
				ok = ok && o.Err == nil && next == o.Offset
			})
		}
		return ok
	})
}

// names are the topics of the rig.
func (r *rig) names() []string {
	r.t.Helper()
	all, err := r.admin.ListTopics(r.t.Context())
	require.NoError(r.t, err)
	return slices.DeleteFunc(all.Names(), func(name string) bool { return !strings.HasPrefix(name, r.prefix+".") })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		require.False(t, time.Now().After(deadline), "waited %s in vain for: %s", patience, what)
		<-tick.C
	}
}

// TestIndex_AppliesEachRecordOnce lets two indexes compete while they are ended at random and their connections are cut, so
// that commits are lost and commits are made whose answer is lost.
func TestIndex_AppliesEachRecordOnce(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		t.Parallel()
		r := newRig(t, brokers)
		one, two := r.create("one", 3, nil), r.create("two", 1, nil)
		p := &table{name: "seen", prefix: r.prefix}
		c := r.config(p)
		c.Batch = 7
		stops := make([]func(), 2)
		for i := range stops {
			_, stops[i] = r.start(c)
		}
		produced := make(chan struct{})
		var produceErr error
		go func() {
			defer close(produced)
			for range 10 {
				produceErr = errors.Join(produceErr, produce(t.Context(), brokers, one, 60), produce(t.Context(), brokers, two, 30))
			}
		}()
		rnd := rand.New(rand.NewPCG(1, 2))
		for busy := true; busy; {
			select {
			case <-produced:
				busy = false
			default:
			}
			if rnd.IntN(2) == 0 {
				i := rnd.IntN(2)
				stops[i]()
				_, stops[i] = r.start(c)
			}
			_, err := r.db.Exec(t.Context(), `select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory'
				and l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()`)
			require.NoError(t, err)
			progress := len(r.rows("seen"))
			eventually(t, "progress", func() bool { return !busy || len(r.rows("seen")) > progress || isClosed(produced) })
		}
		require.NoError(t, produceErr)
		r.caughtUp(c)
		require.Equal(t, r.records(one, two), r.rows("seen"))
	})
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestIndex_IsFencedByItsPositions lets positions move under a running index, as another that believes to be alone would move them.
func TestIndex_IsFencedByItsPositions(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	topic := r.create("t", 1, nil)
	c := r.config(&table{name: "seen", prefix: r.prefix})
	c.Refresh = 10 * time.Minute // it is the next batch that must notice
	r.start(c)
	r.produce(topic, 10)
	r.caughtUp(c)
	var at int64
	require.NoError(t, r.db.QueryRow(t.Context(), `update leat_control.positions set next_offset = next_offset + 8 returning next_offset`).Scan(&at))
	r.produce(topic, 10) // offsets 11 to 20, and the marker 21: the other index has taken in all below 19
	r.caughtUp(c)
	want := r.records(topic)
	require.Equal(t, append(want[:10:10], want[18:]...), r.rows("seen"), "what the other index has taken in is left to it")
}

// TestRebuild_EqualsWhatWas removes everything under a running index.
func TestRebuild_EqualsWhatWas(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		t.Parallel()
		r := newRig(t, brokers)
		topic := r.create("t", 2, nil)
		p, other := &table{name: "seen", prefix: r.prefix}, &table{name: "other", prefix: r.prefix}
		c := r.config(p, other)
		r.start(c)
		r.produce(topic, 200)
		r.caughtUp(c)
		before := r.rows("seen")
		require.NotEmpty(t, before)
		op := audit.Operator{Name: "ana", Reason: "a test"}
		produced := make(chan error, 1)
		go func() { produced <- produce(t.Context(), brokers, topic, 100) }()
		for range 5 {
			require.NoError(t, index.Rebuild(t.Context(), r.db, op, p))
		}
		require.NoError(t, <-produced)
		require.ErrorIs(t, index.Rebuild(t.Context(), r.db, audit.Operator{Name: "ana"}, p), audit.ErrNoReason)
		r.produce(topic, 10)
		eventually(t, "the rows as before", func() bool {
			r.caughtUp(c)
			return len(r.rows("seen")) == len(r.records(topic))
		})
		require.Equal(t, r.records(topic), r.rows("seen"))
		require.Subset(t, r.rows("seen"), before)
		require.Equal(t, r.rows("seen"), r.rows("other"))
		entries, err := audit.List(t.Context(), r.db, audit.Filter{Action: "index rebuild"})
		require.NoError(t, err)
		require.Len(t, entries, 5)
		require.Equal(t, "projection seen", entries[0].Object)
	})
}

// TestRebuild_WaitsForTheTransactionInFlight: rows that it cannot see yet must not outlive the positions.
func TestRebuild_WaitsForTheTransactionInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	topic := r.create("t", 1, nil)
	p := &table{name: "seen", prefix: r.prefix}
	c := r.config(p)
	r.start(c)
	r.produce(topic, 10)
	r.caughtUp(c)
	gate := make(chan struct{})
	p.gate.Store(&gate)
	r.produce(topic, 10)
	waiting := func(n int) bool {
		var got int
		require.NoError(t, r.db.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and (wait_event_type = 'Lock' or state = 'idle in transaction')`).Scan(&got))
		return got == n
	}
	eventually(t, "the index to hold its transaction open", func() bool { return waiting(1) })
	rebuilt := make(chan error, 1)
	go func() { rebuilt <- index.Rebuild(t.Context(), r.db, audit.Operator{Name: "ana", Reason: "a test"}, p) }()
	eventually(t, "the rebuild to wait", func() bool { return waiting(2) })
	p.gate.Store(nil)
	close(gate)
	require.NoError(t, <-rebuilt)
	r.caughtUp(c)
	require.Equal(t, r.records(topic), r.rows("seen"))
}

// TestIndex_BeginsATopicAnewThatWasMadeAnew deletes a topic and makes one of the same name.
func TestIndex_BeginsATopicAnewThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		t.Parallel()
		r := newRig(t, brokers)
		topic := r.create("t", 1, nil)
		c := r.config(&table{name: "seen", prefix: r.prefix})
		r.start(c)
		r.produce(topic, 50)
		r.caughtUp(c)
		require.Equal(t, r.records(topic), r.rows("seen"))
		_, err := r.admin.DeleteTopic(t.Context(), topic)
		require.NoError(t, err)
		eventually(t, "the topic to be gone", func() bool {
			listed, err := r.admin.ListTopics(t.Context())
			return err == nil && !listed.Has(topic)
		})
		r.create("t", 2, nil)
		r.produce(topic, 20)
		eventually(t, "the rows of the new topic", func() bool { return len(r.rows("seen")) == len(r.records(topic)) })
		require.Equal(t, r.records(topic), r.rows("seen"))
	})
}

// TestIndex_GoesOnWhereTheTopicBegins removes records that the index has not read, and sets a position beyond the end.
func TestIndex_GoesOnWhereTheTopicBegins(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	topic := r.create("t", 1, nil)
	c := r.config(&table{name: "seen", prefix: r.prefix})
	_, stop := r.start(c)
	r.produce(topic, 10)
	r.caughtUp(c)
	stop()
	r.produce(topic, 50)
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, 20, -1)
	deleted, err := r.admin.DeleteRecords(t.Context(), offsets)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
	var log strings.Builder
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	_, stop = r.start(c)
	r.caughtUp(c)
	stop()
	require.Contains(t, log.String(), "records were removed from topics before the index had read them")
	require.Contains(t, log.String(), "offsets=9")

	_, err = r.db.Exec(t.Context(), `update leat_control.positions set next_offset = 1000000`)
	require.NoError(t, err)
	log.Reset()
	_, stop = r.start(c)
	eventually(t, "the position to be put right", func() bool {
		var at int64
		require.NoError(t, r.db.QueryRow(t.Context(), `select next_offset from leat_control.positions`).Scan(&at))
		return at < 1000000
	})
	r.produce(topic, 10)
	r.caughtUp(c)
	stop()
	require.Contains(t, log.String(), "topics end before the position of the index")
	all := r.records(topic)
	require.Equal(t, all[len(all)-10:], r.rows("seen")[len(r.rows("seen"))-10:])
}

// TestIndex_PassesWhatWasCompactedAway reads a topic most of whose records are gone.
func TestIndex_PassesWhatWasCompactedAway(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	r := newRig(t, fake.ListenAddrs())
	topic := r.create("t", 1, map[string]*string{"cleanup.policy": new("compact"), "delete.retention.ms": new("0")})
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	for _, value := range [][]byte{[]byte("x"), nil} {
		for key := range 20 {
			rec := &kgo.Record{Topic: topic, Key: []byte(strconv.Itoa(key)), Value: value}
			require.NoError(t, cl.ProduceSync(t.Context(), rec).FirstErr())
		}
	}
	fake.Compact()
	c := r.config(&table{name: "seen", prefix: r.prefix})
	r.start(c)
	r.caughtUp(c)
	require.Less(t, len(r.rows("seen")), 40, "compaction has taken some")
	rec := &kgo.Record{Topic: topic, Key: []byte("1"), Value: []byte("new")}
	require.NoError(t, cl.ProduceSync(t.Context(), rec).FirstErr())
	r.caughtUp(c)
	require.Contains(t, r.rows("seen"), fmt.Sprintf("%s/0/%d=new", topic, rec.Offset))
}

// TestIndex_AProjectionThatFailsHoldsUpNoOther shows that an error is told and tried again.
func TestIndex_AProjectionThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	topic := r.create("t", 2, nil)
	good, bad := &table{name: "good", prefix: r.prefix}, &table{name: "bad", prefix: r.prefix}
	bad.fail.Store(new(errors.New("no room")))
	c := r.config(good, bad)
	x, _ := r.start(c)
	r.produce(topic, 30)
	eventually(t, "the good one to go on and the bad one to be told", func() bool {
		err := x.Ready()
		return len(r.rows("good")) == 20 && err != nil && strings.Contains(err.Error(), "bad: writing rows: no room") &&
			!strings.Contains(err.Error(), "good")
	})
	require.Empty(t, r.rows("bad"))
	st, err := index.ReadStatus(t.Context(), c)
	require.NoError(t, err)
	require.Positive(t, st[1].Behind)
	require.True(t, st[0].Working)
	require.NotEmpty(t, st[1].Worst)
	bad.fail.Store(nil)
	r.caughtUp(c)
	require.Len(t, r.rows("bad"), 20)
	eventually(t, "it to be well again", func() bool { return x.Ready() == nil })
}

func TestNew_NamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := index.New(index.Config{Projections: []index.Projection{&table{name: "a"}, &table{name: "a"}}})
	require.EqualError(t, err, "configuring the index: no database\nno list of topics\nprojection \"a\": want a name that no other has")
}
