package reporting

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/processors"
)

// inPlace is how often a transaction that lost to a concurrent one is tried again before the records are parked.
const inPlace = 4

// grace is what a transaction may take beyond its statements: connecting, and the way there and back.
const grace = 10 * time.Second

// write applies records of one entity, sorted by key and each key once, and sets their results. When the database refuses
// the data itself, the batch is halved until the culprit stands alone: k culprits among n cost about 2k log2 n transactions.
func (h *handler) write(ctx context.Context, e *entity, records []*record) (down bool) {
	err := h.retry(ctx, e, records)
	if err == nil {
		return false
	}
	f := diagnose(err)
	if f.kind == faultRecord || f.kind == faultUnknown {
		if len(records) > 1 {
			half := len(records) / 2
			if h.write(ctx, e, records[:half]) {
				return fail(records[half:], records[0].result.Err)
			}
			return h.write(ctx, e, records[half:])
		}
		records[0].refused = f.kind == faultRecord
	}
	fail(records, f.err(fmt.Errorf("publishing %d records to reporting.%ss: %w", len(records), e.name, err)))
	return f.kind == faultTarget
}

func fail(records []*record, err error) bool {
	for _, r := range records {
		r.result.Err = err
	}
	return true
}

// retry tries again what a concurrent transaction spoiled.
func (h *handler) retry(ctx context.Context, e *entity, records []*record) error {
	for attempt := 1; ; attempt++ {
		err := h.transact(ctx, e, records)
		if err == nil || attempt == inPlace || diagnose(err).kind != faultConflict {
			return err
		}
		// Two publishers that collided must not meet again at the same moment.
		pause := time.NewTimer(time.Duration(attempt) * (5*time.Millisecond + rand.N(20*time.Millisecond)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

// settingsSQL bounds the statements of the transaction, and has keys looked up in the primary key even where a plan is made
// while the table is still small, to be kept after it has grown.
const settingsSQL = `select set_config('statement_timeout', $1, true), set_config('enable_seqscan', 'off', true)`

// transact applies records in one transaction of two round trips beside its begin and commit: the guard, which says what
// is new, then everything else for what is new. The second cannot ride in the first's statement: under READ COMMITTED
// each statement sees what was committed before it began, so only a statement that begins after the guard's locks are held
// sees the lines that a concurrent publisher wrote while we waited for them.
func (h *handler) transact(ctx context.Context, e *entity, records []*record) error {
	ctx, cancel := context.WithTimeout(ctx, 2*h.timeout+grace)
	defer cancel()
	tx, err := h.db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	defer tx.Rollback(ctx)
	outcomes, err := h.guard(ctx, tx, e, records)
	if err != nil {
		return fmt.Errorf("comparing with the link rows: %w", err)
	}
	if err := h.apply(ctx, tx, e, records, outcomes); err != nil {
		return err
	}
	if err := h.end(ctx, tx); err != nil {
		return err
	}
	for i, r := range records {
		*r.result = processors.Result{Outcome: outcomes[i]}
	}
	return nil
}

func (h *handler) end(ctx context.Context, tx pgx.Tx) error {
	if h.dryRun {
		if err := tx.Rollback(ctx); err != nil {
			return fmt.Errorf("rolling back: %w", err)
		}
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// guardSQL is the only place that decides what is new. ON CONFLICT locks the row it meets, in the order of the input,
// which all publishers sort by key; also a row it then leaves alone, so the answer stays true until the commit.
const guardSQL = `
insert into reporting.links as l (publication, entity, tenant, system, source_id, source_epoch, sequence, revision,
       content_hash, deleted, event_id, topic, topic_partition, topic_offset)
select $1, $2, i.tenant, i.system, i.source_id, i.source_epoch, i.sequence, i.revision,
       i.content_hash, i.deleted, i.event_id, i.topic, i.topic_partition, i.topic_offset
  from unnest($3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[], $8::int8[],
              $9::bytea[], $10::bool[], $11::uuid[], $12::text[], $13::int4[], $14::int8[])
       with ordinality as i(tenant, system, source_id, source_epoch, sequence, revision,
              content_hash, deleted, event_id, topic, topic_partition, topic_offset, n)
 order by i.n
    on conflict (publication, tenant, system, entity, source_id) do update
   set source_epoch = excluded.source_epoch, sequence = excluded.sequence, revision = excluded.revision,
       content_hash = excluded.content_hash, deleted = excluded.deleted, event_id = excluded.event_id,
       topic = excluded.topic, topic_partition = excluded.topic_partition, topic_offset = excluded.topic_offset,
       published_at = excluded.published_at
 where (excluded.source_epoch, excluded.sequence) > (l.source_epoch, l.sequence)
    or (excluded.source_epoch, excluded.sequence) = (l.source_epoch, l.sequence)
       and excluded.content_hash <> l.content_hash
returning l.tenant, l.system, l.source_id`

// guard writes the link rows of what is new and returns an outcome for each record; "" is not new.
func (h *handler) guard(ctx context.Context, tx pgx.Tx, e *entity, records []*record) ([]string, error) {
	k := keysOf(records)
	n := len(records)
	revision, content, deleted := make([]int64, n), make([][]byte, n), make([]bool, n)
	event, topic, partition, offset := make([][16]byte, n), make([]string, n), make([]int32, n), make([]int64, n)
	for i, r := range records {
		revision[i], content[i], deleted[i] = r.envelope.Revision, r.hash[:], r.body == nil
		event[i], topic[i], partition[i], offset[i] = r.eventID, r.message.Topic, r.message.Partition, r.message.Offset
	}
	var b pgx.Batch
	b.Queue(settingsSQL, strconv.FormatInt(h.timeout.Milliseconds(), 10))
	outcomes := make([]string, n)
	b.Queue(guardSQL, h.publication, e.name, k.tenant, k.system, k.sourceID, k.epoch, k.sequence, revision,
		content, deleted, event, topic, partition, offset).Query(func(rows pgx.Rows) error {
		return k.match(rows, func(i int) {
			outcomes[i] = OutcomeApplied
			if deleted[i] {
				outcomes[i] = OutcomeDeleted
			}
		})
	})
	return outcomes, tx.SendBatch(ctx, &b).Close()
}

// sameSQL finds, among records that were not new, those that stand in the tables in the very same version. The link rows
// are locked by the guard, so this is not a race. "lateral" with "offset 0" makes Postgres look up one key after the other:
// on tables without statistics it has been seen to compare all link rows with all keys instead.
const sameSQL = `
select i.tenant, i.system, i.source_id
  from unnest($3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[]) with ordinality
       as i(tenant, system, source_id, source_epoch, sequence, n)
 cross join lateral (select l.source_epoch, l.sequence from reporting.links l
                      where l.publication = $1 and l.entity = $2 and l.tenant = i.tenant and l.system = i.system
                        and l.source_id = i.source_id offset 0) l
 where (l.source_epoch, l.sequence) = (i.source_epoch, i.sequence)
 order by i.n`

// apply writes the tables for what is new, and tells apart unchanged and superseded for the rest.
func (h *handler) apply(ctx context.Context, tx pgx.Tx, e *entity, records []*record, outcomes []string) error {
	var upserts, deletes, rest []*record
	var restAt []int
	for i, r := range records {
		switch outcomes[i] {
		case OutcomeApplied:
			upserts = append(upserts, r)
		case OutcomeDeleted:
			deletes = append(deletes, r)
		default:
			rest, restAt = append(rest, r), append(restAt, i)
			outcomes[i] = OutcomeSuperseded
		}
	}
	var b pgx.Batch
	if len(upserts) > 0 {
		e.upsert(&b, upserts)
	}
	for _, r := range deletes {
		for _, sql := range e.erase {
			b.Queue(sql, r.tenant, r.system, r.sourceID, r.epoch, r.sequence, r.envelope.Time)
		}
	}
	if len(rest) > 0 {
		k := keysOf(rest)
		b.Queue(sameSQL, h.publication, e.name, k.tenant, k.system, k.sourceID, k.epoch, k.sequence).
			Query(func(rows pgx.Rows) error {
				return k.match(rows, func(i int) { outcomes[restAt[i]] = OutcomeUnchanged })
			})
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("writing the rows: %w", err)
	}
	return nil
}
