package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/safetext"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// run runs an Agent until the test ends or stop is called.
func run(t *testing.T, c control.AgentConfig) (a *control.Agent, stop func()) {
	t.Helper()
	a = control.NewAgent(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return a, stop
}

func settleAll(_ context.Context, o processors.ParkedOrder) (processors.Settled, error) {
	return processors.Settled{Applied: len(o.Offsets)}, nil
}

// stage is a member that keeps what it is told.
type stage struct {
	mu     sync.Mutex
	orders *control.Orders
	ready  error
}

func (s *stage) obey(o control.Orders) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = &o
}

func (s *stage) has(check func(control.Orders) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orders != nil && check(*s.orders)
}

func (s *stage) isReady() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

func TestAgent_BringsEachScopeToWhomItConcerns(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	ctx := t.Context()
	relay, norm, pub := &stage{}, &stage{}, &stage{ready: errors.New("breaker is open")}
	_, stop := run(t, control.AgentConfig{DB: db, Version: "v1", Members: []control.Member{
		{Stage: "relay", Group: "relays", Instance: "0", Sources: []string{"shop"}, Obey: relay.obey},
		{Stage: "normalize", Group: "normalize", Instance: "0", Obey: norm.obey},
		{
			Stage: "publish", Group: "reporting", Instance: "0", Targets: []string{"books"}, Obey: pub.obey, Ready: pub.isReady,
			Status: func() any { return map[string]int{"lag": 3} },
		},
	}})
	all := []*stage{relay, norm, pub}
	free := func() {
		t.Helper()
		for _, s := range all {
			eventually(t, "no orders", func() bool {
				return s.has(func(o control.Orders) bool {
					return o.Pause == "" && o.Leave == "" && o.Breaker == "" && len(o.Tenants) == 0 && len(o.Sources) == 0
				})
			})
		}
	}
	free()
	for _, tt := range []struct {
		scope  control.Scope
		name   string
		paused []*stage
	}{
		{control.Stage, "publish", []*stage{pub}},
		{control.Stage, "relay", []*stage{relay}},
		{control.Group, "normalize", []*stage{norm}},
		{control.Target, "books", []*stage{pub}},
	} {
		_, err := control.SetPause(ctx, db, ana(), control.Pause{Scope: tt.scope, Name: tt.name}, names())
		require.NoError(t, err)
		for _, s := range tt.paused {
			eventually(t, "paused", func() bool {
				return s.has(func(o control.Orders) bool { return o.Pause == string(tt.scope)+" "+tt.name+" by ana: month end" })
			})
		}
		_, err = control.LiftPause(ctx, db, ana(), tt.scope, tt.name)
		require.NoError(t, err)
		free()
	}
	for scope, name := range map[control.Scope]string{control.Source: "shop", control.Tenant: "acme"} {
		_, err := control.SetPause(ctx, db, ana(), control.Pause{Scope: scope, Name: name}, names())
		require.NoError(t, err)
	}
	eventually(t, "the source stands", func() bool {
		return relay.has(func(o control.Orders) bool { return len(o.Sources) == 1 && o.Pause == "" })
	})
	eventually(t, "the tenant waits", func() bool {
		return norm.has(func(o control.Orders) bool { return o.Tenants["acme"] != "" && len(o.Sources) == 0 })
	})
	_, err := control.OrderBreaker(ctx, db, ana(), control.BreakerOrder{Group: "reporting", State: "open"}, names())
	require.NoError(t, err)
	require.NoError(t, control.Drain(ctx, db, ana(), "normalize", time.Now().Add(time.Hour)))
	eventually(t, "the breaker", func() bool {
		return pub.has(func(o control.Orders) bool { return o.Breaker == "open" && o.BreakerReason == "by ana: month end" })
	})
	eventually(t, "the drain", func() bool { return norm.has(func(o control.Orders) bool { return o.Leave != "" && o.Pause == "" }) })

	var ps []control.Process
	eventually(t, "heartbeats", func() bool {
		ps, err = control.Processes(ctx, db)
		return err == nil && len(ps) == 3 && strings.Contains(ps[0].PausedBy, "group normalize by ana until ") && ps[2].PausedBy != ""
	})
	require.Equal(t, "normalize", ps[0].Stage)
	require.Contains(t, ps[0].PausedBy, "tenant acme by ana: month end")
	require.True(t, ps[0].Ready)
	require.True(t, ps[0].Alive())
	require.False(t, ps[1].Ready)
	require.Equal(t, "breaker is open", ps[1].Problem)
	require.JSONEq(t, `{"lag": 3}`, string(ps[1].Status))
	require.Equal(t, "v1", ps[1].Version)
	require.Equal(t, "source shop by ana: month end", ps[2].PausedBy, "tenants are no affair of the relay")

	known, err := control.KnownNames(ctx, db, control.Names{Sources: []string{"crm"}})
	require.NoError(t, err)
	require.Equal(t, control.Names{
		Stages: []string{"normalize", "publish", "relay"}, Groups: []string{"normalize", "relays", "reporting"},
		Sources: []string{"crm", "shop"}, Targets: []string{"books"},
	}, known)
	stop()
	ps, err = control.Processes(ctx, db)
	require.NoError(t, err)
	require.Empty(t, ps, "who ends well takes the heartbeat along")
}

