package offsets_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/offsets"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// transact writes n records to partition 0 in a transaction, and ends it or leaves it open.
func (b *bench) transact(n int, end ...kgo.TransactionEndTry) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(testenv.Name("tx")))
	require.NoError(b.t, err)
	b.t.Cleanup(cl.Close)
	require.NoError(b.t, cl.BeginTransaction())
	for i := range n {
		rec := &kgo.Record{Topic: b.topic, Key: fmt.Append(nil, i), Value: []byte("12345")}
		require.NoError(b.t, cl.ProduceSync(b.t.Context(), rec).FirstErr())
	}
	for _, e := range end {
		require.NoError(b.t, cl.EndTransaction(b.t.Context(), e))
	}
}

// TestPlan_CountsRecordsNotOffsets lets ranges end in markers and in aborted records, where a consumer would wait for ever.
func TestPlan_CountsRecordsNotOffsets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.transact(3, kgo.TryCommit) // offsets 0-2, marker 3
	b.transact(4, kgo.TryAbort)  // 4-7, marker 8
	b.transact(2, kgo.TryCommit) // 9-10, marker 11
	b.transact(1)                // 12, open
	r := offsets.Request{Group: b.group, Topics: []string{b.topic + ":0"}, Target: offsets.Target{Earliest: true}, Create: true}
	for _, c := range []struct{ committed, records, last int64 }{{12, 5, 10}, {9, 3, 2}, {8, 3, 2}, {4, 3, 2}, {3, 3, 2}, {2, 2, 1}} {
		b.commit(0, c.committed)
		p := b.plan(r).Partitions[0]
		require.Equal(t, offsets.Count{N: c.records, Exact: true}, p.Records, "up to %d", c.committed)
		require.Equal(t, offsets.Count{N: c.records * 6, Exact: true}, p.Bytes)
		require.Equal(t, int64(0), p.First.Offset)
		require.Equal(t, c.last, p.Last.Offset)
		require.Equal(t, []int64{0, 12, 13}, []int64{p.LogStart, p.Stable, p.End})
	}

	b.commit(0, 5)
	r.Target = offsets.Target{Latest: true}
	p := b.plan(r).Partitions[0]
	require.Equal(t, offsets.Skip, p.Direction)
	require.Equal(t, offsets.Count{N: 3, Exact: false}, p.Records, "two are there; what the open transaction holds may become one more")
	require.Equal(t, int64(10), p.Last.Offset)

	b.commit(0, 4)
	r.Target = offsets.Target{Offset: new(int64(8))}
	p = b.plan(r).Partitions[0]
	require.Equal(t, offsets.Count{N: 0, Exact: true}, p.Records, "only aborted records are skipped")
	require.Nil(t, p.First)
}

// TestPlan_SaysWhenItHasSampled reads two records of a thousand.
func TestPlan_SaysWhenItHasSampled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cfg.Groups[0].Forecast = func() offsets.Forecast { return offsets.Direct(applied) }
	b.with(b.cfg)
	b.write(b.topic, 0, 1000)
	b.commit(0, 1000)
	r := b.earliest()
	r.Limit = 10
	p := b.plan(r)
	require.Equal(t, offsets.Count{N: 1000}, p.Partitions[0].Records)
	require.Equal(t, []int64{0, 999}, []int64{p.Partitions[0].First.Offset, p.Partitions[0].Last.Offset})
	require.False(t, p.Partitions[0].Bytes.Exact)
	require.InDelta(t, 1000*14, p.Partitions[0].Bytes.N, 3000)
	require.Equal(t, offsets.Outlook{Records: 10, Applied: 10}, p.Total.Outlook)
	require.Equal(t, "sampled: the first 10 records of 1000 offsets were judged by the link rows of the target; --limit reads more", p.Forecast)
	p = b.plan(b.earliest())
	require.Equal(t, offsets.Count{N: 1000, Exact: true}, p.Total.Reread)
	require.Equal(t, offsets.Outlook{Records: 1000, Applied: 1000}, p.Total.Outlook)
}

func applied(_ context.Context, batch []processors.Message) ([]processors.Result, error) {
	results := make([]processors.Result, len(batch))
	for i := range results {
		results[i].Outcome = "applied"
	}
	return results, nil
}

// TestPlan_WithoutATargetThatAnswers is a plan all the same.
func TestPlan_WithoutATargetThatAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cfg.Groups[0].Forecast = func() offsets.Forecast {
		return offsets.Direct(func(context.Context, []processors.Message) ([]processors.Result, error) {
			return nil, errors.New("it is down")
		})
	}
	b.with(b.cfg)
	b.write(b.topic, 0, 10)
	b.commit(0, 10)
	p := b.plan(b.earliest())
	require.Equal(t, "unknown: it is down", p.Forecast)
	require.Equal(t, offsets.Count{N: 10, Exact: true}, p.Total.Reread)
	require.Zero(t, p.Total.Outlook)
}

