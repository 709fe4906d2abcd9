package processors_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

func TestRunner_CopiesEachRecordOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, 4)
	inputs := numbered(5_000, 50)
	b.produce(inputs...)
	r := start(t, b.config(&copier{out: b.out}))
	b.requireExact(inputs)
	require.NoError(t, r.Ready())
	eventually(t, "counted", func() bool { return r.metric("leat_records_total", "copied") == 5_000 })
	require.InDelta(t, 5_000, r.metric("leat_end_to_end_seconds"), 0)
	eventually(t, "no lag", func() bool { return r.metric("leat_lag_records") == 0 })
	r.stop()
	start(t, b.config(&copier{out: b.out})) // nothing is left for it
	b.requireExact(inputs)
}

func TestRunner_ParksAKeyInOrderWhileOthersOvertake(t *testing.T) {
	t.Parallel()
	b := setup(t, 4)
	var healed atomic.Bool
	h := &copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Key) == "acme/test/3" && !healed.Load() || strings.HasSuffix(string(m.Key), "7") && m.Attempt == 1 {
			return errors.New("row 17 is locked")
		}
		return nil
	}}
	cfg := b.config(h)
	cfg.Retry.MaxAttempts = 1_000_000
	r := start(t, cfg)
	inputs := numbered(1_000, 20)
	b.produce(inputs[:500]...)
	b.produce(inputs[500:]...)
	eventually(t, "others overtake", func() bool {
		return r.metric("leat_records_total", "copied") >= 950 && r.metric("leat_parked_keys") == 1
	})
	require.Positive(t, r.metric("leat_retry_scheduled_total"))
	list, err := r.Parked(t.Context(), 1_000)
	require.NoError(t, err)
	require.Len(t, list, 50)
	require.Equal(t, topics.DispositionRetry, list[0].Failure.Disposition)
	require.Equal(t, topics.DispositionBlockedBy, list[1].Failure.Disposition)
	healed.Store(true)
	b.requireExact(inputs)
	eventually(t, "nothing parked", func() bool { return r.metric("leat_parked_keys") == 0 })
	require.Zero(t, b.parked())
	require.Empty(t, b.read(topics.DLQ(b.in, b.group), 0))
}

// TestRunner_ShowsTheHandlerNothingBehindAParkedRecord: a handler with effects of its own would apply the later record first.
func TestRunner_ShowsTheHandlerNothingBehindAParkedRecord(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	var healed, early atomic.Bool
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if healed.Load() {
			return nil
		}
		if string(m.Value) == "later" {
			early.Store(true)
		}
		if string(m.Value) == "first" {
			return errors.New("row 17 is locked")
		}
		return nil
	}})
	cfg.Retry.MaxAttempts = 1_000_000
	r := start(t, cfg)
	inputs := []input{{"acme/test/1", "first"}, {"acme/test/1", "later"}, {"acme/test/2", "other"}}
	b.produce(inputs[0])
	eventually(t, "parked", func() bool { return r.metric("leat_parked_keys") == 1 })
	b.produce(inputs[1:]...)
	eventually(t, "another key overtakes", func() bool { return r.metric("leat_records_total", "copied") == 1 })
	list, err := r.Parked(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.False(t, early.Load(), "the handler was given a record behind a parked one")
	healed.Store(true)
	b.requireExact(inputs)
}

func TestRunner_NeverRetriesBeforeTheDelayIsOver(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	const delay = 300 * time.Millisecond
	attempts := make(chan time.Time, 10)
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		attempts <- time.Now()
		if m.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	}})
	cfg.Retry = processors.RetryPolicy{MaxAttempts: 5, Base: delay, Max: delay}
	start(t, cfg)
	in := input{"acme/test/1", "x"}
	b.produce(in)
	b.requireExact([]input{in})
	last := <-attempts
	for range 2 {
		next := <-attempts
		require.GreaterOrEqual(t, next.Sub(last), delay)
		last = next
	}
}

