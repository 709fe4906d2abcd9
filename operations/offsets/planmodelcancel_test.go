package offsets

// cancelSteps is what follows the offsets if parked records are to be cancelled.
func (sc *planScene) cancelSteps(st *steps, op *planOp, add func(string, func(*planState, *planOp))) {
	s := &st.from
	if op.fenced && op.phase > opTombstones && op.phase < opCancelEnd {
		add("learns that its transaction is gone", func(_ *planState, op *planOp) { op.abort, op.phase = true, opCancelEnd })
		return
	}
	switch op.phase {
	case opParked:
		if s.zombie.open || s.cancel.open || s.member.txn.open {
			return // it reads to the end, which waits for their end
		}
		add("reads what is parked", func(to *planState, op *planOp) {
			n := to.plans[op.plan].plan(sc).parkedInRange(map[tp][]int64{place(0): to.parkedOffsets()}, nil)
			if op.phase = opTombstones; n == 0 {
				op.phase = opFinish
			}
		})
	case opTombstones:
		add("writes tombstones", func(to *planState, op *planOp) {
			for i := range to.ops { // the transactional id is the group's
				to.ops[i].fenced = to.ops[i].phase > opTombstones && to.ops[i].phase <= opCancelEnd
			}
			to.cancel = planTxn{open: true, settles: 0, out: none}
			if op.phase = opPend; sc.wrong == cancelsFirst {
				op.phase = opCancelEnd
			}
		})
	case opPend:
		add("adds the offsets to its transaction", func(to *planState, op *planOp) { to.cancel.pending, op.phase = true, opCancelGroup })
	case opCancelGroup:
		add("asks who is in the group", func(to *planState, op *planOp) {
			g := to.group()
			op.abort, op.phase = sc.wrong != noLookAtGroup && g.refuseCancel() != "", opCancelOffsets
		})
	case opCancelOffsets:
		add("asks for its offsets", func(to *planState, op *planOp) {
			op.abort = op.abort || sc.wrong != noLookAtPlace && len(to.plans[op.plan].plan(sc).wentOn(to.commits())) > 0
			op.phase = opCancelEnd
		})
	case opCancelEnd:
		sc.endSteps(st, op, add)
	}
}

// endSteps ends what cancels: with an answer, or without one, and then it has been committed or has not.
func (sc *planScene) endSteps(st *steps, op *planOp, add func(string, func(*planState, *planOp))) {
	end := func(name string, commit bool, failed, lost error) {
		add(name, func(to *planState, op *planOp) {
			switch {
			case commit:
				sc.commitCancel(to, int(op.plan))
			case lost == nil && !op.fenced:
				to.cancel = closed
			}
			if lost != nil && !op.fenced {
				to.left.faults--
			}
			n, _ := cancelled(1, failed, lost)
			if sc.wrong == lostIsNothing && lost != nil {
				n = 0
			}
			if op.cancelled, op.phase = int8(n), opFinish; sc.wrong == cancelsFirst {
				op.phase = opWrite
			}
		})
	}
	if op.fenced && !op.abort {
		end("learns that its transaction is gone", false, nil, errRefused)
		return
	}
	if op.abort {
		end("gives up cancelling", false, errRefused, nil)
		return
	}
	end("cancels", true, nil, nil)
	if st.from.left.faults > 0 {
		end("cancels without an answer", true, nil, errRefused)
		end("does not cancel, without an answer", false, nil, errRefused)
	}
}

// commitCancel ends the transaction that cancels: what was parked is not, and the offsets are what the plan has put there.
func (sc *planScene) commitCancel(to *planState, plan int) {
	if at := [2]int8{sc.target, 0}; to.cancel.pending && to.at != at {
		to.at, to.wrong = at, "cancelling moves the group"
	}
	to.cancel, to.parked[0], to.plans[plan].tombstones = closed, false, true
}
