package offsets

import "fmt"

// planOp is a process that runs apply or undo. Each of its steps is one request to Kafka or to Postgres.
type planOp struct {
	phase     byte // of opIdle to opLetGo
	plan      int8
	undo      bool
	drained   bool
	before    [2]int8
	was       State
	hadBefore bool
	refused   [2]bool // by Kafka
	noAnswer  bool    // to the write
	took      bool    // Kafka has taken something, whatever it has answered
	abort     bool    // of what cancels
	cancelled int8
	lost      bool // the lock, to a broken connection
	fenced    bool // the transaction that cancels is another operator's now
}

const (
	opIdle = iota
	opLocked
	opLook
	opStart
	opDrain
	opEmpty
	opLookAgain
	opMark
	opWrite
	opBack
	opParked
	opTombstones
	opPend
	opCancelGroup
	opCancelOffsets
	opCancelEnd
	opFinish
	opLetGo
)

func (sc *planScene) operatorSteps(st *steps, i int) {
	s, op := &st.from, &st.from.ops[i]
	if op.phase == opIdle {
		sc.orderSteps(st, i)
		return
	}
	if s.left.crashes > 0 {
		st.add(fmt.Sprintf("operator %d dies", i), false, func(to *planState) { to.left.crashes--; to.unlock(i); to.ops[i] = planOp{} })
	}
	if s.left.losses > 0 && s.lock == int8(i)+1 && op.phase != opWrite {
		st.add(fmt.Sprintf("operator %d loses the lock", i), false, func(to *planState) { to.left.losses--; to.unlock(i); to.ops[i].lost = true })
	}
	if s.left.lates > 0 && (op.phase == opWrite || op.phase == opCancelEnd && !op.abort && !op.fenced) {
		st.add(fmt.Sprintf("operator %d dies with a request on its way", i), false, func(to *planState) { to.left.lates--; sc.leave(to, i) })
	}
	add := func(name string, do func(*planState, *planOp)) {
		st.add(fmt.Sprintf("operator %d %s", i, name), true, func(to *planState) { do(to, &to.ops[i]) })
	}
	switch op.phase {
	case opLocked:
		add("asks for the group", sc.admit)
	case opLook:
		add("looks", func(to *planState, op *planOp) { sc.look(to, op, opStart, opLetGo) })
	case opStart:
		add("writes to the audit log", func(to *planState, op *planOp) {
			to.plans[op.plan].started = to.plans[op.plan].started || sc.wrong != noAudit
			if op.phase = opLookAgain; op.drained {
				op.phase = opDrain
			}
		})
	case opDrain:
		add("drains", func(to *planState, op *planOp) { to.held, op.phase = true, opEmpty })
	case opEmpty:
		if s.member.phase == memberOut {
			add("sees the group empty", func(_ *planState, op *planOp) { op.phase = opLookAgain })
		}
		add("has waited long enough", func(_ *planState, op *planOp) { op.phase = opLetGo })
	case opLookAgain:
		if sc.wrong == noSecondLook {
			add("does not look again", func(_ *planState, op *planOp) { op.phase = opMark })
		} else if !s.unstable() || sc.wrong == noSettle {
			add("looks again", func(to *planState, op *planOp) { sc.look(to, op, opMark, opLetGo) })
		}
	case opMark:
		add("marks the plan", sc.mark)
	case opWrite:
		sc.writeSteps(st, add)
	case opBack:
		if !s.unstable() {
			add("reads back", sc.readBack)
		}
	case opFinish:
		add("finishes", sc.finish)
	case opLetGo:
		add("lets go", func(to *planState, op *planOp) { to.held = to.held && !op.drained; to.unlock(i); *op = planOp{} })
	default:
		sc.cancelSteps(st, op, add)
	}
}

// orderSteps: somebody gives an order. One that is refused at once changes nothing.
func (sc *planScene) orderSteps(st *steps, i int) {
	s := &st.from
	if s.left.orders == 0 || sc.wrong != noLock && (s.lock != 0 || i > 0 && s.ops[0].phase == opIdle) {
		return // the second operator comes after the first one, and is no other
	}
	for n := range s.plans {
		row := s.plans[n]
		if !row.made {
			continue
		}
		order := func(name string, undo bool) {
			st.add(fmt.Sprintf("operator %d %s plan %d", i, name, n), false, func(to *planState) {
				to.left.orders--
				to.lock, to.ops[i] = int8(i)+1, planOp{phase: opLocked, plan: int8(n), undo: undo}
			})
		}
		p := row.plan(sc)
		if p.refuseApply() == "" {
			order("applies", false)
		}
		if sc.wrong == undoCancelled {
			p.Cancelled = 0
		}
		if sc.undo && p.refuseUndo() == "" {
			order("undoes", true)
		}
	}
}

func (s *planState) unlock(i int) {
	if s.lock == int8(i)+1 {
		s.lock = 0
	}
}

// leave ends operator i after a request that it has sent.
func (sc *planScene) leave(to *planState, i int) {
	op := to.ops[i]
	if op.phase == opWrite {
		to.late = planLate{true, op.plan, op.undo, op.before}
	} else {
		to.cancel.ending, to.late.plan = true, op.plan
	}
	to.unlock(i)
	to.ops[i] = planOp{}
}

func (op *planOp) action() string {
	if op.undo {
		return actionUndo
	}
	return actionApply
}

func (sc *planScene) admit(to *planState, op *planOp) {
	g := to.group()
	if to.plans[op.plan].plan(sc).refuseGroup(&g, op.action(), sc.drain, true) != "" {
		op.phase = opLetGo
		return
	}
	op.phase, op.drained = opLook, g.active()
}

