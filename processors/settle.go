package processors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// ParkedAction is what an operator wants done with parked records.
type ParkedAction string

// The actions.
const (
	// ParkedRetry makes the head of each record's key due now; what waits behind it follows in order. It is the next attempt, not an
	// additional one. A record of a paused tenant waits on.
	ParkedRetry ParkedAction = "retry"
	// ParkedCancel drops the records: they are never handled. The next ones of their keys have their turn.
	ParkedCancel ParkedAction = "cancel"
	// ParkedDeadLetter moves the records to the dead letters, with the disposition "manual".
	ParkedDeadLetter ParkedAction = "dead-letter"
)

// ParkedOrder is an operator's order about parked records of one partition.
type ParkedOrder struct {
	ID        string // unique; the same order is carried out once, however often it is given
	Action    ParkedAction
	Topic     string // that the records were read from
	Partition int32
	Offsets   []int64 // there; a few thousand at most: they are one transaction
	Reason    string  // who wants it and why: the message of a dead letter that has not failed yet
}

// Settled is what became of a ParkedOrder.
type Settled struct {
	Applied int     // records to which it was applied, now or when it was given before
	Missing []int64 // offsets at which nothing was parked any more
}

// ErrNotOwned is returned by Settle if the partition's parked records are not, or not yet, in this Runner's hands.
var ErrNotOwned = errors.New("this process does not own the partition")

// ErrOrderRefused is returned by Settle for an order whose records Kafka refuses: it is not carried out.
var ErrOrderRefused = errors.New("a record of the order is refused by Kafka")

// settling is an order that waits for its transaction.
type settling struct {
	ParkedOrder
	result Settled
	reply  chan settleReply // buffered: the loop never waits
}

type settleReply struct {
	Settled
	err error
}

// mark says that an order was carried out for the record at an offset. It stands in the headers of what the order wrote to the
// retry topic, so that the next owner of the partition knows it too.
type mark struct {
	order  string
	offset int64
}

// Settle carries out an order about parked records in one Kafka transaction, also while a pause or the breaker holds everything
// else, and returns when that has committed. Given again, by this process or another one, it changes nothing and reports the same;
// the retry topic remembers an order for as long as compaction keeps its tombstones (delete.retention.ms, a day by default).
// With an error nothing is known: give it again. ErrNotOwned: give it to the owner.
func (r *Runner) Settle(ctx context.Context, o ParkedOrder) (Settled, error) {
	switch o.Action {
	case ParkedRetry, ParkedCancel, ParkedDeadLetter:
	default:
		return Settled{}, fmt.Errorf("unknown action %q: use retry, cancel or dead-letter", o.Action)
	}
	if o.ID == "" || len(o.Offsets) == 0 {
		return Settled{}, errors.New("an order about parked records needs an id and offsets")
	}
	st := &settling{ParkedOrder: o, reply: make(chan settleReply, 1)}
	s, err := r.ask(ctx, func(s *session) { s.settlings = append(s.settlings, st) })
	if errors.Is(err, errNotConnected) || errors.Is(err, errSessionEnded) {
		err = fmt.Errorf("%w: %w", ErrNotOwned, err)
	}
	if err != nil {
		return Settled{}, fmt.Errorf("settling parked records: %w", err)
	}
	select {
	case a := <-st.reply:
		return a.Settled, a.err
	case <-s.done: // perhaps it was done; whoever owns the partition next knows
		return Settled{}, fmt.Errorf("settling parked records: %w: %w", ErrNotOwned, errSessionEnded)
	case <-ctx.Done():
		return Settled{}, ctx.Err()
	}
}

