package relay

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/topics"
)

// wireRow is a row as Postgres sends it in binary form.
func wireRow(id int64, event uuid.UUID, occurred time.Time, texts map[int]string, payload []byte) [][]byte {
	v := make([][]byte, colCount)
	for i, s := range texts {
		v[i] = []byte(s)
	}
	v[colID] = binary.BigEndian.AppendUint64(nil, uint64(id))
	v[colEvent] = event[:]
	v[colOccurredAt] = binary.BigEndian.AppendUint64(nil, uint64(occurred.UnixMicro()-postgresEpoch))
	v[colPayload] = payload
	if payload != nil {
		v[colPayloadSize] = binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	}
	v[colHeaders] = append([]byte{1}, v[colHeaders]...)
	return v
}

// TestEncoder_WritesTheEnvelope compares the relay's own encoding with the one in topics, and its size with a bound.
func TestEncoder_WritesTheEnvelope(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,10}[a-z0-9]`)
		want := topics.Envelope{
			ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "event")).String(), Tenant: name.Draw(t, "tenant"), System: "shop",
			Kind: topics.SourceKind(name.Draw(t, "entity")), Operation: rapid.SampledFrom([]topics.Operation{topics.Upsert, topics.Delete}).Draw(t, "op"),
			Subject: rapid.StringN(1, 40, 200).Draw(t, "key"), Sequence: rapid.Int64Min(1).Draw(t, "id"), Epoch: 3,
			Time:       time.UnixMicro(rapid.Int64Range(minTime, maxTime).Draw(t, "time")).UTC(),
			DataSchema: rapid.StringN(0, 5, 20).Draw(t, "schema"), ContentType: rapid.StringN(0, 5, 20).Draw(t, "type"),
		}
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		e := newEncoder("shop", newDestinations("shop", nil, nil), nil)
		e.setEpoch(3)
		var b batch
		for range 2 { // the second time into used memory
			b.reset()
			require.NoError(t, e.add(&b, wireRow(want.Sequence, uuid.MustParse(want.ID), want.Time, map[int]string{
				colTenant: want.Tenant, colEntity: want.Entity(), colKey: want.Subject, colOperation: string(want.Operation),
				colContentType: want.ContentType, colSchemaVersion: want.DataSchema, colHeaders: "{}",
			}, payload), false))
		}
		rec := b.recs[0]
		require.Nil(t, b.rows[0].refused)
		require.Equal(t, records(want.Append(nil)), rec.Headers)
		require.Equal(t, topics.Key(want.Tenant, "shop", want.Subject), rec.Key)
		require.Equal(t, payload, rec.Value)
		require.Equal(t, topics.Source("shop", want.Entity()), rec.Topic)
		require.LessOrEqual(t, wireSize(&rec), b.rows[0].bound)
	})
}

// FuzzEncoder demands that a row of any content becomes a record that readers accept, or a dead letter, and never a panic.
func FuzzEncoder(f *testing.F) {
	f.Add(int64(1), "acme", "invoice", "1", "upsert", "application/json", "1", `{"traceparent": "00-1"}`, int64(1), []byte("{}"))
	f.Add(int64(-1), "", "A b", "", "drop", "", "", `{"ce_id": "x", "n": 1}`, int64(1<<62), []byte(nil))
	f.Fuzz(func(t *testing.T, id int64, tenant, entity, key, op, contentType, schema, headers string, micros int64, payload []byte) {
		v := wireRow(id, uuid.UUID{15: 1}, time.UnixMicro(0), map[int]string{
			colTenant: tenant, colEntity: entity, colKey: key, colOperation: op, colContentType: contentType, colSchemaVersion: schema,
			colHeaders: headers,
		}, payload)
		v[colOccurredAt] = binary.BigEndian.AppendUint64(nil, uint64(micros))
		dests := newDestinations("shop", nil, nil)
		d := dests.of([]byte(entity))
		d.exists, d.maxBytes, d.checked = true, 1<<20, time.Now()
		dests.dlq.maxBytes = 1<<20 + topics.FailureHeadroom
		e := newEncoder("shop", dests, nil)
		e.setEpoch(1)
		var b batch
		require.NoError(t, e.add(&b, v, false))
		require.NoError(t, dests.settle(t.Context(), &b))
		rec := &b.recs[0]
		if rec.Topic == topics.RelayDLQ {
			require.LessOrEqual(t, wireSize(rec), dests.dlq.maxBytes)
			_, err := topics.DecodeFailure(headersOf(rec))
			require.NoError(t, err)
			return
		}
		require.LessOrEqual(t, wireSize(rec), d.maxBytes)
		// Text from Postgres is UTF-8; what is not cannot come from there.
		if _, err := topics.DecodeEnvelope(headersOf(rec)); err != nil {
			require.ErrorContains(t, err, "UTF-8")
		}
	})
}

func headersOf(rec *kgo.Record) []topics.Header {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header{Key: h.Key, Value: h.Value}
	}
	return hs
}

func BenchmarkEncoder(b *testing.B) {
	e := newEncoder("shop", newDestinations("shop", nil, nil), nil)
	e.setEpoch(1)
	v := wireRow(12345, uuid.New(), time.Now(), map[int]string{
		colTenant: "acme", colEntity: "invoice", colKey: "4711", colOperation: "upsert", colContentType: "application/json",
		colSchemaVersion: "1", colHeaders: "{}",
	}, make([]byte, 500))
	var batch batch
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%10_000 == 0 {
			batch.reset()
		}
		if err := e.add(&batch, v, false); err != nil {
			b.Fatal(err)
		}
	}
}
