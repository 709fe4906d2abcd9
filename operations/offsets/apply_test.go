package offsets_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/offsets"
)

func TestApply_AndUndoPutEveryOffsetBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.write(b.topic, 1, 4)
	var os kadm.Offsets
	os.Add(kadm.Offset{Topic: b.topic, Partition: 0, At: 7, LeaderEpoch: 0, Metadata: "by hand"})
	require.NoError(t, b.adm.CommitAllOffsets(t.Context(), b.group, os))
	p := b.plan(offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Offset: new(int64(2))}})
	require.Equal(t, offsets.Reread, p.Partitions[0].Direction)
	require.Equal(t, offsets.Begin, p.Partitions[1].Direction, "no commit: nothing is read again, nothing skipped")
	require.Equal(t, offsets.Count{N: 5, Exact: true}, p.Total.Reread)

	r := b.apply(p)
	require.Equal(t, []int64{2, 2}, b.committed())
	require.Equal(t, int64(7), r.Partitions[0].Before.Offset)
	require.Nil(t, r.Partitions[1].Before)
	require.Equal(t, int64(2), r.Partitions[1].After.Offset)
	p, err := b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Applied, p.State)
	require.Equal(t, "ana@desk", p.AppliedBy)
	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "was applied by ana@desk at ")

	_, err = b.Undo(t.Context(), audit.Operator{Name: "bo@desk", Reason: "the wrong topic"}, p.ID, offsets.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, []int64{7, -1}, b.committed(), "also the partition that had no commit")
	commits, err := b.adm.FetchOffsets(t.Context(), b.group)
	require.NoError(t, err)
	require.Equal(t, "by hand", commits[b.topic][0].Metadata)
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Undone, p.State)
	_, err = b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, "plan "+p.ID+" was undone by bo@desk already")

	entries, err := audit.List(t.Context(), b.db, audit.Filter{Object: "group " + b.group})
	require.NoError(t, err)
	var actions []string
	for _, e := range entries {
		outcome, _, _ := strings.Cut(strings.Split(string(raw(e.After)), `"outcome": "`)[1], `"`)
		actions = append(actions, e.Action+" "+outcome+" "+e.Actor)
	}
	require.Equal(t, []string{
		"offsets undo finished bo@desk", "offsets undo started bo@desk", "offsets apply finished ana@desk", "offsets apply started ana@desk",
	}, actions)
	require.Contains(t, string(raw(entries[2].Before)), `"offset": 7`)
	require.Contains(t, string(raw(entries[2].After)), p.Hash)
}

func TestUndo_RefusesWhenTheGroupHasReadOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	p := b.plan(offsets.Request{Group: b.group, Topics: []string{b.topic + ":0"}, Target: offsets.Target{Earliest: true}})
	_, err := b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, "plan "+p.ID+" is planned, not applied: there is nothing to undo")
	b.apply(p)
	b.commit(0, 4)
	_, err = b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, b.topic+"/0: the group stands at 4, plan "+p.ID+" had put it at 0: it has gone on since. "+
		"To go back all the same, plan again: `leat offsets export --plan "+p.ID+" --before` writes the old offsets for --from-file")
	require.Equal(t, []int64{4, -1}, b.committed())
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	back, err := p.RowsBefore()
	require.NoError(t, err)
	p = b.plan(offsets.Request{Group: b.group, Target: offsets.Target{File: back}})
	require.Equal(t, int64(7), p.Partitions[0].Target)
	_, err = p.RowsBefore()
	require.EqualError(t, err, "plan "+p.ID+" is planned: it has not found offsets yet")
}

