package kafka

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// stage is a catalogue of names that no other test uses, on a broker that other tests may use too. It leaves out the topics
// that all installations share.
type stage struct {
	t      *testing.T
	cl     *kgo.Client
	system string
}

func newStage(t *testing.T, brokers []string) *stage {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return &stage{t, cl, testenv.Name("plan")}
}

func (s *stage) catalogue(partitions int32, change func(*topics.Topic)) []topics.Topic {
	s.t.Helper()
	all, err := topics.Catalogue(topics.Spec{
		Sources:    []topics.SourceSpec{{System: s.system, Entities: []string{"invoice"}}},
		Groups:     []topics.GroupSpec{{Group: "g", Reads: []string{topics.Source(s.system, "invoice")}}},
		Partitions: partitions,
	})
	require.NoError(s.t, err)
	all = slices.DeleteFunc(all, func(t topics.Topic) bool { return !strings.HasPrefix(t.Name, "source.") })
	for i := range all {
		if change != nil {
			change(&all[i])
		}
	}
	return all
}

func (s *stage) plan(catalogue []topics.Topic) Plan {
	s.t.Helper()
	p, err := ReadPlan(s.t.Context(), s.cl, catalogue)
	require.NoError(s.t, err)
	return p
}

func (s *stage) apply(p Plan) Report {
	s.t.Helper()
	rep, err := p.Apply(s.t.Context(), s.cl)
	require.NoError(s.t, err)
	return rep
}

func summary(p Plan) (lines []string) {
	for _, c := range p.Changes {
		lines = append(lines, strings.Join([]string{string(c.Action), c.Setting, c.From, c.To}, " "))
	}
	return lines
}

func TestPlan_CreatesAndConverges(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		p := s.plan(s.catalogue(4, nil))
		require.Equal(t, []string{
			"create   4 partitions, 1 replicas", "create   4 partitions, 1 replicas", "create   4 partitions, 1 replicas",
		}, summary(p))
		rep := s.apply(p)
		require.Len(t, rep.Results, 3)
		for _, r := range rep.Results {
			require.True(t, r.Done, r.Error)
		}
		require.True(t, rep.Remaining.Empty())
		require.True(t, s.plan(s.catalogue(4, nil)).Empty())
		require.Empty(t, s.apply(p).Remaining.Changes, "applying an old plan again does no harm")
	})
}

func TestPlan_ChangesSettings(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		s.apply(s.plan(s.catalogue(1, nil)))
		p := s.plan(s.catalogue(1, func(t *topics.Topic) {
			t.Config["max.message.bytes"] = "2000000"
			if strings.HasSuffix(t.Name, ".dlq") {
				t.Config["retention.ms"] = "1000"
			}
		}))
		require.Equal(t, []string{
			"config max.message.bytes 1048576 2000000", "config max.message.bytes 1114112 2000000",
			"config retention.ms -1 1000", "config max.message.bytes 1114112 2000000",
		}, summary(p))
		require.Contains(t, p.Changes[2].Note, "older records are deleted")
		require.True(t, s.apply(p).Remaining.Empty())
	})
}

func TestPlan_PartitionsGrowTogether(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		s.apply(s.plan(s.catalogue(2, nil)))
		p := s.plan(s.catalogue(3, nil))
		require.Equal(t, []string{"partitions partitions 2 3", "partitions partitions 2 3", "partitions partitions 2 3"}, summary(p))
		require.True(t, s.apply(p).Remaining.Empty())

		p = s.plan(s.catalogue(1, nil))
		require.Len(t, p.Refused(), 3)
		require.Contains(t, p.Refused()[0].Remedy, "at least 3")
		rep := s.apply(p)
		require.Len(t, rep.Remaining.Refused(), 3)
		require.Contains(t, rep.Results[0].Error, "refused: Kafka cannot take partitions away")
	})
}

