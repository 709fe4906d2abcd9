package processors

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

func TestFingerprint_GroupsFailuresOfOneCause(t *testing.T) {
	t.Parallel()
	same := []string{
		`row 17 of "acme/1" at 2026-11-23T10:00:00Z: no customer 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11 (10.0.0.1:5432)`,
		`row 18 of "acme/2" at 2026-11-24T11:30:00Z: no customer 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a12 (10.0.0.2:5432)`,
	}
	require.Equal(t, fingerprint("h", "transient", "c", same[0]), fingerprint("h", "transient", "c", same[1]), parameterize(same[0]))
	require.NotEqual(t, fingerprint("h", "transient", "c", "no customer"), fingerprint("h", "transient", "c", "no invoice"))
	require.NotEqual(t, fingerprint("h", "transient", "c", "x"), fingerprint("h", "permanent", "c", "x"))
	require.Equal(t, "row ? of ? at ?: no customer ? (?)", parameterize(same[0]))
}

func FuzzDecodeParked(f *testing.F) {
	failure := topics.Failure{Topic: "t", Partition: 1, Offset: 2, Key: []byte("k"), Disposition: topics.DispositionRetry}
	for i, h := range failure.Append(nil) {
		f.Add([]byte(topics.ParkedID(1, 2)), []byte("v"), h.Key, h.Value, i)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, name string, text []byte, replace int) {
		hs := failure.Append(nil)
		if replace >= 0 && replace < len(hs) {
			hs[replace] = topics.Header{Key: name, Value: text}
		} else {
			hs = append(hs, topics.Header{Key: name, Value: text})
		}
		rec := &kgo.Record{Topic: "t.g.retry", Partition: 1, Key: key, Value: value}
		for _, h := range hs {
			rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
		}
		e, err := decodeParked("t", rec)
		if err != nil {
			return
		}
		require.Equal(t, int64(2), e.msg.Offset)
		l := newLot()
		l.put(e)
		require.True(t, l.parked(e.msg.Key, e.msg.Offset))
	})
}
