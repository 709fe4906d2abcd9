package offsets

import (
	"github.com/leat-io/leat/internal/model"
)

var closed = planTxn{out: none, settles: none}

// steps collects those from a state.
type steps struct {
	from planState
	all  []model.Step[planState]
}

func (st *steps) add(name string, own bool, do func(*planState)) {
	to := st.from
	do(&to)
	st.all = append(st.all, model.Step[planState]{Name: name, To: to, Own: own})
}

func (sc *planScene) next(s planState) []model.Step[planState] {
	st := &steps{from: s}
	if !sc.still {
		sc.memberSteps(st)
	}
	sc.transactionSteps(st)
	for i := range s.ops {
		sc.operatorSteps(st, i)
	}
	if s.left.plans > 0 && (!sc.resume || s.plans[0].state != Planned) {
		st.add("plan", false, func(to *planState) { to.left.plans--; to.plan() })
	}
	if s.left.truncates > 0 && !s.looked() {
		st.add("retention deletes record 0", false, func(to *planState) { to.left.truncates--; to.start = 1 })
	}
	if s.held {
		// The order to stay away ends by itself.
		st.add("the drain is over", true, func(to *planState) { to.held = false })
	}
	return st.all
}

// memberSteps: a member folds the retry topic, reads or retries a record, and commits that in one transaction.
func (sc *planScene) memberSteps(st *steps) {
	s, m := &st.from, &st.from.member
	switch m.phase {
	case memberOut:
		if !s.held {
			st.add("member joins", true, func(to *planState) {
				to.member = planMember{phase: memberJoined, life: 3 - max(m.life, 1), txn: closed}
			})
		}
		return
	case memberJoined:
		if !s.unstable() {
			st.add("member fetches its offset", true, func(to *planState) {
				to.member.phase, to.member.pos = memberFetched, max(s.at[0], s.start)
			})
		}
	case memberFetched:
		if !s.cancel.open && !s.zombie.open {
			st.add("member folds the retry topic", true, func(to *planState) { to.member.phase, to.member.lot = memberRuns, s.parked })
		}
	case memberRuns:
		sc.workSteps(st)
	case memberPends:
		st.add("member commits", true, func(to *planState) {
			to.end(&to.member.txn, true)
			to.member.phase, to.member.pos = memberRuns, m.txn.next
			if r := m.txn.settles; r != none {
				to.member.lot[r] = false
			}
			to.member.stays = to.member.stays || to.looked()
		})
	}
	if s.looked() && !sc.quick && (m.stays || m.phase == memberPends) {
		return
	}
	if m.phase != memberPends {
		st.add("member leaves", s.held, func(to *planState) { to.gone() })
	}
	if s.left.deaths > 0 {
		st.add("member dies", false, func(to *planState) {
			to.left.deaths--
			to.zombie = m.txn
			to.gone()
		})
	}
}

func (sc *planScene) workSteps(st *steps) {
	m := &st.from.member
	begin := func(name string, txn planTxn) {
		txn.open, txn.pending = true, true
		st.add(name, true, func(to *planState) { to.member.phase, to.member.txn = memberPends, txn })
	}
	if r := m.pos; r < 2 {
		read := planTxn{next: r + 1, out: r, settles: none}
		if m.lot[r] { // it keeps its place
			read.out = none
		}
		begin("member reads a record", read)
	}
	for r := range int8(2) {
		if m.lot[r] {
			begin("member retries a parked record", planTxn{next: m.pos, out: r, settles: r})
		}
	}
}

func (s *planState) gone() { s.member = planMember{life: s.member.life, txn: closed} }

// unstable says that offsets are pending: whoever asks for stable ones waits.
func (s *planState) unstable() bool {
	return s.member.txn.pending || s.zombie.pending || s.cancel.pending
}

// end ends a transaction of a member.
func (s *planState) end(txn *planTxn, commit bool) {
	if commit {
		if txn.old {
			s.wrong = "a member commits over the operator's offsets"
		}
		s.at[0] = txn.next
		if txn.out != none {
			s.out[txn.out] = true
		}
		if txn.settles != none {
			s.parked[txn.settles] = false
		}
	}
	*txn = closed
}

