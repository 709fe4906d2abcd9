package offsets_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/offsets"
)

// TestPlan_RefusesEveryMistakeByName asks for each of the mistakes that Kafka's own tool turns into something else, and demands the exact
// answer. TOPIC and GROUP stand for the names of the test.
func TestPlan_RefusesEveryMistakeByName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10) // partition 1 is empty
	b.deleteBefore(0, 3)
	b.commit(0, 5)
	forgotten, simple := testenv.Name("forgotten"), testenv.Name("elsewhere")
	b.cfg.Groups = append(b.cfg.Groups, offsets.Group{Name: forgotten, Reads: []string{b.topic}})
	b.with(b.cfg)
	var elsewhere kadm.Offsets
	elsewhere.AddOffset(b.topic, 0, 4, -1)
	require.NoError(t, b.adm.CommitAllOffsets(t.Context(), simple, elsewhere))
	connect := testenv.Name("connect")
	b.otherProtocol(connect)

	only0, all := []string{b.topic + ":0"}, []string{b.topic}
	for name, c := range map[string]struct {
		request offsets.Request
		want    string
	}{
		"typo in the group": {
			offsets.Request{Group: "nromalize", Topics: only0, Target: offsets.Target{Earliest: true}},
			"there is no group nromalize: is the name right? Nothing is ever committed for a group that does not exist, unless --create is given",
		},
		"typo in the group, all topics": {
			offsets.Request{Group: "nromalize", AllTopics: true, Target: offsets.Target{Earliest: true}},
			"there is no group nromalize: is the name right? Nothing is ever committed for a group that does not exist, unless --create is given",
		},
		"offsets that Kafka has forgotten": {
			offsets.Request{Group: forgotten, Topics: only0, Target: offsets.Target{Earliest: true}},
			"group " + forgotten + " is of this installation, but has committed nothing: it has never run, or Kafka has forgotten its " +
				"offsets (offsets.retention.minutes after its last member left). Started now it begins at the earliest record. To let it begin " +
				"elsewhere, say where and add --create; `leat offsets show` has the offsets of earlier plans",
		},
		"group of another type": {
			offsets.Request{Group: connect, Topics: only0, Target: offsets.Target{Earliest: true}},
			"group " + connect + " is of type connect: only consumer groups have offsets to move",
		},
		"unknown topic": {
			offsets.Request{Group: b.group, Topics: []string{"source.nothing.here"}, Target: offsets.Target{Earliest: true}},
			"topic source.nothing.here does not exist",
		},
		"unknown partition": {
			offsets.Request{Group: b.group, Topics: []string{b.topic + ":0,7,9"}, Target: offsets.Target{Earliest: true}},
			"topic TOPIC has no partition 7: it has 0 to 1\ntopic TOPIC has no partition 9: it has 0 to 1",
		},
		"before the start": {
			offsets.Request{Group: b.group, Topics: only0, Target: offsets.Target{Offset: new(int64(2))}},
			"TOPIC/0: offset 2 is before the start of the log, 3: those records are gone; --allow-truncated takes 3",
		},
		"beyond the end": {
			offsets.Request{Group: b.group, Topics: only0, Target: offsets.Target{Offset: new(int64(11))}},
			"TOPIC/0: offset 11 is beyond the end of the log, 10; --allow-truncated takes 10",
		},
		"shifted out of the log, and no commit": {
			offsets.Request{Group: b.group, Topics: all, Target: offsets.Target{ShiftBy: new(int64(-3))}},
			"TOPIC/0: offset 2 is before the start of the log, 3: those records are gone; --allow-truncated takes 3\n" +
				"TOPIC/1: --shift-by needs a committed offset, and the group has none here; name the partitions that have one with --topic t:0,1",
		},
		"to current without a commit": {
			offsets.Request{Group: b.group, Topics: all, Target: offsets.Target{Current: true}},
			"TOPIC/1: --to-current needs a committed offset, and the group has none here; name the partitions that have one with --topic t:0,1",
		},
		"time past the end, and an empty partition": {
			offsets.Request{Group: b.group, Topics: all, Target: offsets.Target{Datetime: "2999-01-01T00:00:00.000"}},
			"TOPIC/0: its last record is older than 2999-01-01T00:00:00Z; to skip all of it use --to-latest; --allow-truncated takes 10\n" +
				"TOPIC/1: is empty, so no record of 2999-01-01T00:00:00Z or later is in it; leave it out with --topic t:0,1, or use --to-latest; " +
				"--allow-truncated takes 0",
		},
		"file with offsets outside of the log": {
			offsets.Request{Group: b.group, Target: offsets.Target{File: []offsets.Row{{Topic: b.topic, Offset: 99}, {Topic: b.topic, Partition: 5}}}},
			"topic TOPIC has no partition 5: it has 0 to 1",
		},
		"file of another group": {
			offsets.Request{Group: b.group, Target: offsets.Target{File: []offsets.Row{{Group: "x", Topic: b.topic, Offset: 9}}}},
			"the file has no offsets of group GROUP",
		},
		"copy of a group that does not exist": {
			offsets.Request{Group: b.group, Topics: only0, Target: offsets.Target{Group: "nobody"}},
			"--to-group: there is no group nobody",
		},
		"copy of a group that has no commit there": {
			offsets.Request{Group: b.group, Topics: all, Target: offsets.Target{Group: simple}},
			"TOPIC/1: group " + simple + " has committed nothing here",
		},
		"no dead letter": {
			offsets.Request{Group: b.group, Target: offsets.Target{FirstDeadLetter: true, Fingerprint: "v1:0"}},
			"there is no dead letter of group GROUP with fingerprint v1:0 in these partitions",
		},
		"event whose id tells no time": {
			offsets.Request{Group: b.group, Target: offsets.Target{EventID: "7f9c24e5-2d2f-5d51-a7e1-0c3b7a1a4b10"}},
			"event 7f9c24e5-2d2f-5d51-a7e1-0c3b7a1a4b10 is not in the journal, and its id does not tell its time as a version 7 UUID does: " +
				"say about when it happened with --event-time",
		},
		"event that is nowhere": {
			offsets.Request{Group: b.group, Target: offsets.Target{EventID: "x", EventTime: "2020-01-01T00:00:00Z"}},
			"event x was not found: searched 7 records of 2 partitions from 2019-12-31T23:55:00Z on. Is the id right, and the topic? " +
				"--event-time and --event-key say where to look",
		},
		"draining parked records of a group that does not run": {
			offsets.Request{Group: b.group, Topics: only0, Target: offsets.Target{Earliest: true}, Parked: offsets.ParkedDrain},
			"--parked drain lets the running members settle what is parked, and group GROUP has none: start it, or use keep or cancel",
		},
	} {
		_, err := b.Plan(t.Context(), b.op, c.request)
		require.Error(t, err, name)
		want := strings.NewReplacer("TOPIC", b.topic, "GROUP", b.group).Replace(c.want)
		require.Equal(t, want, err.Error(), name)
		refused := (*offsets.RefusedError)(nil)
		require.ErrorAs(t, err, &refused, name)
	}
	require.Equal(t, []int64{5, -1}, b.committed(), "nothing was changed")
	groups, err := b.adm.ListGroups(t.Context())
	require.NoError(t, err)
	for _, name := range []string{"nromalize", "nobody", forgotten} {
		require.NotContains(t, groups, name, "no group is made by asking")
	}
	plans, err := b.Plans(t.Context(), "", 10)
	require.NoError(t, err)
	require.Empty(t, plans, "nothing that is refused is stored")
}

