package status_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/status"
)

type cluster struct {
	t            *testing.T
	opts         []kgo.Opt
	cl           *kgo.Client
	adm          *kadm.Client
	topic, group string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, opts: []kgo.Opt{kgo.SeedBrokers(testenv.Kafka(t)...)}, topic: testenv.Name("source"), group: testenv.Name("group")}
	var err error
	c.cl, err = kgo.NewClient(append(c.opts, kgo.DefaultProduceTopic(c.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	require.NoError(t, err)
	t.Cleanup(c.cl.Close)
	c.adm = kadm.NewClient(c.cl)
	_, err = c.adm.CreateTopic(t.Context(), 2, 1, nil, c.topic)
	require.NoError(t, err)
	return c
}

func (c *cluster) produce(at time.Time, n int) {
	c.t.Helper()
	for range n {
		require.NoError(c.t, c.cl.ProduceSync(c.t.Context(), &kgo.Record{Value: []byte("x"), Timestamp: at}).FirstErr())
	}
}

func (c *cluster) commit(partition int32, at int64) {
	c.t.Helper()
	var o kadm.Offsets
	o.AddOffset(c.topic, partition, at, -1)
	require.NoError(c.t, c.adm.CommitAllOffsets(c.t.Context(), c.group, o))
}

func (c *cluster) read() *status.Report {
	c.t.Helper()
	r, err := status.Read(c.t.Context(), status.Config{
		Kafka: c.opts, Topics: []string{c.topic},
		Groups: []status.Reader{{Stage: "normalize", Group: c.group, Topics: []string{c.topic}}},
	})
	require.NoError(c.t, err)
	return r
}

func TestRead_CountsLagToTheLastStableOffset(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.produce(time.Now().Add(-time.Hour), 3)
	c.commit(0, 1)

	r := c.read()
	g := r.Groups[0]
	require.Equal(t, "Empty", g.State)
	require.EqualValues(t, 2, g.Lag)
	require.InDelta(t, 3600, g.LagSeconds, 600, "the age of the record at the committed offset")
	p := g.Partitions[0]
	require.EqualValues(t, 1, *p.Committed)
	require.EqualValues(t, 1, *p.Margin)
	require.Equal(t, "no owner", p.State)
	require.Nil(t, g.Partitions[1].Committed, "the group has never committed in the other partition")
	require.Nil(t, g.Partitions[1].Margin)
	require.Equal(t, []string{"group " + c.group + ": 2 offsets wait and no member runs; start it with: leat normalize run"}, r.Problems)

	c.commit(0, 3)
	r = c.read()
	require.Zero(t, r.Groups[0].Lag)
	require.Zero(t, r.Groups[0].LagSeconds)
	require.Empty(t, r.Problems)
	require.Empty(t, r.Transactions)
}

// An open transaction hides what comes after it: it is shown with its owner, and is no lag.
func TestRead_NamesTheTransactionThatHidesRecords(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.produce(time.Now(), 1)
	c.commit(0, 1)
	id := testenv.Name("leat.normalize.one")
	producer, err := kgo.NewClient(append(c.opts, kgo.TransactionalID(id), kgo.TransactionTimeout(time.Minute),
		kgo.DefaultProduceTopic(c.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	require.NoError(t, err)
	defer producer.Close()
	require.NoError(t, producer.BeginTransaction())
	require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Value: []byte("open")}).FirstErr())
	c.produce(time.Now(), 2)

	r := c.read()
	require.Len(t, r.Transactions, 1)
	x := r.Transactions[0]
	require.Equal(t, id, x.TransactionalID)
	require.Equal(t, "Ongoing", x.State)
	require.Equal(t, c.topic, x.Topic)
	require.EqualValues(t, 1, x.FirstOffset)
	require.EqualValues(t, 3, x.Behind)
	require.InDelta(t, 60, x.TimeoutSeconds, 0.1)
	require.False(t, x.Hung)
	require.Zero(t, r.Groups[0].Lag, "nobody can read beyond the last stable offset")

	require.NoError(t, producer.EndTransaction(context.Background(), kgo.TryAbort))
	require.Eventually(t, func() bool {
		r := c.read()
		return len(r.Transactions) == 0 && r.Groups[0].Lag == 4
	}, 30*time.Second, 100*time.Millisecond, "its marker counts as an offset")
}

func TestRead_TellsOfKafkaAsAProblem(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	r, err := status.Read(t.Context(), status.Config{
		Kafka:  c.opts,
		Groups: []status.Reader{{Stage: "publish", Group: c.group, Topics: []string{c.topic + ".missing"}}},
	})
	require.NoError(t, err)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0], "topic "+c.topic+".missing is missing: leat topics apply")
}
