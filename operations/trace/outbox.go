package trace

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Outbox is the row of the event in its source's outbox.
type Outbox struct {
	Found       bool       `json:"found"`
	Note        string     `json:"note,omitempty"` // why it was not found, or is not what was expected
	System      string     `json:"system,omitempty"`
	ID          int64      `json:"id,omitempty"`
	EventID     string     `json:"event_id,omitempty"`
	Tenant      string     `json:"tenant,omitempty"`
	Entity      string     `json:"entity,omitempty"`
	Key         string     `json:"key,omitempty"`
	Operation   string     `json:"operation,omitempty"`
	Bytes       *int64     `json:"bytes,omitempty"` // of the payload
	OccurredAt  *time.Time `json:"occurred_at,omitempty"`
	Transaction string     `json:"transaction_id,omitempty"`
}

const columnsOfRow = `select id, event_id::text, tenant, entity, key, operation, octet_length(payload)::bigint, occurred_at, transaction_id::text
from leat.outbox `

func (o *Outbox) scan(row pgx.Row) error {
	err := row.Scan(&o.ID, &o.EventID, &o.Tenant, &o.Entity, &o.Key, &o.Operation, &o.Bytes, &o.OccurredAt, &o.Transaction)
	o.Found = err == nil
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

const selectEpoch = `select epoch from leat.source`

// outboxRow finds the row of a version by its primary key.
func (c Config) outboxRow(ctx context.Context, v Version) (o Outbox, err error) {
	o = Outbox{System: v.System, ID: v.Sequence}
	conn, err := c.connect(ctx, v.System)
	if err != nil {
		o.Note = "the source's database could not be asked"
		return o, err
	}
	defer closeConn(ctx, conn)
	var epoch int64
	if err := conn.QueryRow(ctx, selectEpoch).Scan(&epoch); err != nil {
		o.Note = "the source's database could not be asked"
		return o, fmt.Errorf("reading the epoch of source %s: %w", v.System, err)
	}
	if epoch != v.Epoch {
		o.Note = fmt.Sprintf("the event is of epoch %d, and the source's outbox is at epoch %d: its row stood in a former database", v.Epoch, epoch)
		return o, nil
	}
	if err := o.scan(conn.QueryRow(ctx, columnsOfRow+`where id = $1`, v.Sequence)); err != nil {
		return o, fmt.Errorf("reading row %d of outbox %s: %w", v.Sequence, v.System, err)
	}
	switch {
	case !o.Found:
		o.Note = "the row has been cleaned up: outbox_retention has passed since it was delivered"
	case v.EventID != "" && strings.HasPrefix(v.Topic, "source.") && o.EventID != v.EventID:
		o = Outbox{System: v.System, ID: v.Sequence, Note: "the row with this id is now another event: the source's database was restored or made anew"}
	}
	return o, nil
}

func (c Config) connect(ctx context.Context, system string) (*pgx.Conn, error) {
	conn, err := c.Source(ctx, system)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database of source %s: %w", system, err)
	}
	return conn, nil
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(end)
}

// outboxOfFailure finds the row of an event that the relay could not deliver.
func (c Config) outboxOfFailure(ctx context.Context, j *Journey, id uuid.UUID) {
	for _, a := range j.Attempts {
		if a.OutboxID == nil {
			continue
		}
		system := strings.TrimPrefix(a.Of, "source.")
		system, _, _ = strings.Cut(system, ".")
		o, err := c.outboxByID(ctx, system, *a.OutboxID)
		j.note(err)
		if o.Found && o.EventID == id.String() {
			j.Outbox = o
		}
		return
	}
}

func (c Config) outboxByID(ctx context.Context, system string, id int64) (Outbox, error) {
	o := Outbox{System: system}
	conn, err := c.connect(ctx, system)
	if err != nil {
		return o, err
	}
	defer closeConn(ctx, conn)
	if err := o.scan(conn.QueryRow(ctx, columnsOfRow+`where id = $1`, id)); err != nil {
		return o, fmt.Errorf("reading row %d of outbox %s: %w", id, system, err)
	}
	return o, nil
}

