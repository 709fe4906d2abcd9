package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The statements of one read. They run in one transaction, sent in one round trip; each sees the same snapshot.
const (
	// Repeatable read: every statement must see the snapshot that the first one returns. Read only: the source's database
	// is never written.
	sqlBegin = `begin isolation level repeatable read read only`

	sqlCommit = `commit`

	// to_regclass looks the table up each time, so that one created anew is noticed at once. The epoch comes from the same
	// snapshot as the rows that it versions. age counts from the next transaction id, which it reads after the snapshot was taken:
	// whatever was in progress then is below it.
	sqlState = `select pg_current_snapshot()::text, coalesce(to_regclass('leat.outbox')::oid::bigint, 0), (select epoch from leat.source),
  age(pg_snapshot_xmax(pg_current_snapshot())::xid)`

	// Late rows of transactions that were in progress ($2) and of later ones that drew an id up to $4 all the same. Those
	// still in progress have no visible rows: leaving them out spares a walk over what a long transaction has
	// written so far. "(id <= $4) is true" keeps the planner from walking the primary key up to $4. Only ids are
	// sorted, most often none; a join instead of "= any" would walk the whole table in the order of ids. $5 bounds what is delivered at once, the lowest ids first.
	//
	// xmax ($3) is one above the highest transaction that had ended, so a transaction that was in progress can be above it too, and may
	// have drawn ids far below $4. $6 is above all of them. What began later has drawn higher ids than $4, as transaction_id is evaluated
	// before id. So few rows have a transaction id between the two, also after a pause, when all of the backlog is above xmax.
	sqlLate = `with late as materialized (
  select id from leat.outbox
  where transaction_id = any (array(select x from unnest($2::xid8[]) x where pg_visible_in_snapshot(x, pg_current_snapshot())))
    and (id <= $4::bigint) is true
  union all
  select id from leat.outbox where transaction_id >= $3::xid8 and transaction_id < $6::xid8 and (id <= $4::bigint) is true
), lowest as materialized (select id from late order by id limit $5::int)
select ` + columns + ` from leat.outbox where id = any (array(select id from lowest)) order by id`

	// One window of a pass: by primary key, so that the whole pass walks the range of ids once.
	sqlPass = `select ` + columns + ` from leat.outbox
where id > $6::bigint and id <= $4::bigint
  and (transaction_id = any ($2::xid8[]) or transaction_id >= $3::xid8) is true
  and pg_visible_in_snapshot(transaction_id, $7::pg_snapshot)
order by id limit $5::int`

	sqlFresh = `select ` + columns + ` from leat.outbox where id > $2::bigint order by id limit $3::int`
)

// sqlWitness looks at what guard must know: the witness row, the lowest id of the range partitions, the next transaction id,
// and whether there are rows that this cluster cannot have written. A visible row's transaction id is below the snapshot's xmax.
const sqlWitness = `select
  coalesce((select event_id::text from leat.outbox where id = $1), ''),
  coalesce((select min((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)'))[1]::bigint)
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'leat.outbox'::regclass), 0),
  pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
  exists (select from leat.outbox where transaction_id >= pg_snapshot_xmax(pg_current_snapshot())),
  i.system_identifier, i.timeline, i.table_oid::bigint, i.epoch
from leat.identity() i`

// reader reads the outbox of one source over one connection.
type reader struct {
	conn     *pgconn.PgConn
	id       identity
	lastRead time.Time // when the latest read began
	perRow   int       // bytes of a row, of late
}

// errStandby says that the database takes no writes: snapshots of a standby do not list transactions in progress.
var errStandby = errors.New("database is a standby, the relay reads the primary")

// errGone says that the table or the epoch is not what it was when the connection was made.
var errGone = errors.New("leat.outbox is not the table it was")

// readTimeout ends a read whose connection has died silently.
const readTimeout = time.Minute

