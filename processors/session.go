package processors

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

type topicPartition struct {
	topic     string
	partition int32
}

// partition is a source partition for as long as this session owns it. Assigned anew it is a new one, so that nothing
// computed before a rebalance survives it.
type partition struct {
	topicPartition
	retry, dlq string
	gone       atomic.Bool

	lot    *lot              // the loop's own
	orders *Orders           // under which the lot stands; the loop's own
	paused bool              // the loop's own
	marks  map[mark]struct{} // orders that were carried out; the loop's own

	inbox    []parkedRecord // guarded by session.mu
	foldDone bool           // guarded by session.mu
	folded   bool           // the loop's own: the inbox has been taken in up to the target

	view     atomic.Pointer[PartitionStatus]
	stable   atomic.Int64 // last stable offset
	logStart atomic.Int64 // the earliest offset that is kept; -1: not known yet
	stuck    atomic.Int64 // since when the last stable offset stands still below the high watermark, in ms; 0: it does not
	watched  int64        // the last stable offset that watchLag saw last; its own
	lastTime atomic.Int64 // timestamp of the last settled record, in ms
	caughtUp atomic.Int64 // when lag was last 0, in ms
}

// parkedRecord is a record of the retry topic, and whether it was written after the partition was assigned.
type parkedRecord struct {
	*kgo.Record
	tail bool
}

// session is the life of one Kafka client. A fatal error ends it; the Runner starts the next one.
type session struct {
	r         *Runner
	id        string // leat_writer of its records
	sess      *kgo.GroupTransactSession
	fold      *folder
	waker     waker
	asks      chan func()
	done      chan struct{} // closed when the loop has ended
	connected chan struct{} // closed when sess is set
	topicIDs  map[string][16]byte

	kafkaError atomic.Pointer[string] // why Kafka does not answer; nil if it does
	isolating  atomic.Bool
	rebalanced atomic.Bool // partitions were taken since the last End
	limit      int         // records of one transaction while isolating; 0: no limit
	culprits   map[culprit]string
	orders     *Orders     // of the batch in flight
	settlings  []*settling // orders about parked records that are to be carried out
	guessOff   bool        // the guess of a systemic failure has lasted too long
	recordSize int         // average
	aborted    int         // transactions in a row that a rebalance undid
	spare      []*work     // whose buffers are free

	mu         sync.Mutex
	parts      map[topicPartition]*partition
	partitions map[string]int // of each source topic
	fatal      error
}

// culprit is a record whose results Kafka refuses.
type culprit struct {
	topicPartition
	offset int64
}

func (r *Runner) newSession() (*session, error) {
	var id [8]byte
	_, _ = rand.Read(id[:])
	s := &session{
		r: r, id: hex.EncodeToString(id[:]), asks: make(chan func(), 16), done: make(chan struct{}), connected: make(chan struct{}),
		parts: map[topicPartition]*partition{}, culprits: map[culprit]string{}, recordSize: 1 << 10, orders: r.orders.Load(),
	}
	var err error
	s.fold, err = newFolder(s, r.cfg.Kafka)
	return s, err
}

// connect verifies the topics and joins the group.
func (s *session) connect(ctx context.Context) error {
	err := s.verify(ctx)
	for range 20 { // a topic just made is not known to every broker at once
		if !errors.Is(err, errTopics) || ctx.Err() != nil {
			break
		}
		sleep(ctx, 250*time.Millisecond)
		err = s.verify(ctx)
	}
	if err != nil {
		return err
	}
	sess, err := kgo.NewGroupTransactSession(s.r.cfg.clientOptions(s)...)
	if err != nil {
		return fmt.Errorf("creating the client: %w", err)
	}
	// The client would ask for its producer id with the first record. Asked for now, it aborts what an earlier process of this
	// instance has left open; else the fetch of the committed offsets would wait until that transaction times out.
	if _, _, err := sess.Client().ProducerID(ctx); err != nil {
		sess.CloseAllowingRebalance()
		return fmt.Errorf("taking the transactional id %s: %w", s.r.cfg.transactionalID(), err)
	}
	s.sess = sess
	close(s.connected)
	return nil
}

// errTopics is an error that only `leat topics apply` can help.
var errTopics = errors.New("run `leat topics apply`")

