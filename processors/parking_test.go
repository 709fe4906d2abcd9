package processors

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/topics"
)

// lotModel is a lot said simply: a set of entries.
type lotModel map[int64]*entry

func (m lotModel) queue(key string) []*entry {
	var q []*entry
	for _, e := range m {
		if parkingKey(e.msg.Key, e.msg.Offset) == key {
			q = append(q, e)
		}
	}
	slices.SortFunc(q, func(a, b *entry) int { return cmp.Compare(a.msg.Offset, b.msg.Offset) })
	return q
}

func (m lotModel) check(t *rapid.T, l *lot, now time.Time, held map[string]string) {
	heads := map[int64]bool{}
	var bytes int
	waiting := false
	keys := map[string]bool{}
	for _, e := range m {
		bytes += e.size
		keys[parkingKey(e.msg.Key, e.msg.Offset)] = true
	}
	require.Len(t, l.queues, len(keys))
	for key := range keys {
		q := m.queue(key)
		require.Equal(t, q, l.queues[key].entries)
		require.False(t, l.blocked(q[0]))
		require.True(t, l.parked(q[0].msg.Key, q[0].msg.Offset))
		free := slices.IndexFunc(q, func(e *entry) bool { _, ok := held[e.tenant]; return ok })
		if free < 0 {
			free = len(q)
		}
		require.Len(t, l.queued(q[0], 1_000), free, "a queue drains up to the first record that is held")
		for _, e := range q[1:] {
			require.True(t, l.blocked(e))
		}
		if free > 0 {
			waiting = true
		}
		if free > 0 && !q[0].fail.NotBefore.After(now) {
			heads[q[0].msg.Offset] = true
		}
	}
	require.Equal(t, bytes, l.bytes)
	due := l.due(now, 1_000)
	require.True(t, slices.IsSortedFunc(due, func(a, b *entry) int { return cmp.Compare(a.msg.Offset, b.msg.Offset) }))
	require.Len(t, due, len(heads))
	for _, e := range due {
		require.True(t, heads[e.msg.Offset])
	}
	at, ok := l.nextDue()
	require.Equal(t, waiting, ok)
	require.Equal(t, len(due) > 0, ok && !at.After(now))
}

func TestLot_KeepsOrderAndLosesNothing(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000, 0)
	rapid.Check(t, func(t *rapid.T) {
		l, model := newLot(), lotModel{}
		committed := maps.Clone(model)
		now := start
		var held map[string]string
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { model.check(t, l, now, held) },
			"hold": func(t *rapid.T) {
				held = map[string]string{}
				for _, tenant := range rapid.SliceOf(rapid.SampledFrom([]string{"acme", "globex"})).Draw(t, "tenants") {
					held[tenant] = "why"
				}
				l.hold(held, now)
			},
			"put": func(t *rapid.T) {
				offset := rapid.Int64Range(0, 30).Draw(t, "offset")
				var key []byte // an offset has one key for ever
				if offset%7 != 0 {
					key = []byte{'a' + byte(offset%3)}
				}
				tenant := topics.Header{Key: topics.HeaderTenant, Value: []byte([]string{"acme", "globex", ""}[offset%4%3])}
				e := newEntry(Message{Offset: offset, Key: key, Value: make([]byte, offset), Headers: []topics.Header{tenant}}, topics.Failure{
					NotBefore: start.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "due")) * time.Second),
					Attempt:   rapid.IntRange(0, 3).Draw(t, "attempt"),
				})
				l.put(e)
				model[offset] = e
			},
			"remove": func(t *rapid.T) {
				offset := rapid.Int64Range(0, 30).Draw(t, "offset")
				l.remove(offset)
				delete(model, offset)
			},
			"commit": func(*rapid.T) { l.commit(); committed = maps.Clone(model) },
			"rollback": func(*rapid.T) {
				l.rollback()
				model = maps.Clone(committed)
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second)
			},
			"restart": func(*rapid.T) { // fold what was committed, in any order
				l, model = newLot(), maps.Clone(committed)
				l.hold(held, now)
				for _, e := range committed {
					l.put(e)
					l.put(e) // a replay changes nothing
				}
				l.commit()
			},
		})
	})
}

func TestLot_DrainsALongQueueFirstInFirstOut(t *testing.T) {
	t.Parallel()
	l := newLot()
	for i := range int64(1_000) {
		l.put(newEntry(Message{Offset: i, Key: []byte("k")}, topics.Failure{}))
	}
	for i := range int64(1_000) {
		due := l.due(time.Now(), 10)
		require.Len(t, due, 1)
		require.Equal(t, i, due[0].msg.Offset)
		l.remove(i)
	}
	require.Empty(t, l.queues)
	require.Zero(t, l.bytes)
}
