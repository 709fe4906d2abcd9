package processors_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// waiting parks the records of two keys for ever, 10 of each, offsets 0 to 19, and returns a runner that holds them.
func waiting(t *testing.T, b *bundle, change ...func(*processors.Config)) (*running, *copier, *atomic.Bool) {
	t.Helper()
	healed := &atomic.Bool{}
	h := &copier{out: b.out, fail: func(processors.Message) error {
		if !healed.Load() {
			return errors.New("not yet")
		}
		return nil
	}}
	cfg := b.config(h)
	cfg.Retry = processors.RetryPolicy{Base: time.Hour, Max: time.Hour, MaxAttempts: 1_000}
	for _, c := range change {
		c(&cfg)
	}
	r := start(t, cfg)
	b.produce(numbered(20, 2)...)
	eventually(t, "parked", func() bool {
		list, err := r.Parked(t.Context(), 100)
		return err == nil && len(list) == 20
	})
	return r, h, healed
}

func (r *running) settle(o processors.ParkedOrder) processors.Settled {
	r.t.Helper()
	var s processors.Settled
	eventually(r.t, "the order is carried out", func() (ok bool) {
		var err error
		s, err = r.Settle(r.t.Context(), o)
		return err == nil
	})
	return s
}

func (b *bundle) order(id string, action processors.ParkedAction, offsets ...int64) processors.ParkedOrder {
	return processors.ParkedOrder{ID: id, Action: action, Topic: b.in, Offsets: offsets, Reason: "ana: ticket 7"}
}

func TestSettle_RetryNowHandlesTheKeyInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, _, healed := waiting(t, b)
	healed.Store(true)
	s := r.settle(b.order("one", processors.ParkedRetry, 8, 4)) // of one key; neither is its head
	require.Equal(t, processors.Settled{Applied: 2}, s)
	var want []input
	for _, in := range numbered(20, 2) {
		if in.key == "acme/test/0" {
			want = append(want, in)
		}
	}
	b.requireExact(want)
	require.Equal(t, 10, b.parked())
	require.Equal(t, processors.Settled{Missing: []int64{100}}, r.settle(b.order("two", processors.ParkedRetry, 100)))
}

func TestSettle_CancelAndDeadLetterOnceWhileEverythingIsPaused(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, h, healed := waiting(t, b)
	r.Obey(processors.Orders{Pause: "ana looks"})
	require.Equal(t, processors.Settled{Applied: 3, Missing: []int64{99}}, r.settle(b.order("c", processors.ParkedCancel, 0, 2, 3, 99)))
	require.Equal(t, processors.Settled{Applied: 2}, r.settle(b.order("d", processors.ParkedDeadLetter, 1, 5)))
	require.Equal(t, processors.Settled{Applied: 2}, r.settle(b.order("d", processors.ParkedDeadLetter, 1, 5)), "given again")
	r.stop()
	cfg := b.config(h)
	cfg.Instance = "another"
	cfg.AwaitOrders = true
	r = start(t, cfg) // what was done is known to every later owner
	r.Obey(processors.Orders{Pause: "ana looks"})
	require.Equal(t, processors.Settled{Applied: 2}, r.settle(b.order("d", processors.ParkedDeadLetter, 1, 5)))
	require.Equal(t, processors.Settled{Applied: 3, Missing: []int64{99}}, r.settle(b.order("c", processors.ParkedCancel, 0, 2, 3, 99)))
	require.Equal(t, processors.Settled{Missing: []int64{0, 1}}, r.settle(b.order("e", processors.ParkedCancel, 0, 1)), "another order finds nothing")

	dead := b.read(topics.DLQ(b.in, b.group), 2)
	require.Len(t, dead, 2)
	f := failure(t, dead[0])
	require.Equal(t, topics.DispositionManual, f.Disposition)
	require.Equal(t, "not yet", f.Message, "what it failed with")
	require.Equal(t, 1, f.Attempt)
	require.Equal(t, "d", f.Order)
	f = failure(t, dead[1]) // waited behind the other one
	require.Equal(t, "ana: ticket 7", f.Message)
	require.Equal(t, "manual", f.Code)
	require.Equal(t, "acme/test/1", string(dead[1].Key))
	require.Equal(t, "2", string(dead[1].Value))

	healed.Store(true)
	r.Obey(processors.Orders{})
	var want []input
	for i, in := range numbered(20, 2) {
		if i > 3 && i != 5 {
			want = append(want, in)
		}
	}
	b.requireExact(want)
	require.Zero(t, b.parked())
}