// TestApply_RefusesAPlanThatHasGoneStale moves each thing that a plan rests on.
func TestApply_RefusesAPlanThatHasGoneStale(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		move func(*bench)
		want string
	}{
		"a concurrent commit": {
			func(b *bench) { b.commit(0, 8) },
			"TOPIC/0: the committed offset moved from 7 to 8 since the plan: plan again",
		},
		"a commit where there was none": {
			func(b *bench) { b.commit(1, 0) },
			"TOPIC/1: the committed offset moved from none to 0 since the plan: plan again",
		},
		"a commit that was deleted": {
			func(b *bench) {
				var gone kadm.TopicsSet
				gone.Add(b.topic, 0)
				_, err := b.adm.DeleteOffsets(b.t.Context(), b.group, gone)
				require.NoError(b.t, err)
			},
			"TOPIC/0: the committed offset moved from 7 to none since the plan: plan again",
		},
		"a log that lost its beginning": {
			func(b *bench) { b.deleteBefore(0, 5) },
			"TOPIC/0: retention has moved the start of the log to 5 since the plan, beyond offset 0: plan again",
		},
		"a member": {
			func(b *bench) { b.join() },
			"group GROUP is active (Stable): its 1 members",
		},
		"a topic that was made anew": {
			func(b *bench) {
				_, err := b.adm.DeleteTopic(b.t.Context(), b.topic)
				require.NoError(b.t, err)
				b.until("the topic to be gone", func() bool {
					topics, err := b.adm.ListTopics(b.t.Context())
					return err == nil && !topics.Has(b.topic)
				})
				b.create(b.topic, 2, nil)
				var os kadm.Offsets
				os.AddOffset(b.topic, 0, 7, -1)
				b.until("the new topic to be known", func() bool { return b.adm.CommitAllOffsets(b.t.Context(), b.group, os) == nil })
			},
			"topic TOPIC was made anew since the plan: plan again",
		},
		"time": {
			func(b *bench) {
				_, err := b.db.Exec(b.t.Context(), "update leat_control.plans set expires_at = now()")
				require.NoError(b.t, err)
			},
			" expired at ",
		},
		"the stored plan": {
			func(b *bench) {
				_, err := b.db.Exec(b.t.Context(), `update leat_control.plans set plan = replace(plan::text, '"target":0', '"target":9')::json`)
				require.NoError(b.t, err)
			},
			" was changed after it was made: its content no longer has its hash; plan again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.write(b.topic, 0, 10)
			b.commit(0, 7)
			p := b.plan(b.earliest())
			c.move(b)
			before := b.committed()
			_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
			require.ErrorContains(t, err, strings.NewReplacer("TOPIC", b.topic, "GROUP", b.group).Replace(c.want))
			require.Equal(t, before, b.committed())
		})
	}
}

func TestPlan_ThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.Apply(t.Context(), b.op, "nix", offsets.ApplyOptions{})
	require.ErrorIs(t, err, offsets.ErrNoPlan)
}

// TestCreate_IsTheOnlyWayToMakeAGroup makes one on purpose, and takes it back.
func TestCreate_IsTheOnlyWayToMakeAGroup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 3)
	r := offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Latest: true}, Create: true}
	p := b.plan(r)
	require.Equal(t, "Dead", p.GroupState)
	b.apply(p)
	require.Equal(t, []int64{3, 0}, b.committed())
	_, err := b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, []int64{-1, -1}, b.committed())
}

