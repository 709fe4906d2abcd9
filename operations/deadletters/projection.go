package deadletters

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Projection keeps leat_control.dead_letters like the dead-letter topics, and follows redriven records on the retry topics. It is run by
// the index, which reads the topics for it.
type Projection struct {
	foreign []string
}

// NewProjection returns the projection of our own dead-letter topics and of foreign ones: topics in which other tools keep theirs.
func NewProjection(foreign []string) *Projection { return &Projection{slices.Clone(foreign)} }

// Name of the projection.
func (p *Projection) Name() string { return "deadletters" }

// Reads reports whether the projection is made from this topic.
func (p *Projection) Reads(topic string) bool {
	return strings.HasSuffix(topic, ".dlq") || isRetry(topic) || slices.Contains(p.foreign, topic)
}

func isRetry(topic string) bool { return strings.HasSuffix(topic, ".retry") }

// Apply takes in records, in tx.
func (p *Projection) Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error {
	var letters []Letter
	var redriven, done parkedFacts
	for _, rec := range recs {
		switch {
		case !isRetry(rec.Topic) || slices.Contains(p.foreign, rec.Topic):
			letters = append(letters, Decode(rec))
		case rec.Value == nil:
			done.add(rec, headerText(rec, topics.HeaderOrder))
		default:
			if job := redriveOf(rec); job != "" {
				redriven.add(rec, job)
			}
		}
	}
	touched, err := insert(ctx, tx, letters)
	if err != nil {
		return err
	}
	if err := lockParked(ctx, tx, redriven, done); err != nil {
		return err
	}
	// In this order: in one batch may be a redriven record and the tombstone that ends it.
	for _, step := range []struct {
		sql   string
		facts parkedFacts
	}{{noteRedriven, redriven}, {noteDone, done}} {
		if len(step.facts.topic) == 0 {
			continue
		}
		more, err := ids(tx.Query(ctx, step.sql, step.facts.args()...))
		if err != nil {
			return fmt.Errorf("following redriven records: %w", err)
		}
		touched = append(touched, more...)
	}
	return refresh(ctx, tx, touched)
}

// lockParked locks the items that any of the facts are about.
func lockParked(ctx context.Context, tx pgx.Tx, facts ...parkedFacts) error {
	var all parkedFacts
	for _, f := range facts {
		all.topic, all.partition, all.original = append(all.topic, f.topic...), append(all.partition, f.partition...), append(all.original, f.original...)
	}
	if len(all.topic) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, lookUp); err != nil {
		return fmt.Errorf("preparing to look up redriven records: %w", err)
	}
	if _, err := tx.Exec(ctx, lockItems+ofParked+inOrder, all.topic, all.partition, all.original); err != nil {
		return fmt.Errorf("locking the items of redriven records: %w", err)
	}
	return nil
}

// A redrive that marks what it has moved locks letters in their order, and a delete takes them in any.
const lockAllLetters = `lock table leat_control.dead_letters in exclusive mode`

// Reset removes all letters, for a rebuild. What people decided and what redrives know stays.
func (p *Projection) Reset(ctx context.Context, tx pgx.Tx) error {
	if err := removeLetters(ctx, tx, `true`); err != nil {
		return fmt.Errorf("removing the dead letters: %w", err)
	}
	return nil
}

// Forget removes the letters of a topic that was made anew.
func (p *Projection) Forget(ctx context.Context, tx pgx.Tx, topic string) error {
	if err := removeLetters(ctx, tx, `topic = $1`, topic); err != nil {
		return fmt.Errorf("removing the dead letters of %s: %w", topic, err)
	}
	return nil
}

func removeLetters(ctx context.Context, tx pgx.Tx, where string, args ...any) error {
	if _, err := tx.Exec(ctx, lockAllLetters); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `delete from leat_control.dead_letters where `+where, args...)
	return err
}

// redriveOf names the redrive that wrote a record of a retry topic; "" if a member of the group did.
func redriveOf(rec *kgo.Record) (job string) {
	for _, h := range rec.Headers {
		switch h.Key {
		case topics.HeaderWriter:
			return ""
		case topics.HeaderReplayID:
			job = clean(string(h.Value), maxText)
		}
	}
	return job
}

func headerText(rec *kgo.Record, name string) string { return decoder{rec.Headers}.text(name) }

// parkedFacts are records of retry topics, column by column. by is what wrote them: a redrive; an operator's order; "" for the group.
type parkedFacts struct {
	topic     []string
	partition []int32
	original  []int64
	offset    []int64
	at        []time.Time
	by        []string
}

