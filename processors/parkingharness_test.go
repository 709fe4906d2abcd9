package processors

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// retried is a record of the retry topic.
type retried struct {
	offset int    // of the source
	entry  string // what it says; "": a tombstone
	open   int    // the member whose transaction it is in; -1: it is committed
	rec    *kgo.Record
}

// parkHarness calls the production code: work.run, session.judge and session.foldRecord, without Kafka.
type parkHarness struct {
	sc    *parkScene
	r     *Runner
	fails func(offset int) bool

	ran    map[string]ran // the same batch comes to the same in many states
	folded map[string][]*entry
}

type ran struct {
	txn  *parkTxn
	recs []retried
}

var parkTime = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

const parkTopic, parkGroup, parkOut = "source.shop.invoice", "normalize", "finance.invoice.v1"

func newParkHarness(t *testing.T, sc *parkScene) *parkHarness {
	t.Helper()
	h := &parkHarness{sc: sc, ran: map[string]ran{}, folded: map[string][]*entry{}}
	r, err := NewRunner(Config{
		Name: "normalize", Group: parkGroup, Topics: []string{parkTopic}, Instance: "0", Kafka: []kgo.Opt{kgo.SeedBrokers("localhost:1")},
		Handler: HandlerFunc(h.handle), Systemic: SystemicPolicy{Off: true},
		Retry: RetryPolicy{MaxAttempts: 2, Base: time.Second, Max: time.Second}, // and so no jitter
	})
	require.NoError(t, err)
	r.now = func() time.Time { return parkTime }
	h.r = r
	return h
}

func (h *parkHarness) handle(_ context.Context, msgs []Message) []Result {
	results := make([]Result, len(msgs))
	for i := range msgs {
		switch offset := int(msgs[i].Offset); {
		case strings.Contains(h.sc.broken, strconv.Itoa(offset)) && msgs[i].Attempt == 1 && !redrivenMsg(&msgs[i]):
			results[i].Err = Permanent("broken", errBroken)
		case h.fails(offset):
			results[i].Err = errFlaky
		default:
			results[i].Outputs = []Message{{Topic: parkOut, Key: msgs[i].Key, Value: []byte(strconv.Itoa(offset))}}
		}
	}
	return results
}

// redrivenMsg: what broke a record is put right before it is redriven.
func redrivenMsg(m *Message) bool {
	return slices.ContainsFunc(m.Headers, func(h topics.Header) bool { return h.Key == "corrected" })
}

func (h *parkHarness) source(offset int) *kgo.Record {
	return &kgo.Record{
		Topic: parkTopic, Offset: int64(offset), Timestamp: parkTime, Key: []byte("acme/shop/" + h.sc.keys[offset:offset+1]), Value: []byte("{}"),
	}
}

// session is one with a single partition, whose lot holds entries.
func (h *parkHarness) session(id string, entries []*entry) (*session, *partition) {
	s := &session{r: h.r, id: id, culprits: map[culprit]string{}, orders: h.r.orders.Load()}
	p := &partition{
		topicPartition: topicPartition{topic: parkTopic}, lot: newLot(), retry: topics.Retry(parkTopic, parkGroup), dlq: topics.DLQ(parkTopic, parkGroup),
	}
	for _, e := range entries {
		p.lot.put(e)
	}
	p.lot.commit()
	return s, p
}

// run is one transaction of a member.
func (h *parkHarness) run(id string, m *parkMember, fresh int, due bool, fails func(int) bool) (*parkTxn, []retried) {
	key := fmt.Sprint(id, m.next, fresh, due, keysOf(m.lot))
	for r := range h.sc.keys {
		key = fmt.Sprint(key, fails(r))
	}
	got, known := h.ran[key]
	if !known {
		got.txn, got.recs = h.runOnce(id, m, fresh, due, fails)
		h.ran[key] = got
	}
	txn := *got.txn
	return &txn, slices.Clone(got.recs)
}

func (h *parkHarness) runOnce(id string, m *parkMember, fresh int, due bool, fails func(int) bool) (*parkTxn, []retried) {
	s, p := h.session(id, m.lot)
	h.fails = fails
	w := s.newWork()
	w.p = p
	for offset := m.next; offset < m.next+fresh; offset++ {
		w.fresh = append(w.fresh, h.source(offset))
	}
	if due { // as gatherDue
		w.due = p.lot.due(parkTime.Add(time.Hour), 8)
		w.drain = 8 - len(w.due)
	}
	w.run(context.Background())
	if v := s.judge([]*work{w}); v.abort != "" {
		panic("a batch aborts: " + v.abort)
	}
	txn := &parkTxn{next: m.next + fresh, fenced: fresh > 0 || h.sc.wrong != unfencedRetries}
	var recs []retried
	for i := range w.out {
		switch rec := &w.out[i]; rec.Topic {
		case parkOut:
			n, _ := strconv.Atoi(string(rec.Value))
			txn.outs = append(txn.outs, n)
		case p.dlq:
			f, err := topics.DecodeFailure(headersOf(rec))
			if err != nil {
				panic(err)
			}
			txn.dlq = append(txn.dlq, int(f.Offset))
		default:
			recs = append(recs, h.retried(rec))
		}
	}
	p.lot.commit()
	txn.lot = entriesOf(p.lot)
	return txn, recs
}

