package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// seenRow is a row as a reader delivered it.
type seenRow struct {
	id    int64
	event string
	key   string
}

// sink collects what a reader delivers.
type sink struct {
	rows []seenRow
}

// tally compares what was delivered with what was committed: rows lost, delivered twice, and delivered after a later one of
// their key.
func (s *sink) tally(committed map[string]int64) (lost, twice, inverted int) {
	seen, last := map[string]bool{}, map[string]int64{}
	for _, r := range s.rows {
		if seen[r.event] {
			twice++
			continue
		}
		seen[r.event] = true
		if r.id < last[r.key] {
			inverted++
		}
		last[r.key] = max(last[r.key], r.id)
	}
	for event := range committed {
		if !seen[event] {
			lost++
		}
	}
	return lost, twice, inverted
}

// snapshotReader drives the relay's own reader, without Kafka. Its limits are small, so that pages and passes occur.
type snapshotReader struct {
	sink
	reader *reader
	enc    *encoder
	cursor cursor
	lim    limits
	passes int
}

func newSnapshotReader(t *testing.T, url string, rows int) *snapshotReader {
	t.Helper()
	s := &snapshotReader{cursor: newCursor("shop", identity{}), lim: limits{rows, 1 << 20, 1 << 20}}
	s.enc = newEncoder("shop", newDestinations("shop", nil, nil), nil)
	s.open(t, url)
	return s
}

// open connects, anew if it was connected before, as after a failure.
func (s *snapshotReader) open(t *testing.T, url string) {
	t.Helper()
	if s.reader != nil {
		s.reader.close()
	}
	r, err := openReader(t.Context(), url, "shop", &s.cursor)
	require.NoError(t, err)
	t.Cleanup(r.close)
	s.reader = r
}

// poll reads once and reports whether it found anything.
func (s *snapshotReader) poll(t *testing.T) bool {
	t.Helper()
	var b batch
	f, err := s.reader.read(t.Context(), s.cursor.position, s.enc, &b, s.lim)
	require.NoError(t, err)
	s.cursor.position = s.cursor.after(f)
	s.cursor.identity = s.reader.id
	for i, r := range b.rows {
		s.rows = append(s.rows, seenRow{r.id, string(r.event), string(b.recs[i].Key)})
	}
	if f.freshLast != 0 {
		s.cursor.LastEvent = string(b.rows[len(b.rows)-1].event)
	}
	if s.cursor.Pass != nil {
		s.passes++
	}
	return len(b.rows) > 0 || s.cursor.Pass != nil
}

// naive readers, as others have them.
const (
	// A cursor of ids: loses what is committed after a higher id.
	sqlNaiveID = `select id, event_id::text, key, '0' from leat.outbox where id > $1 order by id limit 1000`
	// A cut-off at the oldest open transaction, in the order of transactions: inverts keys and stalls.
	sqlNaiveXmin = `select id, event_id::text, key, transaction_id::text from leat.outbox
		where (transaction_id, id) > ($2::text::xid8, $1) and transaction_id < pg_snapshot_xmin(pg_current_snapshot())
		order by transaction_id, id limit 1000`
)

type naiveReader struct {
	sink
	conn *pgx.Conn
	sql  string
	id   int64
	xid  string
}

func (n *naiveReader) poll(t *testing.T) bool {
	t.Helper()
	args := []any{n.id}
	if strings.Contains(n.sql, "$2") {
		args = append(args, n.xid)
	}
	rows, err := n.conn.Query(t.Context(), n.sql, args...)
	require.NoError(t, err)
	got := false
	var r seenRow
	_, err = pgx.ForEachRow(rows, []any{&r.id, &r.event, &r.key, &n.xid}, func() error {
		got, n.id = true, r.id
		n.rows = append(n.rows, r)
		return nil
	})
	require.NoError(t, err)
	return got
}

// adversary writes to the outbox in every way that has broken a reader.
type adversary struct {
	t         *testing.T
	url       string
	mu        sync.Mutex
	committed map[string]int64
	prepared  bool
}

