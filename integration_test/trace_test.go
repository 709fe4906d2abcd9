package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/trace"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// json runs a command and reads its JSON; the error is that of the command, with what it wrote to standard error.
func (r *rig) json(into any, args ...string) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(r.t), append(args, "-o", "json", "--config", r.config)...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, errOut.String())
	}
	require.NoError(r.t, json.Unmarshal(out, into), string(out))
	return nil
}

// trace waits until what has come to a state.
func (r *rig) trace(what, state string) trace.Report {
	r.t.Helper()
	var report trace.Report
	var last error
	eventually(r.t, "trace of "+what+" to say "+state, func() bool {
		report = trace.Report{}
		last = r.json(&report, "trace", what)
		if last == nil && report.Journey.State != state {
			last = fmt.Errorf("it says %s: %s", report.Journey.State, report.Journey.Meaning)
		}
		if last != nil {
			r.t.Log(last)
		}
		return last == nil
	})
	require.Empty(r.t, report.Journey.Problems)
	return report
}

// TestTrace_FollowsEveryEvent asks for events in every state they can be in.
func TestTrace_FollowsEveryEvent(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, traceEveryEvent)
}

func traceEveryEvent(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	control := r.addControl()
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte("attempts: 5"), []byte("attempts: 500"), 1) // what is parked stays parked
	require.NoError(t, os.WriteFile(r.config, text, 0o600))
	r.beginAtTheEnd()
	index := r.start("one", "index", "run")
	change := func(id string, s state) outbox.Event {
		e := outbox.Event{
			ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: id, Operation: topics.Upsert, Payload: invoicePayload(id, s),
		}
		r.emit(e)
		return e
	}
	key := func(id string) string { return string(topics.Key(r.tenant, r.system, id)) }

	first := change("1", state{1, 1250})
	waiting := r.trace(first.ID.String(), trace.StateWaitingInOutbox)
	require.Equal(t, "invoice", waiting.Journey.Outbox.Entity)
	require.Equal(t, waiting.Journey.Outbox, r.trace(key("1"), trace.StateWaitingInOutbox).Journey.Outbox)

	for _, stage := range []string{"relay", "normalize", "publish"} {
		defer r.start("one", stage, "run").stop()
	}
	r.checkPublished(r.trace(first.ID.String(), trace.StatePublished).Journey, first)
	r.checkPublished(r.trace(topics.OutputID(first.ID.String(), 0), trace.StatePublished).Journey, first)
	timeline := r.run("trace", first.ID.String())
	for _, want := range []string{
		"published: the target has it", "row 1: upsert of invoice " + key("1"), "source." + r.system + ".invoice/", "finance.invoice.v1/",
		"invoice " + key("1") + " applied", "settled", "open 12.50 USD",
	} {
		require.Contains(t, timeline, want)
	}

	second := change("1", state{2, 2000})
	r.checkPublished(r.trace(second.ID.String(), trace.StatePublished).Journey, second)
	r.trace(first.ID.String(), trace.StateSuperseded)
	byKey := r.trace(key("1"), trace.StatePublished)
	require.Len(t, byKey.Versions, 2)
	require.Equal(t, second.ID.String(), byKey.Versions[0].EventID)
	require.Equal(t, first.ID.String(), byKey.Versions[1].EventID)
	r.checkPublished(byKey.Journey, second)
	require.NoError(t, r.json(&byKey, "trace", key("1"), "--entity", "invoice", "--limit", "1"))
	require.Len(t, byKey.Versions, 1)
	require.ErrorContains(t, r.json(&byKey, "trace", key("1"), "--entity", "customer"), "nothing is known of record")

	broken := outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "broken", Operation: topics.Upsert, Payload: []byte(`{}`),
	}
	r.emit(broken)
	dead := r.trace(broken.ID.String(), trace.StateDeadLetter)
	require.Len(t, dead.Journey.Places, 1, "no finance record")
	require.NotEmpty(t, dead.Journey.Attempts)
	require.Equal(t, r.normalizeGroup, dead.Journey.Attempts[0].Group)
	require.Contains(t, dead.Journey.Attempts[0].Message, "invoice")

	unknown := broken // the relay knows no topic for it
	unknown.ID, unknown.Entity = uuid.Must(uuid.NewV7()), "nonsense"
	r.emit(unknown)
	refused := r.trace(unknown.ID.String(), trace.StateDeadLetter)
	require.True(t, refused.Journey.Outbox.Found)
	require.Equal(t, "nonsense", refused.Journey.Outbox.Entity)

	r.checkParked(change)
	r.checkUnknown()
	r.checkIndexAfterAKill(control, index)

	_, err = r.source.Exec(t.Context(), `delete from leat.outbox where event_id = $1`, first.ID)
	require.NoError(t, err)
	gone := r.trace(first.ID.String(), trace.StateSuperseded)
	require.False(t, gone.Journey.Outbox.Found)
	require.Contains(t, gone.Journey.Outbox.Note, "cleaned up")
}

