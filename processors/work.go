package processors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/topics"
)

// work is what one transaction does in one partition.
type work struct {
	s      *session
	p      *partition
	stable int64 // last stable offset of the fetch
	next   int64 // after the last polled record, markers included; 0 if none was polled

	fresh []*kgo.Record
	due   []*entry // heads of parked keys
	drain int      // how many more parked records may be handled behind the heads

	orders []*settling // about parked records
	marks  []mark      // of what they have done
	units  int         // records of the batch, those drained included

	handled int       // records that the handler has answered
	began   time.Time // when the handlers were called first

	msgs    []Message
	headers []topics.Header
	out     []kgo.Record
	outHdrs []kgo.RecordHeader

	stop   *stopError // why the transaction cannot commit
	failed []failedKey
	tally  tally
}

// stopError aborts the batch.
type stopError struct {
	class class
	err   error
}

// failedKey is the transient failure of a new record, for the guess of a systemic one.
type failedKey struct{ code, sample string }

// tally is what is counted and logged if the transaction commits.
type tally struct {
	outcomes map[string]int
	times    []time.Time // ce_time of settled records
	late     []time.Duration
	retries  int
	dead     map[[2]string]int
	logs     []logLine
	spans    []trace.Span
	observed observed
}

type logLine struct {
	level slog.Level
	text  string
	args  []any
}

// newWork returns an empty work with the buffers of an earlier one, if there is one.
func (s *session) newWork() *work {
	if n := len(s.spare); n > 0 {
		w := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return w
	}
	return &work{s: s}
}

// recycle keeps the buffers of works whose transaction has ended well: only then does the client hold none of the records.
func (s *session) recycle(works []*work) {
	for _, w := range works {
		if cap(w.msgs) > 4*s.r.cfg.MaxRecords || len(s.spare) > 64 {
			continue
		}
		clear(w.fresh)
		clear(w.msgs)
		clear(w.headers)
		clear(w.out)
		clear(w.outHdrs)
		s.spare = append(s.spare, &work{
			s: s, fresh: w.fresh[:0], msgs: w.msgs[:0], headers: w.headers[:0], out: w.out[:0], outHdrs: w.outHdrs[:0],
			tally: tally{times: w.tally.times[:0]},
		})
	}
}

func (w *work) add(recs []*kgo.Record) (bytes int) {
	for _, rec := range recs {
		bytes += len(rec.Key) + len(rec.Value)
		if !rec.Attrs.IsControl() {
			w.fresh = append(w.fresh, rec)
		}
	}
	w.next = recs[len(recs)-1].Offset + 1
	return bytes
}

// run handles what is due, then what is new, and stages the results in the lot, the tally and the records to produce.
func (w *work) run(ctx context.Context) {
	w.tally.outcomes = map[string]int{}
	w.units = len(w.fresh)
	w.began = w.s.r.now()
	w.runOrders()
	w.runDue(ctx)
	if w.stop == nil {
		w.runFresh(ctx)
	}
}

// runDue tries the heads that are due again. Behind each that is settled its queue is drained, in order.
func (w *work) runDue(ctx context.Context) {
	if len(w.due) == 0 {
		return
	}
	now := w.s.r.now()
	for _, e := range w.due {
		if at := e.fail.NotBefore; e.fail.Attempt > 0 && !at.IsZero() {
			if freed := w.p.lot.freed; at.Before(freed) {
				at = freed // until then it waited by order
			}
			w.tally.late = append(w.tally.late, now.Sub(at))
		}
	}
	w.handleParked(ctx, w.due)
	if w.stop != nil {
		return
	}
	var behind []*entry
	for _, head := range w.due {
		if w.p.lot.byOffset[head.msg.Offset] == nil { // settled: its queue may go on
			behind = append(behind, w.p.lot.queued(head, w.drain-len(behind))...)
		}
	}
	slices.SortFunc(behind, func(a, b *entry) int { return compareOffset(a, b.msg.Offset) })
	w.handleParked(ctx, behind)
}