func newAdversary(t *testing.T, url string) *adversary {
	t.Helper()
	a := &adversary{t: t, url: url, committed: map[string]int64{}}
	conn := a.connect(t.Context())
	defer conn.Close(context.Background())
	_, err := conn.Exec(t.Context(), `create table account (id int primary key, version int not null default 0);
		create table noise (n int); insert into account select generate_series(0, 5)`)
	require.NoError(t, err)
	var limit int
	require.NoError(t, conn.QueryRow(t.Context(), "select current_setting('max_prepared_transactions')::int").Scan(&limit))
	a.prepared = limit > 0
	return a
}

func (a *adversary) connect(ctx context.Context) *pgx.Conn {
	conn, err := pgx.Connect(ctx, a.url)
	require.NoError(a.t, err)
	return conn
}

// run lets n writers work until ctx is done, with two transactions open all the time that have their ids early.
func (a *adversary) run(ctx context.Context, n int) {
	var wg sync.WaitGroup
	var long []*pgx.Conn
	for i := range 2 {
		conn := a.connect(context.Background())
		_, err := conn.Exec(context.Background(), "begin; insert into noise values (1)")
		require.NoError(a.t, err)
		a.emit(context.Background(), conn, fmt.Sprint("long-", i))
		long = append(long, conn)
	}
	for w := range n {
		wg.Go(func() {
			conn := a.connect(context.Background())
			defer conn.Close(context.Background())
			rnd := rand.New(rand.NewPCG(uint64(w), 11))
			for i := 0; ctx.Err() == nil; i++ {
				a.transact(conn, rnd, fmt.Sprintf("tx-%d-%d", w, i))
			}
		})
	}
	wg.Wait()
	for i, conn := range long {
		last := a.emit(context.Background(), conn, fmt.Sprint("long-", i))
		_, err := conn.Exec(context.Background(), "commit")
		require.NoError(a.t, err)
		a.note(last)
		rows, err := conn.Query(context.Background(), "select event_id::text, id from leat.outbox where key = $1", fmt.Sprint("long-", i))
		require.NoError(a.t, err)
		var r seenRow
		_, err = pgx.ForEachRow(rows, []any{&r.event, &r.id}, func() error { a.note([]seenRow{r}); return nil })
		require.NoError(a.t, err)
		conn.Close(context.Background())
	}
}

func (a *adversary) note(rows []seenRow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rows {
		a.committed[r.event] = r.id
	}
}

func (a *adversary) emit(ctx context.Context, conn *pgx.Conn, key string) []seenRow {
	r := seenRow{key: key}
	err := conn.QueryRow(ctx, `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		values (gen_random_uuid(), 'acme', 'invoice', $1, 'upsert', '{}') returning id, event_id::text`, key).Scan(&r.id, &r.event)
	require.NoError(a.t, err)
	return []seenRow{r}
}

// transact runs one transaction: an early id or none, one or two locked accounts, savepoints, and one of several ends.
func (a *adversary) transact(conn *pgx.Conn, rnd *rand.Rand, name string) {
	ctx := context.Background()
	exec := func(sql string, args ...any) {
		_, err := conn.Exec(ctx, sql, args...)
		require.NoError(a.t, err)
	}
	exec("begin")
	if rnd.IntN(2) == 0 {
		exec("insert into noise values (1)")
		exec("select pg_sleep($1)", rnd.Float64()/200)
	}
	var rows []seenRow
	account := rnd.IntN(6) // one lock a transaction: no deadlocks
	exec("update account set version = version + 1 where id = $1", account)
	for range 1 + rnd.IntN(2) {
		if rnd.IntN(4) == 0 {
			exec("savepoint s")
			a.emit(ctx, conn, strconv.Itoa(account))
			exec("rollback to savepoint s")
		}
		if rnd.IntN(4) == 0 {
			exec("savepoint s")
			rows = append(rows, a.emit(ctx, conn, strconv.Itoa(account))...)
			exec("release savepoint s")
			continue
		}
		rows = append(rows, a.emit(ctx, conn, strconv.Itoa(account))...)
	}
	if rnd.IntN(4) == 0 {
		exec("select pg_sleep($1)", rnd.Float64()/100)
	}
	switch end := rnd.IntN(10); {
	case end == 0:
		exec("rollback")
		return
	case end == 1 && a.prepared:
		gid := testenv.Name(name)
		exec("prepare transaction '" + gid + "'")
		exec("select pg_sleep($1)", rnd.Float64()/100)
		if rnd.IntN(3) == 0 {
			exec("rollback prepared '" + gid + "'")
			return
		}
		exec("commit prepared '" + gid + "'")
	default:
		exec("commit")
	}
	a.note(rows)
}

