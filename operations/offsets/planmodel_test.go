package offsets

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/model"
)

// A planState is a group on two partitions, its plans, a member, and two operators. Partition 0 has the records 0 and 1, of which the
// group has read record 0; partition 1 has a record, and the group no commit there. No pointers: a state is copied by assignment.
type planState struct {
	at     [2]int8 // committed; none: -1
	start  int8    // of the log of partition 0
	out    [2]bool // what came of the records of partition 0: an output,
	parked [2]bool // or a place in the retry topic
	skips  [2]bool // or a plan said that it would never be read
	held   bool    // the members are to stay away
	member planMember
	zombie planTxn // of a member that is gone
	cancel planTxn // of the operators' transactional id
	plans  [2]planRow
	lock   int8 // 0: free, else an operator and one
	ops    [2]planOp
	late   planLate
	left   planBudget
	wrong  string // what was seen to be wrong in the step that led here
}

const none = -1

// planBudget is what may still be done.
type planBudget struct{ plans, orders, crashes, faults, truncates, deaths, losses, lates int8 }

// planTxn is a Kafka transaction of a member, or the one that cancels.
type planTxn struct {
	open    bool
	pending bool // the group has taken its offsets
	next    int8
	out     int8 // a record that it outputs; none: -1
	settles int8 // a record that it takes off the retry topic; none: -1
	old     bool // its member had fetched before an operator wrote
	ending  bool // its operator has asked for its end, and died
}

// planLate is a request for offsets whose operator is gone.
type planLate struct {
	on     bool
	plan   int8
	undo   bool
	before [2]int8 // what its operator has seen
}

// planMember is a process of the group.
type planMember struct {
	phase byte // of memberOut to memberPends
	life  int8
	pos   int8
	lot   [2]bool
	txn   planTxn
	stays bool // it has moved the group between an operator's last look and its write
}

const (
	memberOut = iota
	memberJoined
	memberFetched
	memberRuns
	memberPends
)

// planRow is a row of leat_control.plans, with what is true of it.
type planRow struct {
	made      bool
	life      int8 // of the member that ran
	from      [2]int8
	state     State
	hasBefore bool
	before    [2]int8
	after     [2]int8
	cancelled int8
	told      bool // there is a problem in the row
	started   bool // the audit log has an entry of it

	wrote, back [2]bool // where apply and undo have written
	found       [2]int8 // what stood there before
	tombstones  bool    // parked records were cancelled
}

// planScene is what is explored.
type planScene struct {
	name   string
	target int8 // in partition 0
	parked bool // record 0 is, and the plan cancels it
	drain  bool
	undo   bool
	still  bool // nobody is in the group
	resume bool // the second plan is made when the first one has come to something
	quick  bool // members commit and leave between an operator's last look and its write
	slow   bool // a request of a dead operator may come when others have moved the group
	budget planBudget
	wrong  planMutant
}

// planMutant is a known wrong way.
type planMutant string

const (
	noVerify      planMutant = "a plan is not compared with Kafka"
	noSecondLook  planMutant = "a plan is compared before the group is still, only"
	noSettle      planMutant = "open transactions of members that are gone are not waited for"
	noLock        planMutant = "two changes at once"
	marksAnyway   planMutant = "a plan is marked without the lock"
	noMark        planMutant = "a plan is not marked before the write"
	noAudit       planMutant = "the audit log has no entry before the write"
	trustsAnswers planMutant = "what was written is not read back"
	undoAnyway    planMutant = "undo does not look where the group stands"
	undoRead      planMutant = "undo goes back to what the plan found, not to what apply found"
	undoCancelled planMutant = "undo does not mind what was cancelled"
	lostIsNothing planMutant = "a lost answer cancels nothing"
	noLookAtGroup planMutant = "cancelling does not look who is back"
	noLookAtPlace planMutant = "cancelling does not look whether somebody was back"
	cancelsFirst  planMutant = "what is parked is cancelled before the offsets are written"
)

func (sc *planScene) model(*testing.T) *model.Model[planState] {
	s := planState{at: [2]int8{1, none}, out: [2]bool{!sc.parked, false}, parked: [2]bool{sc.parked, false}, left: sc.budget}
	s.zombie, s.cancel, s.member = closed, closed, planMember{txn: closed}
	return &model.Model[planState]{
		Start: s, Key: planState.key, Next: sc.next, Holds: sc.holds, Done: sc.done, Limit: 60_000,
	}
}

