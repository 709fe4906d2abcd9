package deadletters_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/safetext"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

type states = map[deadletters.State]int64

// TestRedrive_GoesToTheGroupThatFailedAndNoOther gives up records in two groups, corrects one and redrives it: its letters are resolved, in
// the order of the source, and the other group sees and changes nothing.
func TestRedrive_GoesToTheGroupThatFailedAndNoOther(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		other, otherStage := r.group(healthy)
		third, _ := r.group(broken)
		r.startIndex()
		r.source(0, 60, 7)
		r.waitFor(g, states{deadletters.Open: 60})
		r.waitFor(third, states{deadletters.Open: 60})
		require.Empty(t, s.seen())
		eventually(t, "the other group to be done", func() bool { return len(otherStage.seen()) == 60 })

		s.set(healthy)
		j, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
		require.NoError(t, err)
		require.Equal(t, "done", j.State)
		require.Equal(t, int64(60), j.Moved)
		require.Empty(t, j.NotRedriven)
		r.waitFor(g, states{deadletters.Resolved: 60})
		r.waitFor(third, states{deadletters.Open: 60})
		last := map[string]int{}
		for _, seen := range s.seen() {
			var key string
			var n int
			_, err := fmt.Sscanf(strings.ReplaceAll(seen, "=", " "), "%s %d", &key, &n)
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, last[key], "records of one key come in the order of the source")
			last[key] = n
		}
		require.Len(t, s.seen(), 60, "each once")
		require.Len(t, otherStage.seen(), 60, "the other group has seen nothing")
		require.Len(t, r.read(r.in), 60, "nothing went to the source topic")
		require.Empty(t, r.read(topics.Retry(r.in, other)))
		require.Empty(t, r.read(topics.Retry(r.in, third)))

		entries, err := audit.List(t.Context(), r.db, audit.Filter{Action: "dlq redrive"})
		require.NoError(t, err)
		require.Len(t, entries, 2, "its start and its end")
		require.Equal(t, "redrive "+j.ID, entries[0].Object)
		require.Equal(t, r.op.Reason, entries[1].Reason)
	})
}

// TestRedrive_WritesWhatTheRunnerReads looks at the record on the retry topic.
func TestRedrive_WritesWhatTheRunnerReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, _ := r.group(broken)
	r.startIndex()
	r.source(0, 1, 1)
	r.waitFor(g, states{deadletters.Open: 1})
	dead := r.read(topics.DLQ(r.in, g))[0]
	j, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
	require.NoError(t, err)
	var rec *kgo.Record
	for _, got := range r.read(topics.Retry(r.in, g)) {
		if got.Value != nil {
			require.Nil(t, rec)
			rec = got
		}
	}
	require.Equal(t, dead.Value, rec.Value)
	require.Equal(t, dead.Partition, rec.Partition)
	headers := map[string]string{}
	for _, h := range rec.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.Equal(t, string(dead.Key), headers[topics.HeaderOriginalKey])
	require.Equal(t, "event-0", headers[topics.HeaderID])
	require.Equal(t, "monday", headers["batch"], "the record's own headers are kept")
	require.NotEmpty(t, headers[topics.HeaderTraceParent], "and its trace goes on")
	require.Equal(t, j.ID, headers[topics.HeaderReplayID])
	require.Equal(t, "1", headers[topics.HeaderReplayCount])
	require.Equal(t, "0", headers[topics.HeaderAttempt])
	require.Equal(t, "manual", headers[topics.HeaderDisposition])
	for _, name := range []string{
		topics.HeaderWriter, topics.HeaderErrorClass, topics.HeaderErrorMessage, topics.HeaderFingerprint, topics.HeaderLastFailedAt, "__replicator_id",
	} {
		require.NotContains(t, headers, name)
	}
}

