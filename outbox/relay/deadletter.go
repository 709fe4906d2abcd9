package relay

import (
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Codes of refusals: metric labels, and the error code of dead letters.
const (
	codeRow           = "invalid_row"     // the row breaks the rules of names, times or operations
	codeHeaders       = "invalid_headers" // the writer's headers are not an object of strings, or use reserved names
	codeUnknownEntity = "unknown_entity"  // there is no topic for the entity
	codeTooLarge      = "too_large"       // larger than the topic takes
	codeRefused       = "kafka_refused"   // Kafka refused the record when it was produced by itself
)

// refusal says why a row goes to the relay's dead letters.
type refusal struct {
	code    string
	message string
}

// refuse notes the first reason why r cannot be delivered.
func (r *row) refuse(code, format string, args ...any) {
	if r.refused == nil {
		r.refused = &refusal{code, fmt.Sprintf(format, args...)}
	}
}

// bury turns the record of a refused row into its dead letter. Key and value stay as they are, byte for byte. When even the
// dead-letter topic, which takes records of up to maxBytes, cannot take it, the value is left out and a header says so; the row
// is still in the outbox. Headers of the writer that are too large themselves are left out as well.
func bury(b *batch, i int, maxBytes int) {
	r, rec := &b.rows[i], &b.recs[i]
	now := time.Now()
	failure := topics.Failure{
		Topic: topics.Source(r.system, r.entity), Time: r.occurred, KeyHash: topics.KeyHash(rec.Key), Handler: "relay", Attempt: 1,
		FirstFailedAt: now, LastFailedAt: now, Class: "permanent", Code: r.refused.code, Message: r.refused.message,
		Fingerprint: topics.Fingerprint("relay", "permanent", r.refused.code, r.refused.message, ""),
		Disposition: topics.DispositionPermanent, OutboxID: max(r.id, 0), SourceSystem: r.system,
	}
	own := make([]topics.Header, 0, len(rec.Headers))
	for _, h := range rec.Headers {
		own = append(own, topics.Header{Key: h.Key, Value: h.Value})
	}
	// The record is made anew: the client may still know the one that was refused.
	dead := kgo.Record{Topic: topics.RelayDLQ, Key: rec.Key, Value: rec.Value, Headers: records(failure.Append(own))}
	if r.cut || wireSize(&dead) > maxBytes {
		dead.Value = nil
		omitted := topics.Header{Key: topics.HeaderValueOmitted, Value: strconv.AppendInt(nil, int64(r.payloadSize), 10)}
		dead.Headers = records(append(failure.Append(own), omitted))
		if wireSize(&dead) > maxBytes {
			dead.Headers = records(append(failure.Append(envelopeOnly(own)), omitted))
		}
	}
	*rec = dead
}

// envelopeOnly leaves out what the writer added.
func envelopeOnly(hs []topics.Header) []topics.Header {
	var own []topics.Header
	for _, h := range hs {
		if reserved(h.Key) && len(h.Value) <= 1<<10 {
			own = append(own, h)
		}
	}
	return own
}

func records(hs []topics.Header) []kgo.RecordHeader {
	out := make([]kgo.RecordHeader, len(hs))
	for i, h := range hs {
		out[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
	}
	return out
}
