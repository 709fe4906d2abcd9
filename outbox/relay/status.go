package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Status is how far a source has been relayed, and what holds it up.
type Status struct {
	Source  string   `json:"source"`
	Owner   string   `json:"owner,omitempty"` // host of the process that has it, and its client id
	Problem []string `json:"problem"`         // what could not be seen, and why the cursor is refused

	Position *Position `json:"position"` // nil if nothing was ever delivered

	RowsBehind        int64      `json:"rows_behind"` // visible and not delivered; counted up to a million
	LateRows          int64      `json:"late_rows"`   // of these, those with ids below the position
	OldestUndelivered *time.Time `json:"oldest_undelivered"`
	SecondsBehind     float64    `json:"seconds_behind"` // age of the oldest undelivered row, by the database's clock

	Partitions   []Partition   `json:"partitions"`
	Transactions []Transaction `json:"transactions"`
}

// Position is a cursor as operators see it.
type Position struct {
	LastID    int64     `json:"last_id"`
	LastEvent string    `json:"last_event"`
	Snapshot  string    `json:"snapshot"`
	LatePass  int64     `json:"late_pass_through,omitempty"` // last id of a long pass over late rows; 0 outside of one
	Rows      int64     `json:"rows"`
	WrittenAt time.Time `json:"written_at"`
	Epoch     int64     `json:"epoch"`
	Adopted   *adopted  `json:"adopted,omitempty"`
}

// Partition is one partition of the outbox.
type Partition struct {
	Name  string `json:"name"`
	Bound string `json:"bound"`
	Rows  int64  `json:"rows"` // by the statistics; -1 before the first analysis
	Bytes int64  `json:"bytes"`
}

// Transaction is an open transaction of the source's database. Its own rows wait until it ends; those of others do not.
type Transaction struct {
	PID         int32   `json:"pid,omitempty"`
	Prepared    string  `json:"prepared,omitempty"` // name of a prepared transaction, which has no process
	AgeSeconds  float64 `json:"age_seconds"`
	State       string  `json:"state"`
	Application string  `json:"application"`
	User        string  `json:"user"`
	HoldsOutbox bool    `json:"holds_outbox"` // has written to leat.outbox, or locks it
	BlocksRelay bool    `json:"blocks_relay"` // the relay waits for a lock of it
}

// StatusConfig says which sources to look at.
type StatusConfig struct {
	Sources []Source
	Kafka   []kgo.Opt
	Group   string // default leat-relay
}

// ReadStatus looks at cursors and databases. It needs no running relay and disturbs none. What cannot be reached is told as a
// problem of the source; the error is for Kafka, without which nothing can be said.
func ReadStatus(ctx context.Context, c StatusConfig) ([]Status, error) {
	client, err := kgo.NewClient(c.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("making kafka client: %w", err)
	}
	defer client.Close()
	partitions, err := cursorPartitions(ctx, c.Kafka)
	if err != nil {
		return nil, err
	}
	full := Config{Group: c.Group}.withDefaults()
	owners, ownersErr := owners(ctx, kadm.NewClient(client), full.Group)
	all := make([]Status, 0, len(c.Sources))
	for _, src := range c.Sources {
		s := Status{Source: src.Name, Problem: []string{}, Owner: owners[cursorPartition(src.Name, partitions)]}
		s.note(ownersErr)
		cur, err := readCursor(ctx, c.Kafka, src.Name, partitions)
		s.note(err)
		if err == nil {
			s.note(s.look(ctx, src, cur))
		}
		all = append(all, s)
	}
	return all, nil
}

func (s *Status) note(err error) {
	if err != nil {
		s.Problem = append(s.Problem, err.Error())
	}
}

// owners maps cursor partitions to the processes that have them.
func owners(ctx context.Context, admin *kadm.Client, group string) (map[int32]string, error) {
	described, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("describing group %s: %w", group, err)
	}
	of := map[int32]string{}
	for _, m := range described[group].Members {
		assigned, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range assigned.Topics {
			for _, p := range t.Partitions {
				if t.Topic == topics.Cursors {
					of[p] = m.ClientHost + " " + m.ClientID
				}
			}
		}
	}
	return of, nil
}