func TestPlan_TellsTheRetentionMargin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.topic = testenv.Name("kept")
	b.create(b.topic, 2, map[string]*string{"retention.ms": new("7200000")})
	b.writeAt(0, time.Now().Add(-time.Hour), time.Now())
	b.commit(0, 2)
	margin := b.plan(b.earliest()).Partitions[0].Margin
	require.InDelta(t, 3600, *margin.Seconds, 120)
	require.Zero(t, margin.Records)
	listed, err := b.List(t.Context(), b.group)
	require.NoError(t, err)
	require.Nil(t, listed[0].Partitions[0].Margin.Seconds, "nothing is left to be read")
	b.commit(0, 1)
	listed, err = b.List(t.Context(), b.group)
	require.NoError(t, err)
	require.InDelta(t, 7200, *listed[0].Partitions[0].Margin.Seconds, 120)
	require.Equal(t, int64(1), listed[0].Partitions[0].Lag)
	require.Equal(t, "Empty", listed[0].State)
}

// failure is a record as a stage parks it or gives it up.
func (b *bench) failure(topic string, offset int64, fingerprint string) *kgo.Record {
	f := topics.Failure{
		Topic: b.topic, Offset: offset, Attempt: 1, Disposition: topics.DispositionPermanent, Fingerprint: fingerprint, Group: b.group,
	}
	rec := &kgo.Record{Topic: topic, Key: []byte(topics.ParkedID(0, offset)), Value: []byte("{}")}
	for _, h := range f.Append(nil) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
	}
	return rec
}

func (b *bench) companions() (retry, dlq string) {
	b.t.Helper()
	retry, dlq = topics.Retry(b.topic, b.group), topics.DLQ(b.topic, b.group)
	b.create(retry, 2, map[string]*string{"cleanup.policy": new("compact")})
	b.create(dlq, 2, nil)
	return retry, dlq
}

// TestParked_AreKeptOrCancelled rewinds over parked records.
func TestParked_AreKeptOrCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	retry, _ := b.companions()
	b.write(b.topic, 0, 10)
	b.commit(0, 10)
	for _, offset := range []int64{2, 5, 7, 8} {
		b.produce(b.failure(retry, offset, ""))
	}
	b.produce(&kgo.Record{Topic: retry, Key: []byte(topics.ParkedID(0, 8))}) // settled
	r := offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Offset: new(int64(4))}, AllowTruncated: true}
	kept := b.plan(r)
	require.Equal(t, int64(2), kept.Partitions[0].ParkedInRange)
	require.Equal(t, int64(3), kept.Partitions[0].Parked)
	b.apply(kept)
	require.Len(t, testenv.ReadCommitted(t, b.brokers, retry), 5, "nothing was written")
	_, err := b.Undo(t.Context(), b.op, kept.ID, offsets.ApplyOptions{})
	require.NoError(t, err)

	r.Parked = offsets.ParkedCancel
	p := b.plan(r)
	report := b.apply(p)
	require.Equal(t, int64(2), report.Cancelled)
	var cancelled []string
	for _, rec := range testenv.ReadCommitted(t, b.brokers, retry)[5:] {
		require.Nil(t, rec.Value)
		require.Zero(t, rec.Partition)
		cancelled = append(cancelled, string(rec.Key))
	}
	require.Equal(t, []string{topics.ParkedID(0, 5), topics.ParkedID(0, 7)}, cancelled, "what is below the target stays: it is not read again")
	_, err = b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, "plan "+p.ID+" took 2 parked records off the retry topics; they are read again only from the offsets that it set, "+
		"so undoing it would lose them")
	require.Equal(t, []int64{4, 0}, b.committed())
}

// TestParked_AreKeptIfAMemberIsBackBeforeTheyAreCancelled: it has folded the retry topic and may have passed their offsets, so that their
// tombstones would lose them.
func TestParked_AreKeptIfAMemberIsBackBeforeTheyAreCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	retry, _ := b.companions()
	b.write(b.topic, 0, 10)
	b.commit(0, 10)
	b.produce(b.failure(retry, 5, ""))
	p := b.plan(offsets.Request{
		Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Offset: new(int64(4))}, AllowTruncated: true, Parked: offsets.ParkedCancel,
	})
	b.cfg.Progress = func(format string, _ ...any) {
		if strings.Contains(format, "off the retry topics") {
			b.join()
		}
	}
	b.with(b.cfg)
	report := b.apply(p)
	require.Zero(t, report.Cancelled)
	require.Len(t, report.Notes, 1)
	require.Contains(t, report.Notes[0], "the parked records were kept, not cancelled: cancelling parked records: members of the group are back already: ")
	require.Len(t, testenv.ReadCommitted(t, b.brokers, retry), 1)
	require.Equal(t, []int64{4, 0}, b.committed())
}