// TestReader_SurvivesTheOutboxRace reads an outbox in three ways at once while transactions of every kind write to it. The relay's
// reader delivers each row once and in the order of its key; a cursor of ids loses rows, a cut-off at the oldest open
// transaction inverts keys and delivers nothing while two long transactions are open.
func TestReader_SurvivesTheOutboxRace(t *testing.T) {
	t.Parallel()
	r := newDatabase(t)
	a := newAdversary(t, r.url)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	written := make(chan struct{})
	go func() { defer close(written); a.run(ctx, 8) }()

	ours := newSnapshotReader(t, r.url, 50)
	byID := &naiveReader{conn: a.connect(t.Context()), sql: sqlNaiveID, xid: "0"}
	byXmin := &naiveReader{conn: a.connect(t.Context()), sql: sqlNaiveXmin, xid: "0"}
	duringLong := 0
	for i, open := 0, true; open; i++ {
		select {
		case <-written:
			open = false
		default:
		}
		ours.poll(t)
		byID.poll(t)
		byXmin.poll(t)
		if ctx.Err() == nil {
			duringLong = len(byXmin.rows)
		}
		if i%100 == 99 {
			ours.open(t, r.url)
		}
	}
	for _, poll := range []func(*testing.T) bool{ours.poll, byID.poll, byXmin.poll} {
		for poll(t) {
			continue
		}
	}
	t.Logf("%d rows committed, %d reads inside of late passes", len(a.committed), ours.passes)
	lost, twice, inverted := ours.tally(a.committed)
	require.Zero(t, lost, "lost")
	require.Zero(t, twice, "delivered twice")
	require.Zero(t, inverted, "out of order")
	require.Len(t, ours.rows, len(a.committed), "delivered without having been committed")

	lost, _, _ = byID.tally(a.committed)
	require.NotZero(t, lost, "this race is too tame: a cursor of ids came through")
	_, _, inverted = byXmin.tally(a.committed)
	require.NotZero(t, inverted, "this race is too tame: the order of transactions came through")
	require.Zero(t, duringLong, "the cut-off should have stalled")
}

// TestReader_FindsRowsOfATransactionAboveXmaxAfterAPause: a transaction that began later than every ended one is in progress, but
// not in the snapshot's list. Its rows may lie any distance below the last id.
func TestReader_FindsRowsOfATransactionAboveXmaxAfterAPause(t *testing.T) {
	t.Parallel()
	// A server of its own: on a shared one, transactions of others end in between and raise xmax.
	r := newDatabaseAt(t, testenv.PostgresServer(t).Database(t))
	a := newAdversary(t, r.url)
	ctx := t.Context()
	early, late := a.connect(ctx), a.connect(ctx)
	for _, c := range []*pgx.Conn{early, late} {
		_, err := c.Exec(ctx, "begin; insert into noise values (1)")
		require.NoError(t, err)
	}
	a.emit(ctx, late, "far-below")
	_, err := early.Exec(ctx, `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'acme', 'invoice', g::text, 'upsert', '{}' from generate_series(1, 12000) g`)
	require.NoError(t, err)
	_, err = early.Exec(ctx, "commit")
	require.NoError(t, err)
	s := newSnapshotReader(t, r.url, 20_000)
	for s.poll(t) {
		continue
	}
	require.Len(t, s.rows, 12_000)
	var xid uint64
	require.NoError(t, late.QueryRow(ctx, "select pg_current_xact_id()::text::bigint").Scan(&xid))
	require.GreaterOrEqual(t, xid, s.cursor.Snapshot.xmax, "the transaction should be above xmax")
	_, err = late.Exec(ctx, "commit")
	require.NoError(t, err)
	s.open(t, r.url)
	require.True(t, s.poll(t))
	require.Equal(t, "acme/shop/far-below", s.rows[len(s.rows)-1].key)
}

