package deadletters

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Bounds of the texts that the index takes from a record, in bytes.
const (
	maxText    = 256
	maxMessage = 1 << 10
)

// Decode reads a record of a dead-letter topic, whoever wrote it: it never fails, and what it does not understand it leaves empty.
// Every text it returns can be stored in Postgres.
func Decode(rec *kgo.Record) Letter {
	d := decoder{headers: rec.Headers}
	l := Letter{
		ID: ID{rec.Topic, rec.Partition, rec.Offset}, At: rec.Timestamp.UTC(), Key: rec.Key, State: Open, Bytes: len(rec.Key) + len(rec.Value),
	}
	if t := instant(rec.Timestamp.UnixMilli()); t != nil {
		l.At = *t
	} else {
		l.At = time.UnixMilli(0).UTC()
	}
	for _, h := range rec.Headers {
		l.Bytes += len(h.Key) + len(h.Value)
	}
	l.EventID, l.Tenant = d.text(topics.HeaderID), d.text(topics.HeaderTenant)
	if tenant, system, id, err := topics.SplitKey(rec.Key); err == nil {
		l.Tenant, l.System, l.SourceID = tenant, system, clean(id, maxText)
	}
	switch {
	case d.leat(&l):
	case d.has("kafka_dlt-original-topic"):
		d.spring(&l, "kafka_dlt-")
	case d.has("kafka_original-topic"):
		d.spring(&l, "kafka_")
	case d.hasPrefix("__connect.errors."):
		d.connect(&l)
	case d.hasPrefix("__streams.errors."):
		d.streams(&l)
	default:
		l.Format = Unknown
	}
	if !topics.ValidFingerprint(l.Fingerprint) {
		l.Fingerprint = ""
	}
	if l.Fingerprint == "" && l.Code+l.Message != "" {
		l.Fingerprint = topics.Fingerprint(l.Stage, l.Class, l.Code, l.Message, "")
	}
	return l
}

// decoder looks up headers. Header names may occur more than once in records of others.
type decoder struct{ headers []kgo.RecordHeader }

func (d decoder) leat(l *Letter) bool {
	f, err := topics.DecodeFailure(ownHeaders(d.headers))
	if err != nil {
		return false
	}
	l.Format, l.Group, l.Stage = Leat, clean(f.Group, maxText), clean(f.Handler, maxText)
	l.OriginalTopic, l.OriginalAt = clean(f.Topic, maxText), optional(f.Time)
	if f.SourceSystem != "" || f.OutboxID != 0 || l.ID.Topic == topics.RelayDLQ {
		// Its original is a row of an outbox: a record of the topic that it names was never made of it.
		l.Format = Relay
	} else {
		l.OriginalPartition, l.OriginalOffset = &f.Partition, &f.Offset
	}
	l.Class, l.Code, l.Disposition = clean(f.Class, maxText), clean(f.Code, maxText), clean(string(f.Disposition), maxText)
	l.Fingerprint, l.Message = clean(f.Fingerprint, maxText), clean(f.Message, maxMessage)
	l.Attempts, l.FirstFailedAt, l.LastFailedAt = f.Attempt, optional(f.FirstFailedAt), optional(f.LastFailedAt)
	l.ReplayCount, l.ReplayID = f.ReplayCount, clean(f.ReplayID, maxText)
	return true
}

// spring reads the headers of DeadLetterPublishingRecoverer (prefix kafka_dlt-) or of retry topics (prefix kafka_). Numbers are
// big-endian bytes. With several hops the first original and the last exception are the ones that people ask for.
func (d decoder) spring(l *Letter, prefix string) {
	l.Format, l.Stage = Spring, "spring"
	l.OriginalTopic = d.text(prefix + "original-topic")
	l.OriginalPartition, l.OriginalOffset = narrow(d.number(prefix+"original-partition", 4)), d.number(prefix+"original-offset", 8)
	if ms := d.number(prefix+"original-timestamp", 8); ms != nil {
		l.OriginalAt = instant(*ms)
	}
	l.Group = d.text("kafka_dlt-original-consumer-group")
	l.Message = clean(d.last(prefix+"exception-message"), maxMessage)
	for _, name := range []string{"exception-cause-fqcn", "exception-fqcn", "key-exception-fqcn"} {
		if l.Code == "" {
			l.Code = clean(d.last(prefix+name), maxText)
		}
	}
	for _, name := range []string{"retry_topic-attempts", "kafka_deliveryAttempt"} {
		if n := signed([]byte(d.last(name))); n != nil && *n >= 0 && *n <= math.MaxInt32 && l.Attempts == 0 {
			l.Attempts = int(*n)
		}
	}
}

