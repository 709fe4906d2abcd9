package offsets_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/internal/safetext"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/offsets"
	"github.com/leat-io/leat/topics"
)

// onFake is setup with a broker of the test's own, which answers the next commit with an error, or with none, instead of committing.
func onFake(t *testing.T, refusal *kerr.Error) (b *bench, intercept func()) {
	t.Helper()
	b = setup(t)
	fake := testenv.FakeCluster(t)
	b.brokers, b.fake = fake.Brokers(), fake.Cluster()
	var err error
	b.cl, err = kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	t.Cleanup(b.cl.Close)
	b.adm = kadm.NewClient(b.cl)
	b.cfg.Client = b.cl
	b.with(b.cfg)
	b.create(b.topic, 2, nil)
	return b, func() {
		fake.Cluster().ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
			commit := req.(*kmsg.OffsetCommitRequest)
			resp := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
			for _, t := range commit.Topics {
				rt := kmsg.NewOffsetCommitResponseTopic()
				rt.Topic, rt.TopicID = t.Topic, t.TopicID
				for _, p := range t.Partitions {
					rp := kmsg.NewOffsetCommitResponseTopicPartition()
					rp.Partition = p.Partition
					if refusal != nil {
						rp.ErrorCode = refusal.Code
					}
					rt.Partitions = append(rt.Partitions, rp)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
	}
}

// TestApply_ThatKafkaRefusesWritesNothing has a member join in the last moment.
func TestApply_ThatKafkaRefusesWritesNothing(t *testing.T) {
	t.Parallel()
	b, intercept := onFake(t, kerr.UnknownMemberID)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	p := b.plan(b.earliest())
	intercept()
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "Kafka refused the offsets of group "+b.group+", nothing was written:\n  "+b.topic+"/0: was 7, is 7: UNKNOWN_MEMBER_ID")
	refused := (*offsets.RefusedError)(nil)
	require.ErrorAs(t, err, &refused)
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Planned, p.State, "it can be applied later")
	b.apply(p)
	require.Equal(t, []int64{0, 0}, b.committed())
}

// TestApply_WritesNothingOnceItsLockIsLost has its connection with the lock break behind the last look.
func TestApply_WritesNothingOnceItsLockIsLost(t *testing.T) {
	t.Parallel()
	b, _ := onFake(t, nil)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	p := b.plan(b.earliest())
	looks := 0
	b.fake.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.fake.KeepControl()
		if looks++; looks == 2 {
			_, err := b.db.Exec(t.Context(), `select pg_terminate_backend(pid, 10000) from pg_locks
				where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`)
			require.NoError(t, err)
		}
		return nil, nil, false
	})
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "marking plan "+p.ID+", before anything is written: ")
	require.Equal(t, 2, looks)
	require.Equal(t, []int64{7, -1}, b.committed())
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Planned, p.State, "it can be applied later")
}

// TestApply_FailsLoudlyWhenKafkaShowsAnotherOffset has the broker say yes and do nothing.
func TestApply_FailsLoudlyWhenKafkaShowsAnotherOffset(t *testing.T) {
	t.Parallel()
	b, intercept := onFake(t, nil)
	b.cfg.Hide = safetext.NewHider(b.topic).Told // as if it was a secret
	b.with(b.cfg)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	p := b.plan(b.earliest())
	intercept()
	r, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "2 of 2 partitions of group "+b.group+" do not stand where the plan puts them:\n  "+b.topic+
		"/0: was 7, is 7: Kafka took offset 0 and shows another")
	require.Len(t, r.Partitions, 2)
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Failed, p.State)
	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "plan "+p.ID+" failed when it was applied: ")
	require.ErrorContains(t, err, "puts them:\n  [secret]/0: was 7", "it is kept without secrets")
	entries, err := audit.List(t.Context(), b.db, audit.Filter{Action: "offsets apply"})
	require.NoError(t, err)
	require.Contains(t, string(raw(entries[0].After)), `"outcome": "failed"`)
	require.Contains(t, string(raw(entries[0].After)), `[secret]/0: was 7`)
}

// TestPlan_WaitsForABusyCoordinator has the broker say twice that it cannot answer now.
func TestPlan_WaitsForABusyCoordinator(t *testing.T) {
	t.Parallel()
	b, _ := onFake(t, nil)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	left := 2
	b.fake.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if left--; left < 0 {
			return nil, nil, false
		}
		b.fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.ErrorCode = b.group, kerr.CoordinatorNotAvailable.Code
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	require.Equal(t, "Empty", b.plan(b.earliest()).GroupState)
	require.Negative(t, left)
}

// TestUndo_IsRefusedAfterALostAnswerToTheCancelling has the broker commit the tombstones of what was parked, and say nothing of it.
func TestUndo_IsRefusedAfterALostAnswerToTheCancelling(t *testing.T) {
	t.Parallel()
	b, _ := onFake(t, nil)
	b.create(topics.Retry(b.topic, b.group), 2, nil)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	b.produce(&kgo.Record{Topic: topics.Retry(b.topic, b.group), Key: []byte(topics.ParkedID(0, 3)), Value: []byte("3")})
	r := b.earliest()
	r.Parked = offsets.ParkedCancel
	p := b.plan(r)
	handle := b.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: 1, TopLevel: true})
	report := b.apply(p)
	require.Equal(t, 1, handle.Hits())
	require.Equal(t, int64(1), report.Cancelled, "it may have been cancelled")
	require.Contains(t, strings.Join(report.Notes, " "), "it is not known whether the parked records were cancelled")
	require.Equal(t, []int64{0, 0}, b.committed())
	_, err := b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, "plan "+p.ID+" took 1 parked records off the retry topics; they are read again only from the offsets that it set, "+
		"so undoing it would lose them")
	require.Equal(t, []int64{0, 0}, b.committed())
}

// TestUndo_ThatKafkaRefusesCanBeTriedAgain has a member join in the last moment. One partition is to get its offset back, the other one to
// lose its own.
func TestUndo_ThatKafkaRefusesCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	b, intercept := onFake(t, kerr.UnknownMemberID)
	b.write(b.topic, 0, 10)
	b.commit(0, 7)
	p := b.plan(b.earliest())
	b.apply(p)
	intercept()
	_, err := b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	refused := (*offsets.RefusedError)(nil)
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "its commit was not deleted, because another offset was refused")
	p, err = b.Get(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, offsets.Applied, p.State)
	_, err = b.Undo(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.NoError(t, err)
	require.Equal(t, []int64{7, -1}, b.committed())
}
