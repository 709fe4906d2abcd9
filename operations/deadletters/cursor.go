package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// cursor is how far a redrive has come: its value in topics.Cursors. It is written in the Kafka transactions that move the records,
// so it is true whatever was killed; and being a record, it is not forgotten after a week, as offsets of a group are.
type cursor struct {
	Moved int64 `json:"moved"` // the seq of the last item moved
}

func cursorKey(job string) string { return "redrive/" + job }

// cursorPartition is the one that a keyed record goes to.
func cursorPartition(job string, partitions int) int32 {
	rec := &kgo.Record{Topic: topics.Cursors, Key: []byte(cursorKey(job))}
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic(topics.Cursors).Partition(rec, partitions))
}

func cursorRecord(job string, moved int64) (*kgo.Record, error) {
	value, err := json.Marshal(cursor{moved})
	return &kgo.Record{
		Topic: topics.Cursors, Partition: cursorPartition(job, topics.CursorPartitions), Key: []byte(cursorKey(job)), Value: value,
	}, err
}

// cursorEnd is the lowest end of all partitions of the cursors: before a job is made, its partition is not known yet.
func (o *Office) cursorEnd(ctx context.Context) (int64, error) {
	_, end, err := o.cursorBounds(ctx, -1)
	return end, err
}

// cursorBounds are the start and the end of a partition, or of all: the lowest.
func (o *Office) cursorBounds(ctx context.Context, p int32) (start, end int64, err error) {
	client, err := kgo.NewClient(o.Kafka...)
	if err != nil {
		return 0, 0, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topics.Cursors)
	if err == nil {
		err = starts.Error()
	}
	var ends kadm.ListedOffsets
	if err == nil {
		if ends, err = admin.ListEndOffsets(ctx, topics.Cursors); err == nil {
			err = ends.Error()
		}
	}
	if n := len(ends[topics.Cursors]); err == nil && n != topics.CursorPartitions {
		err = fmt.Errorf("it has %d partitions, not %d: run `leat topics apply`", n, topics.CursorPartitions)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("looking at topic %s: %w", topics.Cursors, err)
	}
	end = -1
	ends.Each(func(e kadm.ListedOffset) {
		if p >= 0 && e.Partition != p {
			return
		}
		if s, _ := starts.Lookup(topics.Cursors, e.Partition); end < 0 || e.Offset < end {
			start, end = s.Offset, e.Offset
		}
	})
	return start, end, nil
}

// readCursor returns how far the job has come. It must be called when the transactional id is taken: then no transaction that could
// still move records of it is open, and the end of the partition is seen once what others have open there has ended.
func (o *Office) readCursor(ctx context.Context, job string, from int64) (moved int64, err error) {
	p := cursorPartition(job, topics.CursorPartitions)
	start, end, err := o.cursorBounds(ctx, p)
	if err != nil {
		return 0, err
	}
	from = max(from, start)
	if from >= end {
		return 0, nil
	}
	client, err := kgo.NewClient(slices.Concat(o.Kafka, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topics.Cursors: {p: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the end of the partition is the marker of a transaction
	})...)
	if err != nil {
		return 0, fmt.Errorf("making a Kafka client: %w", err)
	}
	defer client.Close()
	var value []byte
	for next := from; next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return 0, fmt.Errorf("reading %s: %w", topics.Cursors, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			next = rec.Offset + 1
			if !rec.Attrs.IsControl() && string(rec.Key) == cursorKey(job) {
				value = rec.Value
			}
		})
	}
	if value == nil {
		return 0, nil
	}
	var c cursor
	if err := json.Unmarshal(value, &c); err != nil {
		return 0, fmt.Errorf("reading how far redrive %s has come: %w", job, errors.Join(err, errors.New("the record in "+topics.Cursors+" is not ours")))
	}
	return c.Moved, nil
}
