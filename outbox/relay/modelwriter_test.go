package relay

import (
	"fmt"
	"slices"
)

// write is what writer i can do.
func (sc *relayScene) write(s *relayState, i int, add addStep) {
	tx, script := &s.txs[i], sc.scripts[i]
	if tx.phase != txOpen {
		return
	}
	if int(tx.op) == len(script) {
		if tx.op > 0 {
			add(false, fmt.Sprintf("writer %d commits", i), func(to *relayState) { to.end(i, true) })
			if !sc.commits {
				add(false, fmt.Sprintf("writer %d rolls back", i), func(to *relayState) { to.end(i, false) })
			}
		}
		return
	}
	op := script[tx.op]
	if op >= 'a' && op <= 'd' && s.locked(i, op) {
		return
	}
	add(false, fmt.Sprintf("writer %d does %c of %s", i, op, script), func(to *relayState) { to.step(i, op) })
}

func (s *relayState) locked(i int, key byte) bool {
	for j := range s.txs {
		if j != i && s.txs[j].phase == txOpen && slices.Contains([]byte(s.txs[j].locks), key) {
			return true
		}
	}
	return false
}

// step does an operation of writer i.
func (s *relayState) step(i int, op byte) {
	tx := &s.txs[i]
	tx.op++
	switch op {
	case 'x':
		s.assign(tx)
	case 's':
		tx.saved, tx.savedAt = tx.op, s.nextID
	case 'r':
		if tx.sub != 0 { // an aborted subtransaction is one that has ended
			s.ended, tx.sub = max(s.ended, tx.sub+1), 0
		}
		s.rows = slices.DeleteFunc(s.rows, func(r modelRow) bool { return r.xid == tx.xid && r.id >= tx.savedAt })
		tx.saved = 0
	case 'p':
		tx.prepared = true
		s.flush()
	default:
		s.assign(tx)
		if tx.saved > 0 && tx.sub == 0 {
			tx.sub, s.nextXID = s.nextXID, s.nextXID+1
		}
		s.rows, s.nextID = append(s.rows, modelRow{s.nextID, tx.xid, string(op)}), s.nextID+1
		if !slices.Contains([]byte(tx.locks), op) {
			tx.locks += string(op)
		}
	}
}

func (s *relayState) assign(tx *modelTx) {
	if tx.xid == 0 {
		tx.xid, s.nextXID = s.nextXID, s.nextXID+1
	}
}

func (s *relayState) flush() { s.safeXID, s.safeID = s.nextXID, s.nextID }

func (s *relayState) end(i int, commit bool) {
	tx := &s.txs[i]
	s.ended = max(s.ended, tx.xid+1, tx.sub+1)
	tx.locks, tx.saved, tx.savedAt, tx.sub, tx.prepared = "", 0, 0, 0, false
	if tx.phase = txAborted; commit {
		tx.phase = txCommitted
		s.flush()
	} else {
		s.rows = slices.DeleteFunc(s.rows, func(r modelRow) bool { return r.xid == tx.xid })
		tx.xid = 0
	}
}

// crash ends what was not prepared, and forgets the ids that nothing on disk speaks of.
func (s *relayState) crash() {
	s.left.crashes--
	for i := range s.txs {
		if s.txs[i].phase == txOpen && !s.txs[i].prepared {
			s.end(i, false)
		}
	}
	s.nextXID, s.ended, s.nextID = s.safeXID, s.safeXID, s.safeID
	for i := range s.owners {
		s.owners[i].lost = s.owners[i].phase == ownerRuns
	}
}

func (s *relayState) committedXID(xid uint64) bool {
	return slices.ContainsFunc(s.txs[:], func(tx modelTx) bool { return tx.phase == txCommitted && tx.xid == xid })
}

// snapshot is pg_current_snapshot.
func (s *relayState) snapshot() snapshot {
	now := snapshot{xmin: s.ended, xmax: s.ended}
	for i := range s.txs {
		if tx := &s.txs[i]; tx.phase == txOpen && tx.xid != 0 && tx.xid < s.ended {
			now.xip = append(now.xip, tx.xid)
		}
	}
	slices.Sort(now.xip)
	if len(now.xip) > 0 {
		now.xmin = now.xip[0]
	}
	return now
}
