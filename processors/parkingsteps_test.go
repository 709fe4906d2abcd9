package processors

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/model"
)

type addPark = func(own bool, name string, do func(to *parkState))

// next is every step from s. Each gets a copy.
func (sc *parkScene) next(s *parkState) (steps []model.Step[*parkState]) {
	add := func(own bool, name string, do func(to *parkState)) {
		to := s.clone()
		do(to)
		to.compact()
		steps = append(steps, model.Step[*parkState]{Name: name, To: to, Own: own})
	}
	for i := range s.members {
		sc.group(s, i, add)
		sc.take(s, i, add)
		sc.transact(s, i, add)
	}
	sc.operate(s, add)
	return steps
}

// group is what happens to member i.
func (sc *parkScene) group(s *parkState, i int, add addPark) {
	m := &s.members[i]
	if m.phase == memberDead {
		add(true, fmt.Sprintf("member %d starts", i), func(to *parkState) { to.members[i] = parkMember{phase: memberIdle, life: m.life + 1} })
		return
	}
	if s.left.crashes > 0 {
		add(false, fmt.Sprintf("member %d dies", i), func(to *parkState) {
			to.left.crashes--
			to.end(i, false) // at its next start, or when the transaction times out
			to.die(i)
		})
	}
	if s.owner == i || m.txn != nil {
		return
	}
	orphan := s.owner < 0
	if orphan || s.left.rebalances > 0 {
		add(orphan, fmt.Sprintf("member %d is given the partition", i), func(to *parkState) {
			if !orphan {
				to.left.rebalances--
			}
			to.gen++
			to.owner = i
			to.members[i] = parkMember{phase: memberGiven, life: m.life, gen: to.gen}
		})
	}
	if m.phase > memberIdle {
		add(true, fmt.Sprintf("member %d learns that it has lost the partition", i), func(to *parkState) {
			to.members[i] = parkMember{phase: memberIdle, life: m.life}
		})
	}
}

func (s *parkState) die(i int) {
	s.members[i] = parkMember{life: s.members[i].life}
	if s.owner == i {
		s.owner = -1
	}
}

// take is how member i takes the partition over: offset, watermark, fold.
func (sc *parkScene) take(s *parkState, i int, add addPark) {
	m := &s.members[i]
	switch m.phase {
	case memberGiven:
		pending := slices.ContainsFunc(s.members[:], func(m parkMember) bool { return m.txn != nil && m.txn.pending })
		if !pending { // else Kafka has it wait
			add(true, fmt.Sprintf("member %d fetches offset %d", i, s.committed), func(to *parkState) {
				to.members[i].next, to.members[i].phase = s.committed, memberFetched
			})
		}
	case memberFetched:
		add(true, fmt.Sprintf("member %d notes the end of the retry topic", i), func(to *parkState) {
			to.members[i].pos, to.members[i].phase = len(s.retry), memberFolds
			if sc.wrong == foldsStable {
				to.members[i].pos = s.stable()
			}
			if sc.wrong == foldsNothing {
				to.members[i].pos, to.members[i].phase = 0, memberRuns
			}
		})
	case memberFolds:
		if s.stable() >= m.pos {
			add(true, fmt.Sprintf("member %d has folded the retry topic", i), func(to *parkState) {
				to.members[i].phase = memberRuns
				to.members[i].lot = sc.h.fold(sc.session(i, m), nil, s.retry[:m.pos], false)
			})
		}
	case memberRuns:
		if m.txn == nil && m.pos < s.stable() {
			add(true, fmt.Sprintf("member %d reads a record of the retry topic", i), func(to *parkState) {
				id := sc.session(i, m)
				if sc.wrong == ownTailCounts {
					id = ""
				}
				to.members[i].lot = sc.h.fold(id, m.lot, s.retry[m.pos:m.pos+1], true)
				to.members[i].pos++
			})
		}
	}
}

func (sc *parkScene) session(i int, m *parkMember) string {
	return fmt.Sprint("session-", i, "-", m.life)
}