func TestRunner_TakesUpParkedRecordsAfterARestart(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	inputs := numbered(200, 10)
	b.produce(inputs...)
	broken := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Key) == "acme/test/1" || string(m.Key) == "acme/test/2" {
			return errors.New("no")
		}
		return nil
	}})
	broken.Retry.MaxAttempts = 1_000_000
	for range 3 {
		r := start(t, broken)
		eventually(t, "parked", func() bool {
			list, err := r.Parked(t.Context(), 1_000)
			return err == nil && len(list) == 40
		})
		r.stop()
		require.Equal(t, 40, b.parked())
	}
	start(t, b.config(&copier{out: b.out}))
	b.requireExact(inputs)
	require.Zero(t, b.parked())
}

func TestRunner_WritesADeadLetterWithEveryHeader(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	old := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	b.produceAt(old, input{"acme/test/1", "broken"}, input{"acme/test/1", "fine"}, input{"acme/test/2", "tired"})
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		switch string(m.Value) {
		case "broken":
			return processors.Permanent("decode", fmt.Errorf("field %q at %d", "total", m.Offset))
		case "tired":
			return processors.Transient("deadlock", errors.New("again"))
		}
		return nil
	}})
	cfg.Retry.MaxAttempts = 3
	r := start(t, cfg)
	dead := b.read(topics.DLQ(b.in, b.group), 2)
	require.Len(t, dead, 2)
	require.Equal(t, "acme/test/1", string(dead[0].Key))
	require.Equal(t, "broken", string(dead[0].Value))
	f := failure(t, dead[0])
	require.Equal(t, topics.DispositionPermanent, f.Disposition)
	require.Equal(t, b.in, f.Topic)
	require.Zero(t, f.Offset)
	require.Equal(t, 1, f.Attempt)
	require.Equal(t, "permanent", f.Class)
	require.Equal(t, "decode", f.Code)
	require.Equal(t, `field "total" at 0`, f.Message)
	require.Equal(t, "copy", f.Handler)
	require.Equal(t, "test", f.AppVersion)
	require.Equal(t, b.group, f.Group)
	require.Equal(t, topics.KeyHash([]byte("acme/test/1")), f.KeyHash)
	require.True(t, strings.HasPrefix(f.Fingerprint, "v1:"))
	require.True(t, old.Equal(f.Time), f.Time)
	for _, rec := range append(dead, b.read(topics.Retry(b.in, b.group), 1)...) {
		require.True(t, rec.Timestamp.After(old.Add(time.Minute)), "with the time of the record, retention would delete it with its segment")
	}
	require.Equal(t, "acme", headerOf(dead[0], topics.HeaderTenant))
	f = failure(t, dead[1])
	require.Equal(t, topics.DispositionExhausted, f.Disposition)
	require.Equal(t, 3, f.Attempt)
	require.True(t, f.FirstFailedAt.Before(f.LastFailedAt))
	require.Equal(t, "fine", string(b.read(b.out, 1)[0].Value))
	require.Zero(t, b.parked())
	eventually(t, "counted", func() bool { return r.metric("leat_dlq_total", "exhausted") == 1 })
}

func TestRunner_KeepsNullValuesAndRecordsWithoutKey(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	require.NoError(t, b.cl.ProduceSync(t.Context(),
		&kgo.Record{Topic: b.in, Key: []byte("k")}, &kgo.Record{Topic: b.in, Value: []byte("no key")},
		&kgo.Record{Topic: b.in, Key: []byte{}, Value: []byte{}}).FirstErr())
	start(t, b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if m.Attempt < 3 {
			return errors.New("not yet")
		}
		return nil
	}}))
	for _, rec := range b.read(b.out, 3) {
		switch {
		case rec.Key == nil:
			require.Equal(t, "no key", string(rec.Value))
		case len(rec.Key) == 0:
			require.NotNil(t, rec.Value)
		default:
			require.Nil(t, rec.Value)
		}
	}
	require.Zero(t, b.parked())
}