// TestTargets_ResolveAsTheirNamesSay tries each target that needs no companion.
func TestTargets_ResolveAsTheirNamesSay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := time.Now().Add(-3 * time.Hour)
	b.writeAt(0, old, old.Add(time.Hour), old.Add(2*time.Hour), time.Now())
	b.writeAt(1, old, time.Now())
	b.commit(0, 3)
	b.commit(1, 1)
	other := testenv.Name("other")
	var os kadm.Offsets
	os.AddOffset(b.topic, 0, 1, -1)
	os.AddOffset(b.topic, 1, 2, -1)
	require.NoError(t, b.adm.CommitAllOffsets(t.Context(), other, os))
	for name, c := range map[string]struct {
		target offsets.Target
		want   []int64
	}{
		"--to-earliest":    {offsets.Target{Earliest: true}, []int64{0, 0}},
		"--to-latest":      {offsets.Target{Latest: true}, []int64{4, 2}},
		"--to-current":     {offsets.Target{Current: true}, []int64{3, 1}},
		"--to-offset 1":    {offsets.Target{Offset: new(int64(1))}, []int64{1, 1}},
		"--shift-by -1":    {offsets.Target{ShiftBy: new(int64(-1))}, []int64{2, 0}},
		"--shift-by +1":    {offsets.Target{ShiftBy: new(int64(1))}, []int64{4, 2}},
		"--by-duration":    {offsets.Target{Duration: "PT1H30M"}, []int64{2, 1}},
		"--to-datetime":    {offsets.Target{Datetime: old.Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000")}, []int64{1, 1}},
		"--to-group other": {offsets.Target{Group: other}, []int64{1, 2}},
		"--from-file": {offsets.Target{File: []offsets.Row{
			{Topic: b.topic, Offset: 2}, {Group: b.group, Topic: b.topic, Partition: 1, Offset: 2}, {Group: "x", Topic: "y", Offset: 1},
		}}, []int64{2, 2}},
	} {
		r := offsets.Request{Group: b.group, AllTopics: c.target.File == nil, Target: c.target}
		p := b.plan(r)
		require.Len(t, p.Partitions, 2, name)
		require.Equal(t, c.want, []int64{p.Partitions[0].Target, p.Partitions[1].Target}, name)
	}
}

// TestApply_WaitsForATransactionThatCommitsOffsets has a member gone while its transaction is open: what it commits then must not be
// overwritten unseen.
func TestApply_WaitsForATransactionThatCommitsOffsets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 4)
	said := make(chan string, 64)
	b.cfg.Progress = func(format string, _ ...any) { said <- format }
	b.with(b.cfg)
	end := b.pendingCommit(9)
	p := b.plan(b.earliest())
	require.Equal(t, int64(4), p.Partitions[0].Committed.Offset)
	applied := make(chan error, 1)
	go func() {
		_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
		applied <- err
	}()
	for !strings.Contains(<-said, "is still open: waiting for its end") {
		continue
	}
	end()
	require.EqualError(t, <-applied, b.topic+"/0: the committed offset moved from 4 to 9 since the plan: plan again")
	require.Equal(t, []int64{9, -1}, b.committed())
}

// pendingCommit commits an offset of partition 0 in a transaction that is open until end is called.
func (b *bench) pendingCommit(offset int64) (end func()) {
	b.t.Helper()
	id, ctx := testenv.Name("tx"), b.t.Context()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.TransactionalID(id))
	require.NoError(b.t, err)
	b.t.Cleanup(cl.Close)
	producer, epoch, err := cl.ProducerID(ctx)
	require.NoError(b.t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producer, epoch, b.group
	added, err := add.RequestWith(ctx, cl)
	require.NoError(b.t, err)
	require.NoError(b.t, kerr.ErrorForCode(added.ErrorCode))
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.ProducerID, commit.ProducerEpoch, commit.Group, commit.Generation = id, producer, epoch, b.group, -1
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Offset = offset
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = b.topic, append(topic.Partitions, partition)
	commit.Topics = append(commit.Topics, topic)
	committed, err := commit.RequestWith(ctx, cl)
	require.NoError(b.t, err)
	require.NoError(b.t, kerr.ErrorForCode(committed.Topics[0].Partitions[0].ErrorCode))
	return func() {
		b.t.Helper()
		request := kmsg.NewPtrEndTxnRequest()
		request.TransactionalID, request.ProducerID, request.ProducerEpoch, request.Commit = id, producer, epoch, true
		ended, err := request.RequestWith(ctx, cl)
		require.NoError(b.t, err)
		require.NoError(b.t, kerr.ErrorForCode(ended.ErrorCode))
	}
}
