package relay

import (
	"testing"

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
