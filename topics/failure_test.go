package topics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/topics"
)

func TestFailure_RoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-zé ]{0,40}`)
		when := func(name string) time.Time {
			if n := rapid.Int64Range(0, 1<<60).Draw(t, name); n != 0 {
				return time.Unix(0, n).UTC()
			}
			return time.Time{}
		}
		f := topics.Failure{
			Topic: text.Draw(t, "topic"), Partition: rapid.Int32Min(0).Draw(t, "partition"),
			Offset: rapid.Int64Min(0).Draw(t, "offset"), Time: when("time"), KeyHash: text.Draw(t, "hash"),
			Key: rapid.SliceOf(rapid.Byte()).Draw(t, "key"), Null: rapid.Bool().Draw(t, "null"), Group: text.Draw(t, "group"),
			Handler: text.Draw(t, "handler"), AppVersion: text.Draw(t, "version"), Attempt: rapid.IntRange(0, 99).Draw(t, "attempt"),
			FirstFailedAt: when("first"), LastFailedAt: when("last"), NotBefore: when("not before"), Class: text.Draw(t, "class"),
			Code: text.Draw(t, "code"), Disposition: topics.DispositionRetry, Fingerprint: text.Draw(t, "fingerprint"),
			Message: text.Draw(t, "message"), Stack: text.Draw(t, "stack"), ReplayCount: rapid.IntRange(0, 9).Draw(t, "replays"),
			ReplayID: text.Draw(t, "replay"), ResetGeneration: rapid.IntRange(0, 9).Draw(t, "generation"),
			Writer: text.Draw(t, "writer"), OutboxID: rapid.Int64Min(0).Draw(t, "outbox"), SourceSystem: text.Draw(t, "system"),
		}
		hs := f.Append([]topics.Header{{Key: "user", Value: []byte{0xff}}, {Key: topics.HeaderGroup, Value: []byte("before")}})
		require.Equal(t, "user", hs[0].Key)
		got, err := topics.DecodeFailure(hs)
		require.NoError(t, err)
		require.Equal(t, f, got)
		require.Equal(t, hs, got.Append(hs), "replaced, not added")
		require.Len(t, topics.StripFailure(hs), 1)
	})
}

func TestFailure_IsBoundedAndUTF8(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é\xff", 10_000)
	f := topics.Failure{
		Topic: long, KeyHash: long, Group: long, Handler: long, AppVersion: long, Class: long, Code: long, Fingerprint: long,
		Message: long, Stack: long, ReplayID: long, Writer: long, SourceSystem: long, Disposition: topics.Disposition(long),
	}
	size := 0
	hs := f.Append(nil)
	for _, h := range hs {
		size += len(h.Key) + len(h.Value) + 8
	}
	require.Less(t, size, 8<<10)
	_, err := topics.DecodeFailure(hs)
	require.NoError(t, err)
}

func TestParkedID_SortsByOffset(t *testing.T) {
	t.Parallel()
	require.Less(t, topics.ParkedID(3, 9), topics.ParkedID(3, 10))
	p, o, err := topics.SplitParkedID([]byte(topics.ParkedID(3, 10)))
	require.NoError(t, err)
	require.Equal(t, int32(3), p)
	require.Equal(t, int64(10), o)
	for _, bad := range []string{"", "3", "3/10", "-1/0000000000000000010", "x/y"} {
		_, _, err := topics.SplitParkedID([]byte(bad))
		require.ErrorContains(t, err, "parked id")
	}
}

func FuzzDecodeFailure(f *testing.F) {
	f.Add("leat_original_topic", []byte("t"), "leat_attempt", []byte("1"))
	f.Add("leat_original_key", []byte{0xff}, "leat_not_before", []byte("2026-11-23T00:00:00Z"))
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2 []byte) {
		base := topics.Failure{Topic: "t", Disposition: topics.DispositionPermanent}
		hs := append(base.Append(nil)[5:], topics.Header{Key: k1, Value: v1}, topics.Header{Key: k2, Value: v2})
		hs = append(hs,
			topics.Header{Key: topics.HeaderOriginalTopic, Value: []byte("t")},
			topics.Header{Key: topics.HeaderOriginalPartition, Value: []byte("0")},
			topics.Header{Key: topics.HeaderOriginalOffset, Value: []byte("0")})
		got, err := topics.DecodeFailure(hs)
		if err != nil {
			return
		}
		again, err := topics.DecodeFailure(got.Append(hs))
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
