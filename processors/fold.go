package processors

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// folder reads the retry partitions of the source partitions that a session owns, and hands their records to it in order:
// first everything up to the high watermark, then whatever operators write.
//
// It is a consumer of its own without a group: the group assigns source partitions, and the retry partition of each follows.
type folder struct {
	s   *session
	cl  *kgo.Client
	adm *kadm.Client

	waker waker
	mu    sync.Mutex
	added []*partition // since the reader looked last

	reading map[topicPartition]*folding // by retry partition; the reader's own
}

// folding is the position in one retry partition.
type folding struct {
	p      *partition
	next   int64 // position: everything below has been delivered
	target int64 // high watermark at the time of the assignment
	done   bool
	quiet  time.Time // when to ask the broker what is left, if nothing comes
}

// foldQuiet is how long the reader waits for a record before it asks whether there is one.
const foldQuiet = 250 * time.Millisecond

func newFolder(s *session, opts []kgo.Opt) (*folder, error) {
	cl, err := kgo.NewClient(append(slices.Clone(opts),
		// No topics: partitions are added as the group assigns them.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// With commit markers the position is exact: the last record below the high watermark may be a marker.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(8<<20),
	)...)
	if err != nil {
		return nil, fmt.Errorf("creating the client for retry topics: %w", err)
	}
	return &folder{s: s, cl: cl, adm: kadm.NewClient(cl), reading: map[topicPartition]*folding{}}, nil
}

// add starts to fold p's retry partition.
func (f *folder) add(ps []*partition) {
	f.mu.Lock()
	f.added = append(f.added, ps...)
	f.mu.Unlock()
	f.waker.wake()
}

// run reads until ctx has ended.
func (f *folder) run(ctx context.Context) {
	defer f.cl.Close()
	for ctx.Err() == nil {
		if err := f.refresh(ctx); err != nil && ctx.Err() == nil {
			f.s.r.log.Warn("reading retry topics", "error", err)
			sleep(ctx, time.Second)
			continue
		}
		f.poll(ctx)
	}
}

// refresh drops partitions that were taken away and starts those that were given.
func (f *folder) refresh(ctx context.Context) error {
	for key, fd := range f.reading {
		if fd.p.gone.Load() {
			f.cl.RemoveConsumePartitions(map[string][]int32{key.topic: {key.partition}})
			delete(f.reading, key)
		}
	}
	f.mu.Lock()
	added := slices.DeleteFunc(slices.Clone(f.added), func(p *partition) bool { return p.gone.Load() })
	f.mu.Unlock()
	if len(added) == 0 {
		return nil
	}
	names := map[string]bool{}
	for _, p := range added {
		names[p.retry] = true
	}
	// The high watermark, not the last stable offset, and taken after the session has fetched p's committed offset, which
	// waits until no transaction on it is open. Why this makes the fold complete: whatever an earlier owner of p has written
	// to the retry partition, it wrote in a transaction that also committed an offset of p under its generation of the group
	// (see session.end). Either that commit came before our fetch of the offset, then its records are below the
	// watermark; or it comes later, then the coordinator refuses the generation and the transaction aborts. If one is still
	// open in between, its records are below the watermark and above the last stable offset, and reading under read_committed
	// up to the watermark waits until its end is known.
	ends, err := f.adm.ListEndOffsets(ctx, slices.Collect(maps.Keys(names))...)
	if err != nil {
		return err
	}
	starts, err := f.adm.ListStartOffsets(ctx, slices.Collect(maps.Keys(names))...)
	if err != nil {
		return err
	}
	for _, p := range added {
		if err := f.start(p, starts, ends); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.added = slices.DeleteFunc(f.added, func(p *partition) bool { return slices.Contains(added, p) || p.gone.Load() })
	f.mu.Unlock()
	return nil
}

func (f *folder) start(p *partition, starts, ends kadm.ListedOffsets) error {
	key := topicPartition{p.retry, p.partition}
	start, ok1 := starts.Lookup(key.topic, key.partition)
	end, ok2 := ends.Lookup(key.topic, key.partition)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no partition %d", key.topic, key.partition)
	}
	if err := errors.Join(start.Err, end.Err); err != nil {
		return fmt.Errorf("listing offsets of %s/%d: %w", key.topic, key.partition, err)
	}
	fd := &folding{p: p, next: start.Offset, target: end.Offset, quiet: time.Now().Add(foldQuiet)}
	f.reading[key] = fd
	f.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{
		key.topic: {key.partition: kgo.NewOffset().At(start.Offset)},
	})
	f.deliver(fd, nil)
	return nil
}

