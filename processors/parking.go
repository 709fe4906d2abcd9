package processors

import (
	"container/heap"
	"slices"
	"strconv"
	"time"

	"github.com/leat-io/leat/topics"
)

// entry is one parked record. It is immutable once it is in a lot: a change is a new entry, so that undo is a pointer.
type entry struct {
	msg    Message // as it was read from the source topic; Attempt is unused
	fail   topics.Failure
	size   int
	tenant string
}

func newEntry(msg Message, fail topics.Failure) *entry {
	size := len(msg.Key) + len(msg.Value) + 256
	for _, h := range msg.Headers {
		size += len(h.Key) + len(h.Value)
	}
	return &entry{msg: msg, fail: fail, size: size, tenant: tenantOf(msg.Key, msg.Headers)}
}

// lot is the parking lot of one source partition: for each key that has failed, the failed record and every later one of the
// key, in the order of their offsets in the source topic. Only the head of a queue may be handled; the rest is blocked by it.
//
// It is a pure state machine. Its state is a function of the set of entries alone, whatever order they came in, so that
// folding the retry topic after a restart gives the state that was lost. Changes since the last commit can be undone,
// because they are true only if the Kafka transaction that writes them commits.
type lot struct {
	queues   map[string]*queue
	byOffset map[int64]*entry
	heads    headHeap // one per queue, by the time its head is due
	bytes    int
	undo     []change

	held  map[string]string // tenants whose records wait by order
	freed time.Time         // when that changed last
}

type queue struct {
	key     string
	entries []*entry // by source offset
	index   int      // in heads
	held    bool     // the head's tenant waits by order: it is not due, whatever its time
}

func (q *queue) head() *entry { return q.entries[0] }

// change remembers what was at an offset before it changed: nil if nothing.
type change struct {
	offset int64
	prev   *entry
}

func newLot() *lot {
	return &lot{queues: map[string]*queue{}, byOffset: map[int64]*entry{}}
}

// parkingKey is what a record queues under. A record without a key has no order to keep, so it queues alone.
func parkingKey(key []byte, offset int64) string {
	if key == nil {
		return "\x00" + strconv.FormatInt(offset, 10)
	}
	return string(key)
}

// parked reports whether a record has to wait: because its key has a queue.
func (l *lot) parked(key []byte, offset int64) bool {
	if len(l.queues) == 0 {
		return false
	}
	if key == nil {
		return l.byOffset[offset] != nil
	}
	_, ok := l.queues[string(key)]
	return ok
}

// blocked reports whether e is not, or no longer, the head of its queue.
func (l *lot) blocked(e *entry) bool {
	q := l.queues[parkingKey(e.msg.Key, e.msg.Offset)]
	return q == nil || q.head().msg.Offset != e.msg.Offset
}

// hold makes the records of tenants wait, and those of no other tenant. Like the entries themselves it is a part of the state, so
// that a lot that is folded anew while a tenant is held is the same.
func (l *lot) hold(tenants map[string]string, now time.Time) {
	if len(tenants)+len(l.held) == 0 {
		return
	}
	l.held, l.freed = tenants, now
	for _, q := range l.heads {
		q.held = l.holds(q.head().tenant)
	}
	heap.Init(&l.heads)
}

func (l *lot) holds(tenant string) bool {
	_, ok := l.held[tenant]
	return ok
}

// queued returns the first entries of e's queue that are not held, at most n.
func (l *lot) queued(e *entry, n int) []*entry {
	q := l.queues[parkingKey(e.msg.Key, e.msg.Offset)]
	if q == nil || n <= 0 {
		return nil
	}
	first := q.entries[:min(len(q.entries), n)]
	for i, e := range first {
		if l.holds(e.tenant) {
			return first[:i]
		}
	}
	return first
}

// put parks e, or replaces the entry of the same offset.
func (l *lot) put(e *entry) {
	l.undo = append(l.undo, change{e.msg.Offset, l.byOffset[e.msg.Offset]})
	l.set(e.msg.Offset, e)
}

