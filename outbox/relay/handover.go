package relay

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// cursorPartition is the partition of the cursor topic that holds source's cursor: the one that a keyed record goes to.
func cursorPartition(source string, partitions int) int32 {
	rec := &kgo.Record{Topic: topics.Cursors, Key: []byte(source)}
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic(topics.Cursors).Partition(rec, partitions))
}

// tail is how far from its end a cursor partition is read at first. A source that was lately relayed has its cursor there.
const tail = 2_000

// readCursor returns the last committed cursor of source, nil if it has none. It must be called after the fencing of all earlier
// owners, unless it is only to be shown: then no transaction that could still write a cursor is open, and the end of the
// partition is seen once what others have open there has ended.
func readCursor(ctx context.Context, opts []kgo.Opt, source string, partitions int) (*cursor, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("making client for cursors: %w", err)
	}
	defer client.Close()
	admin, p := kadm.NewClient(client), cursorPartition(source, partitions)
	start, err := offset(ctx, admin.ListStartOffsets, p)
	if err != nil {
		return nil, err
	}
	end, err := offset(ctx, admin.ListEndOffsets, p)
	if err != nil || start == end {
		return nil, err
	}
	from := max(start, end-tail)
	value, err := lastValue(ctx, opts, source, p, from, end)
	if value == nil && err == nil && from > start {
		value, err = lastValue(ctx, opts, source, p, start, end)
	}
	if err != nil || value == nil {
		return nil, err
	}
	c, err := decodeCursor(value)
	if err != nil {
		return nil, fmt.Errorf("reading cursor of %s: %w", source, err)
	}
	if c.Source != source {
		return nil, fmt.Errorf("reading cursor of %s: it names source %.80q", source, c.Source)
	}
	return &c, nil
}

type listOffsets func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

func offset(ctx context.Context, list listOffsets, partition int32) (int64, error) {
	offsets, err := list(ctx, topics.Cursors)
	if err != nil {
		return 0, fmt.Errorf("listing offsets of %s: %w", topics.Cursors, err)
	}
	o, ok := offsets.Lookup(topics.Cursors, partition)
	if !ok {
		return 0, fmt.Errorf("%w: %s has no partition %d", errTopicMissing, topics.Cursors, partition)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("listing offsets of %s: %w", topics.Cursors, o.Err)
	}
	return o.Offset, nil
}

// lastValue reads committed records of the partition from offset from, until the position is end, and returns the last value
// with the key.
func lastValue(ctx context.Context, opts []kgo.Opt, key string, partition int32, from, end int64) ([]byte, error) {
	client, err := kgo.NewClient(slices.Concat(opts, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topics.Cursors: {partition: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the end of the partition is the marker of a transaction
	})...)
	if err != nil {
		return nil, fmt.Errorf("making client for cursors: %w", err)
	}
	defer client.Close()
	var value []byte
	for next := from; next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", topics.Cursors, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			next = rec.Offset + 1
			if !rec.Attrs.IsControl() && string(rec.Key) == key {
				value = rec.Value
			}
		})
	}
	return value, nil
}