func TestSettle_AnOrderThatHurriedAKeyDoesNotHurryItAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, h, _ := waiting(t, b)
	r.settle(b.order("one", processors.ParkedRetry, 0))
	failed := 0
	for _, rec := range b.read(topics.Retry(b.in, b.group), 21) {
		if failure(t, rec).Disposition == topics.DispositionRetry && failure(t, rec).Attempt == 1 {
			failed++
		}
	}
	require.Equal(t, 2, failed, "each failed attempt stands once as such")
	eventually(t, "a second attempt", func() bool { return h.times("acme/test/0", "0") == 2 })
	r.settle(b.order("one", processors.ParkedRetry, 0))
	r.settle(b.order("other", processors.ParkedRetry, 1))
	eventually(t, "the other key has its second attempt", func() bool { return h.times("acme/test/1", "0") == 2 })
	require.Equal(t, 2, h.times("acme/test/0", "0"))
}

// TestSettle_WhatIsCancelledIsNotHandledInTheSameTransaction lets a record become due and be cancelled while a batch is in flight.
func TestSettle_WhatIsCancelledIsNotHandledInTheSameTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	entered, release := make(chan struct{}), make(chan struct{})
	h := &copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Value) == "slow" {
			close(entered)
			<-release
		}
		return nil
	}}
	cfg := b.config(h)
	cfg.AwaitOrders = true
	r := start(t, cfg)
	r.Obey(processors.Orders{Tenants: map[string]string{"acme": "wait"}})
	b.produce(input{"acme/test/1", "cancelled"}, input{"acme/test/2", "kept"})
	eventually(t, "parked", func() bool { return r.metric("leat_records_total", "paused") == 2 })
	b.produce(input{"globex/test/1", "slow"})
	<-entered
	r.Obey(processors.Orders{}) // from now on both are due
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Settle(ctx, b.order("c", processors.ParkedCancel, 0))
	require.ErrorIs(t, err, context.DeadlineExceeded, "it waits for the batch in flight")
	close(release)
	b.requireExact([]input{{"globex/test/1", "slow"}, {"acme/test/2", "kept"}})
	require.Equal(t, processors.Settled{Applied: 1}, r.settle(b.order("c", processors.ParkedCancel, 0)))
	require.Zero(t, h.times("acme/test/1", "cancelled"), "the handler never saw it")
}

func TestSettle_ByWhomItIsNotOwned(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, _, _ := waiting(t, b)
	o := b.order("x", processors.ParkedCancel, 0)
	o.Partition = 7
	_, err := r.Settle(t.Context(), o)
	require.ErrorIs(t, err, processors.ErrNotOwned)
	o.Action = "burn"
	_, err = r.Settle(t.Context(), o)
	require.ErrorContains(t, err, `unknown action "burn"`)
	r.stop()
	_, err = r.Settle(t.Context(), b.order("x", processors.ParkedCancel, 0))
	require.ErrorContains(t, err, "not connected")
}

// TestSettle_SurvivesAFailureOfItsTransaction makes the order's transaction fail in different ways: it is carried out once.
func TestSettle_SurvivesAFailureOfItsTransaction(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"commit is refused":   {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration, Count: 2},
		"end is fenced":       {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: 1, TopLevel: true},
		"end is not known":    {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 2, TopLevel: true},
		"produce is disorder": {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupFake(t, 1)
			r, _, _ := waiting(t, b)
			h := b.fake.Fault(fault)
			defer h.Remove()
			require.Equal(t, processors.Settled{Applied: 2}, r.settle(b.order("d", processors.ParkedDeadLetter, 0, 1)))
			require.Positive(t, h.Hits())
			require.Len(t, b.read(topics.DLQ(b.in, b.group), 2), 2)
			require.Equal(t, 18, b.parked())
		})
	}
}

func TestSettle_RefusesAnOrderWhoseRecordsKafkaRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, _, healed := waiting(t, b)
	small := "200"
	b.alter(topics.DLQ(b.in, b.group), "max.message.bytes", &small)
	_, err := r.Settle(t.Context(), b.order("d", processors.ParkedDeadLetter, 0))
	require.Error(t, err)
	require.ErrorContains(t, err, "refused by Kafka")
	healed.Store(true)
	r.settle(b.order("r", processors.ParkedRetry, 0, 1))
	b.requireExact(numbered(20, 2))
}

func TestSettle_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	r, _, _ := waiting(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Settle(ctx, b.order("d", processors.ParkedDeadLetter, 0))
	if err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Equal(t, processors.Settled{Applied: 1}, r.settle(b.order("d", processors.ParkedDeadLetter, 0)))
	require.Len(t, b.read(topics.DLQ(b.in, b.group), 1), 1)
}