// ended is what is added to the number of a member whose transaction has committed, while the retry topic has no marker of it yet. The
// markers of a transaction are not written at one moment: the group's offset may be visible before.
const ended = 2

func (s *parkState) stable() int {
	if at := slices.IndexFunc(s.retry, func(r retried) bool { return r.open >= 0 }); at >= 0 {
		return at
	}
	return len(s.retry)
}

// transact is the transactions of member i.
func (sc *parkScene) transact(s *parkState, i int, add addPark) {
	m := &s.members[i]
	switch {
	case slices.ContainsFunc(s.retry, func(r retried) bool { return r.open == i+ended }):
		add(true, fmt.Sprintf("the end of member %d's transaction is marked on the retry topic", i), func(to *parkState) {
			for at := range to.retry {
				if to.retry[at].open == i+ended {
					to.retry[at].open = -1
				}
			}
		})
	case m.phase != memberRuns:
	case m.txn == nil:
		for fresh := 0; fresh <= len(sc.keys)-m.next; fresh++ {
			for _, due := range []bool{false, true} {
				if fresh == 0 && !due || due && len(m.lot) == 0 {
					continue
				}
				for fails := range 1 << len(sc.flaky) {
					sc.begin(s, i, fresh, due, fails, add)
				}
			}
		}
	case sc.wrong == unfencedRetries && !m.txn.fenced:
		add(true, fmt.Sprintf("member %d commits", i), func(to *parkState) { to.end(i, true) })
	case !m.txn.pending && m.gen == s.gen:
		add(true, fmt.Sprintf("the group takes the offset of member %d", i), func(to *parkState) { to.members[i].txn.pending = true })
	case !m.txn.pending:
		add(true, fmt.Sprintf("the group refuses the offset of member %d, it aborts", i), func(to *parkState) {
			sc.abort(to, i)
		})
	default:
		add(true, fmt.Sprintf("member %d commits", i), func(to *parkState) { to.end(i, true) })
		if s.left.crashes > 0 {
			add(false, fmt.Sprintf("member %d fails to commit and aborts", i), func(to *parkState) {
				to.left.crashes--
				sc.abort(to, i)
			})
			add(false, fmt.Sprintf("member %d commits and dies before it knows", i), func(to *parkState) {
				to.left.crashes--
				to.end(i, true)
				to.die(i)
			})
		}
	}
}

func (sc *parkScene) abort(s *parkState, i int) {
	lot := s.members[i].txn.lot
	s.end(i, false)
	if sc.wrong == noRollback {
		s.members[i].lot = lot
	}
}

// begin is a transaction up to its last record: what work.run makes of it.
func (sc *parkScene) begin(s *parkState, i, fresh int, due bool, fails int, add addPark) {
	m := &s.members[i]
	if !sc.sees(m, fresh, due, fails) {
		return
	}
	name := fmt.Sprintf("member %d reads %d records from offset %d", i, fresh, m.next)
	if due {
		name += ", tries what is due"
	}
	if fails > 0 {
		name += fmt.Sprintf(", of %s fail %b", sc.flaky, fails)
	}
	add(true, name, func(to *parkState) {
		txn, recs := sc.h.run(sc.session(i, m), m, fresh, due, func(offset int) bool {
			at := strings.IndexByte(sc.flaky, byte('0'+offset))
			return at >= 0 && fails>>at&1 == 1
		})
		for _, rec := range recs {
			if rec.open = i; sc.wrong == tombstoneOutside && rec.entry == "" {
				rec.open = -1
			}
			to.retry = append(to.retry, rec)
		}
		to.members[i].txn = txn
	})
}

// sees reports whether every record that is to fail can be seen by the handler in this batch: else it makes no difference.
func (sc *parkScene) sees(m *parkMember, fresh int, due bool, fails int) bool {
	for at, c := range sc.flaky {
		offset := int(c - '0')
		parked := due && slices.ContainsFunc(m.lot, func(e *entry) bool { return int(e.msg.Offset) == offset })
		if fails>>at&1 == 1 && !parked && (offset < m.next || offset >= m.next+fresh) {
			return false
		}
	}
	return true
}

