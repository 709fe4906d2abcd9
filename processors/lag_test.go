package processors_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
)

// TestRunner_ShowsATransactionThatHangs: lag counts to the last stable offset, so that without this number a partition that
// nobody can read looks as if all was read.
func TestRunner_ShowsATransactionThatHangs(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	hung, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.TransactionalID(testenv.Name("hung")))
	require.NoError(t, err)
	defer hung.Close()
	r := start(t, b.config(&copier{out: b.out}))
	b.produce(numbered(10, 2)...)
	b.read(b.out, 10)
	require.NoError(t, hung.BeginTransaction())
	require.NoError(t, hung.ProduceSync(t.Context(), &kgo.Record{Topic: b.in, Value: []byte("open")}).FirstErr())
	b.produce(numbered(10, 2)...)
	eventually(t, "the partition counts as stuck", func() bool { return r.metric("leat_lso_stuck_seconds") > 0 })
	require.Zero(t, r.metric("leat_lag_records"))
	require.NoError(t, hung.EndTransaction(t.Context(), kgo.TryCommit))
	b.read(b.out, 21)
	eventually(t, "it is no longer stuck", func() bool { return r.metric("leat_lso_stuck_seconds") == 0 })
}

// TestRunner_ShowsWhatRetentionLeaves counts from the start of the log, and below 0 what was deleted unread.
func TestRunner_ShowsWhatRetentionLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.produce(numbered(20, 2)...)
	r := start(t, b.config(&copier{out: b.out}))
	b.read(b.out, 20)
	eventually(t, "all is kept", func() bool { return r.metric("leat_retention_margin_records") >= 20 })
	require.InDelta(t, r.metric("leat_settled_offset"), r.metric("leat_retention_margin_records"), 0.1)
	before := kadm.Offsets{}
	before.Add(kadm.Offset{Topic: b.in, Partition: 0, At: 15, LeaderEpoch: -1})
	deleted, err := b.adm.DeleteRecords(t.Context(), before)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
	eventually(t, "the margin is what is left", func() bool {
		return r.metric("leat_retention_margin_records") == r.metric("leat_settled_offset")-15
	})
}
