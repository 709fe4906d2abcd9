package dev

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
)

func TestCountRecords_CountsWhatCommittedReadersSee(t *testing.T) {
	t.Parallel()
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kafka(t)...)}
	topic, other := testenv.Name("count"), testenv.Name("empty")
	cl, err := kgo.NewClient(append(opts, kgo.TransactionalID(testenv.Name("tx")))...)
	require.NoError(t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	_, err = adm.CreateTopics(t.Context(), 3, 1, nil, topic, other)
	require.NoError(t, err)
	produce := func(n int, end kgo.TransactionEndTry) {
		require.NoError(t, cl.BeginTransaction())
		for i := range n {
			cl.Produce(t.Context(), &kgo.Record{Topic: topic, Key: []byte{byte(i)}}, nil)
		}
		require.NoError(t, cl.Flush(t.Context()))
		require.NoError(t, cl.EndTransaction(t.Context(), end))
	}
	// A commit is answered before its markers are written.
	await := func(n int) (ends marks) {
		require.Eventually(t, func() bool {
			ends, err = committedEnds(t.Context(), adm, []string{topic, other, "missing"})
			require.NoError(t, err)
			counts, err := countRecords(t.Context(), opts, nil, ends)
			require.NoError(t, err)
			require.LessOrEqual(t, counts[topic], n)
			return counts[topic] == n
		}, 30*time.Second, 20*time.Millisecond)
		return ends
	}
	produce(7, kgo.TryCommit)
	from := await(7)
	require.Len(t, from, 2)
	produce(20, kgo.TryCommit)
	produce(9, kgo.TryAbort)
	counts, err := countRecords(t.Context(), opts, from, await(27))
	require.NoError(t, err)
	require.Equal(t, map[string]int{topic: 20, other: 0}, counts)
}
