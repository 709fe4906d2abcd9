package processors

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

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
