package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

// Adoption says which position of a source's outbox the relay is to go on from, by an operator's decision.
type Adoption struct {
	Source Source
	Kafka  []kgo.Opt
	// From is "beginning" (every row that is in the table is delivered, again if it was before), "end" (none is), or
	// "id:N" (those with ids above N). In each case rows that are committed from now on are delivered.
	From string
	// Reason is kept in the cursor.
	Reason string
}

// Adopted is what an adoption changed.
type Adopted struct {
	Source string `json:"source"`
	// Before is the last id of the cursor before; nil if there was none.
	Before *int64 `json:"before"`
	After  int64  `json:"after"`
	// Refusal is why the cursor before did not fit the database; empty if it did.
	Refusal string `json:"refusal,omitempty"`
}

// Adopt writes a source's cursor anew, for the database as it is now. It fences a running relay, which then goes on from the new
// position by itself. It refuses when the database would give out ids again that were delivered with another
// content: then the source's epoch must be raised first.
func Adopt(ctx context.Context, a Adoption) (Adopted, error) {
	if a.Reason == "" {
		return Adopted{}, errors.New("adopting needs a reason")
	}
	if _, _, err := a.from(); err != nil {
		return Adopted{}, err
	}
	var report Adopted
	var err error
	for range 3 { // a running relay may take the source back in the midst of it
		if report, err = a.once(ctx); !fenced(err) {
			return report, err
		}
	}
	return report, err
}

// from returns the id, or that it is the highest one there is.
func (a Adoption) from() (id int64, end bool, err error) {
	switch text, isID := strings.CutPrefix(a.From, "id:"); {
	case a.From == "beginning":
		return 0, false, nil
	case a.From == "end":
		return 0, true, nil
	case isID:
		if id, err = strconv.ParseInt(text, 10, 64); err == nil && id >= 0 {
			return id, false, nil
		}
	}
	return 0, false, fmt.Errorf("from %.40q: want beginning, end or id:N", a.From)
}

func (a Adoption) once(ctx context.Context) (Adopted, error) {
	c := Config{Sources: []Source{a.Source}, Kafka: a.Kafka}
	if err := c.Validate(); err != nil {
		return Adopted{}, err
	}
	c = c.withDefaults()
	partitions, err := cursorPartitions(ctx, a.Kafka)
	if err != nil {
		return Adopted{}, err
	}
	limit := func(string) int32 { return topics.DefaultMaxMessageBytes }
	session, err := openSession(ctx, &c, a.Source.Name, limit)
	if err != nil {
		return Adopted{}, err
	}
	defer session.close()
	before, err := readCursor(ctx, a.Kafka, a.Source.Name, partitions)
	if err != nil {
		return Adopted{}, err
	}
	after, report, err := a.decide(ctx, before)
	if err != nil {
		return Adopted{}, err
	}
	client := session.next()
	if err := session.produce(ctx, client, &batch{cursor: after}, 0); err != nil {
		return Adopted{}, err
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return Adopted{}, fmt.Errorf("committing cursor: %w", err)
	}
	return report, nil
}

// One snapshot for the position and what it is decided by. The row of the position becomes its witness.
const sqlAdopt = `select pg_current_snapshot()::text, highest, coalesce((select event_id::text from leat.outbox o
  where o.id = case when $1::bigint < 0 then highest else $1 end), ''), age(pg_snapshot_xmax(pg_current_snapshot())::xid)
from (select coalesce(max(id), 0) as highest from leat.outbox) h`

func (a Adoption) decide(ctx context.Context, before *cursor) (cursor, Adopted, error) {
	config, err := pgconn.ParseConfig(a.Source.URL)
	if err != nil {
		return cursor{}, Adopted{}, fmt.Errorf("reading database URL of source %s: %w", a.Source.Name, err)
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return cursor{}, Adopted{}, fmt.Errorf("connecting to database of source %s: %w", a.Source.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	old := newCursor(a.Source.Name, identity{})
	report := Adopted{Source: a.Source.Name}
	if before != nil {
		old, report.Before = *before, &before.Last
	}
	r := &reader{conn: conn}
	t, err := r.witness(ctx, &old)
	if err != nil {
		return cursor{}, report, err
	}
	if t.foreign {
		return cursor{}, report, guard(&old, r.id, t)
	}
	id, end, _ := a.from()
	wanted := id
	if end {
		wanted = -1
	}
	result := conn.ExecParams(ctx, sqlAdopt, [][]byte{formatInt(wanted)}, nil, nil, nil).Read()
	if result.Err != nil {
		return cursor{}, report, fmt.Errorf("looking at outbox: %w", result.Err)
	}
	v := result.Rows[0]
	now, err := parseView(v[0], v[3])
	if err != nil {
		return cursor{}, report, err
	}
	highest, err := strconv.ParseInt(string(v[1]), 10, 64)
	if err != nil {
		return cursor{}, report, err
	}
	if refusal := guard(&old, r.id, t); refusal != nil {
		report.Refusal = refusal.Error()
		if highest < old.Last && r.id.Epoch <= old.Epoch {
			return cursor{}, report, fmt.Errorf("the source gives out ids again that were delivered up to %d, and every target would take its "+
				"changes for old ones: raise its epoch first, with: select leat.raise_epoch(%d)", old.Last, old.Epoch+1)
		}
	}
	if end {
		id = highest
	}
	if id > highest {
		return cursor{}, report, fmt.Errorf("from id %d: the highest id in the outbox is %d", id, highest)
	}
	report.After = id
	after := newCursor(a.Source.Name, r.id)
	after.position = position{Last: id, view: now}
	after.LastEvent, after.Rows = string(v[2]), old.Rows
	after.Adopted = &adopted{At: time.Now().UTC(), From: a.From, Reason: a.Reason}
	return after, report, nil
}

// cursorPartitions is the number of partitions of the cursor topic.
func cursorPartitions(ctx context.Context, opts []kgo.Opt) (int, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return 0, fmt.Errorf("making kafka client: %w", err)
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListTopics(ctx, topics.Cursors)
	if err != nil {
		return 0, fmt.Errorf("looking at topic %s: %w", topics.Cursors, err)
	}
	if err := listed.Error(); err != nil {
		return 0, fmt.Errorf("looking at topic %s: %w", topics.Cursors, err)
	}
	return len(listed[topics.Cursors].Partitions), nil
}
