package processors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// verdict says whether a batch may commit.
type verdict struct {
	abort string // reason, as a metric label; empty: commit
	fatal error  // ends the session

	trip           bool // opens the breaker
	reason, sample string
	guessed        bool
}

// judge looks at the results of all partitions.
func (s *session) judge(works []*work) verdict {
	var failed []failedKey
	for _, w := range works {
		failed = append(failed, w.failed...)
		if w.stop == nil {
			continue
		}
		var contract *contractError
		switch {
		case errors.As(w.stop.err, &contract):
			return verdict{abort: "handler", fatal: w.stop.err}
		case w.stop.class == systemic:
			return verdict{
				abort: "systemic", trip: true, reason: "the handler reports " + Code(w.stop.err), sample: s.r.cfg.Hide(w.stop.err.Error()),
			}
		case errors.Is(w.stop.err, errStuck):
			return verdict{abort: "watchdog"}
		default:
			return verdict{abort: "interrupted"}
		}
	}
	return s.guess(works, failed)
}

// guess takes an outage that the handler did not recognise for what it is, before it floods the retry topic. It looks at new
// records only: that what failed before fails again is no sign of an outage, and a batch of retries is full of it.
func (s *session) guess(works []*work, failed []failedKey) verdict {
	p := s.r.cfg.Systemic
	if p.Off || len(failed) < p.MinKeys || s.r.breaker.heldClosed() {
		return verdict{}
	}
	codes := map[string]int{}
	var top failedKey
	for _, f := range failed { // one for each key: later records of a failed key are not settled
		if codes[f.code]++; codes[f.code] > codes[top.code] {
			top = f
		}
	}
	keys := map[string]struct{}{}
	for _, w := range works {
		for i := range w.msgs {
			keys[parkingKey(w.msgs[i].Key, w.msgs[i].Offset)] = struct{}{}
		}
	}
	if codes[top.code] < p.MinKeys || float64(len(failed)) <= p.Ratio*float64(len(keys)) {
		s.guessOff = false
		return verdict{}
	}
	if b := s.r.breaker.snapshot(); b.State != BreakerClosed && s.r.now().Sub(b.Since) > p.MaxPause {
		s.guessOff = true // long enough: let the records have their attempts
	}
	if s.guessOff {
		return verdict{}
	}
	return verdict{
		// Errors of records tell their values, which are not for the status of a stage.
		abort: "systemic", trip: true, guessed: true, sample: topics.Parameterize(top.sample),
		reason: fmt.Sprintf("%d of %d keys of a batch failed, %d of them with %s", len(failed), len(keys), codes[top.code], top.code),
	}
}

// refused handles the refusal of a record by Kafka. What is refused is not known when a batch of records is, so the batch is
// halved again and again until one input record is left: its results are the cause, and it becomes a dead letter.
func (s *session) refused(works []*work, err error) verdict {
	if !isRefusal(err) {
		return verdict{abort: "produce", fatal: fmt.Errorf("producing: %w", err)} // with a pause before the next client
	}
	if s.refuseOrders(works, err) {
		return verdict{abort: "refused"}
	}
	reason := refusalCode(err)
	units := 0
	var last culprit
	for _, w := range works {
		units += w.units
		for _, rec := range w.fresh {
			last = culprit{w.p.topicPartition, rec.Offset}
		}
		for _, e := range w.due {
			last = culprit{w.p.topicPartition, e.msg.Offset}
		}
	}
	if units > 1 {
		s.limit = max(1, units/16)
		s.isolating.Store(true)
		s.r.log.Warn("Kafka refuses a record; looking for it in smaller batches", "error", err, "records", s.limit)
		return verdict{abort: "refused"}
	}
	s.limit = 1
	s.isolating.Store(true)
	if _, again := s.culprits[last]; again {
		return verdict{abort: "refused", trip: true, reason: "Kafka refuses a dead letter: " + reason, sample: err.Error()}
	}
	s.culprits[last] = reason
	return verdict{abort: "refused"}
}

func isRefusal(err error) bool {
	for _, refusal := range []error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException, kerr.TopicAuthorizationFailed,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

func refusalCode(err error) string {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return "record_too_large"
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		return "unknown_topic"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "topic_not_authorized"
	}
	return "record_refused"
}

