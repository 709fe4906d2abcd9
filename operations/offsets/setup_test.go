package offsets_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/offsets"
)

const patience = time.Minute

// bench is a topic of two partitions, a group, and an Offsets that knows it.
type bench struct {
	*offsets.Offsets
	t            *testing.T
	brokers      []string
	db           *pgxpool.Pool
	cl           *kgo.Client
	adm          *kadm.Client
	topic, group string
	op           audit.Operator
	cfg          offsets.Config
	fake         *kfake.Cluster // of onFake
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		t: t, brokers: testenv.Kafka(t), topic: testenv.Name("source.t"), group: testenv.Name("g"),
		op: audit.Operator{Name: "ana@desk", Reason: "ticket 12"},
	}
	url := testenv.Postgres(t)
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer std.Close()
	_, err = migrations.Up(t.Context(), std, migrations.Control)
	require.NoError(t, err)
	b.db, err = pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(b.db.Close)
	b.cl, err = kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(b.cl.Close)
	b.adm = kadm.NewClient(b.cl)
	b.create(b.topic, 2, nil)
	b.cfg = offsets.Config{DB: b.db, Client: b.cl, Groups: []offsets.Group{{Name: b.group, Reads: []string{b.topic}, Blind: "no target"}}}
	b.with(b.cfg)
	return b
}

func (b *bench) with(cfg offsets.Config) {
	b.t.Helper()
	var err error
	b.Offsets, err = offsets.New(cfg)
	require.NoError(b.t, err)
}

func (b *bench) create(topic string, partitions int32, configs map[string]*string) {
	b.t.Helper()
	_, err := b.adm.CreateTopic(b.t.Context(), partitions, 1, configs, topic)
	require.NoError(b.t, err)
}

// write produces n records to a partition; their values are their numbers.
func (b *bench) write(topic string, partition int32, n int) {
	b.t.Helper()
	var recs []*kgo.Record
	for i := range n {
		recs = append(recs, &kgo.Record{
			Topic: topic, Partition: partition, Key: fmt.Appendf(nil, "acme/shop/%d", i), Value: fmt.Append(nil, i),
		})
	}
	b.produce(recs...)
}

func (b *bench) produce(recs ...*kgo.Record) {
	b.t.Helper()
	require.NoError(b.t, b.cl.ProduceSync(b.t.Context(), recs...).FirstErr())
}

// commit sets the group's offset.
func (b *bench) commit(partition int32, offset int64) {
	b.t.Helper()
	var os kadm.Offsets
	os.AddOffset(b.topic, partition, offset, -1)
	require.NoError(b.t, b.adm.CommitAllOffsets(b.t.Context(), b.group, os))
}

// committed are the group's offsets in the topic; -1 for none.
func (b *bench) committed() (all []int64) {
	b.t.Helper()
	got, err := b.adm.FetchOffsets(b.t.Context(), b.group)
	require.NoError(b.t, err)
	for p := range int32(2) {
		if o, ok := got.Lookup(b.topic, p); ok {
			all = append(all, o.At)
		} else {
			all = append(all, -1)
		}
	}
	return all
}

// earliest asks for a plan to the start of the log.
func (b *bench) earliest() offsets.Request {
	return offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Earliest: true}}
}

func (b *bench) plan(r offsets.Request) *offsets.Plan {
	b.t.Helper()
	p, err := b.Plan(b.t.Context(), b.op, r)
	require.NoError(b.t, err)
	return p
}

func (b *bench) apply(p *offsets.Plan) *offsets.Report {
	b.t.Helper()
	r, err := b.Apply(b.t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.NoError(b.t, err)
	return r
}

// join makes a member of the group and waits until it has its partitions. It reads nothing.
func (b *bench) join(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	assigned := make(chan struct{}, 8)
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.brokers...), kgo.ConsumerGroup(b.group), kgo.ConsumeTopics(b.topic), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }),
	}, opts...)...)
	require.NoError(b.t, err)
	b.t.Cleanup(cl.Close)
	select {
	case <-assigned:
	case <-time.After(patience):
		b.t.Fatal("the member was given no partitions")
	}
	b.until("the group to be stable", func() bool {
		g, err := b.adm.DescribeGroups(b.t.Context(), b.group)
		return err == nil && g[b.group].State == "Stable"
	})
	return cl
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	require.Eventually(b.t, ok, patience, 50*time.Millisecond, "waiting for %s", what)
}

//go:fix inline

// writeAt produces records of given times.
func (b *bench) writeAt(partition int32, times ...time.Time) {
	b.t.Helper()
	for _, at := range times {
		b.produce(&kgo.Record{Topic: b.topic, Partition: partition, Value: []byte("x"), Timestamp: at})
	}
}

// raw is the JSON of an entry of the audit log.
func raw(v any) []byte {
	r, _ := v.(json.RawMessage)
	return r
}