func (w *work) handleParked(ctx context.Context, entries []*entry) {
	if len(entries) == 0 {
		return
	}
	msgs := make([]Message, len(entries))
	for i, e := range entries {
		msgs[i] = e.msg
		msgs[i].Attempt = e.fail.Attempt + 1
	}
	w.units += len(msgs)
	results := w.handle(ctx, msgs)
	for i := range results {
		if w.stop != nil {
			return
		}
		if w.p.lot.blocked(entries[i]) {
			continue // the record before it has failed; it waits on
		}
		w.settle(ctx, &msgs[i], entries[i], &results[i])
	}
}

// runFresh handles what was polled, but for records of parked keys and of tenants that are paused, which queue up.
func (w *work) runFresh(ctx context.Context) {
	w.msgs = slices.Grow(w.msgs, len(w.fresh))
	for _, rec := range w.fresh {
		msg := w.message(rec)
		_, bad := w.s.culprits[culprit{w.p.topicPartition, rec.Offset}]
		if !bad && (w.p.lot.parked(rec.Key, rec.Offset) || w.held(&msg)) {
			w.wait(&msg)
			continue
		}
		w.msgs = append(w.msgs, msg)
	}
	if len(w.msgs) == 0 {
		return
	}
	results := w.handle(ctx, w.msgs)
	for i := range results {
		if w.stop != nil {
			return
		}
		msg := &w.msgs[i]
		if w.p.lot.parked(msg.Key, msg.Offset) { // an earlier record of the key has failed in this batch
			w.wait(msg)
			continue
		}
		w.settle(ctx, msg, nil, &results[i])
	}
}

func (w *work) message(rec *kgo.Record) Message {
	start := len(w.headers)
	for _, h := range rec.Headers {
		w.headers = append(w.headers, topics.Header(h))
	}
	return Message{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Time: rec.Timestamp, Key: rec.Key, Value: rec.Value,
		Headers: w.headers[start:len(w.headers):len(w.headers)], Attempt: 1,
	}
}

// held reports whether an order makes the records of msg's tenant wait.
func (w *work) held(msg *Message) bool {
	return len(w.s.orders.Tenants) > 0 && w.p.lot.holds(tenantOf(msg.Key, msg.Headers))
}

// wait parks a fresh record, behind an earlier one of its key or until its tenant is resumed.
func (w *work) wait(msg *Message) {
	var prev topics.Failure
	if old := w.p.lot.byOffset[msg.Offset]; old != nil {
		prev = old.fail
	}
	why, outcome := topics.DispositionBlockedBy, "parked"
	if w.held(msg) {
		why, outcome = topics.DispositionPaused, "paused"
	}
	w.park(msg, w.s.r.waiting(msg, prev, why))
	w.count(outcome)
}

// park stages a record for the retry topic. The lot outlives the fetch, so it gets a copy.
func (w *work) park(msg *Message, f topics.Failure) {
	m := *msg
	m.Key, m.Value, m.Headers = slices.Clone(m.Key), slices.Clone(m.Value), slices.Clone(m.Headers)
	for i := range m.Headers {
		m.Headers[i].Value = slices.Clone(m.Headers[i].Value)
	}
	e := newEntry(m, f)
	w.p.lot.put(e)
	w.retryRecord(e)
}

// handle calls the handler. After a panic it calls it again for each record alone, to find the one that panics. A record that Kafka
// has refused is not handled again.
func (w *work) handle(ctx context.Context, msgs []Message) []Result {
	var results []Result
	if len(w.s.culprits) > 0 {
		results = w.handleOneByOne(ctx, msgs)
	} else if r, err := w.call(ctx, msgs); err == nil {
		results = r
	} else {
		results = w.handleOneByOne(ctx, msgs)
	}
	if ctx.Err() != nil {
		w.stop = &stopError{interrupted, context.Cause(ctx)}
		return nil
	}
	if w.stop == nil && len(results) != len(msgs) {
		w.stop = &stopError{"", &contractError{fmt.Sprintf("handler %s returned %d results for %d messages",
			w.s.r.cfg.Name, len(results), len(msgs))}}
	}
	if w.stop != nil {
		return nil
	}
	w.handled += len(results)
	return results
}

func (w *work) handleOneByOne(ctx context.Context, msgs []Message) []Result {
	results := make([]Result, 0, len(msgs))
	for i := range msgs {
		if reason, ok := w.s.culprits[culprit{w.p.topicPartition, msgs[i].Offset}]; ok {
			results = append(results, Result{Err: Permanent(reason, errors.New("Kafka refuses what this record becomes: "+reason))})
			continue
		}
		one, err := w.call(ctx, msgs[i:i+1])
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			results = append(results, Result{Err: Transient("panic", err)})
		case len(one) != 1:
			return append(results, make([]Result, len(msgs))...) // the wrong number, whatever it was
		default:
			results = append(results, one[0])
		}
	}
	return results
}

