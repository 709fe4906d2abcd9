package offsets_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/offsets"
	"github.com/leat-io/leat/topics"
)

// stage stands in for the processes of a group: one member, which leaves and comes back when it is told to.
type stage struct {
	b      *bench
	member *kgo.Client
	deaf   bool // does not leave
	orders []string
}

// Drain implements offsets.Drains.
func (s *stage) Drain(_ context.Context, _ audit.Operator, group string, until time.Time) error {
	require.Equal(s.b.t, s.b.group, group)
	require.Greater(s.b.t, time.Until(until), time.Minute, "longer than the change may take")
	s.orders = append(s.orders, "drain")
	if !s.deaf {
		s.member.Close()
	}
	return nil
}

// EndDrain implements offsets.Drains.
func (s *stage) EndDrain(context.Context, audit.Operator, string) error {
	s.orders = append(s.orders, "end")
	if !s.deaf {
		s.member = s.b.join()
	}
	return nil
}

func newStage(b *bench) *stage {
	s := &stage{b: b, member: b.join()}
	b.cfg.Drains = s
	b.with(b.cfg)
	return s
}

func TestDrain_HasTheMembersStepAsideAndComeBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 4)
	s := newStage(b)
	p := b.plan(b.earliest())
	require.Contains(t, p.Notes[0], "the group is running")
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "Stop its processes, or let them step aside with --drain")

	// The group reads on while the plan is looked at: that is what a running group does.
	offset := map[string]map[int32]kgo.EpochOffset{b.topic: {0: {Epoch: -1, Offset: 9}}}
	committed := make(chan error, 1)
	s.member.CommitOffsetsSync(t.Context(), offset, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		committed <- err
	})
	require.NoError(t, <-committed)
	r, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true})
	require.NoError(t, err)
	require.Equal(t, []string{"drain", "end"}, s.orders)
	require.True(t, r.Drained)
	require.Len(t, r.Members, 1)
	require.Equal(t, int64(9), r.Partitions[0].Before.Offset, "what undo restores is what stood there last")
	require.Equal(t, []int64{0, 0}, b.committed())

	_, err = b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true})
	require.NoError(t, err)
	require.Equal(t, []int64{9, -1}, b.committed())
	require.Equal(t, []string{"drain", "end", "drain", "end"}, s.orders)
}

func TestDrain_OfMembersThatDoNotLeaveChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 4)
	s := newStage(b)
	s.deaf = true
	p := b.plan(b.earliest())
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true, Timeout: time.Second})
	require.ErrorContains(t, err, "the members of group "+b.group+" did not leave within 1s, and go on: ")
	require.Equal(t, []string{"drain", "end"}, s.orders, "they are let go on")
	require.Equal(t, []int64{4, -1}, b.committed())
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Planned, p.State, "it can be tried again")
}

func TestDrain_RefusesOtherMembersThanThePlanHasSeen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 4)
	forEmpty := b.plan(b.earliest())
	s := newStage(b)
	p := b.plan(b.earliest())
	s.member.Close()
	s.member = b.join()
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true})
	require.ErrorContains(t, err, "the members of group "+b.group+" have changed since the plan")
	_, err = b.Apply(t.Context(), b.op, forEmpty.ID, offsets.ApplyOptions{Drain: true})
	require.ErrorContains(t, err, "group "+b.group+" has become active since the plan")
	require.Empty(t, s.orders)
	require.Equal(t, []int64{4, -1}, b.committed())
}

// TestDrain_WaitsForParkedRecords applies a plan with --parked drain while a record is parked, and settles it then.
func TestDrain_WaitsForParkedRecords(t *testing.T) {
	t.Parallel()
	b := setup(t)
	retry, _ := b.companions()
	b.write(b.topic, 0, 10)
	b.commit(0, 10)
	b.produce(b.failure(retry, 5, ""), b.failure(retry, 2, ""))
	said := make(chan string, 64)
	b.cfg.Progress = func(format string, _ ...any) { said <- format }
	newStage(b)
	r := b.earliest()
	r.Target, r.Parked, r.Topics = offsets.Target{Offset: new(int64(4))}, offsets.ParkedDrain, []string{b.topic + ":0"}
	p := b.plan(r)
	require.Equal(t, int64(1), p.Total.ParkedInRange, "the one at 2 is not read again")
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true, Timeout: 100 * time.Millisecond})
	require.ErrorContains(t, err, "1 records of the range are still parked after 100ms: nothing was changed")

	applied := make(chan error, 1)
	go func() {
		_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true})
		applied <- err
	}()
	for !strings.Contains(<-said, "still parked") {
		continue
	}
	require.Equal(t, []int64{10, -1}, b.committed())
	b.produce(&kgo.Record{Topic: retry, Key: []byte(topics.ParkedID(0, 5))}) // settled
	require.NoError(t, <-applied)
	require.Equal(t, []int64{4, -1}, b.committed())
	require.Len(t, testenv.ReadCommitted(t, b.brokers, retry), 3)
}

// TestApply_OneAtATime holds the lock of a group, as another apply does.
func TestApply_OneAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 4)
	p := b.plan(b.earliest())
	conn, err := b.db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `select pg_advisory_lock(hashtextextended('leat offsets ' || $1, 0))`, b.group)
	require.NoError(t, err)
	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, "another change of the offsets of group "+b.group+" is under way")
	_, err = conn.Exec(t.Context(), `select pg_advisory_unlock(hashtextextended('leat offsets ' || $1, 0))`, b.group)
	require.NoError(t, err)
	b.apply(p)
}