// verify checks that every topic read has a retry and a dead-letter topic with as many partitions.
func (s *session) verify(ctx context.Context) error {
	cfg := &s.r.cfg
	var names []string
	for _, t := range cfg.Topics {
		names = append(names, t, topics.Retry(t, cfg.Group), topics.DLQ(t, cfg.Group))
	}
	details, err := s.fold.adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	var errs []error
	partitions, ids := map[string]int{}, map[string][16]byte{}
	for i, name := range names {
		d, ok := details[name]
		if !ok || d.Err != nil {
			err := d.Err
			if !ok || errors.Is(err, kerr.UnknownTopicOrPartition) {
				err = fmt.Errorf("does not exist: %w", errTopics)
			}
			errs = append(errs, fmt.Errorf("topic %s: %w", name, err))
			continue
		}
		partitions[name], ids[name] = len(d.Partitions), d.ID
		if source := names[i-i%3]; partitions[source] != 0 && partitions[name] != partitions[source] {
			errs = append(errs, fmt.Errorf("topic %s has %d partitions, %s has %d: %w",
				name, partitions[name], source, partitions[source], errTopics))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions, s.topicIDs = partitions, ids
	return errors.Join(errs...)
}

// assign is called when partitions are given to this session, after their committed offsets have been fetched and before
// they are read. A partition without a committed offset is read from its beginning. It is paused until its retry partition
// is folded.
func (s *session) assign(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	select {
	case <-s.connected: // the client calls this as soon as it is made, perhaps before s knows it
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var starts kadm.ListedOffsets
	var added []*partition
	paused := map[string][]int32{}
	for topic, ps := range offsets {
		for p, o := range ps {
			next := o.EpochOffset().Offset
			if next < 0 { // a number from now on, so that an abort before the first commit rewinds to it
				var err error
				if starts == nil {
					if starts, err = s.fold.adm.ListStartOffsets(ctx, s.r.cfg.Topics...); err != nil {
						return nil, err
					}
				}
				l, ok := starts.Lookup(topic, p)
				if !ok || l.Err != nil {
					return nil, fmt.Errorf("listing the start of %s/%d: %w", topic, p, cmpErr(l.Err))
				}
				next = l.Offset
				ps[p] = kgo.NewOffset().At(next)
			}
			paused[topic] = append(paused[topic], p)
			added = append(added, s.newPartition(topicPartition{topic, p}, next))
		}
	}
	s.sess.Client().PauseFetchPartitions(paused)
	s.mu.Lock()
	for _, p := range added {
		if old := s.parts[p.topicPartition]; old != nil {
			old.gone.Store(true)
		}
		if n := s.partitions[p.topic]; int(p.partition) >= n && s.fatal == nil {
			s.fatal = fmt.Errorf("topic %s has more than the %d partitions of its retry topic: %w", p.topic, n, errTopics)
		}
		s.parts[p.topicPartition] = p
	}
	s.mu.Unlock()
	s.fold.add(added)
	return offsets, nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("not found")
	}
	return err
}

func (s *session) newPartition(tp topicPartition, next int64) *partition {
	p := &partition{
		topicPartition: tp, lot: newLot(), paused: true,
		retry: topics.Retry(tp.topic, s.r.cfg.Group), dlq: topics.DLQ(tp.topic, s.r.cfg.Group),
	}
	p.view.Store(&PartitionStatus{Topic: tp.topic, Partition: tp.partition, State: "folding", Offset: next})
	p.caughtUp.Store(s.r.now().UnixMilli())
	p.logStart.Store(-1)
	return p
}

// observe notes what the broker has of p. A last stable offset below the high watermark is a transaction that is open; one that
// does not move from one look to the next is a transaction that does not end, and nobody can read past it.
func (p *partition) observe(start, stable, end int64, now time.Time) {
	p.logStart.Store(start)
	p.stable.Store(stable)
	switch {
	case stable >= end:
		p.stuck.Store(0)
	case stable != p.watched || p.stuck.Load() == 0:
		p.stuck.Store(now.UnixMilli())
	}
	p.watched = stable
}

// retain forgets every partition that is not in assigned. The client's own callbacks cannot be relied on for this:
// GroupTransactSession swallows the second of two revocations without an End in between. See trackingBalancer.
func (s *session) retain(assigned map[string][]int32) {
	keep := map[topicPartition]bool{}
	for t, ps := range assigned {
		for _, p := range ps {
			keep[topicPartition{t, p}] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, p := range s.parts {
		if !keep[tp] {
			p.gone.Store(true)
			delete(s.parts, tp)
		}
	}
	s.fold.waker.wake()
}

// trackingBalancer tells the session what it owns at each step of a rebalance: what it takes along into it, and what it is
// given. What is in neither is forgotten at once.
type trackingBalancer struct {
	kgo.GroupBalancer
	retain func(map[string][]int32)
}

// JoinGroupMetadata implements kgo.GroupBalancer.
func (b trackingBalancer) JoinGroupMetadata(interests []string, current map[string][]int32, generation int32) []byte {
	b.retain(current)
	return b.GroupBalancer.JoinGroupMetadata(interests, current, generation)
}

// ParseSyncAssignment implements kgo.GroupBalancer.
func (b trackingBalancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	assigned, err := b.GroupBalancer.ParseSyncAssignment(assignment)
	if err == nil {
		b.retain(assigned)
	}
	return assigned, err
}

func (s *session) revoked(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	if len(parts) == 0 {
		return
	}
	s.r.metrics.rebalances.Inc()
	s.forget(parts)
}

func (s *session) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	s.r.metrics.rebalances.Inc()
	s.forget(parts)
}

func (s *session) forget(parts map[string][]int32) {
	s.mu.Lock()
	for t, ps := range parts {
		for _, n := range ps {
			if p := s.parts[topicPartition{t, n}]; p != nil {
				p.gone.Store(true)
				delete(s.parts, p.topicPartition)
			}
		}
	}
	s.mu.Unlock()
	s.rebalanced.Store(true)
	s.waker.wake()
}

func (s *session) owned() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	ps := make([]*partition, 0, len(s.parts))
	for _, p := range s.parts {
		ps = append(ps, p)
	}
	return ps
}

// waker ends a wait: of the poll in progress, or else of the next one.
type waker struct {
	mu      sync.Mutex
	pending bool
	cancel  context.CancelFunc
}

func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = true
	if w.cancel != nil {
		w.cancel()
	}
}

// context returns a context that ends at the next wake, and stop, which releases it and forgets the wake.
func (w *waker) context(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending {
		cancel()
	}
	w.pending, w.cancel = false, cancel
	return ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cancel = nil
		cancel()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
