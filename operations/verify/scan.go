package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/topics"
)

// offsets of partitions by topic.
type offsets map[string]map[int32]int64

func (o offsets) set(topic string, partition int32, offset int64) {
	if o[topic] == nil {
		o[topic] = map[int32]int64{}
	}
	o[topic][partition] = offset
}

func (o offsets) at(topic string, partition int32) int64 { return o[topic][partition] }

// only returns the offsets of some topics.
func (o offsets) only(names []string) offsets {
	out := offsets{}
	for _, t := range names {
		if o[t] != nil {
			out[t] = o[t]
		}
	}
	return out
}

// listed collects what kadm lists. A topic that does not exist has no partitions.
func listed(l kadm.ListedOffsets, err error) (offsets, error) {
	if err != nil {
		return nil, fmt.Errorf("listing offsets: %w", err)
	}
	out := offsets{}
	var errs []error
	l.Each(func(o kadm.ListedOffset) {
		switch {
		case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
		case o.Err != nil:
			errs = append(errs, fmt.Errorf("listing offsets of %s, partition %d: %w", o.Topic, o.Partition, o.Err))
		default:
			out.set(o.Topic, o.Partition, o.Offset)
		}
	})
	return out, errors.Join(errs...)
}

// stall is how long a reader waits for transactions that are open on a topic, which hold up what comes after them: longer than the
// longest transaction of ours, after which the broker ends it.
const stall = 3 * time.Minute

// lull is how long nothing must have come before a reader asks the broker whether there is anything left.
const lull = time.Second

// scanner reads committed records of partitions from one set of offsets up to another, each partition in order, several
// partitions at once.
type scanner struct {
	kafka []kgo.Opt
	each  func(ctx context.Context, recs []*kgo.Record) error // records of one partition; for several at once
	tell  func(done, total int64)

	next  offsets
	ends  offsets
	total int64
	done  int64
}

// run reads up to the ends. These are high watermarks, so that it waits for transactions that were open when they were taken: what
// such a transaction commits may be visible elsewhere already, as its markers are not written at one moment.
func (s *scanner) run(ctx context.Context, starts, ends offsets) error {
	s.next, s.ends = offsets{}, ends
	from := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range ends {
		for p, end := range partitions {
			start := starts.at(topic, p)
			if start >= end {
				continue
			}
			if from[topic] == nil {
				from[topic] = map[int32]kgo.Offset{}
			}
			from[topic][p] = kgo.NewOffset().At(start)
			s.next.set(topic, p, start)
			s.total += end - start
		}
	}
	if len(from) == 0 {
		return nil
	}
	client, err := kgo.NewClient(slices.Concat(s.kafka, []kgo.Opt{
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the last offset is often the marker of a transaction
		kgo.FetchMaxBytes(32 << 20), kgo.FetchMaxPartitionBytes(4 << 20), kgo.FetchMaxWait(250 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	})...)
	if err != nil {
		return fmt.Errorf("making a reader: %w", err)
	}
	defer client.Close()
	moved := time.Now()
	for len(s.next) > 0 {
		before := s.done
		if err := s.poll(ctx, client); err != nil {
			return err
		}
		if s.done > before {
			moved = time.Now()
			continue
		}
		if err := s.skipHoles(ctx, client); err != nil {
			return err
		}
		if len(s.next) > 0 && time.Since(moved) > stall {
			return s.stalled()
		}
	}
	return nil
}

// poll handles one fetch. The client fetches on while it is handled.
func (s *scanner) poll(ctx context.Context, client *kgo.Client) error {
	wait, cancel := context.WithTimeout(ctx, lull)
	defer cancel()
	fetches := client.PollFetches(wait)
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) {
			return fmt.Errorf("reading %s, partition %d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	byPartition := map[partition][]*kgo.Record{} // one partition may come in several pieces
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if _, open := s.next[p.Topic][p.Partition]; open && len(p.Records) > 0 {
			at := partition{p.Topic, p.Partition}
			byPartition[at] = append(byPartition[at], p.Records...)
		}
	})
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for at, recs := range byPartition {
		g.Go(func() error {
			end := s.ends.at(at.topic, at.number)
			recs := slices.DeleteFunc(slices.Clone(recs), func(r *kgo.Record) bool { return r.Attrs.IsControl() || r.Offset >= end })
			if len(recs) == 0 {
				return nil
			}
			return s.each(gctx, recs)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for at, recs := range byPartition {
		s.advance(client, at.topic, at.number, recs[len(recs)-1].Offset+1)
	}
	s.tell(s.done, s.total)
	return nil
}

type partition struct {
	topic  string
	number int32
}

func (s *scanner) advance(client *kgo.Client, topic string, partition int32, next int64) {
	end := s.ends.at(topic, partition)
	s.done += min(next, end) - s.next.at(topic, partition)
	s.next.set(topic, partition, next)
	if next < end {
		return
	}
	client.PauseFetchPartitions(map[string][]int32{topic: {partition}})
	delete(s.next[topic], partition)
	if len(s.next[topic]) == 0 {
		delete(s.next, topic)
	}
}

// skipHoles completes partitions whose last records were compacted away: the client returns nothing for them, so the broker is
// asked what it has from the position on. An empty answer while the last stable offset has reached the end is proof.
func (s *scanner) skipHoles(ctx context.Context, client *kgo.Client) error {
	meta, err := kadm.NewClient(client).ListTopics(ctx, mapsKeys(s.next)...)
	if err != nil {
		return fmt.Errorf("looking for what is left to read: %w", err)
	}
	for topic, partitions := range s.next {
		for p, next := range partitions {
			empty, err := nothingLeft(ctx, client, meta[topic], p, next, s.ends.at(topic, p))
			if err != nil {
				return fmt.Errorf("looking for what is left of %s, partition %d: %w", topic, p, err)
			}
			if empty {
				s.advance(client, topic, p, s.ends.at(topic, p))
			}
		}
	}
	return nil
}

func nothingLeft(ctx context.Context, client *kgo.Client, topic kadm.TopicDetail, partition int32, next, end int64) (bool, error) {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel, req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = 1, 1<<20, 10, -1
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = partition, next, 1<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = topic.Topic, topic.ID, []kmsg.FetchRequestTopicPartition{part}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, client.Broker(int(topic.Partitions[partition].Leader)))
	if err != nil {
		return false, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return false, errors.New("the broker answered for other partitions")
	}
	p := resp.Topics[0].Partitions[0]
	return len(p.RecordBatches) == 0 && p.LastStableOffset >= end, kerr.ErrorForCode(p.ErrorCode)
}

func (s *scanner) stalled() error {
	for topic, partitions := range s.next {
		for p, next := range partitions {
			return fmt.Errorf("%s, partition %d: nothing can be read from offset %d for %s: a transaction on it is open and does not end; "+
				"see `leat status` for its owner", topic, p, next, stall)
		}
	}
	return nil
}

func mapsKeys(o offsets) []string {
	names := make([]string, 0, len(o))
	for t := range o {
		names = append(names, t)
	}
	return names
}

// appendHeaders appends the headers of rec to hs.
func appendHeaders(hs []topics.Header, rec *kgo.Record) []topics.Header {
	for _, h := range rec.Headers {
		hs = append(hs, topics.Header{Key: h.Key, Value: h.Value})
	}
	return hs
}

func decode(rec *kgo.Record) (topics.Envelope, error) {
	var buf [24]topics.Header
	return topics.DecodeEnvelope(appendHeaders(buf[:0], rec))
}
