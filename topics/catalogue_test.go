package topics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCatalogue(t *testing.T) {
	t.Parallel()
	all, err := Catalogue(Spec{
		Sources:     []SourceSpec{{System: "shop", Entities: []string{"customer", "invoice"}}},
		Groups:      []GroupSpec{{Group: "normalize", Reads: []string{"source.shop.invoice"}}, {Group: "reporting", Reads: []string{"finance.invoice.v1"}}},
		Partitions:  12,
		Replication: 3,
	})
	require.NoError(t, err)
	byName := map[string]Topic{}
	var names []string
	for _, topic := range all {
		byName[topic.Name] = topic
		names = append(names, topic.Name)
	}
	require.Equal(t, []string{
		"finance.contact.v1", "finance.invoice.v1", "finance.invoice.v1.reporting.dlq", "finance.invoice.v1.reporting.retry",
		"finance.payment.v1", "leat.cursors", "leat.relay.dlq", "source.shop.customer", "source.shop.invoice",
		"source.shop.invoice.normalize.dlq", "source.shop.invoice.normalize.retry",
	}, names)
	for _, topic := range all {
		want := int32(12)
		if topic.Name == Cursors {
			want = 16
		}
		require.Equal(t, want, topic.Partitions, topic.Name)
		require.Equal(t, int16(3), topic.Replication)
		require.Equal(t, "2", topic.Config["min.insync.replicas"])
		require.Equal(t, "CreateTime", topic.Config["message.timestamp.type"])
		compacted := topic.Name == Cursors || strings.HasSuffix(topic.Name, ".retry")
		require.Equal(t, compacted, topic.Config["cleanup.policy"] == "compact", topic.Name)
	}
	require.Equal(t, "7776000000", byName["source.shop.invoice"].Config["retention.ms"])
	require.Equal(t, "-1", byName["finance.invoice.v1"].Config["retention.ms"])
	require.Equal(t, "-1", byName["source.shop.invoice.normalize.dlq"].Config["retention.ms"])
	require.Equal(t, "1048576", byName["source.shop.invoice"].Config["max.message.bytes"])
	require.Equal(t, "1114112", byName["source.shop.invoice.normalize.dlq"].Config["max.message.bytes"])
	require.Equal(t, "1114112", byName["source.shop.invoice.normalize.retry"].Config["max.message.bytes"])
}

func TestCatalogue_ReportsEveryProblem(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	_, err := Catalogue(Spec{
		Sources: []SourceSpec{
			{System: "Shop", Entities: []string{"x"}},
			{System: "empty", Entities: nil},
			{System: "x", Entities: []string{"y_z"}},
			{System: "twice", Entities: []string{"e", "e"}},
		},
		Groups:          []GroupSpec{{Group: "a b", Reads: nil}, {Group: "g", Reads: []string{"finance.nothing.v1", "leat.cursors"}}},
		Partitions:      -1,
		Replication:     -2,
		MaxMessageBytes: 10,
		SourceRetention: time.Second,
	})
	for _, want := range []string{
		`system "Shop"`, "system empty: no entities", `group "a b"`, `"finance.nothing.v1", which is not`, `"leat.cursors", which is not`,
		"partitions: -1", "replication: -2", "max message bytes: 10", "source retention: 1s", "topic source.twice.e occurs twice",
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = Catalogue(Spec{
		Sources: []SourceSpec{{System: long, Entities: []string{long}}, {System: "x", Entities: []string{"y"}}},
		Groups:  []GroupSpec{{Group: long, Reads: []string{Source(long, long)}}, {Group: "retry_x", Reads: []string{"source.x.y"}}},
	})
	require.NoError(t, err, "the longest names fit: 6+1+63+1+63+1+63+6")
	_, err = Catalogue(Spec{
		Sources: []SourceSpec{{System: "a_b", Entities: []string{"c"}}, {System: "a", Entities: []string{"b_c", "b"}}},
		Groups:  []GroupSpec{{Group: "g", Reads: []string{"source.a.b"}}},
	})
	require.ErrorContains(t, err, "topics source.a_b.c and source.a.b_c differ only in '.' and '_'")
}

func TestCatalogue_BrokerDefaultReplication(t *testing.T) {
	t.Parallel()
	all, err := Catalogue(Spec{Replication: -1, SourceRetention: -1, Sources: []SourceSpec{{System: "a", Entities: []string{"b"}}}})
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(all, func(t Topic) bool { return t.Config["min.insync.replicas"] != "" || t.Replication != -1 }))
	i := slices.IndexFunc(all, func(t Topic) bool { return t.Name == "source.a.b" })
	require.Equal(t, "-1", all[i].Config["retention.ms"])
}