func TestRunner_PausesWhileTheTargetIsDown(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	var down atomic.Bool
	down.Store(true)
	inputs := numbered(500, 100)
	b.produce(inputs...)
	cfg := b.config(&copier{out: b.out, fail: func(processors.Message) error {
		if down.Load() {
			return processors.Systemic("connect", errors.New("connection refused"))
		}
		return nil
	}})
	cfg.Systemic.Off = true // the handler's word is enough
	r := start(t, cfg)
	eventually(t, "probes fail", func() bool { return r.Status().Breaker.Probes >= 2 })
	require.ErrorContains(t, r.Ready(), "connection refused")
	require.Empty(t, b.read(topics.DLQ(b.in, b.group), 0))
	require.Empty(t, b.read(topics.Retry(b.in, b.group), 0))
	down.Store(false)
	b.requireExact(inputs)
	eventually(t, "closed", func() bool { return r.Ready() == nil && r.metric("leat_breaker_state") == 0 })
}

func TestRunner_GuessesThatTheTargetIsDown(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	var down atomic.Bool
	down.Store(true)
	inputs := numbered(400, 100)
	b.produce(inputs...)
	r := start(t, b.config(&copier{out: b.out, fail: func(processors.Message) error {
		if down.Load() {
			return errors.New("i/o timeout")
		}
		return nil
	}}))
	eventually(t, "open", func() bool { return r.Status().Breaker.Probes >= 1 })
	require.ErrorContains(t, r.Ready(), "keys of a batch failed")
	require.Empty(t, b.read(topics.Retry(b.in, b.group), 0), "no attempt is spent")
	down.Store(false)
	b.requireExact(inputs)
}

// TestRunner_ParksAMinorityWithoutGuessingAnOutage: many keys fail, but most do not.
func TestRunner_ParksAMinorityWithoutGuessingAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.produce(numbered(400, 100)...)
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if strings.HasSuffix(string(m.Key), "1") || strings.HasSuffix(string(m.Key), "2") || strings.HasSuffix(string(m.Key), "3") {
			return errors.New("row is locked")
		}
		return nil
	}})
	cfg.Retry.MaxAttempts = 1_000_000
	r := start(t, cfg)
	eventually(t, "a minority parked", func() bool {
		return r.metric("leat_parked_keys") == 30 && r.metric("leat_records_total", "copied") == 280
	})
	require.Zero(t, r.metric("leat_txn_abort_total", "systemic"))
	require.Equal(t, processors.BreakerClosed, r.Status().Breaker.State)
}

func TestRunner_RecoversFromAPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	inputs := numbered(300, 30)
	b.produce(inputs...)
	b.produce(input{"bug", "bug"})
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Key) == "bug" {
			panic("nil map 12")
		}
		return nil
	}})
	cfg.Retry.MaxAttempts = 2
	start(t, cfg)
	b.requireExact(inputs)
	f := failure(t, b.read(topics.DLQ(b.in, b.group), 1)[0])
	require.Equal(t, "panic", f.Code)
	require.Equal(t, "panic: nil map 12", f.Message)
	require.Contains(t, f.Stack, "runner_test.go")
	require.Equal(t, 2, f.Attempt)
}

func TestRunner_FindsTheRecordThatKafkaRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	inputs := numbered(500, 50)
	b.produce(inputs[:250]...)
	b.produce(input{"big", "big"})
	b.produce(inputs[250:]...)
	h := &copier{out: b.out}
	blow := processors.HandlerFunc(func(ctx context.Context, batch []processors.Message) []processors.Result {
		rs := h.Handle(ctx, batch)
		for i := range rs {
			if string(batch[i].Key) == "big" {
				rs[i].Outputs[0].Value = make([]byte, 2<<20)
			}
		}
		return rs
	})
	r := start(t, b.config(blow))
	b.requireExact(inputs)
	f := failure(t, b.read(topics.DLQ(b.in, b.group), 1)[0])
	require.Equal(t, "record_too_large", f.Code)
	require.Equal(t, topics.DispositionPermanent, f.Disposition)
	b.produce(numbered(500, 1)...)
	eventually(t, "full batches again", func() bool { return r.metric("leat_records_total", "copied") >= 1_000 })
}

