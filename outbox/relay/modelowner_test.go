package relay

import (
	"fmt"
	"slices"
)

// coordinate is what Kafka can do with the transaction at i of the log.
func (sc *relayScene) coordinate(s *relayState, i int, add addStep) {
	e := &s.log[i]
	if e.committed {
		return
	}
	if e.ending {
		add(false, fmt.Sprintf("the commit of rows %v takes effect, nobody hears of it", e.rows), func(to *relayState) { to.decide(i, true) })
	}
	held := slices.ContainsFunc(s.owners[:], func(o modelOwner) bool { return o.epochs[e.slot] == e.epoch })
	if held && (e.ending || s.left.faults == 0) {
		return
	}
	add(!held, fmt.Sprintf("the transaction of rows %v times out", e.rows), func(to *relayState) {
		if held {
			to.left.faults--
		}
		to.epochs[e.slot]++
		to.decide(i, false)
	})
}

// relay is what owner i can do.
func (sc *relayScene) relay(s *relayState, i int, add addStep) {
	o := &s.owners[i]
	name := func(does string) string { return fmt.Sprintf("owner %d %s", i, does) }
	if o.phase != ownerIdle && s.left.faults > 0 {
		add(false, name("dies"), func(to *relayState) {
			to.left.faults--
			to.owners[i] = modelOwner{}
		})
	}
	sc.start(s, i, name, add)
	if o.phase != ownerRuns {
		return
	}
	if o.read == nil {
		add(true, name("reads"), func(to *relayState) { sc.read(to, i) })
	}
	if o.read != nil && !o.made {
		add(true, name(fmt.Sprintf("produces rows %v", o.read)), func(to *relayState) { sc.produce(to, i) })
	}
	if o.made && (o.ending == 0 || sc.wrong == impatient && o.ending < 2) {
		add(true, name("asks for a commit"), func(to *relayState) { to.askCommit(i) })
	}
	for j := range s.log {
		e := &s.log[j]
		if !e.ending || e.committed || e.epoch != o.epochs[e.slot] {
			continue
		}
		add(true, name(fmt.Sprintf("is told that rows %v are committed", e.rows)), func(to *relayState) {
			to.owners[i].ending--
			to.decide(j, true)
		})
		if s.left.faults > 0 {
			add(false, name(fmt.Sprintf("loses the answer to its commit of rows %v", e.rows)), func(to *relayState) {
				to.left.faults--
				to.decide(j, true)
				to.giveUp(i)
			})
		}
	}
	if o.ending > 0 && !s.has(o, true) || o.made && !s.has(o, false) { // ended by others
		add(true, name("learns that its transaction is gone"), func(to *relayState) { to.giveUp(i) })
	}
}

// has reports whether a transaction of o is open, and whether its end was asked for.
func (s *relayState) has(o *modelOwner, ending bool) bool {
	return slices.ContainsFunc(s.log, func(e modelEntry) bool {
		return e.ending == ending && !e.committed && e.epoch == o.epochs[e.slot]
	})
}

// start is the way to an ownership: both ids, then the cursor. See source.serve.
func (sc *relayScene) start(s *relayState, i int, name func(string) string, add addStep) {
	o := &s.owners[i]
	other := s.owners[1-i].phase != ownerIdle
	phase := o.phase
	if sc.wrong == cursorBeforeFence { // the cursor, then both ids
		phase = (phase + 2) % 3
		if o.phase == ownerRuns {
			phase = ownerRuns
		}
		if o.phase == ownerIdle && other && s.left.takeovers == 0 {
			return
		}
	}
	switch {
	case phase == ownerIdle && sc.wrong != cursorBeforeFence && other && s.left.takeovers == 0,
		phase == ownerIdle && sc.wrong != cursorBeforeFence && !other && i == 1, // the two are alike
		phase == ownerRuns:
	case phase == ownerHasBoth:
		if !slices.ContainsFunc(s.log, func(e modelEntry) bool { return !e.committed }) {
			add(true, name("reads the cursor"), func(to *relayState) { to.readCursor(i) })
		}
	default:
		add(!other || o.phase != ownerIdle, name(fmt.Sprintf("takes transactional id %d", phase)), func(to *relayState) {
			o := &to.owners[i]
			if o.phase == ownerIdle && other {
				to.left.takeovers--
			}
			o.phase++
			to.epochs[phase]++
			o.epochs[phase] = to.epochs[phase]
			to.abort(phase)
		})
	}
}