// TestPlan_RefusesToMoveParkedKeys: a retry topic, also that of a group which the catalogue does not know, holds records by
// partition. Its tombstones and the markers of its transactions do not count.
func TestPlan_RefusesToMoveParkedKeys(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		s.apply(s.plan(s.catalogue(2, nil)))
		source := topics.Source(s.system, "invoice")
		other := topics.Retry(source, "other")
		adm := kadm.NewClient(s.cl)
		_, err := adm.CreateTopic(t.Context(), 2, 1, nil, other)
		require.NoError(t, err)

		writer, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(s.system),
			kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, err)
		defer writer.Close()
		write := func(end kgo.TransactionEndTry, records ...*kgo.Record) {
			require.NoError(t, writer.BeginTransaction())
			require.NoError(t, writer.ProduceSync(t.Context(), records...).FirstErr())
			require.NoError(t, writer.EndTransaction(t.Context(), end))
		}
		record := func(key, value string) *kgo.Record {
			r := &kgo.Record{Topic: other, Partition: 1, Key: []byte(key)}
			if value != "" {
				r.Value = []byte(value)
			}
			return r
		}
		write(kgo.TryCommit, record("a", "parked"), record("b", "parked"))
		write(kgo.TryCommit, record("a", ""))
		p := s.plan(s.catalogue(3, nil))
		require.Len(t, p.Refused(), 3)
		require.Equal(t, "1 records are parked in "+other+", which holds them by partition", p.Refused()[0].Note)
		require.Equal(t, []string{other}, slices.DeleteFunc(p.Unknown, func(n string) bool { return !strings.Contains(n, s.system) }))

		write(kgo.TryCommit, record("b", ""))
		write(kgo.TryAbort, record("c", "never parked"))
		p = s.plan(s.catalogue(3, nil))
		require.Empty(t, p.Refused())
		require.True(t, s.apply(p).Remaining.Empty())
	})
}

func TestPlan_RefusesReplicationAndWhatDependsOnIt(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		s.apply(s.plan(s.catalogue(1, nil)))
		p := s.plan(s.catalogue(1, func(t *topics.Topic) {
			t.Replication = 3
			t.Config["min.insync.replicas"] = "2"
		}))
		require.Equal(t, []string{"refused replication 1 3", "refused replication 1 3", "refused replication 1 3"}, summary(p))
		require.Contains(t, p.Changes[0].Remedy, "kafka-reassign-partitions.sh")
		require.True(t, s.plan(s.catalogue(1, func(t *topics.Topic) { t.Replication = -1 })).Empty())
	})
}

func TestPlan_ReportsWhatFails(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		s := newStage(t, brokers)
		p := s.plan(s.catalogue(1, func(t *topics.Topic) {
			if strings.HasSuffix(t.Name, ".dlq") {
				t.Replication = 100
			}
		}))
		rep, err := p.Apply(t.Context(), s.cl)
		require.ErrorContains(t, err, "g.dlq: creating: INVALID_REPLICATION_FACTOR")
		var done, failed int
		for _, r := range rep.Results {
			if r.Done {
				done++
			} else {
				failed++
			}
		}
		require.Equal(t, []int{2, 1}, []int{done, failed}, "the others are made all the same")
	})
}

func TestPlan_Print(t *testing.T) {
	t.Parallel()
	p := Plan{
		Changes: []Change{
			{Topic: "a", Action: Create, To: "8 partitions, 3 replicas"},
			{Topic: "b", Action: Refused, Setting: "partitions", From: "8", To: "4", Note: "why", Remedy: "what to do"},
		},
		Unknown: []string{"source.old.thing"},
	}
	var b bytes.Buffer
	require.NoError(t, p.WriteText(&b))
	require.Equal(t, ""+
		"TOPIC  ACTION   SETTING     FROM  TO                        NOTE\n"+
		"a      create                     8 partitions, 3 replicas  \n"+
		"b      refused  partitions  8     4                         why; what to do\n"+
		"1 to create, 0 settings to change, 0 to get more partitions, 1 refused.\n"+
		"Not in the catalogue, left alone:\n  source.old.thing\n", b.String())
	js, err := json.Marshal(p)
	require.NoError(t, err)
	require.JSONEq(t, `{"changes":[{"topic":"a","action":"create","to":"8 partitions, 3 replicas"},
		{"topic":"b","action":"refused","setting":"partitions","from":"8","to":"4","note":"why","remedy":"what to do"}],
		"not_in_catalogue":["source.old.thing"]}`, string(js))
	b.Reset()
	require.NoError(t, Plan{}.WriteText(&b))
	require.Equal(t, "The cluster is as the catalogue says.\n", b.String())
	b.Reset()
	rep := Report{Results: []Result{{Change: p.Changes[0], Done: true}, {Change: p.Changes[1], Error: "refused: why"}}}
	require.NoError(t, rep.WriteText(&b))
	require.Contains(t, b.String(), "refused: why")
}

func TestServed(t *testing.T) {
	t.Parallel()
	for topic, want := range map[string]string{
		"source.a.b": "source.a.b", "source.a.b.g.retry": "source.a.b", "finance.invoice.v1.g.dlq": "finance.invoice.v1",
		topics.RelayDLQ: topics.RelayDLQ, ".retry": ".retry", topics.Cursors: topics.Cursors,
	} {
		require.Equal(t, want, served(topic))
	}
}
