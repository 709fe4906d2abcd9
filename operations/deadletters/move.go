package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// settleTimeout bounds what is finished after a redrive was told to stop: the transaction it is in, and what it writes down.
const settleTimeout = time.Minute

// mover is one process working on a job.
type mover struct {
	o      *Office
	job    string
	client *kgo.Client // its transactional id is the job's: a newer process of the job fences this one
	force  bool        // goes on even if everything fails again
	judged time.Time
}

// item is one record to be moved: the newest of the letters that share its seq.
type item struct {
	seq    int64
	letter ID
	bytes  int
	retry  string
	edit   json.RawMessage
	value  []byte
}

func (o *Office) newMover(ctx context.Context, job string) (*mover, error) {
	client, err := kgo.NewClient(slices.Concat(o.Kafka, []kgo.Opt{
		kgo.TransactionalID("leat.redrive." + job),
		kgo.TransactionTimeout(settleTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		// What fitted into the dead-letter topic fits into the retry topic, which takes records as large.
		kgo.ProducerBatchMaxBytes(topics.DefaultMaxMessageBytes + topics.FailureHeadroom),
	})...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	// Asked for now and not with the first record: this aborts what a killed process has left open, and makes what is read of the
	// cursor after it the last word.
	if _, _, err := client.ProducerID(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("taking the transactional id of redrive %s: %w", job, err)
	}
	return &mover{o: o, job: job, client: client}, nil
}

// run moves what has not been moved, at most rate records a second, until ctx ends. Whatever it returns, what was moved is known to
// Kafka, and the next process of the job goes on behind it.
func (m *mover) run(ctx context.Context, j Job) error {
	moved, err := m.o.readCursor(ctx, m.job, j.cursorFrom)
	if err != nil {
		return err
	}
	if err := m.mark(ctx, moved, nil); err != nil {
		return err
	}
	start, first := time.Now(), moved
	for moved < j.Records {
		if err := ctx.Err(); err != nil {
			return errInterrupted
		}
		items, err := m.next(ctx, moved, j.Rate)
		if err != nil || len(items) == 0 {
			return whenAlive(ctx, err)
		}
		// Begun, it is brought to its end: a cut-off commit would leave open whether it happened.
		chunkCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		err = m.move(chunkCtx, items)
		cancel()
		if err != nil {
			return err
		}
		moved = items[len(items)-1].seq
		m.o.progress(Progress{m.job, moved, j.Records, time.Since(start)})
		if err := m.judge(ctx, first, moved, j.Records); err != nil {
			return err
		}
		due := start.Add(time.Duration(float64(moved-first) / float64(j.Rate) * float64(time.Second)))
		if moved < j.Records {
			wait(ctx, time.Until(due))
		}
	}
	return nil
}

var errInterrupted = errors.New("interrupted")

// hopeless is how many records must be known to have failed again, and be more than half of those whose end is known, for a redrive to
// stop: to go on would only make new dead letters of the old ones.
const hopeless = 20

const countEnds = `select count(*) filter (where d.state = 'failed_again'), count(*) filter (where d.state = 'resolved')
  from leat_control.redrive_items i
  join leat_control.dead_letters d on d.topic = i.topic and d.partition = i.partition and d."offset" = i."offset" and d.at = i.at
 where i.job = $1 and i.seq > $2 and i.state in ('moved', 'settled')`

// judge stops the redrive when most of what this process of it moved lately fails again. It knows as much as the index.
func (m *mover) judge(ctx context.Context, first, moved, records int64) error {
	if m.force || moved >= records || time.Since(m.judged) < 200*time.Millisecond {
		return nil
	}
	var failed, resolved int64
	if err := m.o.DB.QueryRow(ctx, countEnds, m.job, max(first, moved-10*fetchRecords)).Scan(&failed, &resolved); err != nil {
		return whenAlive(ctx, fmt.Errorf("counting what fails again: %w", err))
	}
	m.judged = time.Now()
	if failed >= hopeless && failed > resolved {
		return fmt.Errorf("%d of the last %d records fail again: the cause is not gone; see `leat dlq list --job %s`, and --cancel the rest or --resume it",
			failed, failed+resolved, m.job)
	}
	return nil
}

// whenAlive is err, or errInterrupted if it came of the end of ctx.
func whenAlive(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

const selectItems = `select distinct on (seq) seq, topic, partition, "offset", bytes, retry_topic, edit, edited_value
  from leat_control.redrive_items where job = $1 and seq > $2 and state = 'claimed' order by seq, "offset" desc limit $3`

// next returns the items of the next transaction: a quarter of a second's, and what is good to hold in memory.
func (m *mover) next(ctx context.Context, after int64, rate int) ([]item, error) {
	rows, err := m.o.DB.Query(ctx, selectItems, m.job, after, max(1, min(fetchRecords, rate/4)))
	if err != nil {
		return nil, fmt.Errorf("reading the items of redrive %s: %w", m.job, err)
	}
	items, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (it item, err error) {
		err = row.Scan(&it.seq, &it.letter.Topic, &it.letter.Partition, &it.letter.Offset, &it.bytes, &it.retry, &it.edit, &it.value)
		return it, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the items of redrive %s: %w", m.job, err)
	}
	bytes := 0
	for i := range items {
		if bytes += items[i].bytes; i > 0 && bytes > fetchBytes {
			return items[:i], nil
		}
	}
	return items, nil
}

// move moves items, in one transaction unless Kafka refuses one of them. What cannot be moved is refused, and stays open.
func (m *mover) move(ctx context.Context, items []item) error {
	letters := make([]ID, len(items))
	for i := range items {
		letters[i] = items[i].letter
	}
	found, err := m.o.fetch(ctx, letters)
	if err != nil {
		return err
	}
	var recs []*kgo.Record
	var seqs []int64
	for _, it := range items {
		rec, err := m.record(it, found[it.letter])
		if err != nil {
			// Before the transaction: what is below the cursor and still claimed counts as moved.
			if err := m.refuse(ctx, it.seq, err); err != nil {
				return err
			}
			continue
		}
		recs, seqs = append(recs, rec), append(seqs, it.seq)
	}
	last := items[len(items)-1].seq
	err = m.transact(ctx, recs, last)
	switch {
	case err == nil:
		return m.mark(ctx, last, placed(seqs, recs))
	case !isRefusal(err):
		return err
	case len(items) == 1:
		return errors.Join(m.refuse(ctx, last, err), m.transact(ctx, nil, last))
	}
	for i := range items { // one is to blame, and Kafka does not say which
		if err := m.move(ctx, items[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// record is what goes to the retry topic for an item.
func (m *mover) record(it item, rec *kgo.Record) (*kgo.Record, error) {
	if rec == nil {
		return nil, errors.New("the dead-letter topic no longer has the record")
	}
	if it.edit != nil {
		e, err := storedEdit(it.edit, it.value)
		if err != nil {
			return nil, err
		}
		rec = e.apply(rec, m.job)
	}
	out, err := redriven(rec, m.job, time.Now())
	if err == nil && out.Topic != it.retry {
		err = fmt.Errorf("its headers name another retry topic than the index, %s: the topic was made anew; run `leat dlq reindex`", it.retry)
	}
	return out, err
}

// redriven is a dead letter as its group takes it up again: see decodeParked in package processors. Its parked id is that of the
// original record, so moved twice it would replace itself.
func redriven(rec *kgo.Record, job string, now time.Time) (*kgo.Record, error) {
	own := ownHeaders(rec.Headers)
	f, err := topics.DecodeFailure(own)
	if err != nil {
		return nil, fmt.Errorf("its headers are not those of a dead letter of Leat: %w", err)
	}
	again := topics.Failure{
		Topic: f.Topic, Partition: f.Partition, Offset: f.Offset, Time: f.Time, KeyHash: f.KeyHash, Key: rec.Key, Null: rec.Value == nil,
		Group: f.Group, Handler: f.Handler, AppVersion: f.AppVersion, NotBefore: now, Disposition: topics.DispositionManual,
		ReplayCount: f.ReplayCount + 1, ReplayID: job, ResetGeneration: f.ResetGeneration,
	}
	value := rec.Value
	if value == nil {
		value = []byte{} // null would be a tombstone
	}
	out := &kgo.Record{
		Topic: topics.Retry(f.Topic, f.Group), Partition: f.Partition, Key: []byte(topics.ParkedID(f.Partition, f.Offset)), Value: value,
	}
	for _, h := range again.Append(kept(own)) {
		out.Headers = append(out.Headers, kgo.RecordHeader(h))
	}
	return out, nil
}

// kept are the headers that a redrive takes along: the record's own, but for those that speak of another way than the one it goes now.
// What failed before is told by the dead letter; the marks of replicators would make them take the record for one of theirs. The
// trace context stays: the redrive is part of the journey of the same event.
func kept(hs []topics.Header) []topics.Header {
	return slices.DeleteFunc(slices.Clone(topics.StripFailure(hs)), func(h topics.Header) bool {
		if h.Key == topics.HeaderValueOmitted {
			return true
		}
		name := strings.ToLower(h.Key)
		for _, prefix := range [...]string{
			"kafka_dlt-", "kafka_exception-", "kafka_original-", "retry_topic-", "kafka_deliveryattempt", // Spring
			"__", // Connect, Streams, share groups, Confluent Replicator: double underscores are the tools' own
			"mskreplicator", "mm2-", "x-original-",
		} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
}

// transact writes records, and that the job has come as far as seq, in one Kafka transaction.
func (m *mover) transact(ctx context.Context, recs []*kgo.Record, seq int64) error {
	cur, err := cursorRecord(m.job, seq)
	if err != nil {
		return fmt.Errorf("writing the cursor: %w", err)
	}
	if err := m.client.BeginTransaction(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := m.client.ProduceSync(ctx, append(slices.Clone(recs), cur)...).FirstErr(); err != nil {
		abort := m.client.EndTransaction(ctx, kgo.TryAbort)
		if isRefusal(err) && abort == nil {
			return err
		}
		return explainFence(fmt.Errorf("writing to retry topics: %w", errors.Join(err, abort)))
	}
	if err := m.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return explainFence(fmt.Errorf("committing: %w", err))
	}
	return nil
}

func explainFence(err error) error {
	if errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) {
		return fmt.Errorf("another process has taken over this redrive: %w", err)
	}
	return err
}

func isRefusal(err error) bool {
	for _, refusal := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// placement says at which offset of its retry topic the record of each seq stands.
type placement struct {
	seq    []int64
	offset []int64
}

func placed(seqs []int64, recs []*kgo.Record) *placement {
	p := &placement{seq: seqs}
	for _, rec := range recs {
		p.offset = append(p.offset, rec.Offset)
	}
	return p
}

// What is at or below the cursor and was not refused has been moved. The offsets are those of this transaction; of one that a killed
// process has committed, the index learns them from the retry topic.
const markMoved = `update leat_control.redrive_items i
   set state = 'moved', moved_at = clock_timestamp(), edited_value = null,
       retry_offset = (select p.retry_offset from unnest($3::bigint[], $4::bigint[]) as p(seq, retry_offset) where p.seq = i.seq)
 where job = $1 and seq <= $2 and state = 'claimed'
returning topic, partition, "offset"`

func (m *mover) mark(ctx context.Context, seq int64, p *placement) error {
	if p == nil {
		p = &placement{}
	}
	err := pgx.BeginFunc(ctx, m.o.DB, func(tx pgx.Tx) error {
		if err := claimedItems(ctx, tx, m.job, 1, seq); err != nil {
			return err
		}
		letters, err := ids(tx.Query(ctx, markMoved, m.job, seq, p.seq, p.offset))
		if err != nil {
			return err
		}
		return refresh(ctx, tx, letters)
	})
	if err != nil {
		return fmt.Errorf("writing down what redrive %s has moved: %w", m.job, err)
	}
	return nil
}

const markRefused = `update leat_control.redrive_items set state = 'refused', problem = $3, edited_value = null
 where job = $1 and seq = $2 and state = 'claimed' returning topic, partition, "offset"`

func (m *mover) refuse(ctx context.Context, seq int64, reason error) error {
	err := pgx.BeginFunc(ctx, m.o.DB, func(tx pgx.Tx) error {
		if err := claimedItems(ctx, tx, m.job, seq, seq); err != nil {
			return err
		}
		letters, err := ids(tx.Query(ctx, markRefused, m.job, seq, m.o.problem(reason)))
		if err != nil {
			return err
		}
		return refresh(ctx, tx, letters)
	})
	if err != nil {
		return fmt.Errorf("writing down what redrive %s cannot move: %w", m.job, err)
	}
	return nil
}