func TestAgent_OrdersHoldWhileTheDatabaseIsDown(t *testing.T) {
	t.Parallel()
	server := testenv.PostgresServer(t)
	address := server.Database(t)
	db := migrated(t, address)
	_, err := control.SetPause(t.Context(), db, ana(), control.Pause{Scope: control.Group, Name: "reporting"}, names())
	require.NoError(t, err)
	until := time.Now().Add(8 * time.Second)
	_, err = control.SetPause(t.Context(), db, ana(), control.Pause{Scope: control.Tenant, Name: "acme", Until: until}, names())
	require.NoError(t, err)
	both := func(o control.Orders) bool { return o.Pause != "" && len(o.Tenants) == 1 }
	first := &stage{}
	running, _ := run(t, control.AgentConfig{DB: db, Members: []control.Member{{Stage: "publish", Group: "reporting", Obey: first.obey}}})
	eventually(t, "orders", func() bool { return first.has(both) })

	server.Stop(t)
	second := &stage{}
	late, _ := run(t, control.AgentConfig{DB: pool(t, address), Members: []control.Member{{Stage: "publish", Group: "reporting", Obey: second.obey}}})
	eventually(t, "an order ends by itself, the other one holds", func() bool {
		return first.has(func(o control.Orders) bool { return o.Pause != "" && len(o.Tenants) == 0 })
	})
	require.NoError(t, running.Ready(), "work goes on")
	eventually(t, "the reason", func() bool {
		return late.Ready() != nil && !second.has(func(control.Orders) bool { return true })
	})
	require.ErrorContains(t, late.Ready(), "no work is taken up before the control database has been asked for pauses")
	server.Start(t)
	eventually(t, "orders known", func() bool {
		return late.Ready() == nil && second.has(func(o control.Orders) bool { return o.Pause != "" })
	})
}