// TestPlan_TruncatesOnlyWhenAsked is the other side: what --allow-truncated takes, it says.
func TestPlan_TruncatesOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.deleteBefore(0, 3)
	b.commit(0, 5)
	r := offsets.Request{Group: b.group, Topics: []string{b.topic}, Target: offsets.Target{Datetime: "2999-01-01T00:00:00"}, AllowTruncated: true}
	p := b.plan(r)
	require.Equal(t, []int64{10, 0}, []int64{p.Partitions[0].Target, p.Partitions[1].Target})
	require.Contains(t, p.Partitions[0].Truncated, "its last record is older")
	require.Contains(t, p.Partitions[1].Truncated, "is empty")
	r.Target, r.Topics = offsets.Target{Offset: new(int64(1))}, []string{b.topic + ":0"}
	p = b.plan(r)
	require.Equal(t, int64(3), p.Partitions[0].Target)
	require.Contains(t, p.Partitions[0].Truncated, "before the start of the log")
	b.apply(p)
	require.Equal(t, []int64{3, -1}, b.committed())
}

// TestApply_RefusesAnActiveGroupByItsMembers also shows that a static member counts after it has gone, until its session ends.
func TestApply_RefusesAnActiveGroupByItsMembers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.write(b.topic, 0, 10)
	b.commit(0, 10)
	forEmpty := b.plan(b.earliest())
	member := b.join(kgo.ClientID("till"), kgo.InstanceID("till-1"), kgo.SessionTimeout(3*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))
	p := b.plan(b.earliest())
	require.Equal(t, "Stable", p.GroupState)
	require.Len(t, p.Members, 1)
	require.Equal(t, "till-1", p.Members[0].InstanceID)

	want := "group " + b.group + " is active (Stable): its 1 members would go on from where they are: static member till-1 (till at 127.0.0.1). " +
		"Stop its processes. Static members (till-1) that are stopped still count until their session timeout has passed: --wait 1m waits for it"
	_, err := b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, want)
	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Drain: true})
	require.EqualError(t, err, "group "+b.group+" is not of this installation, so --drain cannot reach its members: static member till-1 (till at 127.0.0.1)")
	member.Close() // a static member leaves its name behind
	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{})
	require.EqualError(t, err, want, "gone, but not forgotten")
	require.Equal(t, []int64{10, -1}, b.committed())

	_, err = b.Apply(t.Context(), b.op, p.ID, offsets.ApplyOptions{Wait: patience})
	require.NoError(t, err)
	require.Equal(t, []int64{0, 0}, b.committed())
	_, err = b.Apply(t.Context(), b.op, forEmpty.ID, offsets.ApplyOptions{})
	require.ErrorContains(t, err, "the committed offset moved from 10 to 0 since the plan: plan again")
}

// deleteBefore moves the start of a partition's log.
func (b *bench) deleteBefore(partition int32, offset int64) {
	b.t.Helper()
	var os kadm.Offsets
	os.AddOffset(b.topic, partition, offset, -1)
	_, err := b.adm.DeleteRecords(b.t.Context(), os)
	require.NoError(b.t, err)
}

// otherProtocol makes a group that is not one of consumers.
func (b *bench) otherProtocol(group string) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumerGroup(group), kgo.GroupProtocol("connect"), kgo.ConsumeTopics(b.topic))
	require.NoError(b.t, err)
	b.t.Cleanup(cl.Close)
	b.until("a group of another protocol", func() bool {
		g, err := b.adm.DescribeGroups(b.t.Context(), group)
		return err == nil && g[group].ProtocolType == "connect"
	})
}