// look compares the plan with Kafka and notes what stands there.
func (sc *planScene) look(to *planState, op *planOp, next, refused byte) {
	op.before, op.phase = to.at, next
	p := to.plans[op.plan].plan(sc)
	verify := p.moved
	if op.undo {
		verify = p.undoMoved
	}
	if sc.wrong == noVerify || sc.wrong == undoAnyway && op.undo {
		return
	}
	if len(verify(to.commits(), to.facts(), next == opStart && op.drained)) > 0 {
		op.phase = refused
	}
}

func (sc *planScene) mark(to *planState, op *planOp) {
	if op.lost && sc.wrong != marksAnyway { // it is done over the connection that has the lock
		op.phase = opLetGo
		return
	}
	row := &to.plans[op.plan]
	op.was, op.hadBefore = row.state, row.hasBefore
	if sc.wrong != noMark {
		row.state, row.told = Failed, true
		if !row.hasBefore {
			row.hasBefore, row.before = true, op.before
		}
	}
	if op.phase = opWrite; sc.wrong == cancelsFirst && op.cancelled == 0 && to.parked[0] {
		op.phase = opParked
	}
}

// want is what the operator is to write.
func (sc *planScene) want(to *planState, op *planOp) [2]int8 {
	switch row := &to.plans[op.plan]; {
	case !op.undo:
		return [2]int8{sc.target, 0}
	case sc.wrong == undoRead:
		return row.from
	default:
		return row.before
	}
}

// writeSteps: Kafka takes the offsets while the group is empty. A fault takes them in part, or loses the answer.
func (sc *planScene) writeSteps(st *steps, add func(string, func(*planState, *planOp))) {
	s := &st.from
	if s.member.phase != memberOut {
		add("is refused the offsets", func(to *planState, op *planOp) {
			positions, problems := positionsOf(sc.want(to, op)), map[tp]error{}
			for i, w := range positions {
				if w.Commit != nil {
					problems[place(i)] = errRefused
				}
			}
			notDeleted(positions, problems)
			op.phase, op.refused = opBack, [2]bool{problems[place(0)] != nil, problems[place(1)] != nil}
		})
		return
	}
	add("writes the offsets", func(to *planState, op *planOp) { sc.take(to, op, true, true) })
	if s.left.faults == 0 {
		return
	}
	fault := func(name string, do func(*planState, *planOp)) {
		add(name, func(to *planState, op *planOp) { to.left.faults--; do(to, op) })
	}
	fault("writes one of the offsets", func(to *planState, op *planOp) { op.refused[1] = true; sc.take(to, op, true, false) })
	fault("writes the offsets without an answer", func(to *planState, op *planOp) { op.noAnswer = true; sc.take(to, op, true, true) })
	fault("gets no answer and nothing is written", func(_ *planState, op *planOp) { op.noAnswer, op.phase = true, opBack })
}

// take is Kafka's part, and sees what is wrong with it.
func (sc *planScene) take(to *planState, op *planOp, takes ...bool) {
	row := &to.plans[op.plan]
	if to.zombie.pending {
		to.wrong = "an open transaction of a member stands over the operator's offsets"
	}
	if !op.undo && row.stale(sc, to) {
		to.wrong = "a stale plan is applied"
	}
	want := sc.want(to, op)
	for i := range want {
		switch {
		case !takes[i]:
			continue
		case !op.undo:
			row.wrote[i], row.found[i] = true, to.at[i]
		default:
			row.back[i] = true
			if to.at[i] != row.after[i] {
				to.wrong = "undo overwrites where the group has come to"
			} else if want[i] != row.found[i] {
				to.wrong = "undo does not go back to what was before"
			}
		}
		for r := to.at[0]; i == 0 && r >= 0 && r < want[0] && !op.undo; r++ {
			to.skips[r] = true
		}
		to.at[i] = want[i]
	}
	to.zombie.old = to.zombie.open // no member is there
	op.took, op.phase = true, opBack
}

// stale says, in the words of the guarantee, that the group is not where the plan says, or that the target is gone. One that was running
// may have gone on by itself, if the plan does not jump over what it has read.
func (row *planRow) stale(sc *planScene, to *planState) bool {
	wentOn := row.life != 0 && to.at[0] > row.from[0] && (sc.target <= row.from[0] || to.at[0] <= sc.target)
	return to.at[0] != row.from[0] && !wentOn || to.at[1] != row.from[1] || sc.target < to.start
}

func (sc *planScene) readBack(to *planState, op *planOp) {
	problems, err := map[tp]error{}, error(nil)
	for i, refused := range op.refused {
		if refused {
			problems[place(i)] = errRefused
		}
	}
	if op.noAnswer {
		err = errRefused
	}
	results, wrong := compare(positionsOf(sc.want(to, op)), positionsOf(op.before), to.commits(), problems)
	if sc.wrong == trustsAnswers {
		wrong = 0
	}
	row := &to.plans[op.plan]
	switch judge(results, wrong, err) {
	case asPlanned:
		if op.phase = opFinish; sc.parked && !op.undo && sc.wrong != cancelsFirst {
			op.phase = opParked
		}
	case nothingWritten:
		row.state, row.told, op.phase = op.was, false, opLetGo
		if row.hasBefore = op.hadBefore; !row.hasBefore {
			row.before = [2]int8{}
		}
	case halfWritten:
		if op.phase = opLetGo; !op.took && !op.noAnswer && to.at == op.before {
			to.wrong = "nothing was written, and the plan is failed"
		}
	}
}

func (sc *planScene) finish(to *planState, op *planOp) {
	row := &to.plans[op.plan]
	row.told, op.phase = false, opLetGo
	if op.undo {
		row.state = Undone
		return
	}
	row.state, row.hasBefore, row.before, row.after, row.cancelled = Applied, true, op.before, sc.want(to, op), op.cancelled
}
