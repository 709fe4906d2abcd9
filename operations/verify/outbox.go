package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/leat-io/leat/topics"
)

// row is one row of the window: what it holds as a digest, and what has become of it. It is small, as there may be millions.
type row struct {
	id     int64
	hash   digest
	group  uint16
	copies uint8 // on the source topic, not counted beyond 255
	outs   uint8 // how many finance records it makes
	state  rowState
	first  int32 // of its outs
}

type rowState uint8

const (
	undelivered rowState = 1 << iota // beyond the relay's position
	unread                           // its record is beyond the offset that normalize has committed
	unmapped                         // no mapping reads its topic
	filtered                         // the mapping makes nothing of it
	refused                          // the mapping of now refuses it
	strayed                          // a finance record names it that the mapping of now does not make
)

func (r *row) is(s rowState) bool { return r.state&s != 0 }

// found forgets what was found behind the outbox.
func (r *row) found() {
	r.copies, r.outs, r.first = 0, 0, 0
	r.state &= undelivered
}

// group is what counts are kept for: one entity of one tenant.
type group struct {
	tenant, entity string
	outbox, topics Sum
}

// rowsSQL streams the window in the order of ids, which is that of its primary key. Ids narrow what is read, times what is returned.
const rowsSQL = `select id, transaction_id, event_id, tenant, entity, key, operation, payload, content_type, schema_version, occurred_at
from leat.outbox where id >= $1::bigint and id <= $2::bigint and occurred_at >= $3::timestamptz and occurred_at < $4::timestamptz order by id`

// postgresEpoch is 2000-01-01, from where timestamptz counts, in microseconds since 1970.
const postgresEpoch = 946_684_800_000_000

func (v *run) readOutbox(ctx context.Context) error {
	const step = "reading the outbox"
	const walk = `select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`
	if _, err := v.outbox.tx.Exec(ctx, walk); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	result := v.outbox.conn.Conn().PgConn().ExecParams(ctx, rowsSQL, v.params(), nil, nil, []int16{1})
	v.groupOf, v.order = map[string]uint16{}, map[uint64]int64{}
	var d digester
	var err error
	for err == nil && result.NextRow() {
		err = v.addRow(&d, result.Values())
	}
	if _, closeErr := result.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s of %s: %w", step, v.c.Source, err)
	}
	v.rows = slices.Clone(v.rows) // without the room that it grew into
	v.c.Progress(step, int64(len(v.rows)), int64(len(v.rows)))
	if v.fromID < v.lowest && (v.window.FromID > 0 || !v.window.Since.IsZero() || v.lowest > 1) {
		v.note("rows below id %d have been cleaned up: what they said cannot be compared any more", v.lowest)
	}
	return nil
}

func (v *run) addRow(d *digester, c [][]byte) error {
	id := int64(binary.BigEndian.Uint64(c[0])) //nolint:gosec // ids are positive
	if len(v.rows) == v.c.MaxRows {
		return fmt.Errorf("the window has more than %d rows: take a shorter one", v.c.MaxRows)
	}
	var event uuid.UUID
	copy(event[:], c[2])
	at := int64(binary.BigEndian.Uint64(c[10])) //nolint:gosec // a signed number
	const infinity = 1<<63 - 1
	if at < infinity-postgresEpoch {
		at += postgresEpoch
	}
	e := topics.Envelope{
		ID: event.String(), Tenant: string(c[3]), Kind: topics.SourceKind(string(c[4])), Subject: string(c[5]), Operation: topics.Operation(c[6]),
		ContentType: string(c[8]), DataSchema: string(c[9]), Sequence: id, Time: time.UnixMicro(at),
	}
	r := row{id: id, hash: d.event(&e, c[7]), group: v.group(e.Tenant, string(c[4]))}
	v.groups[r.group].outbox.add(r.hash)
	if !v.delivered.Covers(id, binary.BigEndian.Uint64(c[1])) {
		r.state |= undelivered
	}
	if len(v.rows) == 0 || at < v.oldest {
		v.oldest = at
	}
	v.rows = append(v.rows, r)
	if len(v.rows)%100_000 == 0 {
		v.c.Progress("reading the outbox", int64(len(v.rows)), 0)
	}
	return nil
}

func (v *run) group(tenant, entity string) uint16 {
	name := tenant + "/" + entity
	i, ok := v.groupOf[name]
	if !ok {
		i = uint16(len(v.groups)) //nolint:gosec // tenants times entities
		v.groupOf[name] = i
		v.groups = append(v.groups, group{tenant: tenant, entity: entity})
	}
	return i
}

// find returns the row with an id. It looks at ids only, which never change: others may be at work on the rows. Most often ids have
// no gaps, and the first guess is right.
func (v *run) find(id int64) (int, bool) {
	if len(v.rows) == 0 {
		return 0, false
	}
	if guess := id - v.rows[0].id; guess >= 0 && guess < int64(len(v.rows)) && v.rows[guess].id == id {
		return int(guess), true
	}
	i := sort.Search(len(v.rows), func(i int) bool { return v.rows[i].id >= id })
	return i, i < len(v.rows) && v.rows[i].id == id
}

// inWindow reports whether a record that no row of the outbox has made belongs to the window all the same: by the source's epoch of
// now, and where the outbox still holds what was written then.
func (v *run) inWindow(epoch, sequence int64, at time.Time) bool {
	return epoch == v.epoch && sequence >= v.lowest && v.contain(sequence, at.UnixMicro())
}

// origin names a row.
type origin struct {
	eventID, tenant, entity, key string
}

// namesSQL looks up the few rows that are named in the report, by primary key.
const namesSQL = `select id, event_id::text, tenant, entity, key from leat.outbox where id = any ($1)`

func (v *run) origins(ctx context.Context, ids []int64) (map[int64]origin, error) {
	rows, err := v.outbox.tx.Query(ctx, namesSQL, ids)
	if err != nil {
		return nil, fmt.Errorf("naming rows of the outbox: %w", err)
	}
	defer rows.Close()
	out := map[int64]origin{}
	for rows.Next() {
		var id int64
		var o origin
		if err := rows.Scan(&id, &o.eventID, &o.tenant, &o.entity, &o.key); err != nil {
			return nil, fmt.Errorf("naming rows of the outbox: %w", err)
		}
		out[id] = o
	}
	return out, rows.Err()
}