// holds is guarantee 18.
func (sc *planScene) holds(s planState) error {
	if s.wrong != "" {
		return errors.New(s.wrong)
	}
	for r := range int8(2) {
		if r < s.at[0] && !s.out[r] && !s.parked[r] && !s.skips[r] {
			return fmt.Errorf("record %d is lost", r)
		}
	}
	for i := range s.plans {
		if p := &s.plans[i]; p.made && !s.busy(i) {
			if err := p.holds(); err != nil {
				return fmt.Errorf("plan %d is %s: %w", i, p.state, err)
			}
		}
	}
	return nil
}

// busy says that an operator is at work on a plan.
func (s *planState) busy(plan int) bool {
	for i := range s.ops {
		if s.ops[i].phase > opIdle && int(s.ops[i].plan) == plan {
			return true
		}
	}
	return false
}

// holds compares what the row says with what is true.
func (p *planRow) holds() error {
	nothing, all := [2]bool{}, [2]bool{true, true}
	switch {
	case (p.wrote != nothing || p.back != nothing) && !p.started:
		return errors.New("offsets were written, and the audit log knows nothing")
	case p.state == Planned && p.wrote != nothing:
		return errors.New("offsets were written")
	case p.state == Applied && p.wrote != all:
		return errors.New("not all offsets were written")
	case p.state == Applied && p.back != nothing:
		return errors.New("offsets were written back")
	case p.state == Applied && p.tombstones && p.cancelled == 0:
		return errors.New("parked records were cancelled, and the plan does not say so")
	case p.state == Undone && p.back != all:
		return errors.New("not all offsets were written back")
	case p.state == Undone && p.tombstones:
		return errors.New("parked records were cancelled")
	case p.state == Failed && !p.told:
		return errors.New("it does not say why")
	}
	return nil
}

// done: nobody is held up, and the group has read everything.
func (sc *planScene) done(s planState) error {
	for i := range s.ops {
		if s.ops[i].phase != opIdle {
			return fmt.Errorf("operator %d has not ended", i)
		}
	}
	switch {
	case s.held || s.lock != 0:
		return errors.New("the group is held up")
	case sc.still:
		return nil
	case s.at[0] < 2:
		return fmt.Errorf("record %d is not read", s.at[0])
	case s.parked[0] || s.parked[1]:
		return errors.New("a record is parked")
	}
	return nil
}

func planScenes() []planScene {
	scenes := []planScene{
		{name: "two plans at once", still: true, undo: true, budget: planBudget{plans: 2, orders: 3, crashes: 1, faults: 1}},
		{name: "apply while members die and retention goes on", budget: planBudget{plans: 1, orders: 1, truncates: 1, deaths: 1}},
		{name: "apply with drain, and crashes", drain: true, budget: planBudget{plans: 1, orders: 2, crashes: 1, deaths: 1}},
		{name: "apply that Kafka takes in part", budget: planBudget{plans: 1, orders: 2, faults: 1, crashes: 1}},
		{name: "skip", target: 2, budget: planBudget{plans: 1, orders: 2, deaths: 1}, undo: true},
		{name: "undo", undo: true, budget: planBudget{plans: 1, orders: 2, faults: 1, crashes: 1}},
		{name: "undo, drained, of a plan that was drained", drain: true, undo: true, budget: planBudget{plans: 1, orders: 2}},
		{name: "cancel", parked: true, undo: true, budget: planBudget{plans: 1, orders: 2, faults: 1}},
		{name: "cancel, with drain and a crash", parked: true, drain: true, budget: planBudget{plans: 1, orders: 1, crashes: 1}},
		{name: "the lock is lost", still: true, undo: true, budget: planBudget{plans: 2, orders: 3, losses: 1}},
		{name: "the lock is lost beside a member", budget: planBudget{plans: 1, orders: 2, losses: 1}},
		{name: "the lock is lost by one who cancels", parked: true, still: true, undo: true, budget: planBudget{plans: 2, orders: 3, losses: 1, faults: 1}},
		{name: "late requests", parked: true, still: true, undo: true, budget: planBudget{plans: 2, orders: 2, lates: 1, losses: 1}},
		{name: "cancel once more after a crash", parked: true, still: true, budget: planBudget{plans: 2, orders: 2, crashes: 1}},
	}
	if model.Deep() {
		for i := range scenes {
			if sc := &scenes[i]; sc.still {
				sc.still, sc.resume, sc.budget.orders, sc.budget.faults = false, true, 2, 0
				if sc.parked && sc.budget.losses > 0 {
					sc.budget.plans = 1
				}
			}
		}
		scenes = append(scenes, planScene{name: "the lock is lost by one who drains", drain: true, budget: planBudget{plans: 1, orders: 2, losses: 1}})
	}
	return scenes
}