// remove takes the entry at offset out, if there is one.
func (l *lot) remove(offset int64) {
	if prev := l.byOffset[offset]; prev != nil {
		l.undo = append(l.undo, change{offset, prev})
		l.set(offset, nil)
	}
}

// commit makes the changes since the last commit final.
func (l *lot) commit() { l.undo = l.undo[:0] }

// rollback undoes the changes since the last commit.
func (l *lot) rollback() {
	for _, c := range slices.Backward(l.undo) {
		l.set(c.offset, c.prev)
	}
	l.undo = l.undo[:0]
}

func (l *lot) set(offset int64, e *entry) {
	if prev := l.byOffset[offset]; prev != nil {
		l.bytes -= prev.size
		delete(l.byOffset, offset)
		l.dequeue(prev)
	}
	if e != nil {
		l.bytes += e.size
		l.byOffset[offset] = e
		l.enqueue(e)
	}
}

func (l *lot) enqueue(e *entry) {
	key := parkingKey(e.msg.Key, e.msg.Offset)
	q := l.queues[key]
	if q == nil {
		q = &queue{key: key, entries: []*entry{e}, held: l.holds(e.tenant)}
		l.queues[key] = q
		heap.Push(&l.heads, q)
		return
	}
	i, _ := slices.BinarySearchFunc(q.entries, e.msg.Offset, compareOffset)
	q.entries = slices.Insert(q.entries, i, e)
	if i == 0 {
		l.newHead(q)
	}
}

func (l *lot) newHead(q *queue) {
	q.held = l.holds(q.head().tenant)
	heap.Fix(&l.heads, q.index)
}

func (l *lot) dequeue(e *entry) {
	key := parkingKey(e.msg.Key, e.msg.Offset)
	q := l.queues[key]
	i, _ := slices.BinarySearchFunc(q.entries, e.msg.Offset, compareOffset)
	if len(q.entries) == 1 {
		heap.Remove(&l.heads, q.index)
		delete(l.queues, key)
		return
	}
	if i == 0 { // not Delete, which would move the whole of a long queue each time it drains by one
		q.entries[0] = nil
		q.entries = q.entries[1:]
		l.newHead(q)
		return
	}
	q.entries = slices.Delete(q.entries, i, i+1)
}

func compareOffset(e *entry, offset int64) int {
	switch {
	case e.msg.Offset < offset:
		return -1
	case e.msg.Offset > offset:
		return 1
	}
	return 0
}

// nextDue returns when the first head is due; ok is false if none will be.
func (l *lot) nextDue() (at time.Time, ok bool) {
	if len(l.heads) == 0 || l.heads[0].held {
		return time.Time{}, false
	}
	return l.heads[0].head().fail.NotBefore, true
}

// due returns up to n heads that are due, in the order of their source offsets.
func (l *lot) due(now time.Time, n int) []*entry {
	var due []*entry
	var walk func(i int)
	walk = func(i int) { // a child in the heap is never due before its parent
		if i >= len(l.heads) || len(due) >= n || l.heads[i].held || l.heads[i].head().fail.NotBefore.After(now) {
			return
		}
		due = append(due, l.heads[i].head())
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
	slices.SortFunc(due, func(a, b *entry) int { return compareOffset(a, b.msg.Offset) })
	return due
}

// oldest returns when the longest waiting head failed first; ok is false if nothing has failed.
func (l *lot) oldest() (at time.Time, ok bool) {
	for _, q := range l.heads {
		if t := q.head().fail.FirstFailedAt; !t.IsZero() && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

type headHeap []*queue

func (h headHeap) Len() int { return len(h) }
func (h headHeap) Less(i, j int) bool {
	if h[i].held != h[j].held {
		return h[j].held
	}
	return h[i].head().fail.NotBefore.Before(h[j].head().fail.NotBefore)
}

func (h headHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *headHeap) Push(x any) {
	q := x.(*queue)
	q.index = len(*h)
	*h = append(*h, q)
}

func (h *headHeap) Pop() any {
	old := *h
	q := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return q
}
