package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leat-io/leat/outbox/relay"
	"github.com/leat-io/leat/topics"
)

// boundaries are the moments at which the layers were looked at. They are made in the order of the fields: first how far each stage
// says it is, then the layers from the last to the first. So whatever a stage says it has done before can be seen behind it, and
// whatever is seen in a layer has its cause in the layer before. docs/design.md has the argument.
type boundaries struct {
	delivered  relay.Delivered // what the relay says it has brought to Kafka
	normalized offsets         // committed by the normalize group
	published  offsets         // committed by the publish group
	parked     offsets         // last stable offsets of retry topics: a tombstone from here on frees what was parked till now

	tables *snapshot // of the reporting tables; nil without them

	ends   offsets   // high watermarks: of finance, retry and dead-letter topics first, of source topics last
	outbox *snapshot // of the source's database

	epoch  int64 // of the source
	lowest int64 // lowest id that the outbox still holds
	at     time.Time
}

func (b *boundaries) close() {
	b.tables.close()
	b.outbox.close()
}

// snapshot is a read-only transaction that sees its database as it was at one moment.
type snapshot struct {
	conn *pgxpool.Conn
	tx   pgx.Tx
	name string // as Postgres writes it
	at   time.Time
}

// It is long, and idle while topics are read. The planner walks indexes where it can: statistics of a table that is only inserted
// into are often missing.
const settleSQL = `select set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true),
  set_config('jit', 'off', true), pg_current_snapshot()::text, now()`

func openSnapshot(ctx context.Context, db *pgxpool.Pool) (*snapshot, error) {
	conn, err := db.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	s := &snapshot{conn: conn}
	if s.tx, err = conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}); err != nil {
		conn.Release()
		return nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	var ignore string
	if err := s.tx.QueryRow(ctx, settleSQL).Scan(&ignore, &ignore, &ignore, &s.name, &s.at); err != nil {
		s.close()
		return nil, fmt.Errorf("taking a snapshot: %w", err)
	}
	return s, nil
}

func (s *snapshot) close() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.tx.Rollback(ctx) // it has changed nothing
	s.conn.Release()
}

func (v *run) observe(ctx context.Context) (err error) {
	b := &v.boundaries
	if b.delivered, err = relay.ReadDelivered(ctx, v.c.Kafka, v.c.Source); err != nil {
		return fmt.Errorf("reading the relay's position: %w", err)
	}
	if b.normalized, err = v.committed(ctx, v.c.Normalize.Group, v.sourceTopics); err != nil {
		return err
	}
	if b.published, err = v.committed(ctx, v.c.PublishGroup, v.financeTopics); err != nil {
		return err
	}
	if b.parked, err = listed(v.admin.ListCommittedOffsets(ctx, v.retryTopics...)); err != nil {
		return err
	}
	if v.c.Reporting != nil {
		if b.tables, err = openSnapshot(ctx, v.c.Reporting); err != nil {
			return fmt.Errorf("looking at the reporting tables: %w", err)
		}
	}
	b.ends = offsets{}
	for _, names := range [][]string{v.retryTopics, v.deadTopics, v.financeTopics, v.sourceTopics} {
		ends, err := listed(v.admin.ListEndOffsets(ctx, names...))
		if err != nil {
			return err
		}
		maps.Copy(b.ends, ends)
	}
	for _, t := range slices.Concat(v.sourceTopics, v.financeTopics) {
		if b.ends[t] == nil {
			return fmt.Errorf("topic %s does not exist: make it with `leat topics apply`", t)
		}
	}
	if b.outbox, err = openSnapshot(ctx, v.c.Outbox); err != nil {
		return fmt.Errorf("looking at the outbox of %s: %w", v.c.Source, err)
	}
	b.at = b.outbox.at
	return v.identify(ctx)
}

// Its partitions are dropped as a whole, oldest first: below the first of them there is nothing left to compare with.
const identifySQL = `select (select epoch from leat.source), coalesce((select min(from_id) from leat.partitions), 1)`

func (v *run) identify(ctx context.Context) error {
	// The outbox first: it keeps its partitions from being dropped while they are read.
	const hold = `select 1 from leat.outbox limit 1`
	if _, err := v.outbox.tx.Exec(ctx, hold); err != nil {
		return fmt.Errorf("looking at the outbox of %s: %w", v.c.Source, err)
	}
	if err := v.outbox.tx.QueryRow(ctx, identifySQL).Scan(&v.epoch, &v.lowest); err != nil {
		return fmt.Errorf("looking at the outbox of %s: %w", v.c.Source, err)
	}
	return nil
}

// committed are a group's offsets. A partition without one has none of its records done.
func (v *run) committed(ctx context.Context, group string, names []string) (offsets, error) {
	out := offsets{}
	responses, err := v.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	var errs []error
	known := false
	responses.Each(func(o kadm.OffsetResponse) {
		switch {
		case !slices.Contains(names, o.Topic), o.Err == nil && o.At < 0:
		case o.Err != nil:
			errs = append(errs, fmt.Errorf("reading the offsets of group %s: %w", group, o.Err))
		default:
			known = true
			out.set(o.Topic, o.Partition, o.At)
		}
	})
	if !known && len(errs) == 0 {
		v.note("group %s has no committed offsets: nothing behind it can be called missing, only pending", group)
	}
	return out, errors.Join(errs...)
}

// starts are the offsets from which records of the window can stand on topics. A record's time on Kafka is not before the change on
// source topics, if clocks agree within an hour, and the time of the change on finance topics. Where that is not so,
// something is found missing, and the comparison is made again over the whole topics.
func (v *run) starts(ctx context.Context, names []string) (offsets, error) {
	if len(names) == 0 {
		return offsets{}, nil
	}
	earliest, err := listed(v.admin.ListStartOffsets(ctx, names...))
	if err != nil || v.complete || len(v.rows) == 0 {
		return earliest, err
	}
	from, err := listed(v.admin.ListOffsetsAfterMilli(ctx, v.oldest/1000-time.Hour.Milliseconds(), names...))
	if err != nil {
		return nil, err
	}
	for t, partitions := range from {
		for p, at := range partitions {
			v.partial = v.partial || at > earliest.at(t, p)
		}
	}
	return from, nil
}

func (v *run) topicNames() {
	for _, e := range v.c.Entities {
		v.sourceTopics = append(v.sourceTopics, topics.Source(v.c.Source, e))
	}
	for i, e := range topics.Entities() {
		v.financeTopics = append(v.financeTopics, topics.Finance(e, 1))
		v.financeEntity[topics.Finance(e, 1)] = i
	}
	add := func(group string, names []string) (retry, dead []string) {
		for _, t := range names {
			retry, dead = append(retry, topics.Retry(t, group)), append(dead, topics.DLQ(t, group))
		}
		return retry, dead
	}
	retry, dead := add(v.c.Normalize.Group, v.sourceTopics)
	v.normalizeFailures = slices.Concat(retry, dead)
	v.retryTopics, v.deadTopics = append(v.retryTopics, retry...), append(v.deadTopics, dead...)
	retry, dead = add(v.c.PublishGroup, v.financeTopics)
	v.publishFailures = slices.Concat(retry, dead)
	v.retryTopics, v.deadTopics = append(v.retryTopics, retry...), append(v.deadTopics, dead...)
	v.deadTopics = append(v.deadTopics, topics.RelayDLQ)
}