// gatherOrders adds the orders of owned partitions to works, and answers those of others. A partition with an order handles nothing that
// is due in the same transaction.
func (s *session) gatherOrders(works []*work) []*work {
	if len(s.settlings) == 0 {
		return works
	}
	keep := s.settlings[:0]
	for _, st := range s.settlings {
		p := s.parts[topicPartition{st.Topic, st.Partition}]
		if p == nil || !p.folded {
			st.reply <- settleReply{err: ErrNotOwned}
			continue
		}
		keep = append(keep, st)
		w := find(works, p)
		if w == nil {
			w = s.newWork()
			w.p = p
			works = append(works, w)
		}
		w.orders = append(w.orders, st)
	}
	s.settlings = keep
	return works
}

func find(works []*work, p *partition) *work {
	for _, w := range works {
		if w.p == p {
			return w
		}
	}
	return nil
}

// runOrders stages what operators want of parked records.
func (w *work) runOrders() {
	for _, st := range w.orders {
		st.result = Settled{}
		w.units += len(st.Offsets)
		for _, offset := range st.Offsets {
			if w.carryOut(st, offset) {
				st.result.Applied++
			} else {
				st.result.Missing = append(st.result.Missing, offset)
			}
		}
	}
}

// carryOut reports whether the order is done for the record at offset.
func (w *work) carryOut(st *settling, offset int64) bool {
	m := mark{st.ID, offset}
	if _, done := w.p.marks[m]; done || len(w.orders) > 1 && slices.Contains(w.marks, m) {
		return true
	}
	e := w.p.lot.byOffset[offset]
	if e == nil {
		return false
	}
	w.marks = append(w.marks, m)
	switch st.Action {
	case ParkedRetry:
		w.retryNow(st, w.p.lot.queues[parkingKey(e.msg.Key, offset)].head())
		return true
	case ParkedDeadLetter:
		f := e.fail
		f.Disposition, f.Order = topics.DispositionManual, st.ID
		if f.Class == "" { // it has not failed: it waited
			f.Class, f.Code, f.Message = "manual", "manual", st.Reason
			f.Fingerprint = topics.Fingerprint(w.s.r.cfg.Name, f.Class, f.Code, "", "")
		}
		w.deadLetter(&e.msg, f)
		w.countDead(&f)
		w.count("manual")
	case ParkedCancel:
		w.count("cancelled")
	}
	w.p.lot.remove(offset)
	w.tombstone(offset, st.ID)
	return true
}

// retryNow makes a head due. Its order stays with it over its attempts, so that the order given again does not hurry it again. Its
// disposition is no longer that of a failed attempt: who counts those on the retry topic has counted this one.
func (w *work) retryNow(st *settling, head *entry) {
	if head.fail.Order == st.ID {
		return
	}
	f := head.fail
	f.NotBefore, f.Order, f.Disposition = time.Time{}, st.ID, topics.DispositionManual
	e := newEntry(head.msg, f)
	w.p.lot.put(e)
	w.retryRecord(e)
}

// settled answers the orders of a committed work.
func (w *work) settled() {
	for _, m := range w.marks {
		w.p.mark(m)
	}
	for _, st := range w.orders {
		w.s.dropOrder(st, settleReply{Settled: st.result})
	}
}

func (p *partition) mark(m mark) {
	if p.marks == nil {
		p.marks = map[mark]struct{}{}
	}
	p.marks[m] = struct{}{}
}

// refuseOrders answers the orders of works if there are any: one of them wrote the record that Kafka refuses, or a record beside
// them, which is looked for in the next transactions.
func (s *session) refuseOrders(works []*work, err error) (any bool) {
	for _, w := range works {
		for _, st := range w.orders {
			s.dropOrder(st, settleReply{err: fmt.Errorf("%w: %w", ErrOrderRefused, err)})
			any = true
		}
	}
	return any
}

func (s *session) dropOrder(st *settling, a settleReply) {
	s.settlings = slices.DeleteFunc(s.settlings, func(other *settling) bool { return other == st })
	st.reply <- a
}

// orderOf returns the order that a record of the retry topic was written by, if any.
func orderOf(rec *kgo.Record) string {
	for _, h := range rec.Headers {
		if h.Key == topics.HeaderOrder {
			return string(h.Value)
		}
	}
	return ""
}
