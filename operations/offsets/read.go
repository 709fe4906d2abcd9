package offsets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stretch is a range of offsets of one partition to be read under read_committed.
type stretch struct {
	topic     string
	partition int32
	from, to  int64 // offsets from <= o < to

	// each gets the records in order, without markers and aborted ones; more tells whether the rest is wanted.
	each func(recs []*kgo.Record) (more bool, err error)

	next    int64 // everything below has been read; where it stands when reading has ended
	stopped bool  // each wanted no more; else all there is has been read
}

func (s *stretch) left() bool { return s.next < s.to }

// reader reads stretches exactly to their ends. A consumer cannot: where the last offsets of a range are markers, aborted records or
// holes left by compaction, it waits for records that never come, and only a clock could tell.
type reader struct {
	cl     *kgo.Client
	adm    *kadm.Client
	topics kadm.TopicDetails // what it knows of the topics it reads; nil: to be asked for
}

// errGone says that records that were to be read are no longer there.
var errGone = errors.New("the records are no longer in the log")

// fetchBytes is the size of an answer: large enough to keep the broker busy, small enough to hold in memory at once.
const fetchBytes = 16 << 20

// read reads all stretches side by side, up to the last stable offset at most.
func (r *reader) read(ctx context.Context, stretches []*stretch) error {
	pending := make([]*stretch, 0, len(stretches))
	for _, s := range stretches {
		s.next = s.from
		if s.left() {
			pending = append(pending, s)
		}
	}
	for failures := 0; len(pending) > 0; {
		before := remaining(pending)
		still, err := r.round(ctx, pending)
		switch {
		case err == nil:
		case ctx.Err() != nil || !isMoved(err) || failures == 20:
			return err
		default: // another broker leads now
			if err := wait(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		if pending = still; remaining(pending) == before {
			failures++
		} else {
			failures = 0
		}
		if err != nil {
			r.topics = nil
		}
	}
	return nil
}

func remaining(ss []*stretch) (n int64) {
	for _, s := range ss {
		n += s.to - s.next
	}
	return n
}

func isMoved(err error) bool {
	var kafka *kerr.Error
	return errors.As(err, &kafka) && kafka.Retriable
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// round sends one fetch to each leader and returns the stretches that are not read to their ends.
func (r *reader) round(ctx context.Context, pending []*stretch) (still []*stretch, err error) {
	leaders, err := r.byLeader(ctx, pending)
	if err != nil {
		return pending, err
	}
	for leader, ss := range leaders {
		empty, err := r.fetch(ctx, leader, ss)
		if err != nil {
			return unread(pending), err
		}
		// An answer without records is the end of the partition, or the answer was full before its turn came: asked alone,
		// it cannot be the latter.
		for _, s := range empty {
			if len(ss) > 1 {
				if empty, err = r.fetch(ctx, leader, []*stretch{s}); err != nil {
					return unread(pending), err
				}
			}
			if len(empty) > 0 {
				s.to = s.next
			}
		}
	}
	return unread(pending), nil
}

func unread(ss []*stretch) (left []*stretch) {
	for _, s := range ss {
		if s.left() {
			left = append(left, s)
		}
	}
	return left
}

func (r *reader) byLeader(ctx context.Context, ss []*stretch) (map[int32][]*stretch, error) {
	if r.topics == nil {
		names := map[string]bool{}
		for _, s := range ss {
			names[s.topic] = true
		}
		var err error
		if r.topics, err = r.adm.ListTopics(ctx, slices.Collect(maps.Keys(names))...); err != nil {
			return nil, fmt.Errorf("listing topics: %w", err)
		}
	}
	leaders := map[int32][]*stretch{}
	for _, s := range ss {
		p, ok := r.topics[s.topic].Partitions[s.partition]
		if err := errors.Join(r.topics[s.topic].Err, p.Err); err != nil || !ok {
			r.topics = nil
			return nil, fmt.Errorf("looking for the leader of %s: %w", partitionName(s.topic, s.partition), orUnknown(err))
		}
		leaders[p.Leader] = append(leaders[p.Leader], s)
	}
	return leaders, nil
}

func orUnknown(err error) error {
	if err == nil {
		return kerr.UnknownTopicOrPartition
	}
	return err
}

// fetch reads on in ss from one broker and returns those of which nothing came.
func (r *reader) fetch(ctx context.Context, leader int32, ss []*stretch) (empty []*stretch, err error) {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel, req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = 1, fetchBytes, 10, -1
	byPartition := map[string]map[int32]*stretch{}
	for _, s := range ss {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = s.partition, s.next, max(fetchBytes/int32(len(ss)), 1<<20)
		if byPartition[s.topic] == nil {
			byPartition[s.topic] = map[int32]*stretch{}
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = s.topic, r.topics[s.topic].ID
			req.Topics = append(req.Topics, t)
		}
		byPartition[s.topic][s.partition] = s
		for i := range req.Topics {
			if req.Topics[i].Topic == s.topic {
				req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
			}
		}
	}
	resp, err := req.RequestWith(ctx, r.cl.Broker(int(leader)))
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	for i := range resp.Topics {
		name := r.topicName(&resp.Topics[i])
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			s := byPartition[name][p.Partition]
			if s == nil || !s.left() {
				continue
			}
			got, err := s.take(p)
			if err != nil {
				return nil, err
			}
			if !got {
				empty = append(empty, s)
			}
		}
	}
	return empty, nil
}

func (r *reader) topicName(t *kmsg.FetchResponseTopic) string {
	if t.Topic != "" {
		return t.Topic
	}
	for name, d := range r.topics {
		if d.ID == t.TopicID {
			return name
		}
	}
	return ""
}

// take hands the records of an answer on. It returns false if there was nothing in it, not even a marker.
func (s *stretch) take(p *kmsg.FetchResponseTopicPartition) (got bool, err error) {
	if err := kerr.ErrorForCode(p.ErrorCode); errors.Is(err, kerr.OffsetOutOfRange) {
		return false, fmt.Errorf("reading %s from offset %d: %w", partitionName(s.topic, s.partition), s.next, errGone)
	} else if err != nil {
		return false, fmt.Errorf("reading %s from offset %d: %w", partitionName(s.topic, s.partition), s.next, err)
	}
	fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: s.next, IsolationLevel: kgo.ReadCommitted(), Topic: s.topic, Partition: s.partition,
	}, p, kgo.DefaultDecompressor(), nil)
	if fetched.Err != nil {
		return false, fmt.Errorf("reading %s from offset %d: %w", partitionName(s.topic, s.partition), s.next, fetched.Err)
	}
	recs := fetched.Records
	for len(recs) > 0 && recs[len(recs)-1].Offset >= s.to {
		recs = recs[:len(recs)-1]
	}
	got = next > s.next
	s.next = min(max(next, s.next), s.to)
	if len(recs) == 0 {
		return got, nil
	}
	more, err := s.each(recs)
	if !more && err == nil {
		s.next, s.to, s.stopped = recs[len(recs)-1].Offset+1, recs[len(recs)-1].Offset+1, true
	}
	return got, err
}