// TestRedrive_OfWhatFailsAgainIsStoppedByTheLoopGuard redrives a record that fails each time.
func TestRedrive_OfWhatFailsAgainIsStoppedByTheLoopGuard(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		r.startIndex()
		r.source(0, 1, 1)
		r.waitFor(g, states{deadletters.Open: 1})
		all := deadletters.Request{Selection: deadletters.Selection{Group: g}}
		for n := range int64(3) {
			_, err := r.office.Redrive(t.Context(), r.op, all)
			require.NoError(t, err)
			r.waitFor(g, states{deadletters.Open: 1, deadletters.FailedAgain: n + 1})
		}
		_, err := r.office.Redrive(t.Context(), r.op, all)
		require.ErrorIs(t, err, deadletters.ErrNothing)
		require.ErrorContains(t, err, "it was redriven 3 times and failed each time")
		require.ErrorContains(t, err, "--force")

		chain := r.letters(deadletters.Selection{Group: g})
		require.Len(t, chain, 4)
		for i, l := range chain { // newest first
			require.Equal(t, 3-i, l.ReplayCount)
			if i > 0 {
				require.Equal(t, chain[i-1].ID, *l.Successor)
			}
		}
		_, err = r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{
			IDs: []deadletters.ID{chain[2].ID}, States: []deadletters.State{deadletters.FailedAgain},
		}})
		require.ErrorContains(t, err, "redrive its successor")

		d, err := r.office.Show(t.Context(), chain[0].ID, true)
		require.NoError(t, err)
		require.True(t, d.Found)
		require.Equal(t, "0", string(d.Value))
		require.Len(t, d.Same, 3)
		require.Len(t, d.Replays, 3)
		require.Equal(t, r.op.Reason, d.Replays[0].Reason)

		s.set(healthy)
		all.Force = true
		_, err = r.office.Redrive(t.Context(), r.op, all)
		require.NoError(t, err)
		r.waitFor(g, states{deadletters.Resolved: 1, deadletters.FailedAgain: 3})
	})
}

// TestRedrive_AtOnceMovesEachOnce lets several redrives of overlapping selections run at the same time.
func TestRedrive_AtOnceMovesEachOnce(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		r.startIndex()
		r.source(0, 400, 50)
		r.waitFor(g, states{deadletters.Open: 400})
		s.set(healthy)
		var wg sync.WaitGroup
		var mu sync.Mutex
		moved := int64(0)
		for i := range 4 {
			wg.Go(func() {
				o := r.newOffice()
				j, err := o.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g, Tenant: "acme"}, Max: 130 + i})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					require.ErrorIs(t, err, deadletters.ErrNothing)
				}
				moved += j.Moved
			})
		}
		wg.Wait()
		for r.states(g)[deadletters.Open] > 0 { // claims that ran into each other took less than all
			j, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
			require.NoError(t, err)
			moved += j.Moved
		}
		require.Equal(t, int64(400), moved)
		r.waitFor(g, states{deadletters.Resolved: 400})
		onceEach(t, r, g, 400)
		require.Len(t, s.seen(), 400)
	})
}

// onceEach demands that the retry topic has n redriven records, each of another original.
func onceEach(t *testing.T, r *rig, group string, n int) {
	t.Helper()
	seen := map[string]bool{}
	for _, rec := range r.read(topics.Retry(r.in, group)) {
		byHand := rec.Value != nil
		for _, h := range rec.Headers {
			byHand = byHand && h.Key != topics.HeaderWriter
		}
		if byHand {
			require.False(t, seen[string(rec.Key)], "%s was moved twice", rec.Key)
			seen[string(rec.Key)] = true
		}
	}
	require.Len(t, seen, n)
}

// TestRedrive_StoppedIsResumedOrCancelled stops a redrive after its first transaction.
func TestRedrive_StoppedIsResumedOrCancelled(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		r.startIndex()
		r.source(0, 100, 10)
		r.waitFor(g, states{deadletters.Open: 100})
		s.set(healthy)
		stopped := func() deadletters.Job {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := r.newOffice()
			o.Progress = func(deadletters.Progress) { cancel() }
			o.Hide = safetext.NewHider("interrupted").Told // as if it was a secret
			j, err := o.Redrive(ctx, r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}, Rate: 40})
			require.ErrorContains(t, err, "can be resumed: interrupted")
			require.Equal(t, "stopped", j.State)
			require.Equal(t, safetext.Hidden, j.Problem)
			entries, err := audit.List(t.Context(), r.db, audit.Filter{Action: "dlq redrive", Limit: 1})
			require.NoError(t, err)
			require.Contains(t, fmt.Sprintf("%s", entries[0].After), safetext.Hidden)
			return j
		}
		first := stopped()
		require.Equal(t, int64(10), first.Moved)
		require.Equal(t, int64(90), first.Waiting)
		r.waitFor(g, states{deadletters.Resolved: 10, deadletters.Redriving: 90})
		_, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
		require.ErrorIs(t, err, deadletters.ErrNothing, "what a job has claimed is no other's")

		cancelled, err := r.office.Cancel(t.Context(), r.op, first.ID)
		require.NoError(t, err)
		require.Equal(t, int64(90), cancelled.Released)
		r.waitFor(g, states{deadletters.Resolved: 10, deadletters.Open: 90})
		_, err = r.office.Resume(t.Context(), r.op, first.ID)
		require.ErrorContains(t, err, "is cancelled")

		second := stopped()
		j, err := r.office.Resume(t.Context(), r.op, second.ID)
		require.NoError(t, err)
		require.Equal(t, "done", j.State)
		require.Equal(t, int64(90), j.Moved)
		r.waitFor(g, states{deadletters.Resolved: 100})
		onceEach(t, r, g, 100)
		_, err = r.office.Resume(t.Context(), r.op, second.ID)
		require.ErrorContains(t, err, "is done")
	})
}