// wanted is an event or a record that may wait in an outbox.
type wanted struct {
	event  *uuid.UUID
	record *record
	entity string
}

// The highest id of a source that the journal knows. journal_sequence gives it from its end.
const lastSequence = `select epoch, sequence from leat_control.journal
where system = (select id from leat_control.journal_systems where system = $1) order by epoch desc, sequence desc limit 1`

// The outbox has no index on event ids or keys: writers would pay for it. So only rows that the journal does not know yet are looked through,
// and some before them, which may have been committed late; not more of them than take a few hundred milliseconds.
const (
	lateRows  = 10_000
	freshRows = 200_000
)

const searchRows = `where id = (
  select max(id) from (select id, event_id, tenant, key, entity from leat.outbox where id > $1 order by id limit $2) w
  where ($3::uuid is null or event_id = $3) and ($4 = '' or tenant = $4 and key = $5) and ($6 = '' or entity = $6))`

// searchOutboxes looks for w among the undelivered rows of all systems. Who cannot be asked is a problem.
func (c Config) searchOutboxes(ctx context.Context, j *Journey, w wanted) {
	for _, system := range c.Systems {
		o, err := c.searchOutbox(ctx, system, w)
		j.note(err)
		if o.Found {
			j.Outbox = o
			return
		}
	}
}

func (c Config) searchOutbox(ctx context.Context, system string, w wanted) (Outbox, error) {
	o := Outbox{System: system}
	conn, err := c.connect(ctx, system)
	if err != nil {
		return o, err
	}
	defer closeConn(ctx, conn)
	var epoch, known, last int64
	if err := conn.QueryRow(ctx, selectEpoch).Scan(&epoch); err != nil {
		return o, fmt.Errorf("reading the epoch of source %s: %w", system, err)
	}
	err = c.Control.QueryRow(ctx, lastSequence, system).Scan(&known, &last)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return o, fmt.Errorf("reading how far source %s is in the journal: %w", system, err)
	}
	if known != epoch {
		last = 0
	}
	var rec record
	if w.record != nil {
		rec = *w.record
	}
	from, err := startOfSearch(ctx, conn, max(0, last-lateRows), w)
	if err != nil {
		return o, fmt.Errorf("looking through outbox %s: %w", system, err)
	}
	var id *[16]byte
	if w.event != nil {
		id = (*[16]byte)(w.event)
	}
	err = o.scan(conn.QueryRow(ctx, columnsOfRow+searchRows, from, lateRows+freshRows, id, rec.tenant, rec.id, w.entity))
	if err != nil {
		return o, fmt.Errorf("looking through outbox %s: %w", system, err)
	}
	return o, nil
}

// The first row from an id on, by the primary key.
const nextRow = `select id, occurred_at from leat.outbox where id >= $1 order by id limit 1`

const highestRow = `select coalesce(max(id), 0) from leat.outbox`

// clockSlack is how far the clocks of a source's processes may differ, and how long a transaction may take.
const clockSlack = 10 * time.Minute

// startOfSearch narrows a search in a long backlog: a UUIDv7 says when the event was made, and ids grow with time. It halves the ids
// between the position and the end until it has the first row of that time. A backfill, whose times are not those of the writing,
// may mislead it, but only when more rows wait than are looked through anyway.
func startOfSearch(ctx context.Context, conn *pgx.Conn, from int64, w wanted) (int64, error) {
	var high int64
	if err := conn.QueryRow(ctx, highestRow).Scan(&high); err != nil {
		return 0, err
	}
	if w.event == nil || w.event.Version() != 7 || high-from <= lateRows+freshRows {
		return from, nil
	}
	sec, nsec := w.event.Time().UnixTime()
	made := time.Unix(sec, nsec).Add(-clockSlack)
	low := from
	for high-low > 1000 {
		mid := low + (high-low)/2
		var id int64
		var at time.Time
		err := conn.QueryRow(ctx, nextRow, mid).Scan(&id, &at)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return 0, err
		}
		if err != nil || at.After(made) {
			high = mid
		} else {
			low = max(id, mid)
		}
	}
	return low, nil
}
