package processors_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

// bundle is a broker with the topics of one group.
type bundle struct {
	t       *testing.T
	fake    *kfake.Cluster // nil on a real Kafka
	brokers []string
	in, out string
	group   string
	cl      *kgo.Client
	adm     *kadm.Client
}

func setup(t *testing.T, partitions int32) *bundle {
	t.Helper()
	if s := os.Getenv("LEAT_TEST_KAFKA_BROKERS"); s != "" {
		return setupOn(t, strings.Split(s, ","), nil, partitions)
	}
	return setupFake(t, partitions)
}

// setupFake is for tests that inject faults.
func setupFake(t *testing.T, partitions int32) *bundle {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return setupOn(t, c.ListenAddrs(), c, partitions)
}

func setupOn(t *testing.T, brokers []string, fake *kfake.Cluster, partitions int32) *bundle {
	t.Helper()
	b := &bundle{
		t: t, fake: fake, brokers: brokers, in: testenv.Name("source.test.in"), out: testenv.Name("finance.test.out"),
		group: testenv.Name("g"),
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	b.cl, b.adm = cl, kadm.NewClient(cl)
	b.create(partitions, nil, b.in, b.out, topics.DLQ(b.in, b.group))
	compact := "compact"
	b.create(partitions, map[string]*string{"cleanup.policy": &compact}, topics.Retry(b.in, b.group))
	return b
}

func (b *bundle) create(partitions int32, config map[string]*string, names ...string) {
	b.t.Helper()
	rs, err := b.adm.CreateTopics(b.t.Context(), partitions, 1, config, names...)
	require.NoError(b.t, err)
	require.NoError(b.t, rs.Error())
}

// input is a record in short: partition by key.
type input struct{ key, value string }

func (b *bundle) produce(inputs ...input) {
	b.t.Helper()
	b.produceAt(time.Time{}, inputs...)
}

// produceAt writes records with that timestamp; zero is now.
func (b *bundle) produceAt(at time.Time, inputs ...input) {
	b.t.Helper()
	recs := make([]*kgo.Record, len(inputs))
	for i, in := range inputs {
		recs[i] = &kgo.Record{Topic: b.in, Timestamp: at, Key: []byte(in.key), Value: []byte(in.value), Headers: []kgo.RecordHeader{
			{Key: topics.HeaderTenant, Value: []byte("acme")},
			{Key: topics.HeaderTime, Value: []byte(time.Now().UTC().Format(time.RFC3339Nano))},
		}}
	}
	require.NoError(b.t, b.cl.ProduceSync(b.t.Context(), recs...).FirstErr())
}

// numbered returns n inputs over so many keys: values count up for each key.
func numbered(n, keys int) []input {
	ins := make([]input, n)
	for i := range ins {
		ins[i] = input{fmt.Sprintf("acme/test/%d", i%keys), strconv.Itoa(i / keys)}
	}
	return ins
}

func (b *bundle) config(h processors.Handler) processors.Config {
	return processors.Config{
		Name: "copy", Group: b.group, Topics: []string{b.in}, Instance: "0", Handler: h,
		Kafka: []kgo.Opt{kgo.SeedBrokers(b.brokers...), kgo.FetchMaxWait(100 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond)},
		Retry: processors.RetryPolicy{Base: 20 * time.Millisecond, Max: 100 * time.Millisecond}, AppVersion: "test",
		TransactionTimeout: 10 * time.Second, SessionTimeout: 6 * time.Second, RebalanceTimeout: 8 * time.Second,
		HeartbeatInterval: 200 * time.Millisecond, ShutdownGrace: 5 * time.Second,
	}
}

// running is a Runner that runs.
type running struct {
	*processors.Runner
	t      *testing.T
	reg    *prometheus.Registry
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(t *testing.T, cfg processors.Config) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	if os.Getenv("LEAT_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r, err := processors.NewRunner(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{Runner: r, t: t, reg: reg, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		run.err = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-run.done
	})
	return run
}

func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	<-r.done
	require.NoError(r.t, r.err)
}

func (r *running) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			text := m.String()
			if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(text, `"`+l+`"`) }) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// eventually waits until check holds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	require.Eventually(t, check, patience, 5*time.Millisecond, what)
}

// read returns the first n records of a topic under read_committed, partition by partition in order, and fails if there
// are fewer; if there are more it returns them too.
func (b *bundle) read(topic string, n int) []*kgo.Record {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond), kgo.KeepControlRecords())
	require.NoError(b.t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	var recs []*kgo.Record
	take := func(ctx context.Context) bool {
		fs := cl.PollFetches(ctx)
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				recs = append(recs, r)
			}
		})
		return fs.NumRecords() > 0
	}
	for len(recs) < n && ctx.Err() == nil {
		take(ctx)
	}
	for { // and whatever else is there
		ctx, cancel := context.WithTimeout(b.t.Context(), 300*time.Millisecond)
		more := take(ctx)
		cancel()
		if !more {
			break
		}
	}
	require.GreaterOrEqual(b.t, len(recs), n, "records of %s", topic)
	return recs
}

// requireExact checks that the outputs are the inputs, each once, and in order for each key.
func (b *bundle) requireExact(inputs []input) {
	b.t.Helper()
	want, got := map[string][]string{}, map[string][]string{}
	for _, in := range inputs {
		want[in.key] = append(want[in.key], in.value)
	}
	for _, rec := range b.read(b.out, len(inputs)) {
		got[string(rec.Key)] = append(got[string(rec.Key)], string(rec.Value))
	}
	require.Len(b.t, got, len(want))
	for key := range want {
		require.Equal(b.t, want[key], got[key], "key %s", key)
	}
}

func (b *bundle) parked() int {
	b.t.Helper()
	live := map[string]bool{}
	for _, r := range b.read(topics.Retry(b.in, b.group), 0) {
		live[string(r.Key)] = r.Value != nil
		if r.Value == nil {
			delete(live, string(r.Key))
		}
	}
	return len(live)
}

// copier copies every record to the topic out, unless fail says otherwise.
type copier struct {
	out  string
	fail func(m processors.Message) error

	mu   sync.Mutex
	seen map[string]int // times handled, by key and value
}

func (c *copier) Handle(_ context.Context, batch []processors.Message) []processors.Result {
	rs := make([]processors.Result, len(batch))
	for i, m := range batch {
		c.mu.Lock()
		if c.seen == nil {
			c.seen = map[string]int{}
		}
		c.seen[string(m.Key)+"="+string(m.Value)]++
		c.mu.Unlock()
		if c.fail != nil {
			if rs[i].Err = c.fail(m); rs[i].Err != nil {
				continue
			}
		}
		rs[i].Outcome = "copied"
		rs[i].Outputs = []processors.Message{{Topic: c.out, Key: m.Key, Value: m.Value, Headers: m.Headers}}
	}
	return rs
}

func (b *bundle) alter(topic, name string, value *string) {
	b.t.Helper()
	rs, err := b.adm.AlterTopicConfigs(b.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: value}}, topic)
	require.NoError(b.t, err)
	require.NoError(b.t, rs[0].Err)
}
