package integration_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// TestKills_LoseAndRepeatNothing kills relay, normalize and publish with SIGKILL again and again while rows are written.
func TestKills_LoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	t.Run("kafka", func(t *testing.T) { kills(t, rigOptions{}) })
	// kfake does not notice that a member was killed while it joined, unless it is a static one.
	t.Run("kfake", func(t *testing.T) { kills(t, rigOptions{brokers: testenv.Fake(t), static: true}) })
}

func kills(t *testing.T, o rigOptions) {
	t.Helper()
	r := newRig(t, o)
	l := newLedger()
	stages := [][]string{{"relay", "run"}, {"normalize", "run"}, {"publish", "run"}}
	procs := make([]*process, len(stages))
	for i, args := range stages {
		procs[i] = r.start("one", args...)
	}
	stopWriting := l.keepWriting(t, r)
	rnd := rand.New(rand.NewPCG(1, 2))
	for kill := range 9 {
		progressed := l.count() + 300
		eventually(t, "more committed rows", func() bool { return l.count() > progressed })
		i := kill % len(stages)
		if o.static && i == 0 { // relays are no static members
			eventually(t, "the relay to own its source", func() bool { return strings.Contains(procs[0].log.String(), "source is running") })
		}
		if rnd.IntN(2) == 0 { // half of the kills hit a process that has caught up, the others one in the middle of its work
			before := len(r.booked())
			eventually(t, "rows in the books", func() bool { return len(r.booked()) >= before && len(r.booked()) > 0 })
		}
		procs[i].kill()
		procs[i] = r.start("one", stages[i]...)
	}
	stopWriting()
	l.settled(t, r)
	for _, p := range procs {
		p.stop()
	}
	l.check(t, r)
	require.Empty(t, r.read(topics.DLQ(topics.Source(r.system, "invoice"), r.normalizeGroup)), "dead letters of normalize")
	require.Empty(t, r.read(topics.DLQ(topics.Finance("invoice", 1), r.publishGroup)), "dead letters of publish")
}

// TestRebalances_LoseAndRepeatNothing lets members join, leave, and stall: a stalled member wakes up as a zombie that must not write.
func TestRebalances_LoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	testenv.EachKafka(t, rebalances)
}

func rebalances(t *testing.T, brokers []string) {
	t.Helper()
	r := newRig(t, rigOptions{brokers: brokers})
	l := newLedger()
	relays := []*process{r.start("one", "relay", "run"), r.start("two", "relay", "run")}
	normalizers := map[string]*process{"one": r.start("one", "normalize", "run")}
	publisher := r.start("one", "publish", "run")
	stopWriting := l.keepWriting(t, r)
	more := func() {
		target := l.count() + 300
		eventually(t, "more committed rows", func() bool { return l.count() > target })
	}
	for _, name := range []string{"two", "three"} { // join
		normalizers[name] = r.start(name, "normalize", "run")
		more()
	}
	normalizers["two"].stop() // leave
	more()
	stalled := []*process{normalizers["one"], relays[0]}
	for _, p := range stalled {
		p.signal(syscall.SIGSTOP)
	}
	more()
	at := l.count()
	eventually(t, "the survivors to take over", func() bool { return len(r.booked()) > 0 && r.sourceRecords() > int64(at) })
	for _, p := range stalled {
		p.signal(syscall.SIGCONT)
	}
	more()
	stopWriting()
	l.settled(t, r)
	for _, p := range append(relays, normalizers["one"], normalizers["three"], publisher) {
		p.stop()
	}
	l.check(t, r)
}

// sourceRecords is about how many records the source topic of invoices holds: markers of transactions count too.
func (r *rig) sourceRecords() int64 {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	topic := topics.Source(r.system, "invoice")
	ends, err := r.adm.ListCommittedOffsets(ctx, topic)
	require.NoError(r.t, err)
	var n int64
	for _, o := range ends[topic] {
		n += o.Offset
	}
	return n
}
