package processors_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// passed returns when the loop has seen the orders of now.
func (r *running) passed() {
	r.t.Helper()
	eventually(r.t, "an answer of the loop", func() bool {
		_, err := r.Parked(r.t.Context(), 1)
		return err == nil
	})
}

func (c *copier) times(key, value string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[key+"="+value]
}

func TestRunner_TakesUpNothingBeforeItsOrders(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	inputs := numbered(100, 10)
	b.produce(inputs...)
	h := &copier{out: b.out}
	cfg := b.config(h)
	cfg.AwaitOrders = true
	r := start(t, cfg)
	require.ErrorContains(t, r.Ready(), "waits for its orders")
	require.Contains(t, r.Status().Paused, "waits for its orders")
	r.Obey(processors.Orders{Pause: "month end, by ana"})
	r.passed()
	require.EqualError(t, r.Ready(), "paused: month end, by ana")
	require.Zero(t, h.times("acme/test/0", "0"), "a pause survives a restart")
	r.Obey(processors.Orders{})
	b.requireExact(inputs)
	eventually(t, "ready", func() bool { return r.Ready() == nil && r.Status().Paused == "" })
}

func TestRunner_APausedMemberStaysInItsGroup(t *testing.T) {
	t.Parallel()
	b := setup(t, 4)
	h := &copier{out: b.out}
	paused := start(t, b.config(h))
	paused.passed()
	paused.Obey(processors.Orders{Pause: "look at it first"})
	paused.passed()
	inputs := numbered(400, 40)
	b.produce(inputs...)
	cfg := b.config(&copier{out: b.out})
	cfg.Instance = "1"
	other := start(t, cfg)
	eventually(t, "the rebalance", func() bool { return len(other.Status().Partitions) == 2 && len(paused.Status().Partitions) == 2 })
	other.Obey(processors.Orders{Pause: "this too"})
	paused.passed()
	h.mu.Lock()
	require.Empty(t, h.seen)
	h.mu.Unlock()
	other.stop()
	eventually(t, "all partitions are back", func() bool {
		ps := paused.Status().Partitions
		return len(ps) == 4 && !slices.ContainsFunc(ps, func(p processors.PartitionStatus) bool { return p.State == "folding" })
	})
	paused.Obey(processors.Orders{})
	b.requireExact(inputs)
}

func TestRunner_LeavesItsGroupByOrder(t *testing.T) {
	t.Parallel()
	for _, static := range []bool{false, true} {
		t.Run(fmt.Sprintf("static=%t", static), func(t *testing.T) {
			t.Parallel()
			b := setup(t, 2)
			inputs := numbered(200, 20)
			b.produce(inputs...)
			entered, release := make(chan struct{}, 100), make(chan struct{})
			h := &copier{out: b.out}
			cfg := b.config(processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
				entered <- struct{}{}
				<-release
				return h.Handle(ctx, batch)
			}))
			if cfg.StaticMember = static; static {
				cfg.SessionTimeout = 5 * time.Minute // it must leave, not be forgotten
			}
			r := start(t, cfg)
			<-entered
			r.Obey(processors.Orders{Leave: "offsets apply, by ana"})
			close(release)
			eventually(t, "the group to be empty", func() bool {
				groups, err := b.adm.DescribeGroups(t.Context(), b.group)
				return err == nil && groups[b.group].State == "Empty"
			})
			require.ErrorContains(t, r.Ready(), "is drained: offsets apply, by ana")
			before := b.read(b.out, 1)
			b.resetOffsets()
			r.Obey(processors.Orders{})
			all := b.read(b.out, len(before)+len(inputs))
			require.Len(t, all, len(before)+len(inputs), "the batch in flight was committed, once; then everything again")
			require.NoError(t, r.Ready())
		})
	}
}

// shared returns inputs of two tenants, each with so many keys.
func shared(n, keys int) (all []input) {
	for i := range n {
		for _, tenant := range []string{"acme", "globex"} {
			all = append(all, input{fmt.Sprintf("%s/test/%d", tenant, i%keys), strconv.Itoa(i / keys)})
		}
	}
	return all
}

func only(tenant string, inputs []input) []input {
	return slices.DeleteFunc(slices.Clone(inputs), func(in input) bool { return !strings.HasPrefix(in.key, tenant+"/") })
}

func TestRunner_APausedTenantWaitsInOrderWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	h := &copier{out: b.out, fail: func(m processors.Message) error {
		if m.Attempt == 1 && strings.HasSuffix(string(m.Key), "/3") {
			return errors.New("row 3 is locked")
		}
		return nil
	}}
	cfg := b.config(h)
	cfg.AwaitOrders = true
	held := processors.Orders{Tenants: map[string]string{"globex": "their ledger is closed"}}
	inputs := shared(400, 20)
	r := start(t, cfg)
	r.Obey(held)
	b.produce(inputs[:400]...)
	b.requireExact(only("acme", inputs[:400]))
	eventually(t, "all of globex is parked", func() bool { return r.metric("leat_records_total", "paused") == 200 })
	list, err := r.Parked(t.Context(), 1_000)
	require.NoError(t, err)
	require.Len(t, list, 200)
	for _, p := range list {
		require.Equal(t, topics.DispositionPaused, p.Failure.Disposition)
		require.Zero(t, p.Failure.Attempt)
	}
	require.NoError(t, r.Ready(), "the others flow")
	require.Equal(t, held.Tenants, r.Status().Tenants)

	r.stop() // the state is the retry topic's
	r = start(t, cfg)
	r.Obey(held)
	second := cfg
	second.Instance = "1"
	other := start(t, second) // and moves with its partition
	other.Obey(held)
	b.produce(inputs[400:]...)
	b.requireExact(only("acme", inputs))
	require.Zero(t, h.times("globex/test/0", "0"))
	for _, one := range []*running{r, other} {
		one.Obey(processors.Orders{})
	}
	b.requireExact(inputs)
	require.Zero(t, b.parked())
	require.Empty(t, b.read(topics.DLQ(b.in, b.group), 0))
}