func (d decoder) connect(l *Letter) {
	const p = "__connect.errors."
	l.Format, l.OriginalTopic, l.Stage = Connect, d.text(p+"topic"), d.text(p+"stage")
	l.OriginalPartition, l.OriginalOffset = narrow(d.number(p+"partition", 0)), d.number(p+"offset", 0)
	if name := d.text(p + "connector.name"); name != "" {
		l.Group = clean("connect-"+name, maxText) // Connect's own name for the group of a sink
	}
	l.Code, l.Message = clean(d.last(p+"exception.class.name"), maxText), clean(d.last(p+"exception.message"), maxMessage)
}

func (d decoder) streams(l *Letter) {
	const p = "__streams.errors."
	l.Format, l.OriginalTopic, l.Stage = Streams, d.text(p+"topic"), "streams"
	l.OriginalPartition, l.OriginalOffset = narrow(d.number(p+"partition", 0)), d.number(p+"offset", 0)
	l.Code, l.Message = clean(d.last(p+"exception"), maxText), clean(d.last(p+"message"), maxMessage)
}

func (d decoder) has(name string) bool {
	for _, h := range d.headers {
		if h.Key == name {
			return true
		}
	}
	return false
}

func (d decoder) hasPrefix(prefix string) bool {
	for _, h := range d.headers {
		if strings.HasPrefix(h.Key, prefix) {
			return true
		}
	}
	return false
}

func (d decoder) first(name string) []byte {
	for _, h := range d.headers {
		if h.Key == name {
			return h.Value
		}
	}
	return nil
}

func (d decoder) text(name string) string { return clean(string(d.first(name)), maxText) }

func (d decoder) last(name string) (v string) {
	for _, h := range d.headers {
		if h.Key == name {
			v = string(h.Value)
		}
	}
	return v
}

// number reads a number from 0: of width bytes in big-endian order, or as text. Bytes that are all digits are text: as
// binary they would be a partition or an offset beyond all sense.
func (d decoder) number(name string, width int) *int64 {
	v := d.first(name)
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil && n >= 0 {
		return &n
	}
	if width == 0 || len(v) != width {
		return nil
	}
	if n := signed(v); n != nil && *n >= 0 {
		return n
	}
	return nil
}

// signed reads a big-endian two's complement number, as Java's ByteBuffer and BigInteger write it; nil if it is too long or empty.
func signed(v []byte) *int64 {
	if len(v) == 0 || len(v) > 8 {
		return nil
	}
	var b [8]byte
	if v[0] >= 0x80 {
		b = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(b[8-len(v):], v)
	return new(int64(binary.BigEndian.Uint64(b[:])))
}

func narrow(n *int64) *int32 {
	if n == nil || *n > math.MaxInt32 {
		return nil
	}
	return new(int32(*n))
}

// instant is a time in milliseconds since 1970; nil outside of years 1 to 9999, which neither JSON nor people take.
func instant(ms int64) *time.Time {
	t := time.UnixMilli(ms).UTC()
	if y := t.Year(); ms < -62135596800000 || ms > 253402300799999 || y < 1 || y > 9999 {
		return nil
	}
	return &t
}

// optional is t at the precision of the database, nil if it is zero or out of range.
func optional(t time.Time) *time.Time {
	if y := t.Year(); t.IsZero() || y < 1 || y > 9999 {
		return nil
	}
	return new(t.UTC().Truncate(time.Microsecond))
}

// clean makes s a text that Postgres takes: valid UTF-8 without U+0000, of at most n bytes.
func clean(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func ownHeaders(hs []kgo.RecordHeader) []topics.Header {
	own := make([]topics.Header, len(hs))
	for i, h := range hs {
		own[i] = topics.Header(h)
	}
	return own
}

// readable is a header's value for people: text as it is, a number of 4 or 8 bytes also as a number, anything else quoted.
func readable(v []byte) string {
	if utf8.Valid(v) && !strings.ContainsFunc(string(v), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }) {
		return string(v)
	}
	if n := signed(v); n != nil && (len(v) == 4 || len(v) == 8) {
		return strconv.FormatInt(*n, 10)
	}
	return strconv.Quote(string(v))
}
