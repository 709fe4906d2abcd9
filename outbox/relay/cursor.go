package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// snapshot is a pg_snapshot: transactions below xmax that are not in xip had ended when it was taken.
type snapshot struct {
	xmin, xmax uint64
	xip        []uint64 // in progress, ascending, all in [xmin, xmax)
}

// maxInProgress bounds what a cursor may hold: PostgreSQL allows 262,143 backends and as many prepared transactions.
const maxInProgress = 1 << 19

func parseSnapshot(text string) (snapshot, error) {
	lo, rest, ok1 := strings.Cut(text, ":")
	hi, list, ok2 := strings.Cut(rest, ":")
	xmin, err1 := strconv.ParseUint(lo, 10, 63)
	xmax, err2 := strconv.ParseUint(hi, 10, 63)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || xmin > xmax {
		return snapshot{}, fmt.Errorf("snapshot %.80q is not xmin:xmax:list", text)
	}
	s := snapshot{xmin: xmin, xmax: xmax}
	if list == "" {
		return s, nil
	}
	n := strings.Count(list, ",") + 1
	if n > maxInProgress {
		return snapshot{}, fmt.Errorf("snapshot lists %d transactions, more than any server can run", n)
	}
	s.xip = make([]uint64, 0, n)
	for item := range strings.SplitSeq(list, ",") {
		xid, err := strconv.ParseUint(item, 10, 63)
		if err != nil || xid < xmin || xid >= xmax || (len(s.xip) > 0 && xid <= s.xip[len(s.xip)-1]) {
			return snapshot{}, fmt.Errorf("snapshot %.80q: transaction %.30q is out of place", text, item)
		}
		s.xip = append(s.xip, xid)
	}
	return s, nil
}

// String is the text form of pg_snapshot.
func (s snapshot) String() string {
	b := make([]byte, 0, 42+len(s.xip)*8)
	b = strconv.AppendUint(b, s.xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, s.xmax, 10)
	b = append(b, ':')
	return string(appendList(b, s.xip))
}

// array is the text form of xip as xid8[].
func (s snapshot) array() []byte {
	return append(appendList([]byte{'{'}, s.xip), '}')
}

func appendList(b []byte, xids []uint64) []byte {
	for i, xid := range xids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, xid, 10)
	}
	return b
}

// sees reports whether rows of a committed transaction are visible in s.
func (s snapshot) sees(xid uint64) bool {
	if xid >= s.xmax {
		return false
	}
	_, running := slices.BinarySearch(s.xip, xid)
	return !running
}

func (s snapshot) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *snapshot) UnmarshalText(text []byte) (err error) {
	*s, err = parseSnapshot(string(text))
	return err
}

// identity says which outbox a position belongs to.
type identity struct {
	System   int64  `json:"system_identifier,string"` // of the PostgreSQL cluster, made by initdb
	Timeline int64  `json:"timeline"`
	Table    uint32 `json:"table_oid"`
	Epoch    int64  `json:"epoch"`
}

// position is the state of the snapshot cursor. Its meaning: delivered are exactly the rows with id <= Last that are visible
// in Snapshot, and during a pass also those with id <= Pass.Through that are visible in Pass.Snapshot. The package's
// documentation in docs/relay.md proves that every step keeps this true.
type position struct {
	Last int64 `json:"last"`
	view
	Pass *pass `json:"late_pass,omitempty"`
}

// view is what a read saw.
type view struct {
	Snapshot snapshot `json:"snapshot"`
	// Next is no lower than the next transaction id of when Snapshot was taken; 0 in cursors of before it was kept.
	Next uint64 `json:"next_transaction,omitempty"`
}

// impossible reports whether no server can have shown v.
func (v view) impossible() bool { return v.Next != 0 && v.Next < v.Snapshot.xmax }

// lateBelow is above the transaction id of every row that can be late: see sqlLate.
func (p position) lateBelow() uint64 {
	switch {
	case p.Last == 0:
		return p.Snapshot.xmax // no row has such an id
	case p.Next == 0:
		return math.MaxInt64
	default:
		return p.Next
	}
}

// pass delivers more late rows than a batch holds, in several batches: those that Snapshot sees and the position's snapshot
// does not, up to the position's Last, in the order of ids. Its snapshot stays fixed, so that the order of keys holds
// across its batches. No fresh row is read until it is over.
type pass struct {
	view
	Through int64 `json:"through"`
}

// passWindow bounds the range of ids that one read of a pass looks at, and so its duration.
const passWindow = 200_000

// found is what one read took, in the order of delivery: late rows, then fresh ones.
type found struct {
	now       view
	lateLast  int64 // highest late id taken
	lateMore  bool  // late rows were left behind
	freshLast int64 // highest fresh id taken; 0 if none
	freshMore bool  // fresh rows were left behind
}

// after is the position once the rows of f are delivered.
func (p position) after(f found) position {
	switch {
	case p.Pass != nil:
		through := min(p.Pass.Through+passWindow, p.Last)
		if f.lateMore {
			through = f.lateLast
		}
		if through >= p.Last {
			return position{Last: p.Last, view: p.Pass.view}
		}
		p.Pass = &pass{p.Pass.view, through}
		return p
	case f.lateMore:
		p.Pass = &pass{f.now, f.lateLast}
		return p
	default:
		return position{Last: max(p.Last, f.freshLast), view: f.now}
	}
}

// cursor is the value of a source's record on the cursor topic.
type cursor struct {
	Version int    `json:"version"`
	Source  string `json:"source"`
	position
	LastEvent string `json:"last_event,omitempty"` // event id of row Last; empty if that row was never delivered by us
	identity
	Rows      int64     `json:"rows"` // delivered since the cursor began
	WrittenAt time.Time `json:"written_at"`
	Adopted   *adopted  `json:"adopted,omitempty"` // the last time an operator set the position
}

// adopted records an operator's decision.
type adopted struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	Reason string    `json:"reason"`
}

const cursorVersion = 1

// newCursor is the cursor of a source that nothing was ever delivered of: every visible row is fresh.
func newCursor(source string, id identity) cursor {
	return cursor{Version: cursorVersion, Source: source, identity: id}
}

func (c *cursor) encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encoding cursor of %s: %w", c.Source, err)
	}
	return b, nil
}

// decodeCursor reads a cursor. Fields it does not know are an error: they may change what the position means.
func decodeCursor(value []byte) (cursor, error) {
	var c cursor
	dec := json.NewDecoder(strings.NewReader(string(value)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return cursor{}, fmt.Errorf("decoding cursor: %w", err)
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if dec.More() {
		bad("something follows the cursor")
	}
	if c.Version != cursorVersion {
		bad("version %d is not %d", c.Version, cursorVersion)
	}
	if c.Source == "" {
		bad("the source is missing")
	}
	if c.Last < 0 || c.Rows < 0 {
		bad("last %d or rows %d is negative", c.Last, c.Rows)
	}
	if c.impossible() || c.Pass != nil && c.Pass.impossible() {
		bad("the next transaction is below the snapshot")
	}
	if p := c.Pass; p != nil && (p.Through < 0 || p.Through >= c.Last || p.Snapshot.xmax < c.Snapshot.xmax) {
		bad("the late pass does not fit the position")
	}
	if c.LastEvent != "" && len(c.LastEvent) != 36 {
		bad("last event %.40q is not a UUID", c.LastEvent)
	}
	if len(errs) > 0 {
		return cursor{}, fmt.Errorf("decoding cursor: %w", errors.Join(errs...))
	}
	return c, nil
}