func TestRunner_HeadsOfAPausedTenantWaitToo(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	var healed atomic.Bool
	h := &copier{out: b.out, fail: func(processors.Message) error {
		if !healed.Load() {
			return errors.New("no")
		}
		return nil
	}}
	cfg := b.config(h)
	cfg.Retry.MaxAttempts = 1_000_000
	r := start(t, cfg)
	inputs := numbered(10, 1)
	b.produce(inputs...)
	eventually(t, "parked", func() bool { return r.metric("leat_retry_scheduled_total") >= 2 })
	r.Obey(processors.Orders{Tenants: map[string]string{"acme": "wait"}})
	r.passed()
	list, err := r.Parked(t.Context(), 100)
	require.NoError(t, err)
	attempts := list[0].Failure.Attempt
	healed.Store(true)
	other := []input{{"globex/test/1", "x"}}
	b.produce(other...)
	b.read(b.out, 1) // the loop went round
	list, err = r.Parked(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, list, 10)
	require.Equal(t, attempts, list[0].Failure.Attempt, "no attempt is spent")
	r.Obey(processors.Orders{})
	b.requireExact(append(inputs, other...))
}

func TestRunner_APausedTenantCannotFillTheMemory(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := shared(200, 5)
	b.produce(inputs...)
	cfg := b.config(&copier{out: b.out})
	cfg.MaxRecords, cfg.MaxParkedRecords = 20, 50
	cfg.AwaitOrders = true
	r := start(t, cfg)
	r.Obey(processors.Orders{Tenants: map[string]string{"globex": "wait"}})
	eventually(t, "full", func() bool {
		ps := r.Status().Partitions
		return len(ps) == 1 && ps[0].State == "full" && ps[0].ParkedRecords < 80
	})
	r.Obey(processors.Orders{})
	b.requireExact(inputs)
}

func TestRunner_ABreakerByOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	var down atomic.Bool
	h := &copier{out: b.out, fail: func(processors.Message) error {
		if down.Load() {
			return processors.Systemic("connect", errors.New("connection refused"))
		}
		return nil
	}}
	r := start(t, b.config(h))
	r.passed()
	r.Obey(processors.Orders{Breaker: "open", BreakerReason: "ana: the target is being restored"})
	r.passed()
	require.Equal(t, processors.BreakerOpen, r.Status().Breaker.State)
	require.EqualError(t, r.Ready(), "breaker is open by order: ana: the target is being restored")
	inputs := numbered(100, 50)
	b.produce(inputs...)
	r.passed()
	require.Zero(t, h.times("acme/test/0", "0"))
	down.Store(true)
	r.Obey(processors.Orders{})
	eventually(t, "the breaker decides", func() bool { return r.Status().Breaker.Probes >= 1 })
	r.Obey(processors.Orders{Breaker: "closed", BreakerReason: "ana: it is up"})
	eventually(t, "it fails, and does not open", func() bool { return r.Status().Breaker.Probes >= 2 })
	require.Equal(t, processors.BreakerClosed, r.Status().Breaker.State)
	require.ErrorContains(t, r.Ready(), "held closed by order")
	require.ErrorContains(t, r.Ready(), "connection refused")
	down.Store(false)
	b.requireExact(inputs)
	eventually(t, "ready", func() bool { return r.Ready() == nil })
	require.Empty(t, b.read(topics.DLQ(b.in, b.group), 0), "an outage is not a failure of records, whatever is ordered")
	require.Empty(t, b.read(topics.Retry(b.in, b.group), 0))
}

func TestRunner_ABreakerHeldClosedDoesNotGuess(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.produce(numbered(50, 50)...)
	cfg := b.config(&copier{out: b.out, fail: func(processors.Message) error { return errors.New("field total is gone") }})
	cfg.Retry.MaxAttempts = 2
	cfg.AwaitOrders = true
	r := start(t, cfg)
	r.Obey(processors.Orders{Breaker: "closed", BreakerReason: "ana: the records are broken"})
	dead := b.read(topics.DLQ(b.in, b.group), 50)
	require.Len(t, dead, 50)
	require.Equal(t, topics.DispositionExhausted, failure(t, dead[0]).Disposition)
}

func TestRunner_AStuckHandlerShows(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.produce(numbered(10, 10)...)
	entered := make(chan struct{}, 10)
	cfg := b.config(processors.HandlerFunc(func(ctx context.Context, _ []processors.Message) []processors.Result {
		entered <- struct{}{}
		<-ctx.Done()
		return nil
	}))
	cfg.TransactionTimeout = 2 * time.Second
	r := start(t, cfg)
	<-entered
	eventually(t, "the batch in flight", func() bool { return !r.Status().Batch.IsZero() })
	eventually(t, "stuck", func() bool { return r.Status().Stuck })
	eventually(t, "not ready", func() bool { err := r.Ready(); return err != nil && strings.Contains(err.Error(), "makes no progress") })
	<-entered // freed, and tried again
}
