package journal

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/topics"
)

// Attempts is the projection of retry and dead-letter topics to leat_control.attempts: a row for each attempt to handle a record
// that failed. Dead letters that another system has written, and records that only wait behind another, are no attempts.
//
// Retry topics are compacted: a rebuild finds the attempts that they still have.
type Attempts struct{ keep time.Duration }

var (
	_ index.Projection = (*Attempts)(nil)
	_ index.Keeper     = (*Attempts)(nil)
	_ index.Forgetter  = (*Attempts)(nil)
)

// NewAttempts returns the projection. Rows are removed when they are older than keep; 0 means DefaultKeep.
func NewAttempts(keep time.Duration) *Attempts { return &Attempts{cmp.Or(keep, DefaultKeep)} }

// Name is "attempts".
func (a *Attempts) Name() string { return "attempts" }

// Reads reports whether name is a retry or a dead-letter topic.
func (a *Attempts) Reads(name string) bool {
	return strings.HasSuffix(name, ".retry") || strings.HasSuffix(name, ".dlq")
}

// A topic may have lost its end and got other records at the same offsets; then the newer one is right.
const insertAttempt = `insert into leat_control.attempts (topic, partition, "offset", at, event_id, tenant, system, source_id, group_name,
  stage, original_topic, original_partition, original_offset, attempt, not_before, class, code, disposition, fingerprint, message,
  outbox_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
on conflict (topic, partition, "offset") do update set at = excluded.at, event_id = excluded.event_id, tenant = excluded.tenant,
  system = excluded.system, source_id = excluded.source_id, group_name = excluded.group_name, stage = excluded.stage,
  original_topic = excluded.original_topic, original_partition = excluded.original_partition,
  original_offset = excluded.original_offset, attempt = excluded.attempt, not_before = excluded.not_before, class = excluded.class,
  code = excluded.code, disposition = excluded.disposition, fingerprint = excluded.fingerprint, message = excluded.message,
  outbox_id = excluded.outbox_id, settled_at = null`

// A tombstone says that the record with this parked id waits no longer. A redrive of the same record may follow it.
const settleAttempts = `update leat_control.attempts set settled_at = $4
where topic = $1 and partition = $2 and original_offset = $3 and settled_at is null and disposition = 'retry'`

// Apply inserts a row for each failed attempt, and notes which wait no longer.
func (a *Attempts) Apply(ctx context.Context, tx pgx.Tx, recs []*kgo.Record) error {
	var b pgx.Batch
	for _, rec := range recs {
		if rec.Value == nil && strings.HasSuffix(rec.Topic, ".retry") {
			if _, offset, err := topics.SplitParkedID(rec.Key); err == nil {
				b.Queue(settleAttempts, rec.Topic, rec.Partition, offset, rec.Timestamp)
			}
			continue
		}
		if r, ok := attempt(rec); ok {
			b.Queue(insertAttempt, r.args()...)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("writing attempts: %w", err)
	}
	return nil
}

// Upkeep removes what is too old, so much at a time that nobody waits.
func (a *Attempts) Upkeep(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, deleteAttempts, a.keep); err != nil {
		return fmt.Errorf("removing old attempts: %w", err)
	}
	return nil
}

const deleteAttempts = `delete from leat_control.attempts where ctid = any (array(
  select ctid from leat_control.attempts where at < now() - $1::interval order by at limit 50000))`

// Forget removes the attempts that stood on a former topic.
func (a *Attempts) Forget(ctx context.Context, tx pgx.Tx, topic string) error {
	_, err := tx.Exec(ctx, `delete from leat_control.attempts where topic = $1`, topic)
	return err
}

// Reset removes all attempts.
func (a *Attempts) Reset(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `delete from leat_control.attempts`)
	return err
}

// attemptRow is a row of leat_control.attempts.
type attemptRow struct {
	rec                      *kgo.Record
	event                    string
	tenant, system, sourceID string
	f                        topics.Failure
}

// attempt reads a record of a retry or dead-letter topic; false if it tells of no failed attempt of ours.
func attempt(rec *kgo.Record) (attemptRow, bool) {
	hs := make([]topics.Header, len(rec.Headers))
	r := attemptRow{rec: rec}
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
		if h.Key == topics.HeaderID {
			r.event = text(string(h.Value), 64)
		}
	}
	f, err := topics.DecodeFailure(hs)
	if err != nil {
		return r, false
	}
	key := rec.Key
	if strings.HasSuffix(rec.Topic, ".retry") {
		if f.Disposition != topics.DispositionRetry {
			return r, false
		}
		key = f.Key
	}
	if tenant, system, id, err := topics.SplitKey(key); err == nil {
		r.tenant, r.system, r.sourceID = tenant, system, text(id, maxKey)
	}
	r.f = f
	return r, true
}

func (r *attemptRow) args() []any {
	f := &r.f
	// Headers have passed the bounds of DecodeFailure, but for characters that Postgres does not take.
	return []any{
		r.rec.Topic, r.rec.Partition, r.rec.Offset, r.rec.Timestamp, r.event, r.tenant, r.system, r.sourceID, text(f.Group, maxKey),
		text(f.Handler, maxKey), text(f.Topic, maxKey), f.Partition, f.Offset, f.Attempt, orNull(f.NotBefore),
		text(f.Class, maxKey), text(f.Code, maxKey), text(string(f.Disposition), maxKey), text(f.Fingerprint, maxKey), text(f.Message, maxKey),
		orNullID(f.OutboxID),
	}
}

// text is s as Postgres takes it: valid UTF-8 without NUL, of at most n bytes.
func text(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), n)], ""), "\x00", "")
	return s
}

func orNullID(id int64) *int64 {
	if id == 0 {
		return nil
	}
	return &id
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
