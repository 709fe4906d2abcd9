package status

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
)

// marks are the offsets that every partition has of itself.
type marks struct{ starts, stable, ends kadm.ListedOffsets }

func (l *look) marks(ctx context.Context, names []string) (m marks, err error) {
	slices.Sort(names)
	names = slices.Compact(names)
	// The last stable offsets before the ends: the other way round an end could be older than what is stable.
	for _, list := range []struct {
		into *kadm.ListedOffsets
		ask  func(context.Context, ...string) (kadm.ListedOffsets, error)
	}{{&m.starts, l.adm.ListStartOffsets}, {&m.stable, l.adm.ListCommittedOffsets}, {&m.ends, l.adm.ListEndOffsets}} {
		if *list.into, err = list.ask(ctx, names...); err != nil {
			return m, fmt.Errorf("listing offsets: %w", err)
		}
	}
	return m, nil
}

// have reports whether the cluster has the topic: one that it has not is listed as a partition with an error.
func (m marks) have(topic string) bool {
	for _, o := range m.ends[topic] {
		if errors.Is(o.Err, kerr.UnknownTopicOrPartition) {
			return false
		}
	}
	return len(m.ends[topic]) > 0
}

// at returns the three offsets of a partition, or why there are none.
func (m marks) at(topic string, partition int32) (start, stable, end int64, err error) {
	var out [3]int64
	for i, listed := range []kadm.ListedOffsets{m.starts, m.stable, m.ends} {
		o, ok := listed.Lookup(topic, partition)
		switch {
		case !ok:
			return 0, 0, 0, fmt.Errorf("%s has no partition %d", topic, partition)
		case o.Err != nil:
			return 0, 0, 0, fmt.Errorf("%s/%d: %w", topic, partition, o.Err)
		}
		out[i] = o.Offset
	}
	return out[0], out[1], out[2], nil
}

func (l *look) group(ctx context.Context, c Reader, m marks) (Group, error) {
	g := Group{Stage: c.Stage, Group: c.Group, State: "unknown", Partitions: []Partition{}}
	for _, topic := range c.Topics {
		if !m.have(topic) {
			return g, fmt.Errorf("topic %s is missing: leat topics apply", topic)
		}
	}
	described, err := l.adm.DescribeGroups(ctx, c.Group)
	if err != nil {
		return g, fmt.Errorf("describing it: %w", err)
	}
	d := described[c.Group]
	if errors.Is(d.Err, kerr.GroupIDNotFound) { // nobody has ever joined it, or its offsets have expired
		d.Err, d.State = nil, "Dead"
	}
	if d.Err != nil {
		return g, fmt.Errorf("describing it: %w", d.Err)
	}
	g.State, g.Members = d.State, len(d.Members)
	committed, err := l.adm.FetchOffsets(ctx, c.Group)
	if err != nil {
		return g, fmt.Errorf("fetching its offsets: %w", err)
	}
	owners := owners(d)
	for _, topic := range c.Topics {
		for _, partition := range slices.Sorted(maps.Keys(m.ends[topic])) {
			p, err := newPartition(topic, partition, committed, m)
			if err != nil {
				return g, err
			}
			p.Owner = owners[topicPartition{topic, partition}]
			p.State = "no owner"
			if p.Owner != "" {
				p.State = "owned"
			}
			g.Partitions = append(g.Partitions, p)
		}
	}
	return g, nil
}

func newPartition(topic string, partition int32, committed kadm.OffsetResponses, m marks) (p Partition, err error) {
	p = Partition{Topic: topic, Partition: partition}
	if p.LogStart, p.Stable, p.End, err = m.at(topic, partition); err != nil {
		return p, err
	}
	next := p.LogStart // where a group without a commit begins
	if o, ok := committed.Lookup(topic, partition); ok && o.At >= 0 {
		at, margin := o.At, o.At-p.LogStart
		p.Committed, p.Margin, next = &at, &margin, at
	}
	p.Lag = max(0, p.Stable-max(next, p.LogStart))
	return p, nil
}

type topicPartition struct {
	topic     string
	partition int32
}

func owners(g kadm.DescribedGroup) map[topicPartition]string {
	of := map[topicPartition]string{}
	for _, m := range g.Members {
		assigned, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range assigned.Topics {
			for _, p := range t.Partitions {
				of[topicPartition{t.Topic, p}] = m.ClientID + m.ClientHost
			}
		}
	}
	return of
}

// ages finds how long the oldest unsettled record of each lagging partition has been waiting: the age of the record at the
// committed offset, which is read. One record a partition is fetched, whatever the lag.
func (l *look) ages(ctx context.Context) error {
	waiting := map[topicPartition][]*Partition{}
	at := map[string]map[int32]kgo.Offset{}
	for i := range l.report.Groups {
		for j := range l.report.Groups[i].Partitions {
			p := &l.report.Groups[i].Partitions[j]
			if p.Lag == 0 {
				continue
			}
			tp := topicPartition{p.Topic, p.Partition}
			waiting[tp] = append(waiting[tp], p)
			if at[p.Topic] == nil {
				at[p.Topic] = map[int32]kgo.Offset{}
			}
			at[p.Topic][p.Partition] = kgo.NewOffset().At(p.Stable - p.Lag)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(slices.Clone(l.c.Kafka),
		kgo.ConsumePartitions(at), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxPartitionBytes(64<<10))...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for len(waiting) > 0 && ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			tp := topicPartition{f.Topic, f.Partition}
			if len(f.Records) == 0 {
				return
			}
			for _, p := range waiting[tp] { // the first record is the oldest
				p.LagSeconds = max(0, l.report.At.Sub(f.Records[0].Timestamp).Seconds())
			}
			delete(waiting, tp)
			cl.PauseFetchPartitions(map[string][]int32{f.Topic: {f.Partition}})
		})
	}
	return nil
}
