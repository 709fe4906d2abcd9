package relay

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/leat-io/leat/internal/model"
)

// A relayState is a source's database, Kafka, and two processes of which each may believe that it owns the source.
type relayState struct {
	// Postgres
	txs     [3]modelTx
	rows    []modelRow // of transactions that are open or have committed, by id
	nextXID uint64
	ended   uint64 // xmax of a snapshot: one above the highest transaction that has ended
	nextID  int64
	safeXID uint64 // as flushed to disk: what a crash cannot forget
	safeID  int64

	// Kafka
	epochs    [2]byte      // of the two transactional ids
	log       []modelEntry // transactions whose outcome a reader does not know yet, in the order of offsets
	cursor    cursor       // committed last
	delivered []int64      // ids of rows in the order of a read_committed consumer

	owners [2]modelOwner
	left   budget
}

// budget is what may still go wrong.
type budget struct {
	faults    byte // crashes of owners, lost answers, transactions that time out
	takeovers byte // by a process while the other one believes that it is the owner
	crashes   byte // of the database
}

// modelTx is a transaction of a writer at a place in its script.
type modelTx struct {
	op       byte
	xid, sub uint64
	locks    string
	saved    byte // the script's op of the savepoint, plus 1
	savedAt  int64
	phase    byte // of txOpen to txAborted
	prepared bool
}

const (
	txOpen = iota
	txCommitted
	txAborted
)

// modelEntry is a Kafka transaction.
type modelEntry struct {
	slot, epoch byte
	rows        []int64
	cursor      cursor
	ending      bool // its end was asked for
	committed   bool // a reader waits for one before it
}

// modelOwner is a process.
type modelOwner struct {
	phase  byte // of ownerIdle to ownerRuns
	epochs [2]byte
	turn   byte
	cursor cursor // of what was read
	lost   bool   // the connection to the database

	read   []int64 // a batch that is not produced yet, and its cursor
	after  cursor
	made   bool // a transaction is produced and open
	ending byte // transactions whose end was asked for and not answered
}

const (
	ownerIdle = iota
	ownerHasOne
	ownerHasBoth
	ownerRuns
)

// relayScene is what is explored: scripts of writers, and what may go wrong.
//
// In a script, x takes a transaction id, a letter of a to d inserts a row of that key, whose lock it takes; s is a savepoint, r a
// rollback to it, p prepares. At its end a transaction commits or rolls back.
type relayScene struct {
	name    string
	scripts [3]string
	page    int
	budget  budget
	wrong   relayMutant
	commits bool // nothing is rolled back
}

// relayMutant is a known wrong way.
type relayMutant string

const (
	cursorOfIDs        relayMutant = "a cursor of ids"
	cutAtXmin          relayMutant = "a cut-off at xmin"
	cursorBeforeFence  relayMutant = "the cursor is read before the fencing"
	impatient          relayMutant = "a commit does not wait for the one before"
	movingPass         relayMutant = "the snapshot of a pass moves"
	cursorOutside      relayMutant = "the cursor is not in the transaction of its rows"
	limitedReadIsWhole relayMutant = "a limited read moves the cursor past what it saw"
	aboveXmaxForgotten relayMutant = "what is in progress above xmax is forgotten"
)

func (sc *relayScene) model(*testing.T) *model.Model[*relayState] {
	start := &relayState{nextXID: 10, ended: 10, nextID: 1, safeXID: 10, safeID: 1, left: sc.budget, cursor: newCursor("s", identity{})}
	for i, script := range sc.scripts {
		if script == "" {
			start.txs[i].phase = txAborted
		}
	}
	return &model.Model[*relayState]{
		Start: start, Key: (*relayState).key, Next: sc.next, Holds: (*relayState).holds, Done: (*relayState).done, Limit: 60_000,
	}
}

// next is every step from s. Each gets a copy.
func (sc *relayScene) next(s *relayState) (steps []model.Step[*relayState]) {
	add := func(own bool, name string, do func(to *relayState)) {
		to := s.clone()
		do(to)
		steps = append(steps, model.Step[*relayState]{Name: name, To: to, Own: own})
	}
	for i := range s.txs {
		sc.write(s, i, add)
	}
	for i := range s.owners {
		sc.relay(s, i, add)
	}
	if s.left.crashes > 0 {
		add(false, "Postgres crashes", (*relayState).crash)
	}
	for i := range s.log {
		sc.coordinate(s, i, add)
	}
	return steps
}

