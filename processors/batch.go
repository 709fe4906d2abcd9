package processors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// loop polls and transacts until pollCtx ends or the client fails. All state of partitions but their inboxes is its own.
func (s *session) loop(pollCtx, workCtx context.Context) error {
	for pollCtx.Err() == nil {
		held := s.hold()
		if held > 0 && len(s.settlings) == 0 {
			s.pause(pollCtx, held)
			continue
		}
		works, err := s.next(pollCtx, workCtx, held > 0)
		if err == nil && len(works) > 0 {
			err = s.transact(workCtx, works)
		}
		s.sess.AllowRebalance()
		if err != nil {
			return err
		}
		if n := s.aborted - 2; n > 0 { // a rebalance or two are nothing; a group that commits nothing needs some rest
			s.pause(pollCtx, min(10*time.Millisecond<<n, time.Second))
		}
	}
	return nil
}

// pause waits for the breaker, or for an order to be lifted. The group goes on: nothing is polled, so rebalances are not held up.
func (s *session) pause(ctx context.Context, d time.Duration) {
	ctx, stop := s.waker.context(ctx)
	defer stop()
	sleep(ctx, d)
	s.takeIn()
}

// next polls, and returns the work of the next transaction: what was polled and what is due. Rebalances are blocked from here on
// until AllowRebalance. It returns no work if there is none, or if a rebalance made what was polled void. While the session is held
// nothing is polled and nothing is due: the work is what operators want of parked records.
func (s *session) next(pollCtx, workCtx context.Context, held bool) ([]*work, error) {
	limit := s.batchLimit()
	due, wait := s.nextDue()
	if held {
		limit = 0
	}
	if held || len(s.settlings) > 0 {
		due, wait = true, 0
	}
	ctx, stop := s.waker.context(pollCtx)
	if due && wait > 0 {
		timer := time.AfterFunc(wait, stop)
		defer timer.Stop()
	} else if due {
		stop()
	}
	polled, err := s.poll(ctx, limit)
	stop()
	if err != nil {
		return nil, err
	}
	s.takeIn()
	s.mu.Lock()
	err = s.fatal
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.rebalanced.Swap(false) {
		// The session would abort the next transaction. Ending it now, before any work, costs one fetch.
		clear(s.culprits)
		_, err := s.sess.End(workCtx, kgo.TryAbort)
		return nil, wrapEnd(err)
	}
	works, ok := s.gather(polled, limit)
	if !ok {
		_, err := s.sess.End(workCtx, kgo.TryAbort)
		return nil, wrapEnd(err)
	}
	return works, nil
}

// batchLimit is how many records the next transaction may hold.
func (s *session) batchLimit() int {
	limit := s.r.cfg.MaxRecords
	if s.limit > 0 {
		limit = min(limit, s.limit)
	}
	if probing, guessed := s.r.breaker.probing(); probing && guessed {
		// The guess was a rule on many keys: one record, perhaps a broken one, could not confirm or refute it.
		limit = min(limit, 2*s.r.cfg.Systemic.MinKeys)
	} else if probing {
		limit = 1
	}
	return limit
}

// poll returns records by partition, at most limit, about as many bytes as configured.
func (s *session) poll(ctx context.Context, limit int) (map[topicPartition]*work, error) {
	polled := map[topicPartition]*work{}
	records, bytes := 0, 0
	onlyReady := ctx.Err() != nil // something is due: only what is fetched already comes along
	if onlyReady {
		defer func() {
			if records == 0 {
				s.sess.PollRecords(ctx, 1) // returns nothing, but blocks rebalances, which an empty poll does not
			}
		}()
	}
	for records < limit && bytes < s.r.cfg.MaxBytes {
		// Only what fits by the average size is taken at a time: what is polled cannot be given back.
		n := min(limit-records, max(1, (s.r.cfg.MaxBytes-bytes)/s.recordSize))
		var wait context.Context // nil: no wait
		if !onlyReady {
			wait = ctx
		}
		fetches := s.sess.PollRecords(wait, n)
		got, size := 0, 0
		var failed error
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if f.Err != nil && !errors.Is(f.Err, context.Canceled) && !errors.Is(f.Err, context.DeadlineExceeded) {
				s.r.log.Warn("fetching records", "topic", f.Topic, "partition", f.Partition, "error", f.Err)
				failed = fatalFetch(f)
			}
			if len(f.Records) == 0 {
				return
			}
			tp := topicPartition{f.Topic, f.Partition}
			w := polled[tp]
			if w == nil {
				w = s.newWork()
				w.stable = f.LastStableOffset
				polled[tp] = w
			}
			got += len(f.Records)
			size += w.add(f.Records)
		})
		if failed != nil {
			return nil, failed
		}
		if got == 0 {
			break
		}
		records, bytes = records+got, bytes+size
		s.recordSize = max(1, (3*s.recordSize+size/got)/4)
		onlyReady = true
	}
	return polled, nil
}

// fatalFetch returns the error of a partition that would never be fetched again, or nil.
func fatalFetch(f kgo.FetchTopicPartition) error {
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(f.Err, kgo.ErrClientClosed):
	case f.Topic == "", kerr.IsRetriable(f.Err), errors.As(f.Err, &loss):
		return nil
	}
	return fmt.Errorf("fetching %s/%d: %w", f.Topic, f.Partition, f.Err)
}