// openReader connects, and asks guard whether c may go on here.
func openReader(ctx context.Context, url, source string, c *cursor) (*reader, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("reading database URL of source %s: %w", source, err)
	}
	maps.Copy(config.RuntimeParams, map[string]string{
		"application_name": "leat-relay-" + source,
		// Without statistics, which a table that is only inserted into and dropped often lacks, the planner could read all of
		// the backlog for each page. Every statement has an index to walk, also when its plan is made for any parameters.
		"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off",
		"plan_cache_mode": "force_generic_plan", "max_parallel_workers_per_gather": "0",
		"idle_in_transaction_session_timeout": "60s", "default_transaction_read_only": "on",
	})
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to database of source %s: %w", source, err)
	}
	r := &reader{conn: conn, perRow: 1 << 10}
	if err := r.prepare(ctx, c); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reader) prepare(ctx context.Context, c *cursor) error {
	result := r.conn.ExecParams(ctx, "select pg_is_in_recovery()", nil, nil, nil, nil).Read()
	if result.Err != nil {
		return fmt.Errorf("looking at database: %w", result.Err)
	}
	if string(result.Rows[0][0]) == "t" {
		return errStandby
	}
	t, err := r.witness(ctx, c)
	if err != nil {
		return err
	}
	if err := guard(c, r.id, t); err != nil {
		return err
	}
	for name, sql := range map[string]string{
		"begin": sqlBegin, "commit": sqlCommit, "state": sqlState, "late": sqlLate, "pass": sqlPass, "fresh": sqlFresh,
	} {
		if _, err := r.conn.Prepare(ctx, name, sql, nil); err != nil {
			return fmt.Errorf("preparing statement %s: %w", name, err)
		}
	}
	return nil
}

func (r *reader) witness(ctx context.Context, c *cursor) (t witness, err error) {
	result := r.conn.ExecParams(ctx, sqlWitness, [][]byte{formatInt(c.Last)}, nil, nil, nil).Read()
	if result.Err != nil {
		return t, fmt.Errorf("looking at outbox: %w", result.Err)
	}
	v := result.Rows[0]
	number := func(i int) (n int64) {
		n, e := strconv.ParseInt(string(v[i]), 10, 64)
		err = errors.Join(err, e)
		return n
	}
	t = witness{event: string(v[0]), lowest: number(1), next: uint64(number(2)), foreign: string(v[3]) == "t"}
	r.id = identity{System: number(4), Timeline: number(5), Table: uint32(number(6)), Epoch: number(7)}
	return t, err
}

func (r *reader) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.conn.Close(ctx)
}

// limits of one read.
type limits struct {
	rows, bytes int
	payload     int // larger ones are not read
}

// read fills b with what follows position p, and returns what it took.
func (r *reader) read(ctx context.Context, p position, e *encoder, b *batch, lim limits) (found, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	lim.rows = min(lim.rows, max(100, lim.bytes/r.perRow))
	pipe := r.conn.StartPipeline(ctx)
	r.send(pipe, p, lim)
	if err := pipe.Sync(); err != nil {
		return found{}, errors.Join(fmt.Errorf("sending queries: %w", err), pipe.Close())
	}
	f, err := r.receive(pipe, p, e, b, lim)
	if closeErr := pipe.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("ending read: %w", closeErr)
	}
	if err != nil {
		return found{}, err
	}
	r.lastRead = started
	if n := len(b.rows); n > 0 {
		r.perRow = max(1, b.bytes/n)
	}
	return f, nil
}

func binaryResult() []int16 { return []int16{1} }

// highest returns the highest visible id.
func (r *reader) highest(ctx context.Context) (int64, error) {
	result := r.conn.ExecParams(ctx, "select coalesce(max(id), 0) from leat.outbox", nil, nil, nil, nil).Read()
	if result.Err != nil {
		return 0, fmt.Errorf("reading highest id: %w", result.Err)
	}
	return strconv.ParseInt(string(result.Rows[0][0]), 10, 64)
}

