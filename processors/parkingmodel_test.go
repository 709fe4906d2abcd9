package processors

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/leat-io/leat/internal/model"
)

// A parkState is one source partition, its retry partition, what came of it, and two members of the group.
type parkState struct {
	committed int // the group's offset
	gen       byte
	owner     int // -1: nobody
	retry     []retried
	outs, dlq []int // source offsets in the order of a read_committed consumer; -1 in outs: here the offsets were reset
	redriven  []int
	settled   []int // that were output or dead letters when the offsets were reset
	cancelled bool  // what is read again was taken off the retry topic
	members   [2]parkMember
	left      parkBudget
}

// parkBudget is what may still be done to it.
type parkBudget struct{ rebalances, crashes, redrives, resets int }

// parkMember is a process.
type parkMember struct {
	phase byte // of memberDead to memberRuns
	life  byte // a new session for each
	gen   byte // that it believes in
	next  int  // offset it reads next
	pos   int  // in the retry topic
	lot   []*entry
	txn   *parkTxn
}

const (
	memberDead    = iota
	memberIdle    // of the group, without the partition
	memberGiven   // the partition
	memberFetched // the committed offset
	memberFolds   // up to pos
	memberRuns
)

// parkTxn is a Kafka transaction that is open.
type parkTxn struct {
	outs, dlq []int
	next      int
	lot       []*entry // once it has committed
	fenced    bool     // it holds offsets
	pending   bool     // the group has taken them
}

// parkScene is what is explored: keys of the source's records, what a handler makes of them, and what may be done.
type parkScene struct {
	name   string
	keys   string // of the records 0, 1, ..., a letter each
	flaky  string // offsets of records that may fail transiently whenever they are tried
	broken string // offsets of records that fail permanently
	budget parkBudget
	wrong  parkMutant

	h *parkHarness
}

// parkMutant is a known wrong way.
type parkMutant string

const (
	tombstoneOutside parkMutant = "a tombstone is not in the transaction"
	unfencedRetries  parkMutant = "a transaction of retries alone is not fenced"
	noRollback       parkMutant = "an aborted transaction leaves its mark in the lot"
	foldsStable      parkMutant = "a retry topic is folded up to what is stable"
	foldsNothing     parkMutant = "reading begins before the fold is complete"
	ownTailCounts    parkMutant = "a member folds what it has written itself"
	lateCancel       parkMutant = "parked records are cancelled when members are back"
)

func (sc *parkScene) model(t *testing.T) *model.Model[*parkState] {
	t.Helper()
	sc.h = newParkHarness(t, sc)
	return &model.Model[*parkState]{
		Start: &parkState{owner: -1, left: sc.budget, members: [2]parkMember{{phase: memberIdle}, {phase: memberIdle}}},
		Key:   sc.key, Next: sc.next, Holds: sc.holds, Done: sc.done, Limit: 30_000,
	}
}

// holds is guarantees 4 and 6 in what has committed.
func (sc *parkScene) holds(s *parkState) error {
	parked := s.parked()
	for r := range sc.keys {
		dead := count(s.dlq, r) > count(s.redriven, r)
		if r < s.committed && !dead && count(s.outs, r) == 0 && parked[r] == "" {
			return fmt.Errorf("record %d is lost", r)
		}
		if count(s.outs, r) > 1+count(s.settled, r) {
			return fmt.Errorf("record %d comes out twice", r)
		}
	}
	last := map[byte]int{}
	began := 0
	for at, r := range s.outs {
		if r < 0 {
			began = at
			clear(last)
			continue
		}
		// Without a dead letter its key went on, as is promised. A record that comes out again is one that is read again.
		if slices.Contains(s.dlq, r) || slices.Contains(s.outs[began:at], r) {
			continue
		}
		if before, ok := last[sc.keys[r]]; ok && before > r {
			return fmt.Errorf("record %d comes out after record %d of its key", r, before)
		}
		last[sc.keys[r]] = r
	}
	for i := range s.members {
		m := &s.members[i]
		if m.phase != memberRuns || m.gen != s.gen || m.txn != nil || m.pos < len(s.retry) {
			continue
		}
		lot := map[int]string{}
		for _, e := range m.lot {
			lot[int(e.msg.Offset)] = entryKey(e)
		}
		if fmt.Sprint(lot) != fmt.Sprint(parked) {
			return fmt.Errorf("member %d has %v in its lot, the retry topic says %v", i, lot, parked)
		}
	}
	return nil
}

