package processors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// panicError is a handler's panic.
type panicError struct {
	value any
	stack []byte
}

func newPanicError(value any) *panicError { return &panicError{value, debug.Stack()} }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// failure describes the failed attempt of a record. prev is what is known of earlier attempts, zero if there are none.
func (r *Runner) failure(msg *Message, prev topics.Failure, c class, d topics.Disposition, err error) topics.Failure {
	f := r.original(msg, prev)
	now := r.now()
	f.Attempt = prev.Attempt + 1
	f.FirstFailedAt, f.LastFailedAt = prev.FirstFailedAt, now
	if f.FirstFailedAt.IsZero() {
		f.FirstFailedAt = now
	}
	f.Class, f.Code, f.Disposition = string(c), Code(err), d
	f.Message = r.cfg.Hide(err.Error())
	if pe := (*panicError)(nil); errors.As(err, &pe) {
		f.Stack = r.cfg.Hide(string(pe.stack))
	}
	f.Fingerprint = topics.Fingerprint(r.cfg.Name, f.Class, f.Code, f.Message, f.Stack)
	return f
}

// waiting describes a record that waits without an attempt: d says for what.
func (r *Runner) waiting(msg *Message, prev topics.Failure, d topics.Disposition) topics.Failure {
	if prev.Attempt > 0 || prev.ReplayCount > 0 { // already parked, and read again after a reset of offsets
		return prev
	}
	f := r.original(msg, prev)
	f.Disposition = d
	return f
}

func (r *Runner) original(msg *Message, prev topics.Failure) topics.Failure {
	return topics.Failure{
		Topic: msg.Topic, Partition: msg.Partition, Offset: msg.Offset, Time: msg.Time, KeyHash: topics.KeyHash(msg.Key),
		Group: r.cfg.Group, Handler: r.cfg.Name, AppVersion: r.cfg.AppVersion,
		ReplayCount: prev.ReplayCount, ReplayID: prev.ReplayID, ResetGeneration: prev.ResetGeneration, Order: prev.Order,
	}
}

// deadLetter is the record of msg on the dead-letter topic. Its timestamp is now, which kgo sets: with the original's, a
// record of last year would be deleted with its segment before anybody had seen it.
func (w *work) deadLetter(msg *Message, f topics.Failure) {
	f.NotBefore, f.Writer = time.Time{}, ""
	w.produce(kgo.Record{
		Topic: w.p.dlq, Partition: w.p.partition,
		Key: msg.Key, Value: msg.Value, Headers: w.kafkaHeaders(f.Append(msg.Headers)),
	})
}

// retryRecord is e as a record of the retry topic.
func (w *work) retryRecord(e *entry) {
	f := e.fail
	f.Key, f.Null, f.Writer = e.msg.Key, e.msg.Value == nil, w.s.id
	value := e.msg.Value
	if value == nil {
		value = []byte{} // null would be a tombstone
	}
	w.produce(kgo.Record{
		Topic: w.p.retry, Partition: w.p.partition, Key: []byte(topics.ParkedID(e.msg.Partition, e.msg.Offset)),
		Value: value, Headers: w.kafkaHeaders(f.Append(e.msg.Headers)),
	})
}

// tombstone takes the record parked at offset off the retry topic, by an operator's order if one is named.
func (w *work) tombstone(offset int64, order string) {
	rec := kgo.Record{
		Topic: w.p.retry, Partition: w.p.partition, Key: []byte(topics.ParkedID(w.p.partition, offset)),
		Headers: []kgo.RecordHeader{{Key: topics.HeaderWriter, Value: []byte(w.s.id)}},
	}
	if order != "" {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: topics.HeaderOrder, Value: []byte(order)})
	}
	w.produce(rec)
}

// decodeParked reads a record of the retry topic. A redrive by an operator is the same kind of record: key ParkedID of the
// original partition and offset, the original's key in leat_original_key (no such header for a record without key), its
// value and headers as they were, leat_original_null for a null value, attempt 0, not-before now, replay count raised by
// one, disposition manual, and no leat_writer.
func decodeParked(topic string, rec *kgo.Record) (*entry, error) {
	partition, offset, err := topics.SplitParkedID(rec.Key)
	if err != nil {
		return nil, err
	}
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	f, err := topics.DecodeFailure(hs)
	if err != nil {
		return nil, err
	}
	if f.Topic != topic || f.Partition != partition || f.Offset != offset || partition != rec.Partition {
		return nil, fmt.Errorf("parked id %s in partition %d does not fit original %s/%d/%d",
			rec.Key, rec.Partition, f.Topic, f.Partition, f.Offset)
	}
	msg := Message{
		Topic: f.Topic, Partition: f.Partition, Offset: f.Offset, Time: f.Time, Key: f.Key, Value: rec.Value,
		Headers: topics.StripFailure(hs),
	}
	if f.Null {
		msg.Value = nil
	}
	f.Key, f.Null, f.Writer = nil, false, ""
	return newEntry(msg, f), nil
}
