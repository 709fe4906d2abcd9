package testenv

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadCommitted returns every record of a topic that a committed reader sees, each partition in order, up to the end that the topic
// has when it is called. It waits for transactions that are open then, for at most two minutes.
func ReadCommitted(tb testing.TB, brokers []string, topic string) []*kgo.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords()) // the last offset is often the marker of a transaction
	require.NoError(tb, err)
	defer client.Close()
	left := unread(ctx, tb, kadm.NewClient(client), topic)
	var recs []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		require.NoError(tb, fetches.Err())
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
			if !rec.Attrs.IsControl() {
				recs = append(recs, rec)
			}
		})
	}
	return recs
}

// unread is the end offset of each partition that has records.
func unread(ctx context.Context, tb testing.TB, admin *kadm.Client, topic string) map[int32]int64 {
	tb.Helper()
	ends, err := admin.ListEndOffsets(ctx, topic)
	require.NoError(tb, err)
	require.NoError(tb, ends.Error())
	starts, err := admin.ListStartOffsets(ctx, topic)
	require.NoError(tb, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if s, ok := starts.Lookup(topic, o.Partition); ok && o.Offset > s.Offset {
			left[o.Partition] = o.Offset
		}
	})
	return left
}