func TestRunner_RefusesMissingTopics(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	cfg := b.config(&copier{out: b.out})
	cfg.Group = "other"
	r := start(t, cfg)
	<-r.done
	require.ErrorContains(t, r.err, b.in+".other.retry: does not exist")
	require.ErrorContains(t, r.err, "leat topics apply")
	b.create(1, nil, topics.Retry(b.in, "other"))
	b.create(2, nil, topics.DLQ(b.in, "other"))
	r = start(t, cfg)
	<-r.done
	require.ErrorContains(t, r.err, "has 1 partitions")
}

func TestRunner_RefusesAHandlerThatMiscounts(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.produce(numbered(10, 10)...)
	r := start(t, b.config(processors.HandlerFunc(func(context.Context, []processors.Message) []processors.Result { return nil })))
	<-r.done
	require.ErrorContains(t, r.err, "handler copy returned 0 results for 10 messages")
}

func TestRunner_HandlesARedriveInOffsetOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	var fixed atomic.Bool
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Value) == "0" && !fixed.Load() {
			return processors.Permanent("contract", errors.New("no"))
		}
		return nil
	}})
	r := start(t, cfg)
	b.produce(numbered(3, 1)...)
	dead := b.read(topics.DLQ(b.in, b.group), 1)[0]
	f := failure(t, dead)
	fixed.Store(true)
	f.Attempt, f.ReplayCount, f.Disposition, f.NotBefore = 0, f.ReplayCount+1, topics.DispositionManual, time.Now()
	f.Key = dead.Key
	rec := &kgo.Record{Topic: topics.Retry(b.in, b.group), Key: []byte(topics.ParkedID(f.Partition, f.Offset)), Value: dead.Value}
	for _, h := range f.Append(headersOf(dead)) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
	}
	require.NoError(t, b.cl.ProduceSync(t.Context(), rec).FirstErr())
	recs := b.read(b.out, 3)
	require.Equal(t, "0", string(recs[2].Value))
	eventually(t, "no longer parked", func() bool { return b.parked() == 0 })
	r.stop()
}

func TestRunner_KeepsOrderWhenOffsetsAreResetUnderParkedRecords(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	inputs := numbered(60, 3)
	b.produce(inputs...)
	cfg := b.config(&copier{out: b.out, fail: func(m processors.Message) error {
		if string(m.Key) == "acme/test/1" {
			return errors.New("no")
		}
		return nil
	}})
	cfg.Retry.MaxAttempts = 1_000_000
	r := start(t, cfg)
	eventually(t, "parked", func() bool { return r.metric("leat_records_total", "parked") == 19 })
	r.stop()
	b.resetOffsets()
	r = start(t, cfg)
	eventually(t, "parked again", func() bool { return r.metric("leat_records_total", "parked") == 20 })
	list, err := r.Parked(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, list, 20, "replaced, not doubled")
	require.Positive(t, list[0].Failure.Attempt)
	r.stop()
	start(t, b.config(&copier{out: b.out}))
	all := b.read(b.out, 100)
	require.Len(t, all, 40+40+20)
	var values []string
	for _, rec := range all {
		if string(rec.Key) == "acme/test/1" {
			values = append(values, string(rec.Value))
		}
	}
	require.Len(t, values, 20)
	for i, v := range values {
		require.Equal(t, strconv.Itoa(i), v)
	}
}

func (b *bundle) resetOffsets() {
	b.t.Helper()
	var os kadm.Offsets
	starts, err := b.adm.ListStartOffsets(b.t.Context(), b.in)
	require.NoError(b.t, err)
	os = starts.Offsets()
	require.Eventually(b.t, func() bool {
		rs, err := b.adm.CommitOffsets(b.t.Context(), b.group, os)
		return err == nil && rs.Error() == nil
	}, patience, 50*time.Millisecond)
}

func headersOf(rec *kgo.Record) []topics.Header {
	hs := make([]topics.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		hs[i] = topics.Header(h)
	}
	return hs
}

func failure(t *testing.T, rec *kgo.Record) topics.Failure {
	t.Helper()
	f, err := topics.DecodeFailure(headersOf(rec))
	require.NoError(t, err)
	return f
}

func headerOf(rec *kgo.Record, name string) string {
	for _, h := range rec.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}
