package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leat-io/leat/topics"
)

// link is a link row: which record the publisher has applied.
type link struct {
	have    bool
	deleted bool
	version version
	hash    digest
	event   uint64 // half of its id
	place   place
}

// head is a row of an entity's table, and the rows of its lines.
type head struct {
	have    bool
	deleted bool
	live    bool // a line is not marked as deleted
	version version
	hash    digest
	lines   Sum
	total   int32 // index of the totals that count it and its lines, from 1; 0 if none does
}

// linksSQL walks the link rows: there is no index on the sequence. What is older than the window stays in the database.
const linksSQL = `select tenant, source_id, source_epoch, sequence, content_hash, deleted, event_id, topic_partition, topic_offset
from reporting.links where publication = $1 and system = $2 and entity = $3 and sequence >= $4::bigint`

// readTables reads what the tables say of the records of the window, and finds rows that no record explains.
func (v *run) readTables(ctx context.Context) error {
	if v.tables == nil || len(v.rows) == 0 {
		return nil
	}
	from := strconv.AppendInt(nil, v.rows[0].id, 10)
	for i, b := range books() {
		entity := topics.Entities()[i]
		args := [][]byte{[]byte(v.c.Publication), []byte(v.c.Source), []byte(entity), from}
		if err := v.stream(ctx, "reading link rows", linksSQL, args, 1, func(c [][]byte) error { return v.addLink(i, c) }); err != nil {
			return err
		}
		args = [][]byte{[]byte(v.c.Source), from}
		if err := v.stream(ctx, "reading "+entity+"s", b.heads+sinceSQL, args, 0, func(c [][]byte) error { return v.addHead(i, &b, c) }); err != nil {
			return err
		}
		if b.lines == "" {
			continue
		}
		var d digester
		err := v.stream(ctx, "reading lines of "+entity+"s", b.lines+sinceSQL, args, 0, func(c [][]byte) error {
			v.addLine(i, &b, &d, c)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stream hands over the rows of a query as they come: as text (format 0) or binary (1).
func (v *run) stream(ctx context.Context, step, sql string, args [][]byte, format int16, row func([][]byte) error) error {
	result := v.tables.conn.Conn().PgConn().ExecParams(ctx, sql, args, nil, nil, []int16{format})
	var err error
	n := int64(0)
	for err == nil && result.NextRow() {
		err = row(result.Values())
		if n++; n%100_000 == 0 {
			v.c.Progress(step, n, 0)
		}
	}
	if _, closeErr := result.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	v.c.Progress(step, n, n)
	return nil
}

func (v *run) addLink(entity int, c [][]byte) error {
	k := v.known(entity, string(c[0]), string(c[1]))
	if k == nil {
		return nil
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(c[i])) } //nolint:gosec // signed numbers
	var event uuid.UUID
	copy(event[:], c[6])
	k.link = link{
		have: true, version: version{number(2), number(3)}, deleted: c[5][0] == 1, event: half(event.String()),
		place: place{int8(entity), int32(binary.BigEndian.Uint32(c[7])), number(8)}, //nolint:gosec // three entities; signed numbers
	}
	copy(k.link.hash[:], c[4])
	return nil
}

// known returns the state of a record of the window, nil if it is none.
func (v *run) known(entity int, tenant, id string) *keyState {
	i, ok := v.keys[keyHash(v.seed, entity, tenant, id)]
	if !ok || !v.state[i].inWindow {
		return nil
	}
	return &v.state[i]
}

func (v *run) addHead(entity int, b *book, c [][]byte) error {
	tenant, id := string(c[0]), string(c[1])
	var w version
	var changed int64
	for i, n := range []*int64{&w.epoch, &w.sequence, nil, &changed} {
		if n == nil {
			continue
		}
		var err error
		if *n, err = strconv.ParseInt(string(c[2+i]), 10, 64); err != nil {
			return err
		}
	}
	columns := texts(c[headCount:])
	deleted := string(c[4]) == "true"
	k := v.known(entity, tenant, id)
	if k == nil {
		if v.inWindow(w.epoch, w.sequence, time.UnixMicro(changed)) {
			v.differ(2, Difference{
				Kind: Extra, Tenant: tenant, Entity: topics.Entities()[entity], SourceID: id, Sequence: w.sequence,
				What: "a row that no finance record explains",
			})
			v.addTotal(entity, tenant, b.total(columns), deleted)
		}
		return nil
	}
	var d digester
	k.head = head{have: true, deleted: deleted, version: w, hash: headDigest(&d, w, changed, columns), total: v.addTotal(entity, tenant, b.total(columns), deleted)}
	return nil
}

func headDigest(d *digester, w version, changed int64, columns []string) digest {
	d.begin()
	d.number(w.epoch)
	d.number(w.sequence)
	d.number(changed)
	for _, c := range columns {
		d.text(c)
	}
	return d.sum()
}

// addTotal counts a row that is not deleted, and returns where its lines are counted.
func (v *run) addTotal(entity int, tenant string, t bookTotal, deleted bool) int32 {
	if deleted {
		return 0
	}
	i := v.totals.of(totalKey{tenant, topics.Entities()[entity], t.kind, t.currency, t.status})
	a := &v.totals.pairs[i][fromTables]
	a.records++
	a.total.add(t.total)
	return int32(i + 1) //nolint:gosec // tenants times currencies
}

func (v *run) addLine(entity int, b *book, d *digester, c [][]byte) {
	k := v.known(entity, string(c[0]), string(c[1]))
	if k == nil {
		return
	}
	columns := texts(c[2:])
	k.head.lines.add(d.list(columns))
	if columns[len(columns)-1] == "true" {
		return
	}
	k.head.live = true
	if k.head.total > 0 {
		a := &v.totals.pairs[k.head.total-1][fromTables]
		a.lines++
		a.lineSum.add(columns[b.amount])
	}
}

func texts(c [][]byte) []string {
	out := make([]string, len(c))
	for i := range c {
		out[i] = string(c[i])
	}
	return out
}

// explainTables decides for each record of the window by which version its row is judged: the one that its link row names, if that is not
// older than what publish must have applied. If it is, the newest one is looked for among what publish has parked and given
// up; if it is not there either, it was lost.
func (v *run) explainTables(ctx context.Context) error {
	if v.tables == nil {
		return nil
	}
	v.held = map[place]*waiting{}
	defer func() { v.held = nil }()
	l := &v.layers[2]
	for i := range v.state {
		k := &v.state[i]
		switch {
		case !k.inWindow:
			continue
		case !k.won && !k.link.have:
			l.Pending++
		case !k.behind():
			k.target, k.judge = k.link.place, true
		default:
			v.held[k.place] = &k.why
		}
		l.Expected++
	}
	if len(v.held) == 0 {
		return nil
	}
	err := v.failures(ctx, "reading what publish could not do", v.publishFailures, func(f *failure) *waiting {
		entity, ok := v.financeEntity[f.Topic]
		if !ok {
			return nil
		}
		return v.held[place{int8(entity), f.Partition, f.Offset}] //nolint:gosec // there are three entities
	})
	if err != nil {
		return err
	}
	for i := range v.state {
		if k := &v.state[i]; k.inWindow && v.held[k.place] == &k.why {
			v.settleHeld(k)
		}
	}
	return nil
}

// behind reports whether the newest version that publish must have applied is not the one in the tables.
func (k *keyState) behind() bool {
	if !k.won {
		return false
	}
	if !k.link.have {
		return true
	}
	switch n := k.link.version.compare(k.version); {
	case n != 0:
		return n < 0
	case k.link.hash == k.hash:
		return false
	default: // written again with other content, once or more often: the last one counts
		return k.link.place.partition != k.place.partition || k.link.place.offset < k.place.offset
	}
}

func (v *run) settleHeld(k *keyState) {
	if k.why.explained() {
		v.explain(2, 1, k.version.sequence, k.why, "")
		k.target, k.judge = k.link.place, k.link.have
		return
	}
	k.target, k.judge = k.place, true
}