// beginAtTheEnd lets publish leave alone what other tests have written to the finance topics, which they all share.
func (r *rig) beginAtTheEnd() {
	r.t.Helper()
	var names []string
	for _, entity := range []string{"contact", "invoice", "payment"} {
		names = append(names, topics.Finance(entity, 1))
	}
	ends, err := r.adm.ListEndOffsets(r.t.Context(), names...)
	require.NoError(r.t, err)
	eventually(r.t, "the offsets to be committed", func() bool {
		responses, err := r.adm.CommitOffsets(r.t.Context(), r.publishGroup, ends.Offsets())
		return err == nil && responses.Error() == nil
	})
}

// recordAt reads one record.
func (r *rig) recordAt(topic string, partition int32, offset int64) *kgo.Record {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}))
	require.NoError(r.t, err)
	defer cl.Close()
	fetches := cl.PollRecords(ctx, 1)
	require.NoError(r.t, fetches.Err())
	require.Equal(r.t, offset, fetches.Records()[0].Offset)
	return fetches.Records()[0]
}

// checkPublished compares a journey with the event and with the topics and tables themselves.
func (r *rig) checkPublished(j trace.Journey, e outbox.Event) {
	r.t.Helper()
	require.True(r.t, j.Outbox.Found)
	require.Equal(r.t, e.ID.String(), j.Outbox.EventID)
	require.Len(r.t, j.Places, 2)
	require.Equal(r.t, topics.Source(r.system, "invoice"), j.Places[0].Topic)
	require.Equal(r.t, topics.Finance("invoice", 1), j.Places[1].Topic)
	require.Equal(r.t, topics.OutputID(e.ID.String(), 0), j.Places[1].EventID)
	for _, p := range j.Places {
		rec := r.recordAt(p.Topic, p.Partition, p.Offset)
		env := envelope(r.t, rec)
		require.Equal(r.t, p.EventID, env.ID)
		require.Equal(r.t, j.Version.Sequence, env.Sequence)
		require.Equal(r.t, p.Key, string(rec.Key))
		require.Equal(r.t, p.At.UnixMilli(), rec.Timestamp.UnixMilli())
		require.Len(r.t, p.Groups, 1)
		require.True(r.t, p.Groups[0].Past)
	}
	require.Len(r.t, j.Links, 1)
	require.Equal(r.t, "this", j.Links[0].Compared)
	require.Equal(r.t, j.Places[1].Offset, j.Links[0].Offset)
	require.Len(r.t, j.Targets, 1)
	var total, status string
	require.NoError(r.t, r.reporting.QueryRow(r.t.Context(), `select total::text, status from reporting.invoices
		where system = $1 and source_id = $2`, r.system, e.Key).Scan(&total, &status))
	require.Equal(r.t, total, *j.Targets[0].Amount)
	require.Equal(r.t, status, j.Targets[0].Status)
	require.NotNil(r.t, j.Took)
	require.Empty(r.t, j.Attempts)
}

