package dev

import (
	"testing"

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
	produce(7, kgo.TryCommit)
	from, err := committedEnds(t.Context(), adm, []string{topic, other, "missing"})
	require.NoError(t, err)
	require.Len(t, from, 2)
	produce(20, kgo.TryCommit)
	produce(9, kgo.TryAbort)
	to, err := committedEnds(t.Context(), adm, []string{topic, other})
	require.NoError(t, err)
	counts, err := countRecords(t.Context(), opts, from, to)
	require.NoError(t, err)
	require.Equal(t, map[string]int{topic: 20, other: 0}, counts)
	counts, err = countRecords(t.Context(), opts, marks{}, to)
	require.NoError(t, err)
	require.Equal(t, map[string]int{topic: 27, other: 0}, counts)
}