// transactionSteps: Kafka ends what nobody ends. The end that a process has asked for before it died may come late.
func (sc *planScene) transactionSteps(st *steps) {
	s := &st.from
	if s.zombie.open {
		st.add("the dead member's transaction times out", true, func(to *planState) { to.end(&to.zombie, false) })
		st.add("the dead member's transaction commits", false, func(to *planState) { to.end(&to.zombie, true) })
	}
	if s.cancel.open && !s.cancelling() {
		st.add("the transaction of a dead operator times out", true, func(to *planState) { to.cancel = closed })
		if s.cancel.ending {
			st.add("the transaction of a dead operator commits", false, func(to *planState) { sc.commitCancel(to, int(s.late.plan)) })
		}
	}
	if s.late.on {
		sc.lateSteps(st)
	}
}

// lateSteps: the request of an operator that is gone comes to Kafka, which takes it if the group is empty, or never comes.
func (sc *planScene) lateSteps(st *steps) {
	s := &st.from
	st.add("the dead operator's offsets are lost", true, func(to *planState) { to.late = planLate{} })
	switch {
	case s.member.phase != memberOut:
		st.add("the dead operator's offsets are refused", true, func(to *planState) { to.late = planLate{} })
	case sc.slow || s.at == s.late.before && !s.zombie.open && !s.looked():
		st.add("the dead operator's offsets are written", false, func(to *planState) {
			sc.take(to, &planOp{plan: s.late.plan, undo: s.late.undo}, true, true)
			to.late = planLate{}
		})
	}
}

// cancelling says that the transaction that cancels is in somebody's hands.
func (s *planState) cancelling() bool {
	for i := range s.ops {
		if s.ops[i].phase > opTombstones && s.ops[i].phase <= opCancelEnd {
			return true
		}
	}
	return false
}

// looked says that an operator stands between its last look and its write, which takes milliseconds.
func (s *planState) looked() bool {
	for i := range s.ops {
		if s.ops[i].phase == opMark || s.ops[i].phase == opWrite {
			return true
		}
	}
	return false
}

// key writes all of a state, each part in its place.
func (s planState) key() string {
	k := make(stateKey, 0, 192)
	k.numbers(s.at[0], s.at[1], s.start, s.lock)
	k.flags(s.out[0], s.out[1], s.parked[0], s.parked[1], s.skips[0], s.skips[1], s.held)
	m := &s.member
	k.numbers(int8(m.phase), m.life, m.pos)
	k.flags(m.lot[0], m.lot[1], m.stays)
	for _, txn := range []*planTxn{&m.txn, &s.zombie, &s.cancel} {
		k.numbers(txn.next, txn.out, txn.settles)
		k.flags(txn.open, txn.pending, txn.old, txn.ending)
	}
	for i := range s.plans {
		p := &s.plans[i]
		k.flags(p.made, p.hasBefore, p.told, p.started, p.wrote[0], p.wrote[1], p.back[0], p.back[1], p.tombstones)
		k.numbers(p.life, p.from[0], p.from[1], p.before[0], p.before[1], p.after[0], p.after[1], p.cancelled, p.found[0], p.found[1])
		k.state(p.state)
	}
	for i := range s.ops {
		op := &s.ops[i]
		k.flags(op.undo, op.drained, op.hadBefore, op.refused[0], op.refused[1], op.noAnswer, op.took, op.abort, op.lost, op.fenced)
		k.numbers(int8(op.phase), op.plan, op.before[0], op.before[1], op.cancelled)
		k.state(op.was)
	}
	k.flags(s.late.on, s.late.undo)
	k.numbers(s.late.plan, s.late.before[0], s.late.before[1])
	b := &s.left
	k.numbers(b.plans, b.orders, b.crashes, b.faults, b.truncates, b.deaths, b.losses, b.lates)
	return string(append(k, s.wrong...))
}

type stateKey []byte

func (k *stateKey) numbers(ns ...int8) {
	for _, n := range ns {
		*k = append(*k, byte(n))
	}
}

func (k *stateKey) flags(fs ...bool) {
	for _, f := range fs {
		b := byte(0)
		if f {
			b = 1
		}
		*k = append(*k, b)
	}
}

// state writes the first letters, which differ.
func (k *stateKey) state(s State) { *k = append(append(*k, s[:min(len(s), 1)]...), '.') }
