package relay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/topics"
)

// columns are what every query of rows selects, in the order that encoder.add expects. A payload of more than $1 bytes stays
// where it is: no topic would take it, and one such row must not fill the relay's memory. The length of a toasted value is
// known without reading it.
//
// The other columns that the table does not bound are cut short for the same reason: what is longer than any writer of ours makes it
// comes as null, and the row is refused. Headers are measured as they are stored, which may be compressed, because measuring their text
// would build it for every row.
const columns = `id, event_id, tenant, entity, key, operation,
  case when octet_length(payload) <= $1::int then payload end, octet_length(payload),
  case when octet_length(content_type) <= 4096 then content_type end,
  case when octet_length(schema_version) <= 4096 then schema_version end,
  case when pg_column_size(headers) <= 65536 then headers end, occurred_at`

const (
	colID = iota
	colEvent
	colTenant
	colEntity
	colKey
	colOperation
	colPayload
	colPayloadSize
	colContentType
	colSchemaVersion
	colHeaders
	colOccurredAt
	colCount
)

// encoder turns outbox rows of one source into Kafka records. Header values that repeat from row to row are shared.
type encoder struct {
	source   []byte // value of ce_source
	system   string
	epoch    int64
	epochVal []byte
	dests    *destinations
	interned map[string][]byte
	tracer   trace.Tracer // nil: no spans
}

const specVersion = "1.0"

func newEncoder(system string, dests *destinations, tracer trace.Tracer) *encoder {
	return &encoder{source: []byte("/" + system), system: system, dests: dests, interned: map[string][]byte{}, tracer: tracer}
}

func (e *encoder) setEpoch(epoch int64) {
	if epoch != e.epoch {
		e.epoch, e.epochVal = epoch, strconv.AppendInt(nil, epoch, 10)
	}
}

// intern returns a copy of v that outlives the batch.
func (e *encoder) intern(v []byte) []byte {
	if c, ok := e.interned[string(v)]; ok {
		return c
	}
	if len(e.interned) >= 4096 {
		clear(e.interned)
	}
	c := bytes.Clone(v)
	e.interned[string(c)] = c
	return c
}

// add appends the record of a row to b. What can be seen to be wrong with it without asking Kafka is noted as its refusal.
func (e *encoder) add(b *batch, v [][]byte, late bool) error {
	if len(v) != colCount || len(v[colID]) != 8 || len(v[colEvent]) != 16 || len(v[colOccurredAt]) != 8 {
		return errors.New("row of leat.outbox does not have the columns of this version")
	}
	b.rows = append(b.rows, row{
		id: int64(binary.BigEndian.Uint64(v[colID])), system: e.system, late: late, dest: e.dests.of(v[colEntity]),
	})
	b.recs = append(b.recs, kgo.Record{})
	r, rec := &b.rows[len(b.rows)-1], &b.recs[len(b.rows)-1]
	r.entity = r.dest.entity
	if size := v[colPayloadSize]; len(size) == 4 {
		r.payloadSize = int(binary.BigEndian.Uint32(size))
		r.cut = v[colPayload] == nil
	}
	rec.Topic = r.dest.topic
	rec.Key, r.event = e.key(b, v), b.arena.take(36)
	putUUID(r.event, v[colEvent])
	if v[colPayload] != nil {
		rec.Value = b.arena.copy(v[colPayload])
	}
	e.headers(b, r, rec, v)
	if e.tracer != nil {
		e.trace(b, r, rec, v)
	}
	// Headers of ours have at most 700 bytes besides those that vary freely; JSON of headers is longer than the headers.
	r.bound = 2*len(rec.Key) + len(rec.Value) + len(v[colHeaders]) + len(v[colSchemaVersion]) + len(v[colContentType]) + 1024
	b.bytes += r.bound - 700 // the usual size of our headers is about 300
	if r.occurred.Before(b.oldest) || b.oldest.IsZero() {
		b.oldest = r.occurred
	}
	return nil
}

// key is topics.Key without its allocations.
func (e *encoder) key(b *batch, v [][]byte) []byte {
	t, k := v[colTenant], v[colKey]
	key := b.arena.take(len(t) + len(e.source) + 1 + len(k))
	n := copy(key, t)
	n += copy(key[n:], e.source)
	key[n] = '/'
	copy(key[n+1:], k)
	return key
}