func (f *folder) poll(ctx context.Context) {
	pollCtx, stop := f.waker.context(ctx)
	defer stop()
	busy := slices.ContainsFunc(slices.Collect(maps.Values(f.reading)), func(fd *folding) bool { return !fd.done })
	if busy {
		var cancel context.CancelFunc
		pollCtx, cancel = context.WithTimeout(pollCtx, foldQuiet)
		defer cancel()
	}
	fetches := f.cl.PollRecords(pollCtx, 5_000)
	fetches.EachError(func(t string, p int32, err error) {
		if ctx.Err() == nil && pollCtx.Err() == nil {
			f.s.r.log.Warn("reading retry topic", "topic", t, "partition", p, "error", err)
		}
	})
	fetches.EachPartition(func(tp kgo.FetchTopicPartition) {
		fd := f.reading[topicPartition{tp.Topic, tp.Partition}]
		if fd == nil || len(tp.Records) == 0 {
			return
		}
		fd.next = tp.Records[len(tp.Records)-1].Offset + 1
		fd.quiet = time.Now().Add(foldQuiet)
		f.deliver(fd, tp.Records)
		f.backOff(ctx, fd)
	})
	for key, fd := range f.reading {
		if !fd.done && time.Now().After(fd.quiet) {
			fd.quiet = time.Now().Add(foldQuiet)
			if err := f.skipHole(ctx, key, fd); err != nil && ctx.Err() == nil {
				f.s.r.log.Warn("reading the end of a retry topic", "topic", key.topic, "partition", key.partition, "error", err)
			}
		}
	}
}

// deliver hands recs to the session, with the news that the fold is complete if it is.
func (f *folder) deliver(fd *folding, recs []*kgo.Record) {
	fd.done = fd.done || fd.next >= fd.target
	f.s.mu.Lock()
	for _, rec := range recs {
		if !rec.Attrs.IsControl() {
			// Below the target everything counts, also what this session wrote when it owned the partition before.
			fd.p.inbox = append(fd.p.inbox, parkedRecord{rec, rec.Offset >= fd.target})
		}
	}
	fd.p.foldDone = fd.done
	f.s.mu.Unlock()
	f.s.waker.wake()
}

// backOff waits while the session has much to take in.
func (f *folder) backOff(ctx context.Context, fd *folding) {
	for ctx.Err() == nil && !fd.p.gone.Load() {
		f.s.mu.Lock()
		n := len(fd.p.inbox)
		f.s.mu.Unlock()
		if n < 20_000 {
			return
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// skipHole completes a fold whose last records were compacted away: the client returns nothing for them, so the broker is
// asked what it has from the position on. An empty answer while the last stable offset has reached the target is proof.
func (f *folder) skipHole(ctx context.Context, key topicPartition, fd *folding) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	meta, err := f.adm.ListTopics(ctx, key.topic)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel, req.MaxBytes, req.MaxWaitMillis = 1, 1<<20, 10
	req.SessionEpoch = -1
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = key.partition, fd.next, 1<<20
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = key.topic, meta[key.topic].ID
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, f.cl.Broker(int(meta[key.topic].Partitions[key.partition].Leader)))
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			if len(p.RecordBatches) == 0 && p.LastStableOffset >= fd.target {
				fd.next = fd.target
				f.deliver(fd, nil)
			}
		}
	}
	return nil
}