func TestAgent_ClosesParkedOrdersOfItsPartitionsOnce(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	ctx := t.Context()
	orders, err := control.OrderParked(ctx, db, ana(), processors.ParkedRetry, []control.ParkedRecord{
		{Group: "g", Topic: "t", Partition: 1, Offset: 7}, {Group: "g", Topic: "t", Partition: 1, Offset: 5}, {Group: "g", Topic: "t", Partition: 2, Offset: 5},
	})
	require.NoError(t, err)
	require.Len(t, orders, 2)
	require.Equal(t, []int64{5, 7}, orders[0].Offsets)
	waiting, err := control.AwaitParked(ctx, db, orders, 0)
	require.NoError(t, err)
	require.Equal(t, "no process of group g runs; it is carried out when one does", waiting[0].Problem)

	owns := func(partition int32, s processors.Settled, err error) control.Member {
		return control.Member{
			Stage: "publish", Group: "g", Instance: string('a' + partition),
			Settle: func(_ context.Context, o processors.ParkedOrder) (processors.Settled, error) {
				if o.Partition != partition {
					return processors.Settled{}, processors.ErrNotOwned
				}
				return s, err
			},
		}
	}
	run(t, control.AgentConfig{DB: db, Members: []control.Member{owns(1, processors.Settled{Applied: 1, Missing: []int64{7}}, nil)}})
	eventually(t, "one is done", func() bool {
		done, err := control.AwaitParked(ctx, db, orders[:1], time.Minute)
		return err == nil && done[0].Applied == 1 && len(done[0].Missing) == 1 && !done[0].DoneAt.IsZero()
	})
	refused := fmt.Errorf("%w: hunter2-hunter2 is in it", processors.ErrOrderRefused)
	run(t, control.AgentConfig{
		DB: db, Members: []control.Member{owns(2, processors.Settled{}, refused)}, Hide: safetext.NewHider("hunter2-hunter2").Told,
	})
	eventually(t, "the other one is refused", func() bool {
		done, err := control.AwaitParked(ctx, db, orders[1:], time.Minute)
		return err == nil && done[0].Applied == 0 && strings.HasSuffix(done[0].Problem, ": [secret] is in it")
	})
	_, err = control.OrderParked(ctx, db, ana(), processors.ParkedRetry, nil)
	require.ErrorContains(t, err, "no parked record is selected")
}

func TestParseOffset(t *testing.T) {
	t.Parallel()
	o, err := control.ParseOffset("source.shop.invoice/3/4711")
	require.NoError(t, err)
	require.Equal(t, control.Offset{Topic: "source.shop.invoice", Partition: 3, Offset: 4711}, o)
	for _, bad := range []string{"", "t/1", "t/1/x", "t/1/2/3", "t/1/2x", "t/01/2", "t/-1/ 2"} {
		_, err := control.ParseOffset(bad)
		require.ErrorContains(t, err, "is not topic/partition/offset", bad)
	}
}

// TestAgent_AStuckHandlerShowsInItsRow runs a stage on a broker, with a handler that does not come back by itself.
func TestAgent_AStuckHandlerShowsInItsRow(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	brokers := testenv.Fake(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	defer cl.Close()
	topic, group := "source.test.in", "g"
	made, err := kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, nil, topic, topics.Retry(topic, group), topics.DLQ(topic, group))
	require.NoError(t, err)
	require.NoError(t, made.Error())
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}).FirstErr())

	freed := make(chan struct{}, 100)
	r, err := processors.NewRunner(processors.Config{
		Name: "publish", Group: group, Instance: "0", Topics: []string{topic}, Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)},
		AwaitOrders: true, TransactionTimeout: 3 * time.Second,
		Handler: processors.HandlerFunc(func(ctx context.Context, _ []processors.Message) []processors.Result {
			<-ctx.Done()
			freed <- struct{}{}
			return nil
		}),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	run(t, control.AgentConfig{DB: db, Members: []control.Member{{
		Stage: "publish", Group: group, Instance: "0", Ready: r.Ready, Status: func() any { return r.Status() }, Settle: r.Settle,
		Obey: func(o control.Orders) { r.Obey(o.Orders) },
	}}})
	eventually(t, "the stuck batch in the row", func() bool {
		ps, err := control.Processes(t.Context(), db)
		require.NoError(t, err)
		var s processors.Status
		return len(ps) == 1 && json.Unmarshal(ps[0].Status, &s) == nil && s.Stuck && !ps[0].Ready &&
			strings.Contains(ps[0].Problem, "a batch makes no progress since")
	})
	<-freed // by the watchdog
}