type addStep = func(own bool, name string, do func(to *relayState))

// holds is guarantees 1 and 2, and D of docs/relay.md.
func (s *relayState) holds() error {
	for i, id := range s.delivered {
		if slices.Contains(s.delivered[:i], id) {
			return fmt.Errorf("row %d is delivered twice", id)
		}
		at := slices.IndexFunc(s.rows, func(r modelRow) bool { return r.id == id && s.committedXID(r.xid) })
		if at < 0 {
			return fmt.Errorf("row %d is delivered, but not committed", id)
		}
		for _, r := range s.rows {
			if r.id > id && r.key == s.rows[at].key && slices.Contains(s.delivered[:i], r.id) {
				return fmt.Errorf("row %d of key %s is delivered after row %d", id, r.key, r.id)
			}
		}
	}
	if len(s.log) > 0 {
		return nil
	}
	for _, r := range s.rows {
		c := &s.cursor
		is := r.id <= c.Last && c.Snapshot.sees(r.xid) || c.Pass != nil && r.id <= c.Pass.Through && c.Pass.Snapshot.sees(r.xid)
		if is = is && s.committedXID(r.xid); is != slices.Contains(s.delivered, r.id) {
			return fmt.Errorf("row %d is delivered: %t, and the cursor says %t", r.id, !is, is)
		}
	}
	return nil
}

// done is guarantee 3: with writers as they are, open or not, all that has committed is delivered.
func (s *relayState) done() error {
	for _, r := range s.rows {
		if s.committedXID(r.xid) && !slices.Contains(s.delivered, r.id) {
			return fmt.Errorf("row %d is committed and not delivered", r.id)
		}
	}
	return nil
}

func (s *relayState) clone() *relayState {
	to := *s
	to.rows, to.log, to.delivered = slices.Clone(s.rows), slices.Clone(s.log), slices.Clone(s.delivered)
	return &to
}

// key is everything but what follows from the rest.
func (s *relayState) key() string {
	b := make([]byte, 0, 256)
	n := func(xs ...uint64) {
		for _, x := range xs {
			b = binary.AppendUvarint(b, x)
		}
	}
	flag := func(x bool) uint64 {
		if x {
			return 1
		}
		return 0
	}
	for i := range s.txs {
		tx := &s.txs[i]
		n(uint64(tx.op), tx.xid, tx.sub, uint64(tx.saved), uint64(tx.savedAt), uint64(tx.phase), flag(tx.prepared), uint64(len(tx.locks)))
		b = append(b, tx.locks...)
	}
	n(uint64(len(s.rows)))
	for _, r := range s.rows {
		n(uint64(r.id), r.xid, uint64(r.key[0]))
	}
	n(s.nextXID, s.ended, uint64(s.nextID), s.safeXID, uint64(s.safeID))
	n(uint64(s.left.faults), uint64(s.left.takeovers), uint64(s.left.crashes))
	ids := func(ids []int64) {
		n(uint64(len(ids)))
		for _, id := range ids {
			n(uint64(id))
		}
	}
	ids(s.delivered)
	position := func(c *cursor) {
		n(uint64(c.Last), uint64(len(c.LastEvent)), uint64(c.System), c.Snapshot.xmax, c.Next, uint64(len(c.Snapshot.xip)))
		n(c.Snapshot.xip...)
		if c.Pass != nil {
			n(c.Pass.Snapshot.xmax, c.Pass.Next, uint64(c.Pass.Through), uint64(len(c.Pass.Snapshot.xip)))
			n(c.Pass.Snapshot.xip...)
		}
		n(0)
	}
	position(&s.cursor)
	n(uint64(len(s.log)))
	for i := range s.log {
		e := &s.log[i]
		// Of epochs it matters only whether they are the present ones, or those that an owner holds.
		n(uint64(e.slot), uint64(s.epochs[e.slot]-e.epoch), flag(e.ending), flag(e.committed))
		ids(e.rows)
		position(&e.cursor)
	}
	for i := range s.owners {
		o := &s.owners[i]
		n(uint64(o.phase), uint64(o.turn), flag(o.lost), flag(o.made), uint64(o.ending))
		if o.phase != ownerIdle {
			n(uint64(s.epochs[0]-o.epochs[0]), uint64(s.epochs[1]-o.epochs[1]))
		}
		ids(o.read)
		position(&o.cursor)
		position(&o.after)
	}
	return string(b)
}