// gather adds the partitions and what is due in them. It reports false if a record was polled of a partition that is not
// ready, which must not be lost.
func (s *session) gather(polled map[topicPartition]*work, limit int) ([]*work, bool) {
	works := make([]*work, 0, len(polled))
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := 0
	for tp, w := range polled {
		if w.p = s.parts[tp]; w.p == nil || !w.p.folded {
			return nil, false
		}
		w.p.stable.Store(w.stable)
		fresh += len(w.fresh)
		works = append(works, w)
		if len(w.fresh) == 0 {
			s.publish(w.p, w.next) // commit markers only
		}
	}
	works = s.gatherDue(s.gatherOrders(works), limit-fresh)
	if fresh == 0 && !hasParked(works) {
		return nil, true // commit markers only: their offset goes along with the next record
	}
	return works, true
}

// gatherDue adds what is due to works, at most limit. A partition with an order about parked records has its turn afterwards.
func (s *session) gatherDue(works []*work, limit int) []*work {
	now := s.r.now()
	for _, p := range s.parts {
		if !p.folded || limit <= 0 {
			continue
		}
		due := p.lot.due(now, limit)
		if len(due) == 0 {
			continue
		}
		w := find(works, p)
		if w == nil {
			w = s.newWork()
			w.p = p
			works = append(works, w)
		}
		if len(w.orders) > 0 {
			continue
		}
		w.due, w.drain = due, limit-len(due)
		limit -= len(due)
	}
	return works
}

func hasParked(works []*work) bool {
	for _, w := range works {
		if len(w.due) > 0 || len(w.orders) > 0 {
			return true
		}
	}
	return false
}

// transact runs the handlers and commits. It returns an error only if the client or the handler is of no more use.
func (s *session) transact(workCtx context.Context, works []*work) error {
	ctx, cancel := context.WithCancelCause(workCtx)
	defer cancel(nil)
	s.r.watchdog.begin(cancel)
	defer s.r.watchdog.end()
	if err := s.sess.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	promise := kgo.AbortingFirstErrPromise(s.sess.Client())
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, w := range works {
		g.Go(func() error {
			w.run(ctx)
			if w.stop == nil {
				w.send(promise)
			}
			return nil
		})
	}
	_ = g.Wait()
	verdict := s.judge(works)
	if verdict.abort != "" {
		return s.abort(ctx, works, verdict)
	}
	if err := s.sess.Client().Flush(ctx); err != nil {
		return fmt.Errorf("flushing: %w", context.Cause(ctx))
	}
	if err := promise.Err(); err != nil {
		return s.abort(ctx, works, s.refused(works, err))
	}
	committed, err := s.end(ctx, works)
	switch {
	case err != nil:
		s.rollback(works)
		s.count("error", "end")
		return wrapEnd(err)
	case !committed:
		s.rollback(works)
		s.count("aborted", "rebalance")
		s.aborted = min(s.aborted+1, 16)
	default:
		s.aborted = 0
		s.commit(works)
	}
	s.recycle(works)
	return nil
}

// end commits, fenced by the group's generation.
//
// A member that has lost its partitions without knowing must not commit. For a batch with new input, Kafka sees to it: the offsets
// are committed under the member's generation. A batch of retries alone has no new offsets, and GroupTransactSession would commit it
// without asking the group: a zombie's retry could come after the new owner has read the retry partition. So the
// unchanged offset of every partition touched is committed too. It is refused if the generation is old; and while it is pending, a
// new owner's fetch of that offset waits (KIP-447), so that it folds the retry partition after this transaction.
func (s *session) end(ctx context.Context, works []*work) (bool, error) {
	offsets := s.sess.Client().CommittedOffsets()
	fn := func(req *kmsg.TxnOffsetCommitRequest) error {
		for _, w := range works {
			if err := s.touch(req, w.p.topicPartition, offsets); err != nil {
				return err
			}
		}
		return nil
	}
	// A member that was thrown out of its group while its batch was in flight would wait here for ever: the client waits for a heartbeat
	// or for the loss of its partitions, and the loss waits until rebalances are allowed, which is after this. Cut short, the
	// session ends, and the next one aborts what is open. Kafka would do that only after the whole timeout, and readers wait for it.
	ctx, cancel := context.WithTimeout(ctx, s.r.cfg.TransactionTimeout/4)
	defer cancel()
	return s.sess.End(kgo.PreTxnCommitFnContext(ctx, fn), kgo.TryCommit)
}

// touch adds the unchanged offset of tp to req, unless a new one is there.
func (s *session) touch(req *kmsg.TxnOffsetCommitRequest, tp topicPartition, offsets map[string]map[int32]kgo.EpochOffset) error {
	at := -1
	for i := range req.Topics {
		if req.Topics[i].Topic == tp.topic {
			at = i
		}
	}
	if at < 0 {
		at = len(req.Topics)
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic, t.TopicID = tp.topic, s.topicIDs[tp.topic]
		req.Topics = append(req.Topics, t)
	}
	t := &req.Topics[at]
	for _, p := range t.Partitions {
		if p.Partition == tp.partition {
			return nil
		}
	}
	o, ok := offsets[tp.topic][tp.partition]
	if !ok {
		return fmt.Errorf("no committed offset known of %s/%d", tp.topic, tp.partition)
	}
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = tp.partition, o.Offset, o.Epoch, &req.MemberID
	t.Partitions = append(t.Partitions, p)
	return nil
}

func wrapEnd(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ending a transaction: %w", err)
}

// isFenced reports whether another producer took the transactional id, or the coordinator gave this one up.
func isFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.FencedInstanceID)
}