// abort ends the transaction without effect. Kafka's client rewinds to the committed offsets by itself.
func (s *session) abort(ctx context.Context, works []*work, v verdict) error {
	s.rollback(works)
	s.count("aborted", v.abort)
	// The batch's context has ended if a shutdown or the watchdog interrupted it; the abort is still worth a try.
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.r.cfg.ShutdownGrace)
	defer cancel()
	_, err := s.sess.End(endCtx, kgo.TryAbort)
	if v.trip {
		pause := s.r.breaker.trip(v.reason, v.sample, v.guessed)
		s.r.log.Warn("breaker open", "reason", v.reason, "sample", v.sample, "pause", pause, "held_closed", s.r.breaker.heldClosed())
	}
	return errors.Join(v.fatal, wrapEnd(err))
}

func (s *session) rollback(works []*work) {
	for _, w := range works {
		w.p.lot.rollback()
	}
}

func (s *session) count(result, reason string) {
	s.r.metrics.txns.WithLabelValues(result).Inc()
	if reason != "" {
		s.r.metrics.aborts.WithLabelValues(reason).Inc()
	}
}

// commit makes the effects of a committed transaction true in memory, and only now counts and logs them.
func (s *session) commit(works []*work) {
	s.count("committed", "")
	now := s.r.now()
	if s.limit > 0 {
		if s.limit *= 4; s.limit >= s.r.cfg.MaxRecords {
			s.limit = 0
			s.isolating.Store(false)
		}
	}
	records, handled := 0, 0
	for _, w := range works {
		w.p.lot.commit()
		records += w.units
		handled += w.handled
		for _, rec := range w.fresh {
			if len(s.culprits) == 0 {
				break
			}
			delete(s.culprits, culprit{w.p.topicPartition, rec.Offset})
		}
		for _, e := range w.due {
			delete(s.culprits, culprit{w.p.topicPartition, e.msg.Offset})
		}
		if n := len(w.fresh); n > 0 {
			w.p.lastTime.Store(w.fresh[n-1].Timestamp.UnixMilli())
		}
		w.settled()
		s.publish(w.p, w.next)
		w.report(s.r, now)
	}
	// A probe that the handler did not see, because its key is parked, proves nothing.
	if handled > 0 && s.r.breaker.succeed() {
		s.r.log.Info("breaker closed")
	}
	s.tell(works)
	s.r.log.Debug("transaction committed", "records", records, "partitions", len(works))
}

// report counts and logs what the work has done.
func (w *work) report(r *Runner, now time.Time) {
	t := &w.tally
	for outcome, n := range t.outcomes {
		r.metrics.records.WithLabelValues(outcome).Add(float64(n))
	}
	for _, at := range t.times {
		r.metrics.endToEnd.Observe(now.Sub(at).Seconds())
	}
	for _, late := range t.late {
		r.metrics.retryLate.Observe(late.Seconds())
	}
	r.metrics.retries.Add(float64(t.retries))
	for labels, n := range t.dead {
		r.metrics.deadLetter.WithLabelValues(labels[0], labels[1]).Add(float64(n))
	}
	w.endSpans(now)
	for _, line := range t.logs {
		r.log.Log(context.Background(), line.level, line.text, line.args...) //nolint:sloglint // a constant of logFailure's callers
	}
}

func (w *work) count(outcome string) { w.tally.outcomes[outcome]++ }

// logFailure notes a line for the log. The message on the topic says what was found in the record; the log, which more people read and
// which is kept elsewhere, has it without the values.
func (w *work) logFailure(level slog.Level, text string, msg *Message, f *topics.Failure) {
	w.tally.logs = append(w.tally.logs, logLine{level, text, []any{
		"tenant", header(msg.Headers, topics.HeaderTenant), "key", string(msg.Key), "event_id", header(msg.Headers, topics.HeaderID),
		"topic", msg.Topic, "partition", msg.Partition, "offset", msg.Offset, "outcome", string(f.Disposition),
		"attempt", f.Attempt, "not_before", f.NotBefore, "class", f.Class, "code", f.Code, "fingerprint", f.Fingerprint, "error", topics.Parameterize(f.Message),
	}})
}

// header returns the text of a header, or nothing: a log line must not depend on a record that is well-formed.
func header(hs []topics.Header, name string) string {
	for _, h := range hs {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func eventTime(hs []topics.Header) (time.Time, bool) {
	for _, h := range hs {
		if h.Key == topics.HeaderTime {
			t, err := time.Parse(time.RFC3339Nano, string(h.Value))
			return t, err == nil
		}
	}
	return time.Time{}, false
}