// headers writes what topics.Envelope.Append would, in the same order, without its allocations.
func (e *encoder) headers(b *batch, r *row, rec *kgo.Record, v [][]byte) {
	user := v[colHeaders]
	if len(user) > 0 && user[0] == 1 { // the version byte of jsonb's binary form
		user = user[1:]
	}
	n := 0
	if len(user) > 2 {
		n = bytes.Count(user, []byte{':'})
	}
	hs := b.headers.take(12 + n)
	add := func(name string, value []byte) {
		if len(value) > 0 {
			hs = append(hs, kgo.RecordHeader{Key: name, Value: value})
		}
	}
	add(topics.HeaderSpecVersion, e.intern([]byte(specVersion)))
	add(topics.HeaderID, r.event)
	add(topics.HeaderSource, e.source)
	switch topics.Operation(v[colOperation]) {
	case topics.Upsert:
		add(topics.HeaderType, r.dest.typeUpsert)
	case topics.Delete:
		add(topics.HeaderType, r.dest.typeDelete)
	default:
		r.refuse(codeRow, "operation %.40q is neither upsert nor delete", v[colOperation])
	}
	add(topics.HeaderSubject, rec.Key[len(rec.Key)-len(v[colKey]):])
	add(topics.HeaderTime, e.time(b, r, v[colOccurredAt]))
	add(topics.HeaderSequence, appendInt(b, r.id))
	add(topics.HeaderEpoch, e.epochVal)
	add(topics.HeaderDataSchema, e.intern(v[colSchemaVersion]))
	add(topics.HeaderContentType, e.intern(v[colContentType]))
	add(topics.HeaderTenant, e.intern(v[colTenant]))
	switch {
	case !topics.ValidName(string(v[colTenant])):
		r.refuse(codeRow, "tenant %.80q is not a valid name", v[colTenant])
	case len(v[colKey]) == 0:
		r.refuse(codeRow, "the key is empty")
	case r.id < 1:
		r.refuse(codeRow, "id %d is not positive", r.id)
	case v[colContentType] == nil || v[colSchemaVersion] == nil:
		r.refuse(codeRow, "content_type or schema_version has more than 4096 bytes; write what they are for, 256 and 64 bytes at most")
	case v[colHeaders] == nil:
		r.refuse(codeHeaders, "headers have more than 65536 bytes; 8192 are enough for what a header is for: put the rest into the payload")
	}
	if n > 0 {
		hs = e.userHeaders(b, r, hs, user)
	}
	rec.Headers = hs
}

// userHeaders appends the headers that the writer gave the row.
func (e *encoder) userHeaders(b *batch, r *row, hs []kgo.RecordHeader, object []byte) []kgo.RecordHeader {
	parsed := gjson.ParseBytes(b.arena.copy(object)) // parsed shares the bytes
	if !parsed.IsObject() {
		r.refuse(codeHeaders, "headers are not a JSON object")
		return hs
	}
	parsed.ForEach(func(name, value gjson.Result) bool {
		switch {
		case name.Str == "" || reserved(name.Str):
			r.refuse(codeHeaders, "header name %.80q is empty or reserved", name.Str)
		case value.Type != gjson.String:
			r.refuse(codeHeaders, "header %.80q is not a string", name.Str)
		default:
			hs = append(hs, kgo.RecordHeader{Key: name.Str, Value: []byte(value.Str)})
			return true
		}
		return false
	})
	return hs
}

// reserved reports whether only the relay may write header name.
func reserved(name string) bool {
	return strings.HasPrefix(name, "ce_") || strings.HasPrefix(name, "leat_") ||
		name == topics.HeaderTenant || name == topics.HeaderContentType
}

// Microseconds from 1970 to 2000, where timestamptz counts from, and the bounds of what RFC 3339 can say.
const (
	postgresEpoch = 946_684_800_000_000
	minTime       = -62_167_219_200_000_000 // 0000-01-01
	maxTime       = 253_402_300_799_999_999 // 9999-12-31
)

func (e *encoder) time(b *batch, r *row, v []byte) []byte {
	micros := int64(binary.BigEndian.Uint64(v))
	if micros > math.MaxInt64-postgresEpoch || micros+postgresEpoch < minTime || micros+postgresEpoch > maxTime {
		r.refuse(codeRow, "occurred_at is not between the years 0 and 9999")
		r.occurred = time.UnixMicro(0).UTC()
	} else {
		r.occurred = time.UnixMicro(micros + postgresEpoch).UTC()
	}
	return r.occurred.AppendFormat(b.arena.take(len(time.RFC3339Nano))[:0], time.RFC3339Nano)
}

func appendInt(b *batch, n int64) []byte {
	return strconv.AppendInt(b.arena.take(20)[:0], n, 10)
}

func putUUID(dst, src []byte) {
	hex.Encode(dst[0:8], src[0:4])
	hex.Encode(dst[9:13], src[4:6])
	hex.Encode(dst[14:18], src[6:8])
	hex.Encode(dst[19:23], src[8:10])
	hex.Encode(dst[24:36], src[10:16])
	dst[8], dst[13], dst[18], dst[23] = '-', '-', '-', '-'
}

// batchOverhead is what a Kafka record batch takes beside its records, rounded up by the few bytes by which clients differ.
const batchOverhead = 66

// wireSize is the size of the smallest record batch that holds rec, as max.message.bytes counts it.
func wireSize(rec *kgo.Record) int {
	n := 1 + 1 + 1 + varintLen(len(rec.Key)) + len(rec.Key) + varintLen(len(rec.Value)) + len(rec.Value) + varintLen(len(rec.Headers))
	for i := range rec.Headers {
		h := &rec.Headers[i]
		n += varintLen(len(h.Key)) + len(h.Key) + varintLen(len(h.Value)) + len(h.Value)
	}
	return batchOverhead + varintLen(n) + n
}

// varintLen is the length of n as a zigzag varint.
func varintLen(n int) int {
	return (bits.Len64(uint64(n)<<1|1) + 6) / 7
}