// checkParked lets the target fail for one record, and then no longer.
func (r *rig) checkParked(change func(string, state) outbox.Event) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.reporting.Exec(ctx, `create function refuse() returns trigger language plpgsql as
		$$ begin if new.source_id = 'locked' then raise exception 'row is locked' using errcode = '55P03'; end if; return new; end $$;
		create trigger refuse before insert on reporting.invoices for each row execute function refuse()`)
	require.NoError(r.t, err)
	e := change("locked", state{1, 100})
	parked := r.trace(e.ID.String(), trace.StateParked).Journey
	require.NotEmpty(r.t, parked.Attempts)
	require.Equal(r.t, r.publishGroup, parked.Attempts[0].Group)
	require.Contains(r.t, parked.Attempts[0].Message, "row is locked")
	_, err = r.reporting.Exec(ctx, `drop trigger refuse on reporting.invoices`)
	require.NoError(r.t, err)
	done := r.trace(e.ID.String(), trace.StatePublished).Journey
	require.NotEmpty(r.t, done.Attempts)
	for _, a := range done.Attempts {
		require.NotNil(r.t, a.SettledAt)
	}
}

// checkUnknown demands errors that say where was looked.
func (r *rig) checkUnknown() {
	r.t.Helper()
	var report trace.Report
	for _, what := range []string{uuid.NewString(), r.tenant + "/" + r.system + "/nobody"} {
		err := r.json(&report, "trace", what)
		require.ErrorContains(r.t, err, what)
		require.ErrorContains(r.t, err, "looked in the journal, failed attempts, dead letters, undelivered rows of outbox "+r.system)
		require.ErrorContains(r.t, err, "index")
	}
	require.ErrorContains(r.t, r.json(&report, "trace", "12"), `"12" is neither the id of an event (a UUID) nor a record as tenant/system/source id`)
}

// checkIndexAfterAKill kills the index in the middle of a load, starts it twice, rebuilds it, and compares the journal with the topics.
func (r *rig) checkIndexAfterAKill(control *pgxpool.Pool, index *process) {
	r.t.Helper()
	l := newLedger()
	stop := l.keepWriting(r.t, r)
	for range 3 {
		target := l.count() + 200
		eventually(r.t, "more committed rows", func() bool { return l.count() > target })
		index.kill()
		index = r.start("one", "index", "run")
	}
	standby := r.start("two", "index", "run")
	stop()
	want := map[string]int{}
	eventually(r.t, "all events on the topic", func() bool {
		clear(want)
		for _, rec := range r.read(topics.Source(r.system, "invoice")) {
			want[fmt.Sprintf("%d/%d %s", rec.Partition, rec.Offset, envelope(r.t, rec).ID)]++
		}
		return len(want) == l.count()+4 // those of this test
	})
	journal := func() map[string]int {
		got := map[string]int{}
		rows, err := control.Query(r.t.Context(), `select format('%s/%s %s', j.partition, j."offset", j.event_id) from leat_control.journal j
			join leat_control.journal_topics t on t.id = j.topic where t.topic = $1`, topics.Source(r.system, "invoice"))
		require.NoError(r.t, err)
		for rows.Next() {
			var text string
			require.NoError(r.t, rows.Scan(&text))
			got[text]++
		}
		require.NoError(r.t, rows.Err())
		return got
	}
	eventually(r.t, "the journal to have every record", func() bool { return len(journal()) == len(want) })
	require.Equal(r.t, want, journal())
	require.ErrorContains(r.t, r.json(nil, "index", "rebuild", "books", "--reason", "test"), `there is no projection "books"`)
	r.run("index", "rebuild", "journal", "--reason", "a test")
	eventually(r.t, "the journal to be made anew", func() bool { return len(journal()) == len(want) })
	require.Equal(r.t, want, journal())
	eventually(r.t, "the index to have read everything", func() bool {
		var status []struct {
			Projection string
			Working    bool
			Behind     int64
		}
		require.NoError(r.t, r.json(&status, "index", "status"))
		return status[0].Projection == "journal" && status[0].Working && status[0].Behind == 0
	})
	require.Contains(r.t, r.run("audit", "--action", "index"), "projection journal")
	index.stop()
	standby.stop()
}