// TestFirstDeadLetter_FromTheTopicAndFromTheIndex also counts those of a range.
func TestFirstDeadLetter_FromTheTopicAndFromTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, dlq := b.companions()
	b.write(b.topic, 0, 10)
	b.write(b.topic, 1, 10)
	b.commit(0, 10)
	b.produce(b.failure(dlq, 6, "v1:b"), b.failure(dlq, 3, "v1:a"), b.failure(dlq, 8, "v1:b"))
	r := offsets.Request{Group: b.group, Target: offsets.Target{FirstDeadLetter: true}}
	p := b.plan(r)
	require.Len(t, p.Partitions, 1, "the other partition is left alone")
	require.Equal(t, int64(3), p.Partitions[0].Target)
	require.Equal(t, offsets.Count{N: 3, Exact: true}, p.Partitions[0].DeadInRange)
	r.Target.Fingerprint = "v1:b"
	require.Equal(t, int64(6), b.plan(r).Partitions[0].Target)

	details, err := b.adm.ListTopics(t.Context(), dlq)
	require.NoError(t, err)
	id := uuid.UUID(details[dlq].ID)
	_, err = b.db.Exec(t.Context(), `insert into leat_control.positions (projection, topic, topic_id, partition, next_offset)
		select 'deadletters', $1, $2, p, 3 from generate_series(0, 1) p`, dlq, id)
	require.NoError(t, err)
	_, err = b.db.Exec(t.Context(), `insert into leat_control.dead_letters (topic, partition, "offset", at, format, original_topic, original_partition,
		original_offset, fingerprint, state, state_at) values ($1, 0, 0, now(), 'leat', $2, 0, 6, 'v1:b', 'resolved', now()),
		($1, 0, 1, now(), 'leat', $2, 0, 3, 'v1:a', 'open', now()), ($1, 0, 2, now(), 'leat', $2, 0, 8, 'v1:b', 'open', now())`, dlq, b.topic)
	require.NoError(t, err)
	p = b.plan(r)
	require.Equal(t, int64(8), p.Partitions[0].Target, "the one before is resolved")
	require.Contains(t, p.Notes[len(p.Notes)-1], "redriven, resolved and discarded ones do not count")
	_, err = b.db.Exec(t.Context(), "update leat_control.positions set next_offset = 2")
	require.NoError(t, err)
	require.Equal(t, int64(6), b.plan(r).Partitions[0].Target, "an index that lags behind is not believed")
}

// TestEvent_IsFoundByItsTimeOrInTheJournal moves one partition to one event.
func TestEvent_IsFoundByItsTimeOrInTheJournal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 5)
	b.write(b.topic, 1, 5)
	id := uuid.Must(uuid.NewV7()).String()
	b.produce(&kgo.Record{
		Topic: b.topic, Partition: 1, Key: []byte("acme/shop/9"), Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte(id)}},
	})
	b.commit(0, 5)
	b.commit(1, 6)
	r := offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{EventID: id}}
	p := b.plan(r)
	require.Len(t, p.Partitions, 1)
	require.Equal(t, []int64{1, 5}, []int64{int64(p.Partitions[0].Partition), p.Partitions[0].Target})
	require.Contains(t, p.Notes[0], "stands at "+b.topic+"/1 offset 5 (searched ")
	require.Equal(t, id, p.Partitions[0].First.EventID)

	r.Target = offsets.Target{EventID: uuid.NewString()} // no time in it
	details, err := b.adm.ListTopics(t.Context(), b.topic)
	require.NoError(t, err)
	_, err = b.db.Exec(t.Context(), `select leat_control.journal_upkeep('7 days')`)
	require.NoError(t, err)
	_, err = b.db.Exec(t.Context(), `with t as (insert into leat_control.journal_topics (topic, topic_id) values ($1, $2) returning id),
		s as (insert into leat_control.journal_systems (system) values ('shop') returning id)
		insert into leat_control.journal (at, changed_at, event_id, sequence, epoch, "offset", topic, partition, system, deletion, key)
		select now(), now(), $3, 1, 1, 2, t.id, 0, s.id, false, 'acme/shop/2' from t, s`, b.topic, uuid.UUID(details[b.topic].ID), r.Target.EventID)
	require.NoError(t, err)
	p = b.plan(r)
	require.Equal(t, int64(2), p.Partitions[0].Target)
	require.Equal(t, "event "+r.Target.EventID+" stands at "+b.topic+"/0 offset 2 (from the journal); other partitions are left alone", p.Notes[0])
}