func (f *parkedFacts) add(rec *kgo.Record, by string) {
	partition, offset, err := topics.SplitParkedID(rec.Key)
	if err != nil {
		return // not ours: nobody redrives it
	}
	f.topic, f.partition, f.original = append(f.topic, rec.Topic), append(f.partition, partition), append(f.original, offset)
	f.offset, f.at, f.by = append(f.offset, rec.Offset), append(f.at, rec.Timestamp.UTC()), append(f.by, by)
}

func (f *parkedFacts) args() []any {
	return []any{f.topic, f.partition, f.original, f.offset, f.at, f.by}
}

const parkedFactsTable = `unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[])
	as k(retry_topic, partition, original, "offset", at, by)`

// The record is the proof that its letter was moved, whether or not the redrive lived to write that down. The offset is needed to tell
// its tombstone from one that stood there before.
const noteRedriven = `update leat_control.redrive_items i
   set state = 'moved', moved_at = coalesce(i.moved_at, k.at), retry_offset = k."offset", edited_value = null
  from ` + parkedFactsTable + `
 where i.retry_topic = k.retry_topic and i.original_partition = k.partition and i.original_offset = k.original
   and i.job::text = k.by and i.state in ('claimed', 'moved') and i.retry_offset is null
returning i.topic, i.partition, i."offset"`

// The first tombstone behind the record ends it. What it ended in is told by the dead-letter topic: see refresh. One that was written by
// an operator's order took the record away unhandled: its letter is open again, unless the order made another letter of it.
const noteDone = `with first as (
	select distinct on (i.job, i.seq, i.topic, i.partition, i."offset") i.job, i.seq, i.topic, i.partition, i."offset", k.at, k.by as cancelled
	  from ` + parkedFactsTable + `
	  join leat_control.redrive_items i on i.retry_topic = k.retry_topic and i.original_partition = k.partition
	   and i.original_offset = k.original and i.state = 'moved' and i.retry_offset < k."offset"
	 order by i.job, i.seq, i.topic, i.partition, i."offset", k."offset")
update leat_control.redrive_items i
   set state = case when first.cancelled = '' then 'settled' else 'released' end, settled_at = first.at,
       problem = case when first.cancelled = '' then '' else 'was cancelled while it was parked, by order ' || first.cancelled end
  from first
 where i.job = first.job and i.seq = first.seq and i.topic = first.topic and i.partition = first.partition and i."offset" = first."offset"
returning i.topic, i.partition, i."offset"`

// A position that was set back, as by a rebuild, brings letters that are there: they are the same.
const insertLetter = `insert into leat_control.dead_letters (topic, partition, "offset", at, format, tenant, system, source_id, record_key,
	event_id, group_name, stage, original_topic, original_partition, original_offset, original_at, class, code, disposition,
	fingerprint, message, attempts, first_failed_at, last_failed_at, replay_count, replay_id, bytes, state_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $4)
on conflict do nothing`

// The earlier letters of the same record, which have failed again with this one.
const findEarlier = `select d.topic, d.partition, d."offset"
  from unnest($1::text[], $2::int[], $3::bigint[]) as k(topic, partition, "offset")
  join leat_control.dead_letters s on s.topic = k.topic and s.partition = k.partition and s."offset" = k."offset"
  join leat_control.dead_letters d on d.original_topic = s.original_topic and d.original_partition = s.original_partition
   and d.original_offset = s.original_offset and d.group_name = s.group_name
   and d.topic || '' = s.topic and d."offset" < s."offset"`

// insert adds letters and returns those whose state may be another one now.
func insert(ctx context.Context, tx pgx.Tx, letters []Letter) ([]ID, error) {
	if len(letters) == 0 {
		return nil, nil
	}
	var b pgx.Batch
	var touched, again []ID
	for i := range letters {
		l := &letters[i]
		touched = append(touched, l.ID)
		if l.Format == Leat && l.ReplayCount > 0 {
			again = append(again, l.ID)
		}
		b.Queue(insertLetter, l.ID.Topic, l.ID.Partition, l.ID.Offset, l.At, l.Format, l.Tenant, l.System, l.SourceID, l.Key,
			l.EventID, l.Group, l.Stage, l.OriginalTopic, l.OriginalPartition, l.OriginalOffset, l.OriginalAt, l.Class, l.Code, l.Disposition,
			l.Fingerprint, l.Message, l.Attempts, l.FirstFailedAt, l.LastFailedAt, l.ReplayCount, l.ReplayID, l.Bytes)
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("writing dead letters: %w", err)
	}
	if len(again) == 0 {
		return touched, nil
	}
	more, err := ids(tx.Query(ctx, findEarlier, columns(again)...))
	if err != nil {
		return nil, fmt.Errorf("looking for what failed again: %w", err)
	}
	return append(touched, more...), nil
}

func ids(rows pgx.Rows, err error) ([]ID, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (id ID, err error) {
		err = row.Scan(&id.Topic, &id.Partition, &id.Offset)
		return id, err
	})
}
