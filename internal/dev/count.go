package dev

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// marks are offsets of every partition of some topics.
type marks map[string]map[int32]int64

// committedEnds returns where a read_committed reader of topics ends now. Topics that do not exist are left out.
func committedEnds(ctx context.Context, adm *kadm.Client, topics []string) (marks, error) {
	listed, err := adm.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("listing the ends of topics: %w", err)
	}
	m := marks{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			return
		}
		m.set(o.Topic, o.Partition, o.Offset)
	})
	return m, nil
}

// countRecords counts what a read_committed reader sees in each topic from one mark to the other. Offsets cannot tell:
// transactions leave markers between the records.
func countRecords(ctx context.Context, opts []kgo.Opt, from, to marks) (map[string]int, error) {
	counts, consume, left := map[string]int{}, map[string]map[int32]kgo.Offset{}, 0
	for topic, ends := range to {
		counts[topic] = 0
		for p, end := range ends {
			if begin := from[topic][p]; begin < end {
				if consume[topic] == nil {
					consume[topic] = map[int32]kgo.Offset{}
				}
				consume[topic][p] = kgo.NewOffset().At(begin)
				left++
			}
		}
	}
	if left == 0 {
		return counts, nil
	}
	cl, err := kgo.NewClient(slices.Concat(opts, []kgo.Opt{
		kgo.ConsumePartitions(consume),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	})...) // the last record of a partition may be a marker
	if err != nil {
		return nil, fmt.Errorf("counting records: %w", err)
	}
	defer cl.Close()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		fetches.EachError(func(_ string, _ int32, e error) { err = e })
		if err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := to[r.Topic][r.Partition]
			if r.Offset < end && !r.Attrs.IsControl() {
				counts[r.Topic]++
			}
			if r.Offset == end-1 {
				left--
			}
		})
	}
	return counts, nil
}

func (m marks) set(topic string, partition int32, offset int64) {
	if m[topic] == nil {
		m[topic] = map[int32]int64{}
	}
	m[topic][partition] = offset
}

// only returns the marks of the topics that which accepts.
func (m marks) only(which func(topic string) bool) marks {
	picked := maps.Clone(m)
	maps.DeleteFunc(picked, func(topic string, _ map[int32]int64) bool { return !which(topic) })
	return picked
}