// end ends the transaction of member i, if it has one.
func (s *parkState) end(i int, commit bool) {
	m := &s.members[i]
	txn := m.txn
	if txn == nil {
		return
	}
	m.txn = nil
	for at := len(s.retry) - 1; at >= 0; at-- {
		if s.retry[at].open != i {
			continue
		}
		if commit {
			s.retry[at].open += ended
		} else {
			s.drop(at)
		}
	}
	if !commit {
		return // and reads again what is not committed
	}
	s.outs, s.dlq = append(s.outs, txn.outs...), append(s.dlq, txn.dlq...)
	if s.committed = max(txn.next, s.committed); txn.next < s.committed && txn.fenced {
		s.committed = txn.next
	}
	m.next, m.lot = txn.next, txn.lot
}

// operate is what operators do.
func (sc *parkScene) operate(s *parkState, add addPark) {
	if s.left.redrives > 0 {
		for _, r := range s.dlq {
			if count(s.dlq, r) > count(s.redriven, r) {
				add(false, fmt.Sprintf("record %d is redriven", r), func(to *parkState) {
					to.left.redrives--
					to.redriven = append(to.redriven, r)
					to.retry = append(to.retry, sc.h.redrive(r))
				})
			}
		}
	}
	busy := slices.ContainsFunc(s.members[:], func(m parkMember) bool { return m.txn != nil })
	empty := s.members[0].phase == memberDead && s.members[1].phase == memberDead
	if s.left.resets > 0 && !busy && s.committed > 0 {
		add(false, "the group is drained and its offset reset to 0", func(to *parkState) {
			to.left.resets--
			to.gen++
			to.committed, to.owner = 0, -1
			to.outs = append(to.outs, -1)
			for r := range s.committed {
				to.settled = append(to.settled, r) // a parked one too: its retry may come before it is read again
			}
			for i := range to.members {
				to.members[i] = parkMember{life: s.members[i].life}
			}
		})
	}
	reset := slices.Contains(s.outs, -1)
	if reset && !s.cancelled && (empty && s.committed == 0 || sc.wrong == lateCancel) {
		add(false, "what is parked is cancelled, as it is read again", func(to *parkState) {
			to.cancelled = true
			for r := range s.parked() {
				to.retry = append(to.retry, retried{offset: r, open: -1, rec: sc.h.tombstone(r)})
				to.settled = slices.DeleteFunc(to.settled, func(other int) bool { return other == r })
			}
			slices.SortStableFunc(to.retry[len(s.retry):], func(a, b retried) int { return a.offset - b.offset })
		})
	}
}

// drop takes a record off the retry topic that no reader will miss.
func (s *parkState) drop(at int) {
	s.retry = slices.Delete(s.retry, at, at+1)
	for i := range s.members {
		if s.members[i].pos > at {
			s.members[i].pos--
		}
	}
}

// compact drops what has been overtaken below everybody's position.
func (s *parkState) compact() {
	read := s.read()
	for at := read - 1; at >= 0; at-- {
		r := s.retry[at]
		later := slices.ContainsFunc(s.retry[at+1:read], func(other retried) bool { return other.offset == r.offset })
		earlier := slices.ContainsFunc(s.retry[:at], func(other retried) bool { return other.offset == r.offset })
		if later || r.entry == "" && !earlier {
			s.drop(at)
			s.compact()
			return
		}
	}
}

// read is up to where the retry topic is decided and no member has to take it in record by record.
func (s *parkState) read() int {
	read := s.stable()
	for i := range s.members {
		if m := &s.members[i]; m.phase >= memberFolds {
			read = min(read, m.pos)
		}
	}
	return read
}

func (s *parkState) clone() *parkState {
	to := *s
	to.retry, to.outs, to.dlq = slices.Clone(s.retry), slices.Clone(s.outs), slices.Clone(s.dlq)
	to.redriven, to.settled = slices.Clone(s.redriven), slices.Clone(s.settled)
	for i := range to.members {
		if txn := to.members[i].txn; txn != nil {
			copied := *txn
			to.members[i].txn = &copied
		}
	}
	return &to
}
