package verify

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// out is one finance record that a row makes by the mapping of now.
type out struct {
	id     uint64 // the first half of its ce_id
	hash   digest
	row    int32
	copies uint8 // on the finance topic
	right  bool  // the last of them is as expected
}

// sighting is a record of a source topic as one goroutine saw it, before it is entered into what all share.
type sighting struct {
	rec      *kgo.Record
	env      topics.Envelope
	err      error // its envelope cannot be read
	hash     digest
	row      int
	same     bool // it is what the row says
	outs     []out
	state    rowState
	keyOrder uint64
}

// scanSource is the first layer: each row on its source topic, once, unchanged, in order. What it makes by the mapping of now is the
// expectation of the second.
func (v *run) scanSource(ctx context.Context) error {
	if err := v.scan(ctx, "reading source topics", v.sourceTopics, v.seeSource); err != nil {
		return err
	}
	l := &v.layers[0]
	for i := range v.rows {
		r := &v.rows[i]
		l.Expected++
		switch {
		case r.copies == 1:
			l.Matched++
		case r.copies > 1:
			l.Matched++
			if int(r.copies) > v.allowedDeliveries(r.id) {
				v.differ(0, Difference{Kind: Duplicate, Sequence: r.id, What: fmt.Sprintf("the change stands %d times on its source topic", r.copies)})
			}
		case r.is(undelivered):
			l.Pending++
		default:
			v.stall(r.id)
		}
	}
	return nil
}

// allowedDeliveries is how often a row may stand on its topic: once more where an operator has set the relay back behind it.
func (v *run) allowedDeliveries(id int64) int {
	at, from, reason := v.delivered.Position.AdoptedAt()
	after, again := int64(0), from == "beginning"
	if n, is := strings.CutPrefix(from, "id:"); is {
		var err error
		after, err = strconv.ParseInt(n, 10, 64)
		again = err == nil
	}
	if !again || id <= after || at.Before(v.begin()) {
		return 1
	}
	v.note("an operator set the relay to %s at %s (%s): changes that were delivered again by that are no duplicates", from, at.UTC().Format(timeFormat), reason)
	return 2
}

func (v *run) seeSource(ctx context.Context, recs []*kgo.Record) error {
	seen := make([]sighting, 0, len(recs))
	var msgs []processors.Message
	var at []int // index in seen of each message
	var d digester
	headers := make([]topics.Header, 0, 13*len(recs))
	for _, rec := range recs {
		from := len(headers)
		headers = appendHeaders(headers, rec)
		hs := headers[from:len(headers):len(headers)]
		s := sighting{rec: rec}
		s.env, s.err = topics.DecodeEnvelope(hs)
		if s.err == nil {
			row, ok := v.find(s.env.Sequence)
			if !ok {
				if !v.inWindow(s.env.Epoch, s.env.Sequence, s.env.Time) {
					continue
				}
				row = -1
			} else {
				s.hash = d.event(&s.env, rec.Value)
				s.same = s.hash == v.rows[row].hash
				if !s.same && s.env.Epoch != v.epoch {
					continue // of the database before this one, which gave out the same ids
				}
			}
			s.row = row
		}
		if s.same {
			s.keyOrder = keyHash(v.seed, int(v.rows[s.row].group), s.env.Tenant, s.env.Subject)
			if v.reads[rec.Topic] {
				at = append(at, len(seen))
				msgs = append(msgs, processors.Message{
					Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Time: rec.Timestamp, Key: rec.Key, Value: rec.Value,
					Headers: hs, Attempt: 1,
				})
			} else {
				s.state = unmapped
			}
		}
		seen = append(seen, s)
	}
	if err := v.expect(ctx, &d, msgs, func(i int) *sighting { return &seen[at[i]] }); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range seen {
		v.enterSource(&seen[i])
	}
	return nil
}

// expect runs the mapping of now.
func (v *run) expect(ctx context.Context, d *digester, msgs []processors.Message, of func(int) *sighting) error {
	if len(msgs) == 0 {
		return nil
	}
	results := v.c.Normalize.Handler.Handle(ctx, msgs)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(results) != len(msgs) {
		return fmt.Errorf("the mapping answered %d of %d records", len(results), len(msgs))
	}
	for i, r := range results {
		s := of(i)
		switch {
		case r.Err != nil:
			s.state = refused
		case len(r.Outputs) == 0:
			s.state = filtered
		}
		for _, m := range r.Outputs {
			env, err := topics.DecodeEnvelope(m.Headers)
			if err != nil {
				return fmt.Errorf("reading what the mapping made of event %s: %w", s.env.ID, err)
			}
			s.outs = append(s.outs, out{id: half(env.ID), hash: d.output(&env, m.Key, m.Value), row: int32(s.row)}) //nolint:gosec // below MaxRows
		}
	}
	return nil
}

// enterSource is called under the lock.
func (v *run) enterSource(s *sighting) {
	if s.err != nil { // normalize makes a dead letter of it; no row of the outbox can have made it
		v.note("source topics hold records whose headers cannot be read, such as %s: they belong to no row", whereIs(s.rec))
		return
	}
	named := Difference{Tenant: s.env.Tenant, Entity: s.env.Entity(), SourceID: s.env.Subject, EventID: s.env.ID, Sequence: s.env.Sequence}
	if s.row < 0 {
		named.Kind, named.What = Extra, whereIs(s.rec)+" comes from no row of the outbox"
		v.differ(0, named)
		return
	}
	r := &v.rows[s.row]
	if !s.same {
		named.Kind, named.What = Different, whereIs(s.rec)+" does not say what its row in the outbox says"
		v.differ(0, named)
		return
	}
	if r.copies < 255 {
		r.copies++
	}
	v.groups[r.group].topics.add(s.hash)
	if r.copies > 1 {
		return
	}
	r.state |= s.state
	if s.rec.Offset >= v.normalized.at(s.rec.Topic, s.rec.Partition) {
		r.state |= unread
	}
	if last := v.order[s.keyOrder]; last > r.id {
		named.Kind, named.What = OutOfOrder, fmt.Sprintf("%s stands behind change %d of the same record, which is newer", whereIs(s.rec), last)
		v.differ(0, named)
	} else {
		v.order[s.keyOrder] = r.id
	}
	r.first, r.outs = int32(len(v.outs)), uint8(len(s.outs)) //nolint:gosec // below MaxRows; a mapping has few outputs
	v.outs = append(v.outs, s.outs...)
}

func whereIs(rec *kgo.Record) string {
	return fmt.Sprintf("the record at %s, partition %d, offset %d", rec.Topic, rec.Partition, rec.Offset)
}

// half is the first half of a UUID; of other text some number.
func half(id string) (n uint64) {
	for i := 0; i < len(id) && i < 18; i++ {
		switch c := id[i]; {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		case c != '-':
			n = n*31 + uint64(c)
		}
	}
	return n
}