// TestModel_EveryInterleavingOfOperatorsAndMembers: offsets are moved as planned, or the plan says that they are not.
func TestModel_EveryInterleavingOfOperatorsAndMembers(t *testing.T) {
	t.Parallel()
	for _, sc := range planScenes() {
		model.Check(t, sc.name, "", sc.model)
	}
}

// TestModel_FindsWhatIsKnownToBeWrong: a model that could not fail would show nothing.
func TestModel_FindsWhatIsKnownToBeWrong(t *testing.T) {
	t.Parallel()
	twice := planBudget{plans: 1, orders: 2}
	for _, sc := range []struct {
		planScene
		finds string
	}{
		{planScene{wrong: noVerify, budget: planBudget{plans: 1, orders: 1}}, "a stale plan is applied"},
		{planScene{wrong: noSecondLook, budget: planBudget{plans: 1, orders: 1}}, "a stale plan is applied"},
		{planScene{wrong: noSettle, budget: planBudget{plans: 1, orders: 1, deaths: 1}}, "over the operator's offsets"},
		{planScene{wrong: noLock, budget: twice}, "a stale plan is applied"},
		{planScene{wrong: marksAnyway, still: true, budget: planBudget{plans: 1, orders: 2, losses: 1}}, "a stale plan is applied"},
		{planScene{wrong: noMark, budget: planBudget{plans: 1, orders: 1, crashes: 1}}, "plan 0 is planned: offsets were written"},
		{planScene{wrong: noAudit, budget: planBudget{plans: 1, orders: 1}}, "the audit log knows nothing"},
		{planScene{wrong: trustsAnswers, budget: planBudget{plans: 1, orders: 1, faults: 1}}, "plan 0 is applied: not all offsets were written"},
		{planScene{wrong: undoAnyway, undo: true, budget: twice}, "undo overwrites where the group has come to"},
		{planScene{wrong: undoRead, drain: true, undo: true, budget: twice}, "undo does not go back to what was before"},
		{planScene{wrong: undoCancelled, parked: true, undo: true, budget: twice}, "record 0 is lost"},
		{planScene{wrong: lostIsNothing, parked: true, undo: true, budget: planBudget{plans: 1, orders: 2, faults: 1}}, "does not say so"},
		{planScene{wrong: noLookAtGroup, parked: true, budget: planBudget{plans: 1, orders: 1}}, "cancelling moves the group"},
		{planScene{wrong: noLookAtPlace, parked: true, budget: planBudget{plans: 1, orders: 1}}, "cancelling moves the group"},
		{planScene{wrong: cancelsFirst, parked: true, budget: planBudget{plans: 1, orders: 1, crashes: 1}}, "record 0 is lost"},
	} {
		model.Check(t, string(sc.wrong), sc.finds, sc.model)
	}
}

// TestModel_WhatIsNotPromisedOfPlans shows the limits of guarantee 18: who commits and leaves within milliseconds, and a request that
// is on its way for longer than its operator lives.
func TestModel_WhatIsNotPromisedOfPlans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		planScene
		first, then string // steps of a shortest way
	}{
		{planScene{quick: true, budget: planBudget{plans: 1, orders: 1}}, "looks again", "member commits"},
		{planScene{slow: true, budget: planBudget{plans: 1, orders: 1, lates: 1}}, "member commits", "the dead operator's offsets are written"},
	} {
		_, err := tc.model(t).Explore()
		var c *model.Counterexample
		require.ErrorAs(t, err, &c)
		require.ErrorContains(t, err, "a stale plan is applied")
		steps := strings.Join(c.Steps, "\n")
		require.Contains(t, steps, tc.first)
		require.Less(t, strings.Index(steps, tc.first), strings.Index(steps, tc.then), steps)
	}
}