func (s *Status) look(ctx context.Context, src Source, cur *cursor) error {
	c := newCursor(src.Name, identity{})
	if cur != nil {
		c = *cur
		s.Position = cur.public()
	}
	conn, err := pgx.Connect(ctx, src.URL)
	if err != nil {
		return fmt.Errorf("connecting to database of source %s: %w", src.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r := &reader{conn: conn.PgConn()}
	t, err := r.witness(ctx, &c)
	if err != nil {
		return err
	}
	s.note(guard(&c, r.id, t))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("looking at outbox: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	return errors.Join(s.behind(ctx, tx, c.position), s.partitions(ctx, tx), s.transactions(ctx, tx, src.Name))
}

// Late rows as the relay finds them; $5 and $6 are the pass, if there is one. The count of fresh rows is bounded, as a backlog may
// have any length.
const sqlBehind = `with fresh as (
  select id, occurred_at from leat.outbox where id > $1 order by id limit 1000000
), late as (
  select id, occurred_at from leat.outbox
  where (transaction_id = any ($2::text[]::xid8[]) or transaction_id >= $3::text::xid8) and (id <= $1) is true
    and not ($4 and id <= $5 and pg_visible_in_snapshot(transaction_id, $6::text::pg_snapshot))
), oldest as (
  select min(occurred_at) as at from (select * from late union all (select * from fresh order by id limit 1000)) o
)
select (select count(*) from fresh), (select count(*) from late), at, coalesce(extract(epoch from clock_timestamp() - at), 0)::float8
from oldest`

func (s *Status) behind(ctx context.Context, tx pgx.Tx, p position) error {
	xids := make([]string, 0, len(p.Snapshot.xip))
	for _, xid := range p.Snapshot.xip {
		xids = append(xids, strconv.FormatUint(xid, 10))
	}
	through, seen := int64(0), "1:1:"
	if p.Pass != nil {
		through, seen = p.Pass.Through, p.Pass.Snapshot.String()
	}
	var fresh int64
	err := tx.QueryRow(ctx, sqlBehind, p.Last, xids, strconv.FormatUint(p.Snapshot.xmax, 10), p.Pass != nil, through, seen).
		Scan(&fresh, &s.LateRows, &s.OldestUndelivered, &s.SecondsBehind)
	if err != nil {
		return fmt.Errorf("counting undelivered rows: %w", err)
	}
	s.RowsBehind = fresh + s.LateRows
	return nil
}

const sqlPartitions = `select c.relname, coalesce(pg_get_expr(c.relpartbound, c.oid), ''), c.reltuples::bigint, pg_total_relation_size(c.oid)
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'leat.outbox'::regclass order by c.oid`

func (s *Status) partitions(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, sqlPartitions)
	if err == nil {
		s.Partitions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Partition])
	}
	if err != nil {
		return fmt.Errorf("looking at partitions: %w", err)
	}
	return nil
}

// Transactions that have written something, the oldest first, and those that the relay waits for. Only those of this database
// can hold rows of its outbox.
const sqlTransactions = `with holders as (
  select distinct pid, virtualtransaction from pg_locks
  where database = (select oid from pg_database where datname = current_database()) and granted
    and (relation = 'leat.outbox'::regclass or relation in (select inhrelid from pg_inherits where inhparent = 'leat.outbox'::regclass))
    and mode <> 'AccessShareLock'
), blockers as (
  select unnest(pg_blocking_pids(pid)) as pid from pg_stat_activity where application_name = 'leat-relay-' || $1
)
select a.pid, '' as prepared, coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8 as age, coalesce(a.state, ''),
  a.application_name, coalesce(a.usename::text, ''), a.pid in (select pid from holders), a.pid in (select pid from blockers)
from pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid()
  and (a.backend_xid is not null or a.pid in (select pid from blockers))
union all
select 0, p.gid, extract(epoch from clock_timestamp() - p.prepared)::float8, 'prepared', '', p.owner::text,
  exists (select from holders h where h.pid is null and h.virtualtransaction = '-1/' || p.transaction), false
from pg_prepared_xacts p where p.database = current_database()
order by 3 desc limit 50`

func (s *Status) transactions(ctx context.Context, tx pgx.Tx, source string) error {
	rows, err := tx.Query(ctx, sqlTransactions, source)
	if err == nil {
		s.Transactions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Transaction])
	}
	if err != nil {
		return fmt.Errorf("looking at transactions: %w", err)
	}
	return nil
}
