package relay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

func TestRelay_PausesASourceByOrder(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers, "invoice")
		topic := topics.Source(r.system, "invoice")
		c := r.config()
		c.AwaitOrders = true
		r.fill("invoice", 500, 100, 50)
		relay, stop := r.start(c)
		require.ErrorContains(t, relay.Ready(), "waits for its orders")
		relay.Obey(Orders{Sources: map[string]string{r.system: "by ana: restore"}})
		paused := func() bool {
			s := relay.Status()
			return len(s.Sources) == 1 && s.Sources[0].State == "paused by order" && s.Sources[0].Reason == "by ana: restore"
		}
		r.eventually("the pause", paused)
		require.EqualError(t, relay.Ready(), "source "+r.system+" is paused by order: by ana: restore")
		require.Empty(t, r.read(topic), "a pause survives a restart")
		relay.Obey(Orders{Sources: map[string]string{"other": "by ana"}})
		r.await(topic, 500)
		r.eventually("ready", func() bool { return relay.Ready() == nil && relay.Status().Sources[0].LastID == 500 })

		relay.Obey(Orders{Pause: "stage relay by ana: month end"})
		r.eventually("no connection", func() bool {
			var n int
			require.NoError(t, r.db.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = 'leat-relay-' || $1", r.system).Scan(&n))
			return n == 0
		})
		r.fill("invoice", 500, 100, 50)
		require.Len(t, r.read(topic), 500)
		stop() // a paused source holds up nobody
		relay, _ = r.start(r.config())
		r.await(topic, 1000)
		r.count(r.read(topic))
		require.NoError(t, relay.Ready())
	})
}
