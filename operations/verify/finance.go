package verify

import (
	"cmp"
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// version orders the changes of one record.
type version struct{ epoch, sequence int64 }

func (a version) compare(b version) int {
	return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.sequence, b.sequence))
}

// place is where a record stands on a finance topic.
type place struct {
	entity    int8 // index in topics.Entities
	partition int32
	offset    int64
}

// keyState is what is known of one finance record: what the topic says of it, and what the tables say.
type keyState struct {
	inWindow bool // a change of the window is about it

	// The newest version below what publish has committed, as the guard of the tables would find it. It must have been applied.
	won     bool
	version version
	hash    digest
	place   place

	link link
	head head

	target place // the record by which the row is judged
	judge  bool  // there is one
	judged bool
	why    waiting
}

// scanFinance is the second layer: what the mapping of now makes of each source record, once and unchanged on its finance topic. It
// also finds the newest version of each record, the expectation of the third.
func (v *run) scanFinance(ctx context.Context) error {
	// Not doubled again and again while they grow, and without pointers, they are little work for the garbage collector.
	v.order = nil
	v.keys, v.state = make(map[uint64]int32, len(v.outs)), make([]keyState, 0, len(v.outs)+len(v.outs)/16)
	if err := v.scan(ctx, "reading finance topics", v.financeTopics, v.seeFinance); err != nil {
		return err
	}
	if v.replays > 0 {
		v.note("normalize was made to read again %d times since the window began: finance records that were written again by that are no duplicates", v.replays)
	}
	l := &v.layers[1]
	for i := range v.rows {
		r := &v.rows[i]
		switch {
		case r.copies == 0:
			continue
		case r.is(unmapped):
			l.Unmapped++
		case r.is(filtered):
			l.Filtered++
		case r.is(refused):
			l.Expected++
			if r.is(unread) {
				l.Pending++
			} else {
				v.stall(r.id)
			}
		}
		for j := range v.outsOf(r) {
			v.settleOut(l, r, &v.outs[int(r.first)+j])
		}
	}
	return nil
}

func (v *run) outsOf(r *row) []out { return v.outs[r.first : int(r.first)+int(r.outs)] }

func (v *run) settleOut(l *Layer, r *row, o *out) {
	l.Expected++
	switch {
	case o.copies == 0 && r.is(unread):
		l.Pending++
	case o.copies == 0:
		v.stall(r.id)
	case !o.right:
		v.differ(1, Difference{Kind: Different, Sequence: r.id, What: "the finance record is not what the mapping of now makes of the change: " +
			"it was altered, or the mapping was changed since and the change not replayed"})
	default:
		l.Matched++
	}
	if int(o.copies) > int(r.copies)*(1+v.replays) { // that the change itself stands more than once is said of its source topic
		v.differ(1, Difference{Kind: Duplicate, Sequence: r.id, What: fmt.Sprintf("the finance record stands %d times on its topic; "+
			"the tables count it once", o.copies)})
	}
}

// output is a record of a finance topic as one goroutine saw it.
type output struct {
	rec     *kgo.Record
	env     topics.Envelope
	hash    digest // as an output
	content digest // as a link row keeps it
	row     int    // -1: none, though it belongs to the window
	after   bool   // of no row of the window, but perhaps newer than one
	key     uint64
	entity  int
}

func (v *run) seeFinance(_ context.Context, recs []*kgo.Record) error {
	seen := make([]output, 0, len(recs))
	var d digester
	first := int64(0)
	if len(v.rows) > 0 {
		first = v.rows[0].id
	}
	for _, rec := range recs {
		if !v.ours(rec) {
			continue
		}
		env, err := decode(rec)
		if err != nil {
			v.mu.Lock()
			v.note("finance topics hold records whose headers cannot be read, such as %s: they belong to no row", whereIs(rec))
			v.mu.Unlock()
			continue
		}
		o := output{rec: rec, env: env, entity: v.financeEntity[rec.Topic]}
		row, ok := v.find(env.Sequence)
		switch {
		case ok:
			o.row = row
		case v.inWindow(env.Epoch, env.Sequence, env.Time):
			o.row = -1
		case env.Sequence >= first:
			o.after = true
		default:
			continue
		}
		o.hash = d.output(&env, rec.Key, rec.Value)
		o.content = v.contentHash(&env, rec.Value)
		o.key = keyHash(v.seed, o.entity, env.Tenant, env.Subject)
		seen = append(seen, o)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range seen {
		v.enterFinance(&seen[i])
	}
	return nil
}

// ours reports whether a finance record is of the source, at the cost of one header: the topics carry those of all sources.
func (v *run) ours(rec *kgo.Record) bool {
	for i := range rec.Headers {
		if rec.Headers[i].Key == topics.HeaderSource {
			s := rec.Headers[i].Value
			return len(s) > 1 && s[0] == '/' && string(s[1:]) == v.c.Source
		}
	}
	return false
}

func (v *run) contentHash(env *topics.Envelope, value []byte) (d digest) {
	if v.c.ContentHash == nil {
		return d
	}
	if env.Operation == topics.Delete {
		value = nil
	}
	return v.c.ContentHash(value)
}

// enterFinance is called under the lock.
func (v *run) enterFinance(o *output) {
	mine := o.after
	if !o.after {
		var known bool
		if mine, known = v.enterOutput(o); !known {
			named := Difference{
				Kind: Extra, Tenant: o.env.Tenant, Entity: o.env.Entity(), SourceID: o.env.Subject, EventID: o.env.ID, Sequence: o.env.Sequence,
				What: whereIs(o.rec) + " is not what the mapping of now makes of any change of the source",
			}
			v.differ(1, named)
		}
	}
	if !mine {
		return
	}
	k := v.key(o.key)
	k.inWindow = k.inWindow || !o.after
	if o.rec.Offset < v.published.at(o.rec.Topic, o.rec.Partition) {
		k.fold(o)
	}
}

// enterOutput counts a record as one of its row's. mine is false for a record of a database before this one, which gave out the
// same ids.
func (v *run) enterOutput(o *output) (mine, known bool) {
	if o.row >= 0 {
		r := &v.rows[o.row]
		id := half(o.env.ID)
		for i := range v.outsOf(r) {
			out := &v.outs[int(r.first)+i]
			if out.id != id {
				continue
			}
			if out.copies < 255 {
				out.copies++
			}
			out.right = out.hash == o.hash // of several the last counts: a corrected mapping was replayed
			return true, true
		}
		if o.env.Epoch < v.epoch {
			return false, true
		}
		r.state |= strayed
	}
	return true, false
}

// fold does what the guard of the tables does.
func (k *keyState) fold(o *output) {
	w := version{o.env.Epoch, o.env.Sequence}
	if k.won {
		if n := w.compare(k.version); n < 0 || n == 0 && o.content == k.hash {
			return
		}
	}
	k.won, k.version, k.hash = true, w, o.content
	k.place = place{int8(o.entity), o.rec.Partition, o.rec.Offset} //nolint:gosec // there are three entities
}

func (v *run) key(hash uint64) *keyState {
	i, ok := v.keys[hash]
	if !ok {
		i = int32(len(v.state)) //nolint:gosec // below a few times MaxRows
		v.keys[hash] = i
		v.state = append(v.state, keyState{})
	}
	return &v.state[i]
}