func (r *reader) send(pipe *pgconn.Pipeline, p position, lim limits) {
	pipe.SendQueryPrepared("begin", nil, nil, nil)
	pipe.SendQueryPrepared("state", nil, nil, nil)
	payload := formatInt(int64(lim.payload))
	// One more than is taken tells whether something is left.
	limit := formatInt(int64(lim.rows + 1))
	xip, xmax, last := p.Snapshot.array(), strconv.AppendUint(nil, p.Snapshot.xmax, 10), formatInt(p.Last)
	if p.Pass != nil {
		end := formatInt(min(p.Pass.Through+passWindow, p.Last))
		pipe.SendQueryPrepared("pass", [][]byte{
			payload, xip, xmax, end, limit, formatInt(p.Pass.Through), []byte(p.Pass.Snapshot.String()),
		}, nil, binaryResult())
	} else {
		pipe.SendQueryPrepared("late", [][]byte{payload, xip, xmax, last, limit, strconv.AppendUint(nil, p.lateBelow(), 10)}, nil, binaryResult())
		pipe.SendQueryPrepared("fresh", [][]byte{payload, last, limit}, nil, binaryResult())
	}
	pipe.SendQueryPrepared("commit", nil, nil, nil)
}

func (r *reader) receive(pipe *pgconn.Pipeline, p position, e *encoder, b *batch, lim limits) (f found, err error) {
	if err := skip(pipe); err != nil {
		return f, fmt.Errorf("beginning read: %w", err)
	}
	if f.now, err = r.state(pipe, e); err != nil {
		return f, err
	}
	f.lateLast, f.lateMore, err = take(pipe, e, b, lim, true)
	if err != nil {
		return f, fmt.Errorf("reading late rows: %w", err)
	}
	if p.Pass == nil {
		if f.lateMore { // fresh rows must not overtake late ones
			lim.rows = 0
		}
		if f.freshLast, f.freshMore, err = take(pipe, e, b, lim, false); err != nil {
			return f, fmt.Errorf("reading fresh rows: %w", err)
		}
	}
	if err := skip(pipe); err != nil {
		return f, fmt.Errorf("ending read: %w", err)
	}
	return f, nil
}

func (r *reader) state(pipe *pgconn.Pipeline, e *encoder) (now view, err error) {
	result, err := results(pipe)
	if err != nil {
		return now, fmt.Errorf("reading snapshot: %w", err)
	}
	for result.NextRow() {
		v := result.Values()
		now, err = parseView(v[0], v[3])
		table, _ := strconv.ParseInt(string(v[1]), 10, 64)
		epoch, _ := strconv.ParseInt(string(v[2]), 10, 64)
		if err == nil && (table != int64(r.id.Table) || epoch < r.id.Epoch) {
			err = errGone
		}
		r.id.Epoch = epoch
		e.setEpoch(epoch)
	}
	if _, closeErr := result.Close(); err == nil {
		err = closeErr
	}
	return now, err
}

// parseView reads a snapshot and the next transaction id, which comes as the age of the snapshot's xmax.
func parseView(text, age []byte) (view, error) {
	now, err := parseSnapshot(string(text))
	if err != nil {
		return view{}, err
	}
	above, err := strconv.ParseUint(string(age), 10, 31)
	if err != nil {
		return view{}, fmt.Errorf("age %.40q of the snapshot is not that of a past transaction: %w", age, err)
	}
	return view{now, now.xmax + above}, nil
}

// take moves rows of the next result into b until it is full, and leaves out the rest.
func take(pipe *pgconn.Pipeline, e *encoder, b *batch, lim limits, late bool) (last int64, more bool, err error) {
	result, err := results(pipe)
	if err != nil {
		return 0, false, err
	}
	for result.NextRow() {
		if more = more || b.full(lim.rows, lim.bytes); more {
			continue // the rest is on its way already
		}
		v := result.Values()
		if err = e.add(b, v, late); err != nil {
			break
		}
		last = int64(binary.BigEndian.Uint64(v[colID]))
	}
	if _, closeErr := result.Close(); err == nil {
		err = closeErr
	}
	return last, more, err
}

func skip(pipe *pgconn.Pipeline) error {
	result, err := results(pipe)
	if err != nil {
		return err
	}
	_, err = result.Close()
	return err
}

func results(pipe *pgconn.Pipeline) (*pgconn.ResultReader, error) {
	got, err := pipe.GetResults()
	if err != nil {
		return nil, err
	}
	result, ok := got.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("the server answered with %T out of turn", got)
	}
	return result, nil
}

func formatInt(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