// TestReindex_EqualsTheIndex rebuilds the index while letters are in every state.
func TestReindex_EqualsTheIndex(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		stop := r.startIndex()
		r.source(0, 50, 50)
		r.waitFor(g, states{deadletters.Open: 50})
		all := r.letters(deadletters.Selection{Group: g})
		pick := func(from, to int) (s deadletters.Selection) {
			for _, l := range all[from:to] {
				s.IDs = append(s.IDs, l.ID)
			}
			return s
		}
		_, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: pick(0, 10)}) // these fail again
		require.NoError(t, err)
		r.waitFor(g, states{deadletters.Open: 50, deadletters.FailedAgain: 10})
		s.set(healthy)
		_, err = r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: pick(10, 20)})
		require.NoError(t, err)
		r.waitFor(g, states{deadletters.Open: 40, deadletters.FailedAgain: 10, deadletters.Resolved: 10})
		_, err = r.office.Discard(t.Context(), r.op, pick(20, 25))
		require.NoError(t, err)
		_, err = r.office.Assign(t.Context(), r.op, pick(25, 30), deadletters.Assignment{Owner: new("bo"), Note: new("asks the shop")})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		o := r.newOffice()
		o.Progress = func(deadletters.Progress) { cancel() }
		_, err = o.Redrive(ctx, r.op, deadletters.Request{Selection: pick(30, 40), Rate: 4})
		require.Error(t, err)
		r.waitFor(g, states{deadletters.Open: 25, deadletters.FailedAgain: 10, deadletters.Resolved: 11, deadletters.Discarded: 5, deadletters.Redriving: 9})
		require.Len(t, r.letters(deadletters.Selection{Owner: "bo"}), 5)

		before := r.dump()
		for range 2 {
			require.NoError(t, rebuild(t, r))
			eventually(t, "the index as it was", func() bool { return r.dump() == before })
		}
		stop()
		require.Len(t, r.letters(deadletters.Selection{Owner: "bo"}), 5)
	})
}

// TestDryRun_SaysWhatARedriveWouldComeTo tries letters before and after the cause is gone.
func TestDryRun_SaysWhatARedriveWouldComeTo(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(broken)
	r.startIndex()
	r.source(0, 30, 30)
	r.waitFor(g, states{deadletters.Open: 30})
	before := r.dump()
	d, err := r.office.DryRun(t.Context(), deadletters.Selection{Group: g}, false, 0)
	require.NoError(t, err)
	require.Equal(t, []int64{30, 0, 30}, []int64{d.Letters, d.Succeed, d.Fail})
	require.Len(t, d.Failures, 1)
	require.Equal(t, "contract", d.Failures[0].Code)
	require.Equal(t, r.letters(deadletters.Selection{Group: g})[0].Fingerprint, d.Failures[0].Fingerprint, "as in the index")
	require.Len(t, d.Failures[0].Examples, 3)

	s.set(func(m *processors.Message) error {
		if string(m.Value) == "7" {
			panic("index out of range")
		}
		return nil
	})
	d, err = r.office.DryRun(t.Context(), deadletters.Selection{Group: g}, false, 0)
	require.NoError(t, err)
	require.Equal(t, []int64{30, 29, 1}, []int64{d.Letters, d.Succeed, d.Fail})
	require.Equal(t, []deadletters.TriedGroup{{Group: g, Outcome: "handled", Letters: 29}}, d.Outcomes)
	require.Equal(t, "panic", d.Failures[0].Code)
	require.Equal(t, before, r.dump(), "nothing has changed")
	require.Empty(t, r.read(topics.Retry(r.in, g)))
	require.Empty(t, s.seen())

	s.set(func(*processors.Message) error { return processors.Systemic("connection", context.DeadlineExceeded) })
	_, err = r.office.DryRun(t.Context(), deadletters.Selection{Group: g}, false, 0)
	require.ErrorContains(t, err, "trying the letters of group "+g)
}