// fold applies records of the retry topic to a lot.
func (h *parkHarness) fold(id string, lot []*entry, recs []retried, tail bool) []*entry {
	key := fmt.Sprint(id, tail, keysOf(lot))
	for _, r := range recs {
		key = fmt.Sprint(key, ";", r.offset, r.entry, writer(r.rec))
	}
	es, known := h.folded[key]
	if !known {
		es = h.foldOnce(id, lot, recs, tail)
		h.folded[key] = es
	}
	return es
}

func (h *parkHarness) foldOnce(id string, lot []*entry, recs []retried, tail bool) []*entry {
	s, p := h.session(id, lot)
	for _, r := range recs {
		s.foldRecord(p, parkedRecord{r.rec, tail})
	}
	return entriesOf(p.lot)
}

// retried is a record of the retry topic as the next owner would read it.
func (h *parkHarness) retried(rec *kgo.Record) retried {
	_, offset, err := topics.SplitParkedID(rec.Key)
	if err != nil {
		panic(err)
	}
	r := retried{offset: int(offset), rec: rec, open: -1}
	if rec.Value != nil {
		e, err := decodeParked(parkTopic, rec)
		if err != nil {
			panic(err)
		}
		r.entry = entryKey(e)
	}
	return r
}

// redrive is what an operator writes; TestRedrive_WritesWhatTheRunnerReads ties the form to the code that does.
func (h *parkHarness) redrive(offset int) retried {
	src := h.source(offset)
	f := topics.Failure{
		Topic: parkTopic, Offset: int64(offset), Time: src.Timestamp, Key: src.Key, Group: parkGroup, Handler: "normalize",
		NotBefore: parkTime, ReplayCount: 1, ReplayID: "job", Disposition: topics.DispositionManual,
	}
	rec := &kgo.Record{Topic: topics.Retry(parkTopic, parkGroup), Key: []byte(topics.ParkedID(0, src.Offset)), Value: src.Value}
	for _, hd := range f.Append([]topics.Header{{Key: "corrected", Value: []byte("1")}}) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(hd))
	}
	return h.retried(rec)
}

func (h *parkHarness) tombstone(offset int) *kgo.Record {
	return &kgo.Record{Topic: topics.Retry(parkTopic, parkGroup), Key: []byte(topics.ParkedID(0, int64(offset)))}
}

func headersOf(rec *kgo.Record) []topics.Header {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	return hs
}

func entriesOf(l *lot) []*entry {
	var es []*entry
	for _, e := range l.byOffset {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *entry) int { return compareOffset(a, b.msg.Offset) })
	return es
}

func keysOf(es []*entry) (keys []string) {
	for _, e := range es {
		keys = append(keys, entryKey(e))
	}
	return keys
}

// entryKey is all of an entry that decides what becomes of it.
func entryKey(e *entry) string {
	return fmt.Sprint(e.msg.Offset, "/", e.fail.Attempt, "/", e.fail.ReplayCount)
}

// key is everything but what follows from the rest.
func (sc *parkScene) key(s *parkState) string {
	b := make([]byte, 0, 200)
	n := func(xs ...int) {
		for _, x := range xs {
			b = strconv.AppendInt(append(b, ' '), int64(x), 10)
		}
	}
	list := func(xs []int) { n(xs...); b = append(b, ';') }
	n(s.committed, s.owner, s.left.rebalances, s.left.crashes, s.left.redrives, s.left.resets)
	list(s.outs)
	list(s.dlq)
	list(s.redriven)
	list(s.settled)
	b = strconv.AppendBool(b, s.cancelled)
	read := s.read()
	for at, r := range s.retry {
		n(r.offset, r.open)
		b = append(b, r.entry...)
		if at >= read { // who wrote it matters to those that have still to read it
			for i := range s.members {
				b = strconv.AppendBool(b, writer(r.rec) == sc.session(i, &s.members[i]))
			}
		}
	}
	for i := range s.members {
		m := &s.members[i]
		n(int(m.phase), m.next, m.pos)
		b = strconv.AppendBool(b, m.gen == s.gen)
		for _, e := range m.lot {
			b = append(append(b, ' '), entryKey(e)...)
		}
		if txn := m.txn; txn != nil {
			b = append(b, " t"...)
			n(txn.next)
			list(txn.outs)
			list(txn.dlq)
			b = strconv.AppendBool(strconv.AppendBool(b, txn.pending), txn.fenced)
			for _, e := range txn.lot {
				b = append(append(b, ' '), entryKey(e)...)
			}
		}
	}
	return string(b)
}
