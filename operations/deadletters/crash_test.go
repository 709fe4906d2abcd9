package deadletters_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/deadletters"
	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// TestRedrive_ResumedTrustsKafkaAndNotItsMarks brings about what a kill leaves between the commit of a transaction and the mark in the
// database, and in the middle of the next transaction.
func TestRedrive_ResumedTrustsKafkaAndNotItsMarks(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, func(t *testing.T, brokers []string) {
		r := newRig(t, brokers)
		g, s := r.group(broken)
		stopIndex := r.startIndex()
		r.source(0, 40, 8)
		r.waitFor(g, states{deadletters.Open: 40})
		stopIndex() // it would see what was moved
		s.set(healthy)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := r.newOffice()
		o.Progress = func(deadletters.Progress) { cancel() }
		j, err := o.Redrive(ctx, r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}, Rate: 40})
		require.Error(t, err)
		require.Equal(t, int64(10), j.Moved)

		tag, err := r.db.Exec(t.Context(), `update leat_control.redrive_items set state = 'claimed', moved_at = null, retry_offset = null where job = $1`, j.ID)
		require.NoError(t, err)
		require.Equal(t, int64(40), tag.RowsAffected(), "no mark is left")
		_, err = r.db.Exec(t.Context(), `update leat_control.redrives set state = 'running' where id = $1`, j.ID)
		require.NoError(t, err)
		dangling := r.dangling(j.ID, g)

		j, err = r.office.Resume(t.Context(), r.op, j.ID)
		require.NoError(t, err)
		require.Equal(t, int64(40), j.Moved)
		onceEach(t, r, g, 40)
		require.Error(t, dangling(), "the killed process, had it lived, was fenced")
		r.startIndex()
		r.waitFor(g, states{deadletters.Resolved: 40})
		eventually(t, "each to be handled", func() bool { return len(s.seen()) == 40 })
		onceEach(t, r, g, 40)
	})
}

// dangling opens a transaction of the redrive and leaves it open with a record of its own; the returned function tries to commit it.
func (r *rig) dangling(job, group string) (commit func() error) {
	r.t.Helper()
	killed, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.TransactionalID("leat.redrive."+job), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(r.t, err)
	r.t.Cleanup(killed.Close)
	require.NoError(r.t, killed.BeginTransaction())
	rec := &kgo.Record{Topic: topics.Retry(r.in, group), Partition: 0, Key: []byte(topics.ParkedID(0, 1<<40)), Value: []byte("half")}
	require.NoError(r.t, killed.ProduceSync(r.t.Context(), rec).FirstErr())
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return killed.EndTransaction(ctx, kgo.TryCommit)
	}
}

// TestRedrive_CancelledKnowsWhatAKilledProcessMoved gives up a redrive whose marks were lost: only what was not moved is open again.
func TestRedrive_CancelledKnowsWhatAKilledProcessMoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, _ := r.group(broken)
	stopIndex := r.startIndex()
	r.source(0, 20, 4)
	r.waitFor(g, states{deadletters.Open: 20})
	stopIndex()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := r.newOffice()
	o.Progress = func(deadletters.Progress) { cancel() }
	j, err := o.Redrive(ctx, r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}, Rate: 20})
	require.Error(t, err)
	_, err = r.db.Exec(t.Context(), `update leat_control.redrive_items set state = 'claimed', moved_at = null, retry_offset = null where job = $1`, j.ID)
	require.NoError(t, err)
	j, err = r.office.Cancel(t.Context(), r.op, j.ID)
	require.NoError(t, err)
	require.Equal(t, []int64{5, 15}, []int64{j.Moved, j.Released})
	require.Equal(t, states{deadletters.Open: 15, deadletters.Redriven: 5}, r.states(g))
}

// TestRedrive_StopsWhenMostFailAgain redrives what is still broken: it stops long before the end.
func TestRedrive_StopsWhenMostFailAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, _ := r.group(broken)
	r.startIndex()
	r.source(0, 300, 300)
	r.waitFor(g, states{deadletters.Open: 300})
	o := r.newOffice()
	waited := int64(0)
	o.Progress = func(p deadletters.Progress) { // as slow as the rate that a person would choose
		eventually(t, "what was moved to fail again", func() bool { return r.states(g)[deadletters.FailedAgain] >= p.Done })
		waited = p.Done
	}
	j, err := o.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}, Rate: 100})
	require.ErrorContains(t, err, "fail again: the cause is not gone")
	require.Equal(t, "stopped", j.State)
	require.Equal(t, waited, j.Moved)
	require.Less(t, j.Moved, int64(100))
	require.NotZero(t, j.Waiting)
}

// TestCancelledParkedRecord_MakesItsLetterOpenAgain cancels a redriven record while it waits: nobody has handled it.
func TestCancelledParkedRecord_MakesItsLetterOpenAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, testenv.Kafka(t))
	g, s := r.group(broken)
	r.startIndex()
	r.source(0, 1, 1)
	r.waitFor(g, states{deadletters.Open: 1})
	s.set(func(*processors.Message) error { return processors.Systemic("connection", errors.New("down")) }) // so that it stays parked
	_, err := r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
	require.NoError(t, err)
	r.waitFor(g, states{deadletters.Redriven: 1})
	l := r.letters(deadletters.Selection{Group: g})[0]
	_, err = r.runners[g].Settle(t.Context(), processors.ParkedOrder{
		ID: "order-1", Action: processors.ParkedCancel, Topic: r.in, Partition: *l.OriginalPartition, Offsets: []int64{*l.OriginalOffset}, Reason: "test",
	})
	require.NoError(t, err)
	r.waitFor(g, states{deadletters.Open: 1})
	s.set(healthy)
	_, err = r.office.Redrive(t.Context(), r.op, deadletters.Request{Selection: deadletters.Selection{Group: g}})
	require.NoError(t, err)
	r.waitFor(g, states{deadletters.Resolved: 1})
}
