package deadletters_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/topics"
)

func record(key string, pairs ...string) *kgo.Record {
	rec := &kgo.Record{Topic: "orders.DLT", Partition: 2, Offset: 7, Timestamp: time.UnixMilli(1_764_000_000_000), Key: []byte(key), Value: []byte("v")}
	for i := 0; i < len(pairs); i += 2 {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return rec
}

func be32(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }
func be64(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func TestDecode_UnderstandsSpring(t *testing.T) {
	t.Parallel()
	l := deadletters.Decode(record("k",
		"kafka_dlt-original-topic", "orders", "kafka_dlt-original-partition", be32(3), "kafka_dlt-original-offset", be64(1_000_000_007),
		"kafka_dlt-original-timestamp", be64(1_764_000_000_123), "kafka_dlt-original-timestamp-type", "CreateTime",
		"kafka_dlt-original-consumer-group", "billing", "kafka_dlt-exception-fqcn", "org.springframework.kafka.listener.ListenerExecutionFailedException",
		"kafka_dlt-exception-cause-fqcn", "java.lang.IllegalStateException", "kafka_dlt-exception-message", "no customer 17",
		"kafka_dlt-exception-stacktrace", "at ...", "kafka_deliveryAttempt", be32(10)))
	require.Equal(t, deadletters.Spring, l.Format)
	require.Equal(t, "orders/3@1000000007 billing", original(l))
	require.Equal(t, int64(1_764_000_000_123), l.OriginalAt.UnixMilli())
	require.Equal(t, "java.lang.IllegalStateException", l.Code, "the cause, not its wrapper")
	require.Equal(t, "no customer 17", l.Message)
	require.Equal(t, 10, l.Attempts)
	require.NotEmpty(t, l.Fingerprint)

	l = deadletters.Decode(record("k", // retry topics; the headers of two hops
		"kafka_original-topic", "orders", "kafka_original-topic", "orders-retry-1000", "kafka_original-partition", be32(0), "kafka_original-offset", be64(5),
		"kafka_exception-fqcn", "a.B", "kafka_exception-message", "first", "kafka_exception-message", "second", "retry_topic-attempts", string([]byte{4})))
	require.Equal(t, deadletters.Spring, l.Format)
	require.Equal(t, "orders/0@5 ", original(l))
	require.Equal(t, []any{"a.B", "second", 4}, []any{l.Code, l.Message, l.Attempts})
}

func TestDecode_UnderstandsConnectAndStreams(t *testing.T) {
	t.Parallel()
	l := deadletters.Decode(record("k",
		"__connect.errors.topic", "orders", "__connect.errors.partition", "3", "__connect.errors.offset", "42", "__connect.errors.connector.name", "to-s3",
		"__connect.errors.task.id", "0", "__connect.errors.stage", "VALUE_CONVERTER", "__connect.errors.class.name", "org.apache.kafka.connect.json.JsonConverter",
		"__connect.errors.exception.class.name", "org.apache.kafka.connect.errors.DataException", "__connect.errors.exception.message", "bad JSON"))
	require.Equal(t, deadletters.Connect, l.Format)
	require.Equal(t, "orders/3@42 connect-to-s3", original(l))
	require.Equal(t, []any{"VALUE_CONVERTER", "org.apache.kafka.connect.errors.DataException", "bad JSON"}, []any{l.Stage, l.Code, l.Message})

	l = deadletters.Decode(record("k",
		"__streams.errors.exception", "java.lang.NullPointerException", "__streams.errors.message", "x is null", "__streams.errors.topic", "orders",
		"__streams.errors.partition", "1", "__streams.errors.offset", "9"))
	require.Equal(t, deadletters.Streams, l.Format)
	require.Equal(t, "orders/1@9 ", original(l))
	require.Equal(t, []any{"java.lang.NullPointerException", "x is null"}, []any{l.Code, l.Message})
}

func TestDecode_UnderstandsOurs(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Microsecond)
	f := topics.Failure{
		Topic: "source.shop.invoice", Partition: 3, Offset: 9, Time: now, Group: "normalize", Handler: "normalize", Attempt: 2, FirstFailedAt: now,
		LastFailedAt: now, Class: "permanent", Code: "mapping", Disposition: topics.DispositionPermanent, Fingerprint: "v1:1", Message: "m", ReplayCount: 1, ReplayID: "r",
	}
	ours := func(f topics.Failure, own ...topics.Header) *kgo.Record {
		rec := record("acme/shop/inv/1")
		for _, h := range f.Append(own) {
			rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
		}
		return rec
	}
	l := deadletters.Decode(ours(f, topics.Header{Key: "ce_id", Value: []byte("e")}))
	require.Equal(t, deadletters.Leat, l.Format)
	require.Equal(t, "source.shop.invoice/3@9 normalize", original(l))
	require.Equal(t, []any{"acme", "shop", "inv/1", "e", 1, "r", "v1:1", now}, []any{l.Tenant, l.System, l.SourceID, l.EventID, l.ReplayCount, l.ReplayID, l.Fingerprint, *l.OriginalAt})

	f = topics.Failure{
		Topic: "source.shop.invoice", Handler: "relay", Attempt: 1, Class: "permanent", Code: "too_large", Disposition: topics.DispositionPermanent,
		OutboxID: 7, SourceSystem: "shop",
	}
	l = deadletters.Decode(ours(f))
	require.Equal(t, deadletters.Relay, l.Format)
	require.Nil(t, l.OriginalOffset, "the row became no record")

	l = deadletters.Decode(record("\xff\x00", "x", "\x00\xff"))
	require.Equal(t, deadletters.Unknown, l.Format)
	require.Equal(t, int32(2), l.ID.Partition)
}

func original(l deadletters.Letter) string {
	if l.OriginalPartition == nil || l.OriginalOffset == nil {
		return l.OriginalTopic
	}
	return fmt.Sprintf("%s/%d@%d %s", l.OriginalTopic, *l.OriginalPartition, *l.OriginalOffset, l.Group)
}

func FuzzDecode(f *testing.F) {
	f.Add("acme/shop/1", "kafka_dlt-original-topic", []byte("t"), "kafka_dlt-original-partition", []byte{0, 0, 0, 1}, int64(1))
	f.Add("\x00", "__connect.errors.offset", []byte("1"), "__connect.errors.exception.message", []byte("a\x00\xffb"), int64(-1)<<62)
	f.Add("k", "retry_topic-attempts", []byte{0xff}, "kafka_original-timestamp", []byte{0x7f, 1, 1, 1, 1, 1, 1, 1}, int64(1)<<61)
	f.Fuzz(func(t *testing.T, key, name1 string, value1 []byte, name2 string, value2 []byte, ms int64) {
		rec := record(key, name1, string(value1), name2, string(value2), "kafka_original-topic", "t", "ce_id", string(value1))
		rec.Timestamp = time.UnixMilli(ms % (1 << 50))
		l := deadletters.Decode(rec)
		for _, s := range []string{l.Tenant, l.System, l.SourceID, l.EventID, l.Group, l.Stage, l.OriginalTopic, l.Code, l.Message, l.Fingerprint} {
			require.True(t, utf8.ValidString(s))
			require.NotContains(t, s, "\x00", "Postgres cannot store it")
			require.LessOrEqual(t, len(s), 1<<10)
		}
		require.GreaterOrEqual(t, l.Attempts, 0)
		if l.OriginalPartition != nil {
			require.GreaterOrEqual(t, *l.OriginalPartition, int32(0))
		}
		_, err := json.Marshal(l) // times out of range cannot be written
		require.NoError(t, err)
	})
}