// done: every record has come out or is a dead letter, and no key waits.
func (sc *parkScene) done(s *parkState) error {
	if s.committed < len(sc.keys) {
		return fmt.Errorf("record %d is not read", s.committed)
	}
	for r := range s.parked() {
		return fmt.Errorf("record %d is parked", r)
	}
	return nil
}

func count(rs []int, r int) (n int) {
	for _, other := range rs {
		if other == r {
			n++
		}
	}
	return n
}

// parked is what a new owner would fold, by offset.
func (s *parkState) parked() map[int]string {
	parked := map[int]string{}
	for _, r := range s.retry {
		switch {
		case r.open >= 0 && r.open < ended:
		case r.entry == "":
			delete(parked, r.offset)
		default:
			parked[r.offset] = r.entry
		}
	}
	return parked
}

func parkScenes() []parkScene {
	scenes := []parkScene{
		{name: "failures, rebalances and a crash", keys: "ab", flaky: "0", budget: parkBudget{rebalances: 1, crashes: 1}},
		{name: "rebalances with a queue", keys: "aa", flaky: "0", budget: parkBudget{rebalances: 1}},
		{name: "a dead letter and its redrive", keys: "aa", broken: "0", budget: parkBudget{rebalances: 1, redrives: 1}},
		{name: "offsets reset under parked records", keys: "aa", flaky: "0", budget: parkBudget{resets: 1}},
	}
	if model.Deep() {
		scenes[0].keys, scenes[0].budget.rebalances = "aa", 2
		scenes[1].keys, scenes[1].budget = "aab", parkBudget{rebalances: 2, crashes: 1}
		scenes[2].flaky, scenes[2].budget.rebalances, scenes[2].budget.crashes = "01", 2, 1
		scenes[3].keys, scenes[3].budget.crashes = "aab", 1
	}
	return scenes
}

// TestModel_EveryInterleavingOfMembersAndOperators: each record comes out once and in order, or is a dead letter, or waits.
func TestModel_EveryInterleavingOfMembersAndOperators(t *testing.T) {
	t.Parallel()
	for _, sc := range parkScenes() {
		model.Check(t, sc.name, "", sc.model)
	}
}

// TestModel_FindsWhatIsKnownToBeWrong: a model that could not fail would show nothing.
func TestModel_FindsWhatIsKnownToBeWrong(t *testing.T) {
	t.Parallel()
	for _, sc := range []struct {
		parkScene
		finds string
	}{
		{parkScene{wrong: tombstoneOutside, keys: "a", flaky: "0", budget: parkBudget{crashes: 1}}, "record 0 is lost"},
		{parkScene{wrong: unfencedRetries, keys: "a", flaky: "0", budget: parkBudget{rebalances: 1}}, "record 0 comes out twice"},
		{parkScene{wrong: noRollback, keys: "a", flaky: "0", budget: parkBudget{crashes: 1}}, "in its lot"},
		{parkScene{wrong: foldsStable, keys: "a", flaky: "0", budget: parkBudget{rebalances: 1}}, "record 0 comes out twice"},
		{parkScene{wrong: foldsNothing, keys: "a", flaky: "0", budget: parkBudget{rebalances: 1}}, "record 0 comes out"},
		{parkScene{wrong: ownTailCounts, keys: "a", flaky: "0"}, "record 0 comes out twice"},
		{parkScene{wrong: lateCancel, keys: "a", flaky: "0", budget: parkBudget{resets: 1}}, "record 0 is lost"},
	} {
		model.Check(t, string(sc.wrong), sc.finds, sc.model)
	}
}

var errFlaky, errBroken = errors.New("flaky"), errors.New("broken")
