package processors_test

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// flaky fails some records, by key and value, at their first attempts.
func flaky(m processors.Message) error {
	h := fnv.New32a()
	h.Write(m.Key)
	h.Write(m.Value)
	if h.Sum32()%17 < 2 && m.Attempt <= 1+int(h.Sum32()%3) {
		return errors.New("flaky")
	}
	return nil
}

func TestRunner_SurvivesRebalancesWithParkedRecords(t *testing.T) {
	t.Parallel()
	b := setup(t, 6)
	member := func(i int) *running {
		cfg := b.config(&copier{out: b.out, fail: flaky})
		cfg.Instance = strconv.Itoa(i)
		cfg.MaxRecords = 50
		return start(t, cfg)
	}
	inputs := numbered(12_000, 300)
	members := []*running{member(0)}
	for round := range 12 {
		b.produce(inputs[round*1_000 : (round+1)*1_000]...)
		if round%3 == 2 {
			members[0].stop()
			members = members[1:]
		} else {
			members = append(members, member(round+1))
		}
		m := members[len(members)-1]
		eventually(t, "the newest member works", func() bool {
			for _, p := range m.Status().Partitions {
				if p.State == "running" {
					return true
				}
			}
			return len(m.Status().Partitions) == 0 && len(members) > 6
		})
	}
	b.requireExact(inputs)
	eventually(t, "nothing parked", func() bool { return b.parked() == 0 })
	require.Empty(t, b.read(topics.DLQ(b.in, b.group), 0))
	for _, m := range members {
		m.stop()
	}
}

func TestRunner_SurvivesFaultsOfTheBroker(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"end fails in an unknown way": {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 3, TopLevel: true},
		"end is fenced":               {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 2, TopLevel: true},
		"end is abortable":            {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.TransactionAbortable, Count: 3, TopLevel: true},
		"commit is refused":           {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration, Count: 3},
		"commit is not authorized":    {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: 2},
		"produce is out of order":     {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber, Count: 1},
		"produce is invalid":          {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: 2},
		"fetch fails":                 {Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownServerError, Count: 5},
		"heartbeat fails":             {Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, Count: 3, TopLevel: true},
		"offsets are listed badly":    {Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupFake(t, 2)
			inputs := numbered(2_000, 40)
			b.produce(inputs[:1_000]...)
			cfg := b.config(&copier{out: b.out, fail: flaky})
			cfg.MaxRecords = 100
			if name == "offsets are listed badly" {
				b.fake.Fault(fault)
			}
			r := start(t, cfg)
			eventually(t, "it runs", func() bool { return r.metric("leat_records_total", "copied") > 300 })
			h := b.fake.Fault(fault)
			defer h.Remove()
			b.produceAsync(inputs[1_000:]...)
			b.requireExact(inputs)
			require.Zero(t, b.parked())
		})
	}
}

// TestRunner_ThrownOutOfItsGroupInABatchComesBack lets the group forget a member whose batch is in flight, as after a stop of the process. It
// must not wait for what its own batch holds up, until the watchdog or Kafka's transaction timeout helps.
func TestRunner_ThrownOutOfItsGroupInABatchComesBack(t *testing.T) {
	t.Parallel()
	b := setupFake(t, 2)
	inputs := numbered(100, 10)
	b.produce(inputs...)
	thrownOut := make(chan struct{})
	var heartbeats, batches atomic.Int32
	b.fake.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.fake.KeepControl()
		if batches.Load() == 0 || heartbeats.Add(1) > 1 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code
		close(thrownOut)
		return resp, nil, true
	})
	h := &copier{out: b.out}
	cfg := b.config(processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		if batches.Add(1) == 1 {
			<-thrownOut
			<-time.After(200 * time.Millisecond) // the client takes notice
		}
		return h.Handle(ctx, batch)
	}))
	cfg.TransactionTimeout = 20 * time.Second
	cfg.HeartbeatInterval = 100 * time.Millisecond
	r := start(t, cfg)
	b.requireExact(inputs)
	require.Zero(t, r.metric("leat_watchdog_trips_total"))
}

// produceAsync retries, because the fault may hit the test's own client.
func (b *bundle) produceAsync(inputs ...input) {
	b.t.Helper()
	for _, in := range inputs {
		rec := func() *kgo.Record { return &kgo.Record{Topic: b.in, Key: []byte(in.key), Value: []byte(in.value)} }
		eventually(b.t, "produced", func() bool { return b.cl.ProduceSync(b.t.Context(), rec()).FirstErr() == nil })
	}
}

func TestRunner_CancelsAStuckHandler(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(10, 10)
	b.produce(inputs...)
	var stuck atomic.Bool
	h := &copier{out: b.out}
	cfg := b.config(processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		if !stuck.Swap(true) {
			<-ctx.Done()
			return nil
		}
		return h.Handle(ctx, batch)
	}))
	cfg.TransactionTimeout = time.Second
	r := start(t, cfg)
	b.requireExact(inputs)
	require.InDelta(t, 1, r.metric("leat_watchdog_trips_total"), 0)
	require.Zero(t, b.parked(), "an interruption is not an attempt")
}

func TestRunner_LeavesWhenAHandlerNeverComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(10, 10)
	b.produce(inputs...)
	release := make(chan struct{})
	gone := make(chan struct{})
	cfg := b.config(processors.HandlerFunc(func(context.Context, []processors.Message) []processors.Result {
		defer close(gone)
		<-release
		return nil
	}))
	cfg.TransactionTimeout = time.Second
	r := start(t, cfg)
	<-r.done
	require.ErrorIs(t, r.err, processors.ErrStuck)
	other := b.config(&copier{out: b.out})
	other.Instance = "1"
	start(t, other)
	b.requireExact(inputs)
	close(release)
	<-gone
}

func TestRunner_ShutsDownWithinTheGracePeriod(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(10, 10)
	b.produce(inputs...)
	entered := make(chan struct{}, 1)
	cfg := b.config(processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		entered <- struct{}{}
		<-ctx.Done()
		return make([]processors.Result, len(batch))
	}))
	cfg.ShutdownGrace = 500 * time.Millisecond
	r := start(t, cfg)
	<-entered
	r.stop()
	start(t, b.config(&copier{out: b.out}))
	b.requireExact(inputs)
}

func TestRunner_FencesAZombieOfTheSameInstance(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(100, 10)
	b.produce(inputs...)
	entered, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	h := &copier{out: b.out, fail: flaky}
	zombie := start(t, b.config(processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		rs := h.Handle(ctx, batch)
		if !first.Swap(true) {
			close(entered)
			<-release
		}
		return rs
	})))
	<-entered
	start(t, b.config(&copier{out: b.out, fail: flaky})) // waits for the partition; the batch of the zombie blocks the rebalance
	close(release)
	b.requireExact(inputs)
	zombie.stop()
	b.requireExact(inputs)
	require.Zero(t, b.parked())
}

func TestRunner_StopsReadingWhenTooMuchIsParked(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(500, 1)
	b.produce(inputs...)
	var healed atomic.Bool
	cfg := b.config(&copier{out: b.out, fail: func(processors.Message) error {
		if !healed.Load() {
			return errors.New("no")
		}
		return nil
	}})
	cfg.MaxRecords, cfg.MaxParkedRecords, cfg.Retry.MaxAttempts = 20, 100, 1_000_000
	r := start(t, cfg)
	eventually(t, "full", func() bool {
		ps := r.Status().Partitions
		return len(ps) == 1 && ps[0].State == "full" && ps[0].ParkedRecords == 100
	})
	healed.Store(true)
	b.requireExact(inputs)
}

func TestRunner_FencesATransactionOfRetriesAlone(t *testing.T) {
	t.Parallel()
	b := setupFake(t, 1)
	var commits atomic.Int64
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if m.Attempt == 1 {
			return errors.New("first")
		}
		return nil
	}})
	cfg.Retry.Base = 500 * time.Millisecond
	cfg.Retry.Max = time.Second
	r := start(t, cfg)
	b.produce(input{"k", "0"})
	eventually(t, "parked", func() bool { return r.metric("leat_parked_keys") == 1 })
	h := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration, Count: 1, When: func(req kmsg.Request) bool {
		commits.Add(1)
		c, ok := req.(*kmsg.TxnOffsetCommitRequest)
		return ok && c.Topics[0].Partitions[0].Offset == 1
	}})
	b.requireExact([]input{{"k", "0"}})
	require.Equal(t, 1, h.Hits(), "a retry without new input commits an offset, too")
	require.InDelta(t, 1, r.metric("leat_txn_abort_total", "rebalance"), 0)
	require.Zero(t, b.parked())
}

func TestRunner_FoldsATopicWhoseEndWasCompactedAway(t *testing.T) {
	t.Parallel()
	b := setupFake(t, 1)
	zero := "0"
	_, err := b.adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "delete.retention.ms", Value: &zero}},
		topics.Retry(b.in, b.group))
	require.NoError(t, err)
	cfg := b.config(&copier{out: b.out, fail: flaky})
	r := start(t, cfg)
	inputs := numbered(200, 5)
	b.produce(inputs[:100]...)
	b.requireExact(inputs[:100])
	eventually(t, "nothing parked", func() bool { return b.parked() == 0 })
	r.stop()
	b.fake.Compact()
	start(t, cfg)
	b.produce(inputs[100:]...)
	b.requireExact(inputs)
}

func TestRunner_IsNotReadyWhileKafkaIsGone(t *testing.T) {
	t.Parallel()
	b := setupFake(t, 1)
	b.produce(input{"k", "0"})
	r := start(t, b.config(&copier{out: b.out}))
	b.requireExact([]input{{"k", "0"}})
	require.NoError(t, r.Ready())
	b.fake.Close()
	eventually(t, "not ready", func() bool { return r.Ready() != nil })
	require.ErrorContains(t, r.Ready(), "Kafka does not answer")
	r.stop() // and it stops all the same
}