// TestReader_FindsRowsAboveManySavepointsAfterAPause: a savepoint takes a transaction id too, and no setting bounds how many.
func TestReader_FindsRowsAboveManySavepointsAfterAPause(t *testing.T) {
	t.Parallel()
	r := newDatabaseAt(t, testenv.PostgresServer(t).Database(t))
	a := newAdversary(t, r.url)
	ctx := t.Context()
	early, saves, late := a.connect(ctx), a.connect(ctx), a.connect(ctx)
	exec := func(c *pgx.Conn, sql string) {
		_, err := c.Exec(ctx, sql)
		require.NoError(t, err)
	}
	exec(early, "begin; insert into noise values (1)")
	exec(saves, "begin")
	exec(saves, `do $$ begin for i in 1..140000 loop
		begin insert into noise values (1); exception when unique_violation then null; end; end loop; end $$`)
	exec(late, "begin; insert into noise values (1)")
	a.emit(ctx, late, "far-below")
	a.emit(ctx, early, "1")
	exec(early, "commit")
	s := newSnapshotReader(t, r.url, 20_000)
	for s.poll(t) {
		continue
	}
	require.Len(t, s.rows, 1)
	exec(late, "commit")
	s.open(t, r.url)
	for s.poll(t) {
		continue
	}
	require.Len(t, s.rows, 2)
	require.Equal(t, "acme/shop/far-below", s.rows[1].key)
}

// TestReader_PagesLateRows: one late transaction with more rows than a batch holds, together with later changes of the same keys.
func TestReader_PagesLateRows(t *testing.T) {
	t.Parallel()
	r := newDatabase(t)
	a := newAdversary(t, r.url)
	ctx := t.Context()
	bulk, other := a.connect(ctx), a.connect(ctx)
	_, err := bulk.Exec(ctx, `begin; update account set version = 1 where id = 1`)
	require.NoError(t, err)
	for range 40 {
		a.emit(ctx, bulk, "1")
		a.note(a.emit(ctx, other, "2"))
	}
	s := newSnapshotReader(t, r.url, 7)
	for s.poll(t) {
		continue
	}
	require.Len(t, s.rows, 40)
	_, err = bulk.Exec(ctx, "commit")
	require.NoError(t, err)
	s.poll(t) // begins the pass
	require.NotNil(t, s.cursor.Pass)
	b, err := s.cursor.encode()
	require.NoError(t, err)
	s.cursor, err = decodeCursor(b) // the pass survives a restart
	require.NoError(t, err)
	s.open(t, r.url)
	a.emit(ctx, other, "1") // after the lock of the bulk transaction: must come last
	for s.poll(t) {
		continue
	}
	require.Len(t, s.rows, 81)
	require.True(t, slices.IsSortedFunc(s.rows[40:], func(x, y seenRow) int { return int(x.id - y.id) }))
	_, twice, inverted := s.tally(nil)
	require.Zero(t, twice+inverted)
}

// TestRelay_DeliversTheOutboxRace is the race again, through Kafka.
func TestRelay_DeliversTheOutboxRace(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		a := newAdversary(t, r.url)
		_, stop := r.start(r.config())
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		a.run(ctx, 6)
		topic := topics.Source(r.system, "invoice")
		r.await(topic, len(a.committed))
		stop()
		r.count(r.read(topic))
	})
}
