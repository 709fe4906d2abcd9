package integration_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// TestTargetDown_WaitsWithoutDeadLetters stops the reporting database in the middle of work and starts it again.
func TestTargetDown_WaitsWithoutDeadLetters(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, targetDown)
}

func targetDown(t *testing.T, brokers []string) {
	t.Helper()
	server := testenv.PostgresServer(t)
	r := newRig(t, rigOptions{brokers: brokers, reportingURL: server.Database(t)})
	db := r.addControl()
	l := newLedger()
	relay, normalize, publish := r.start("one", "relay", "run"), r.start("one", "normalize", "run"), r.start("one", "publish", "run")
	l.write(t, r, 4, 400, 40)
	eventually(t, "the first invoices in the books", func() bool { return len(r.booked()) > 0 })
	server.Stop(t)
	l.write(t, r, 4, 400, 80)
	eventually(t, "normalize to go on while the target is down", func() bool {
		return r.sourceRecords() >= int64(l.count())
	})
	var breakers struct{ Breakers []control.Breaker }
	eventually(t, "the breaker, with its rule and an error", func() bool {
		require.NoError(t, json.Unmarshal([]byte(r.run("breaker", "list", "-o", "json")), &breakers))
		for _, b := range breakers.Breakers {
			if b.Group == r.publishGroup && b.State != processors.BreakerClosed {
				return b.Alive && b.Reason != "" && b.Sample != "" && b.Probes > 0
			}
		}
		return false
	})
	require.Contains(t, heartbeat(t, db, "publish", func(p control.Process) bool { return !p.Ready }).Problem, "breaker is ")
	server.Start(t)
	r.reporting.Reset() // the connections that this test reads with ended with the server
	l.settled(t, r)
	heartbeat(t, db, "publish", func(p control.Process) bool { return p.Ready }) // it has closed by itself
	for _, p := range []*process{relay, normalize, publish} {
		p.stop()
	}
	l.check(t, r)
	for _, entity := range []string{"contact", "invoice", "payment"} {
		topic := topics.Finance(entity, 1)
		require.Empty(t, r.read(topics.DLQ(topic, r.publishGroup)), "an outage is no reason for a dead letter")
		require.Empty(t, r.read(topics.Retry(topic, r.publishGroup)), "an outage spends no attempt")
	}
}

// TestBrokerDown_WaitsAndGoesOn kills the broker in the middle of work and starts it again on the same data.
func TestBrokerDown_WaitsAndGoesOn(t *testing.T) {
	t.Parallel()
	server := testenv.KafkaServer(t)
	r := newRig(t, rigOptions{brokers: server.Brokers()})
	l := newLedger()
	relay, normalize, publish := r.start("one", "relay", "run"), r.start("one", "normalize", "run"), r.start("one", "publish", "run")
	l.write(t, r, 4, 400, 40)
	for range 2 {
		eventually(t, "invoices in the books", func() bool { return len(r.booked()) > 0 })
		server.Kill()
		l.write(t, r, 4, 200, 40)
		server.Start(t)
		l.settled(t, r)
	}
	for _, p := range []*process{relay, normalize, publish} {
		p.stop()
	}
	l.check(t, r)
}