func (w *work) call(ctx context.Context, msgs []Message) (results []Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			results, err = nil, newPanicError(v)
		}
	}()
	return w.s.r.cfg.Handler.Handle(ctx, msgs), nil
}

// settle stages what becomes of a record: e is its entry if it was parked.
func (w *work) settle(ctx context.Context, msg *Message, e *entry, res *Result) {
	c := classify(ctx, res.Err)
	var prev topics.Failure
	if e != nil {
		prev = e.fail
	}
	switch c {
	case done:
		span, outcome := w.trace(msg), cmp.Or(res.Outcome, string(done))
		for i := range res.Outputs {
			w.output(&res.Outputs[i], span)
		}
		w.attempted(span, outcome, nil)
		w.leave(e)
		w.count(outcome)
		w.observe(msg, outcome, res.Detail)
		if t, ok := eventTime(msg.Headers); ok {
			w.tally.times = append(w.tally.times, t)
		}
	case permanent:
		w.giveUp(msg, e, w.s.r.failure(msg, prev, c, topics.DispositionPermanent, res.Err))
	case transient:
		if e == nil {
			w.failed = append(w.failed, failedKey{Code(res.Err), res.Err.Error()})
		}
		f := w.s.r.failure(msg, prev, c, topics.DispositionRetry, res.Err)
		if f.Attempt >= w.s.r.cfg.Retry.MaxAttempts {
			f.Disposition = topics.DispositionExhausted
			w.giveUp(msg, e, f)
			return
		}
		var last time.Duration
		if e != nil && !prev.NotBefore.IsZero() && !prev.LastFailedAt.IsZero() {
			last = prev.NotBefore.Sub(prev.LastFailedAt)
		}
		f.NotBefore = f.LastFailedAt.Add(w.s.r.cfg.Retry.delay(last))
		w.park(msg, f)
		w.tally.retries++
		w.count("retry")
		w.attempted(w.trace(msg), "retry", &f)
		w.logFailure(slog.LevelWarn, "record failed, parked for a retry", msg, &f)
	default:
		w.stop = &stopError{c, res.Err}
	}
}

// giveUp stages a dead letter. The key's queue, if any, goes on.
func (w *work) giveUp(msg *Message, e *entry, f topics.Failure) {
	w.deadLetter(msg, f)
	w.leave(e)
	w.countDead(&f)
	w.count("dead_letter")
	w.observe(msg, "dead_letter", f.Code)
	w.attempted(w.trace(msg), "dead_letter", &f)
	w.logFailure(slog.LevelError, "record failed, moved to the dead-letter topic", msg, &f)
}

func (w *work) countDead(f *topics.Failure) {
	if w.tally.dead == nil {
		w.tally.dead = map[[2]string]int{}
	}
	w.tally.dead[[2]string{string(f.Disposition), f.Class}]++
}

func (w *work) leave(e *entry) {
	if e != nil {
		w.p.lot.remove(e.msg.Offset)
		w.tombstone(e.msg.Offset, "")
	}
}

func (w *work) output(m *Message, t traced) {
	headers := w.kafkaHeaders(t.continued(m.Headers))
	w.produce(kgo.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: headers, Timestamp: m.Time})
}

func (w *work) kafkaHeaders(hs []topics.Header) []kgo.RecordHeader {
	start := len(w.outHdrs)
	for _, h := range hs {
		w.outHdrs = append(w.outHdrs, kgo.RecordHeader(h))
	}
	return w.outHdrs[start:len(w.outHdrs):len(w.outHdrs)]
}

func (w *work) produce(rec kgo.Record) { w.out = append(w.out, rec) }

// send hands the staged records to the client, in order. Not earlier: a slice that grows moves its records.
func (w *work) send(promise *kgo.FirstErrPromise) {
	for i := range w.out {
		// Not the batch's context: a record that is cancelled in between leaves the producer in doubt; End drops what is buffered.
		w.s.sess.Produce(context.Background(), &w.out[i], promise.Promise())
	}
}
