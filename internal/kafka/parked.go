package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// liveRecords reads a compacted topic up to its last stable offset and counts the keys whose last value is not a tombstone.
func liveRecords(ctx context.Context, cl *kgo.Client, topic string) (int, error) {
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("listing start offsets: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("listing last stable offsets: %w", err)
	}
	from, until := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(topic, end.Partition); start.Offset < end.Offset {
			from[end.Partition], until[end.Partition] = kgo.NewOffset().At(start.Offset), end.Offset
		}
	})
	if len(until) == 0 {
		return 0, nil
	}
	reader, err := kgo.NewClient(append(cl.Opts(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the last record before the end may be one
	)...)
	if err != nil {
		return 0, fmt.Errorf("making a reader: %w", err)
	}
	defer reader.Close()
	return fold(ctx, reader, until)
}

func fold(ctx context.Context, reader *kgo.Client, until map[int32]int64) (int, error) {
	live := map[string]struct{}{}
	for len(until) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return 0, err
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			switch {
			case rec.Attrs.IsControl():
			case rec.Value == nil:
				delete(live, string(rec.Key))
			default:
				live[string(rec.Key)] = struct{}{}
			}
			if rec.Offset+1 >= until[rec.Partition] {
				delete(until, rec.Partition)
			}
		})
	}
	return len(live), nil
}
