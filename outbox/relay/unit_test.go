package relay

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"
)

// TestPosition_DeliversEverythingOnceInOrder runs the cursor against a model of Postgres: transactions that take their id early
// or late, insert rows, lock keys, commit or roll back in any order, while reads of any size happen in between.
func TestPosition_DeliversEverythingOnceInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &cursorModel{t: t, nextXID: 10, locks: map[string]uint64{}, open: map[uint64]bool{}, committed: map[uint64]bool{}, seen: map[int64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"begin":    m.begin,
			"insert":   m.insert,
			"commit":   m.commit,
			"rollback": m.rollback,
			"read":     m.read,
			"restart":  m.restart,
		})
		for xid := range maps.Clone(m.open) {
			m.end(xid, true)
		}
		for range 10_000 {
			if !m.readSome(t, 7) {
				break
			}
		}
		for _, r := range m.rows {
			require.Equal(t, m.committed[r.xid], m.seen[r.id], "row %d of transaction %d", r.id, r.xid)
		}
	})
}

type modelRow struct {
	id  int64
	xid uint64
	key string
}

type cursorModel struct {
	t         *rapid.T
	nextXID   uint64
	nextID    int64
	rows      []modelRow
	locks     map[string]uint64
	open      map[uint64]bool
	committed map[uint64]bool

	pos       position
	persisted position
	delivered []modelRow
	seen      map[int64]bool
}

func (m *cursorModel) begin(t *rapid.T) {
	if len(m.open) > 6 {
		t.Skip("enough transactions")
	}
	m.open[m.nextXID] = true
	m.nextXID++
}

func (m *cursorModel) pick(t *rapid.T) uint64 {
	if len(m.open) == 0 {
		t.Skip("no open transaction")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.open))).Draw(t, "transaction")
}

func (m *cursorModel) insert(t *rapid.T) {
	xid := m.pick(t)
	key := fmt.Sprint("k", rapid.IntRange(0, 2).Draw(t, "key"))
	if holder, locked := m.locks[key]; locked && holder != xid {
		t.Skip("waits for the lock")
	}
	m.locks[key] = xid
	m.nextID += int64(rapid.IntRange(1, 2).Draw(t, "gap"))
	m.rows = append(m.rows, modelRow{m.nextID, xid, key})
}

func (m *cursorModel) commit(t *rapid.T)   { m.end(m.pick(t), true) }
func (m *cursorModel) rollback(t *rapid.T) { m.end(m.pick(t), false) }

func (m *cursorModel) end(xid uint64, commit bool) {
	delete(m.open, xid)
	m.committed[xid] = commit
	maps.DeleteFunc(m.locks, func(_ string, holder uint64) bool { return holder == xid })
}

func (m *cursorModel) read(t *rapid.T) {
	m.readSome(t, rapid.IntRange(1, 5).Draw(t, "limit"))
	if rapid.Bool().Draw(t, "acknowledged") {
		m.persisted = m.pos
	}
}

// restart goes on from the committed cursor, through its text form.
func (m *cursorModel) restart(t *rapid.T) {
	if m.pos.Last != m.persisted.Last || m.pos.Pass != nil || m.persisted.Pass != nil {
		t.Skip("a restart would repeat what the model has counted")
	}
	c := newCursor("s", identity{System: 1, Table: 1, Epoch: 1})
	c.position = m.pos
	b, err := c.encode()
	require.NoError(t, err)
	got, err := decodeCursor(b)
	require.NoError(t, err)
	m.pos = got.position
}

func (m *cursorModel) snapshot() snapshot {
	// xmax is one above the highest ended transaction, as PostgreSQL has it; transactions above it are in progress.
	s := snapshot{xmin: 10, xmax: 10}
	for xid := range m.committed {
		s.xmax = max(s.xmax, xid+1)
	}
	for _, xid := range slices.Sorted(maps.Keys(m.open)) {
		if xid < s.xmax {
			s.xip = append(s.xip, xid)
		}
	}
	s.xmin = s.xmax
	if len(s.xip) > 0 {
		s.xmin = s.xip[0]
	}
	return s
}

func (m *cursorModel) next() uint64 {
	next := m.snapshot().xmax
	for xid := range m.open {
		next = max(next, xid+1)
	}
	return next
}

// readSome reads as reader.read does, and reports whether more may be there.
func (m *cursorModel) readSome(t *rapid.T, limit int) bool {
	f, got := answer(m.sorted(), func(xid uint64) bool { return m.committed[xid] }, view{m.snapshot(), m.next()}, m.pos, limit)
	m.pos = m.pos.after(f)
	m.deliver(t, got)
	return len(got) > 0 || m.pos.Pass != nil || f.freshMore
}

func (m *cursorModel) sorted() []modelRow {
	return slices.SortedFunc(slices.Values(m.rows), func(a, b modelRow) int { return int(a.id - b.id) })
}

