package relay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

func TestRelay_DeliversEachRowOnceInOrder(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		r.fill("invoice", 25_000, 100, 50)
		relay, stop := r.start(r.config())
		topic := topics.Source(r.system, "invoice")
		r.await(topic, 25_000)
		r.insert("invoice", "1", []byte(`{"a":1}`))
		r.insert("invoice", "1", []byte(`{"a":2}`))
		r.await(topic, 25_002)
		require.NoError(t, relay.Ready())
		stop()
		r.count(r.read(topic))
		c := r.cursor()
		require.EqualValues(t, 25_002, c.Rows)
		require.EqualValues(t, 25_002, c.Last)
	})
}

// TestRelay_MakesAndDropsPartitions delivers rows, lets them grow old, and demands that the relay makes partitions, drops the delivered
// one, and goes on although the row that it delivered last is gone.
func TestRelay_MakesAndDropsPartitions(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Fake(t), "invoice")
	topic := topics.Source(r.system, "invoice")
	c := r.config()
	c.Sources[0].Retention = time.Millisecond
	_, stop := r.start(c)
	r.insert("invoice", "1", []byte("{}"))
	r.exec("alter table leat.outbox alter column id restart with 1000000")
	r.insert("invoice", "1", []byte("{}"))
	r.await(topic, 2)
	stop()
	_, stop = r.start(c) // upkeep is done at once
	r.eventually("the first partition to go", func() bool {
		var there bool
		require.NoError(t, r.db.QueryRow(t.Context(), "select to_regclass('leat.outbox_1') is not null").Scan(&there))
		return !there
	})
	var made bool
	require.NoError(t, r.db.QueryRow(t.Context(), "select to_regclass('leat.outbox_2000001') is not null").Scan(&made))
	require.True(t, made, "partitions ahead")
	stop()
	relay, _ := r.start(c)
	r.insert("invoice", "1", []byte("{}"))
	r.await(topic, 3)
	require.NoError(t, relay.Ready())
}