func (s *relayState) readCursor(i int) {
	o := &s.owners[i]
	text, err := s.cursor.encode()
	if err == nil {
		o.cursor, err = decodeCursor(text)
	}
	if err != nil {
		panic(err)
	}
	if o.phase == ownerIdle && s.owners[1-i].phase != ownerIdle {
		s.left.takeovers--
	}
	o.phase++
}

// read is readLoop.read: the decisions are guard's and after's.
func (sc *relayScene) read(s *relayState, i int) {
	o := &s.owners[i]
	now := view{s.snapshot(), s.nextXID}
	id := identity{System: 1, Timeline: 1, Table: 1, Epoch: 1}
	if o.cursor.System == 0 || o.lost {
		w := witness{lowest: 1, next: now.Snapshot.xmax}
		if j := slices.IndexFunc(s.rows, func(r modelRow) bool { return r.id == o.cursor.Last && s.committedXID(r.xid) }); j >= 0 {
			w.event = eventOf(s.rows[j])
		}
		if guard(&o.cursor, id, w) != nil { // and so it begins anew at the cursor of Kafka
			s.giveUp(i)
			return
		}
		o.lost = false
	}
	f, got := sc.answer(s, now, o.cursor.position)
	o.cursor.position = sc.after(o.cursor.position, f)
	o.cursor.identity = id
	if f.freshLast != 0 {
		o.cursor.LastEvent = eventOf(got[len(got)-1])
	}
	for _, r := range got {
		o.read = append(o.read, r.id)
	}
	if o.read != nil {
		o.after = o.cursor
	}
}

func (sc *relayScene) answer(s *relayState, now view, p position) (found, []modelRow) {
	committed := s.committedXID
	switch sc.wrong {
	case aboveXmaxForgotten:
		now.Next = now.Snapshot.xmax
	case cursorOfIDs:
		p.view = now // so that nothing is late
	case cutAtXmin:
		p.view = now
		committed = func(xid uint64) bool { return xid < now.Snapshot.xmin && s.committedXID(xid) }
	case movingPass:
		if p.Pass != nil {
			p.Pass = &pass{now, p.Pass.Through}
		}
	}
	return answer(s.rows, committed, now, p, sc.page)
}

func (sc *relayScene) after(p position, f found) position {
	switch {
	case sc.wrong == movingPass && p.Pass != nil:
		p.Pass = &pass{f.now, p.Pass.Through}
	case sc.wrong == limitedReadIsWhole && f.freshMore:
		f.freshLast++
	}
	return p.after(f)
}

func eventOf(r modelRow) string { return fmt.Sprintf("00000000-0000-%04d-0000-%012d", r.xid, r.id) }

// produce appends a transaction to the log; see pipeline.run.
func (sc *relayScene) produce(s *relayState, i int) {
	o := &s.owners[i]
	if o.epochs[o.turn] != s.epochs[o.turn] {
		s.giveUp(i)
		return
	}
	s.log = append(s.log, modelEntry{slot: o.turn, epoch: o.epochs[o.turn], rows: o.read, cursor: o.after})
	o.read, o.after, o.made, o.turn = nil, cursor{}, true, 1-o.turn
	if sc.wrong == cursorOutside {
		s.cursor = s.log[len(s.log)-1].cursor
	}
}

func (s *relayState) askCommit(i int) {
	o := &s.owners[i]
	o.made = false
	o.ending++
	for j := range s.log {
		if e := &s.log[j]; e.epoch == o.epochs[e.slot] && !e.ending {
			e.ending = true
			return
		}
	}
	s.giveUp(i)
}

// giveUp ends an ownership after an error. It aborts what it has open and still can.
func (s *relayState) giveUp(i int) {
	o := s.owners[i]
	for j := len(s.log) - 1; j >= 0; j-- {
		if e := &s.log[j]; !e.ending && e.epoch == o.epochs[e.slot] && o.made {
			s.decide(j, false)
		}
	}
	s.owners[i] = modelOwner{}
}

// abort ends what the holder of a transactional id before has left open, of which nobody can ask the end any more.
func (s *relayState) abort(slot byte) {
	for j := len(s.log) - 1; j >= 0; j-- {
		if e := &s.log[j]; e.slot == slot && !e.committed {
			s.decide(j, false)
		}
	}
}

// decide ends the transaction at j of the log, and shows a reader what it can now see.
func (s *relayState) decide(j int, commit bool) {
	if !commit {
		s.log = slices.Delete(s.log, j, j+1)
	} else {
		s.log[j].committed = true
	}
	for len(s.log) > 0 && s.log[0].committed {
		s.delivered = append(s.delivered, s.log[0].rows...)
		s.cursor = s.log[0].cursor
		s.log = s.log[1:]
	}
}