func (m *cursorModel) deliver(t *rapid.T, got []modelRow) {
	for _, r := range got {
		require.False(t, m.seen[r.id], "row %d is delivered twice", r.id)
		m.seen[r.id] = true
		for _, earlier := range m.delivered {
			if earlier.key == r.key {
				require.Less(t, earlier.id, r.id, "key %s is out of order", r.key)
			}
		}
		m.delivered = append(m.delivered, r)
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	id := identity{System: 7, Timeline: 1, Table: 16400, Epoch: 2}
	c := newCursor("shop", id)
	c.position = position{Last: 50, view: view{Snapshot: snapshot{xmin: 90, xmax: 100}}}
	c.LastEvent = "11111111-1111-1111-1111-111111111111"
	same := witness{event: c.LastEvent, lowest: 1, next: 120}
	for name, tc := range map[string]struct {
		change  func(c *cursor, id *identity, t *witness)
		refused string
	}{
		"the same":             {func(*cursor, *identity, *witness) {}, ""},
		"promotion":            {func(_ *cursor, id *identity, _ *witness) { id.Timeline = 2 }, ""},
		"crash forgot aborts":  {func(_ *cursor, _ *identity, t *witness) { t.next = 99 }, ""},
		"first start":          {func(c *cursor, _ *identity, t *witness) { *c = newCursor("shop", identity{}); *t = witness{next: 5} }, ""},
		"dropped by clean-up":  {func(_ *cursor, _ *identity, t *witness) { t.event, t.lowest = "", 51 }, ""},
		"raised epoch":         {func(_ *cursor, id *identity, _ *witness) { id.Epoch = 3 }, ""},
		"another cluster":      {func(_ *cursor, id *identity, _ *witness) { id.System = 8 }, "system identifier"},
		"table created anew":   {func(_ *cursor, id *identity, _ *witness) { id.Table = 16500 }, "created anew"},
		"lower epoch":          {func(_ *cursor, id *identity, _ *witness) { id.Epoch = 1 }, "restored"},
		"restored":             {func(_ *cursor, _ *identity, t *witness) { t.event = "" }, "set back"},
		"lagging standby":      {func(_ *cursor, id *identity, t *witness) { id.Timeline, t.event = 2, "" }, "set back"},
		"ids begun anew":       {func(_ *cursor, _ *identity, t *witness) { t.event = "2" }, "begun anew"},
		"adopted, then set":    {func(c *cursor, _ *identity, t *witness) { c.LastEvent, t.next = "", 99 }, "restored"},
		"rows of another home": {func(_ *cursor, _ *identity, t *witness) { t.foreign = true }, "another cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, id, tr := c, id, same
			tc.change(&c, &id, &tr)
			err := guard(&c, id, tr)
			if tc.refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorContains(t, err, tc.refused)
			require.ErrorContains(t, err, "leat relay adopt --source shop")
		})
	}
}

// TestSource_AsksTheGroupBeforeItFencesAgain: an owner that was fenced would else fence the rightful one in turn, for ever.
func TestSource_AsksTheGroupBeforeItFencesAgain(t *testing.T) {
	t.Parallel()
	asked := 0
	s := &source{
		spec: Source{Name: "shop"}, log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()),
		confirm: func(context.Context) error {
			if asked++; asked < 3 {
				return kerr.UnknownMemberID
			}
			return nil
		},
	}
	s.recover(t.Context(), fmt.Errorf("committing transaction: %w", kerr.ProducerFenced), &backoff{})
	require.Equal(t, 3, asked, "it waits until the group calls it a member")
	require.Equal(t, stateFenced, s.state)
}

func FuzzDecodeCursor(f *testing.F) {
	c := newCursor("shop", identity{System: 7, Timeline: 1, Table: 16400, Epoch: 1})
	c.position = position{Last: 9, view: view{snapshot{10, 20, []uint64{10, 14}}, 0}, Pass: &pass{view{snapshot{12, 25, []uint64{14}}, 26}, 3}}
	c.LastEvent = "11111111-1111-1111-1111-111111111111"
	b, err := c.encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"version":1,"source":"s","snapshot":"1:1:"}`))
	f.Add([]byte(`{"version":2,"source":"s","last":-1,"snapshot":"5:3:4"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		c, err := decodeCursor(value)
		if err != nil {
			return
		}
		again, err := c.encode()
		require.NoError(t, err)
		back, err := decodeCursor(again)
		require.NoError(t, err)
		require.Equal(t, c, back)
	})
}

// A batch that is filled while another is produced holds less than one that is filled when Kafka is ready for it.
func TestReadLoop_ReadsAheadOnlyWhileMoreIsWaiting(t *testing.T) {
	t.Parallel()
	free := make(chan *batch, batchesInUse)
	loop := readLoop{free: free}
	none, cancel := context.WithCancel(t.Context())
	cancel()
	first, second := &batch{}, &batch{}

	free <- first
	require.Nil(t, loop.take(none, false), "the other batch is being produced")
	require.Same(t, first, loop.take(t.Context(), true))
	free <- second
	free <- first
	got := []*batch{loop.take(t.Context(), false), loop.take(t.Context(), true)}
	require.ElementsMatch(t, []*batch{first, second}, got)
}