// relayScenes are those of every run, and wider ones of the same kinds.
func relayScenes() []relayScene {
	if model.Deep() {
		return []relayScene{
			{name: "early transaction ids", scripts: [3]string{"xa", "xa", "b"}, page: 2, budget: budget{faults: 2}},
			{name: "takeovers", scripts: [3]string{"xa", "b"}, page: 1, budget: budget{faults: 2, takeovers: 2}},
			{name: "savepoints", scripts: [3]string{"asbr", "xb", "c"}, page: 2, budget: budget{faults: 1}},
			{name: "crashes of the database", scripts: [3]string{"ap", "xb", "c"}, page: 2, budget: budget{faults: 1, crashes: 2}},
			{name: "more late rows than a page", scripts: [3]string{"xabc", "d", "a"}, page: 1, budget: budget{faults: 1}},
			{name: "transactions above xmax", scripts: [3]string{"xd", "asb", "xc"}, page: 1, budget: budget{faults: 1}},
		}
	}
	return []relayScene{
		{name: "an early transaction id", scripts: [3]string{"xa", "a"}, page: 2, budget: budget{faults: 1}},
		{name: "a takeover", scripts: [3]string{"a", "b"}, page: 1, budget: budget{takeovers: 1}},
		{name: "a savepoint", scripts: [3]string{"asbr", "xb"}, page: 2, budget: budget{faults: 1}},
		{name: "a crash of the database", scripts: [3]string{"ap", "b", "c"}, page: 2, budget: budget{crashes: 1}, commits: true},
		{name: "more late rows than a page", scripts: [3]string{"xab", "c", "a"}, page: 1, commits: true},
		{name: "a transaction above xmax", scripts: [3]string{"xd", "asb"}, page: 2, commits: true},
	}
}

// TestModel_EveryInterleavingOfWritersAndOwners: nothing is lost, repeated, inverted or held up, in every state that there is.
func TestModel_EveryInterleavingOfWritersAndOwners(t *testing.T) {
	t.Parallel()
	for _, sc := range relayScenes() {
		model.Check(t, sc.name, "", sc.model)
	}
}

// TestModel_FindsWhatIsKnownToBeWrong: a model that could not fail would show nothing.
func TestModel_FindsWhatIsKnownToBeWrong(t *testing.T) {
	t.Parallel()
	for _, sc := range []struct {
		relayScene
		finds string
	}{
		{relayScene{wrong: cursorOfIDs, scripts: [3]string{"xa", "xb"}, page: 2}, "stuck: row 1 is committed and not delivered"},
		{relayScene{wrong: cutAtXmin, scripts: [3]string{"xx", "b", "c"}, page: 2}, "stuck: row 1 is committed and not delivered"},
		{relayScene{wrong: cursorBeforeFence, scripts: [3]string{"a", "b"}, page: 1, budget: budget{takeovers: 1}}, "row 1 is delivered twice"},
		{relayScene{wrong: impatient, scripts: [3]string{"a", "a"}, page: 1, budget: budget{faults: 1}}, "the cursor says true"},
		{relayScene{wrong: movingPass, scripts: [3]string{"a", "bc", "d"}, page: 1, commits: true}, "row 1 is delivered: false, and the cursor says true"},
		{relayScene{wrong: cursorOutside, scripts: [3]string{"a"}, page: 1, budget: budget{faults: 1}}, "the cursor says true"},
		{relayScene{wrong: limitedReadIsWhole, scripts: [3]string{"ab"}, page: 1}, "row 2 is delivered: false, and the cursor says true"},
		{relayScene{wrong: aboveXmaxForgotten, scripts: [3]string{"xa", "b"}, page: 2, commits: true}, "stuck: row 1 is committed and not delivered"},
	} {
		model.Check(t, string(sc.wrong), sc.finds, sc.model)
	}
}
