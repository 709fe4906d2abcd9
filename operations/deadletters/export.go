package deadletters

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/audit"
)

// Exported is a line of an export: the record byte for byte, and what the index knows of it. Bytes are base64 in JSON, null is null.
type Exported struct {
	Letter    Letter           `json:"letter"`
	Key       []byte           `json:"key"`
	Value     []byte           `json:"value"`
	Headers   []ExportedHeader `json:"headers"`
	Timestamp time.Time        `json:"timestamp"`
}

// ExportedHeader is one header of a record, in the record's order.
type ExportedHeader struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// Export is what an export wrote.
type Export struct {
	Letters int64  `json:"letters"` // written
	Missing []ID   `json:"missing"` // whose record the topic no longer has
	File    string `json:"file,omitempty"`
}

// Export writes the letters that s selects to w, a line of JSON for each, oldest first, and an entry to the audit log: an export takes
// payloads out of the house.
func (o *Office) Export(ctx context.Context, op audit.Operator, s Selection, w io.Writer) (e Export, err error) {
	if err := errors.Join(op.Validate(), s.Validate()); err != nil {
		return e, err
	}
	e.Missing = []ID{}
	all, err := o.selected(ctx, s)
	if err != nil {
		return e, err
	}
	out := bufio.NewWriter(w)
	start := time.Now()
	err = chunks(all, func(part []Letter) error {
		recs, err := o.fetch(ctx, idsOf(part))
		if err != nil {
			return err
		}
		for i := range part {
			rec := recs[part[i].ID]
			if rec == nil {
				e.Missing = append(e.Missing, part[i].ID)
				continue
			}
			if err := json.NewEncoder(out).Encode(exported(part[i], rec)); err != nil {
				return fmt.Errorf("writing the export: %w", err)
			}
			e.Letters++
		}
		o.progress(Progress{Done: e.Letters + int64(len(e.Missing)), Total: int64(len(all)), Elapsed: time.Since(start)})
		return nil
	})
	if err != nil {
		return e, err
	}
	if err := out.Flush(); err != nil {
		return e, fmt.Errorf("writing the export: %w", err)
	}
	return e, audit.Record(ctx, o.DB, audit.Entry{
		Actor: op.Name, Reason: op.Reason, Action: "dlq export", Object: s.String(), Before: map[string]any{"selection": s}, After: e,
	})
}

// selected are all letters that s selects, in the order of their topics.
func (o *Office) selected(ctx context.Context, s Selection) ([]Letter, error) {
	where, args := s.where(nil)
	all, err := letters(ctx, o.DB, where, `d.topic, d.partition, d."offset"`, 0, args)
	if err == nil && len(all) == 0 {
		err = ErrNothing
	}
	if err != nil {
		return nil, fmt.Errorf("selecting dead letters: %w", err)
	}
	return all, nil
}

func idsOf(letters []Letter) []ID {
	out := make([]ID, len(letters))
	for i := range letters {
		out[i] = letters[i].ID
	}
	return out
}

func exported(l Letter, rec *kgo.Record) Exported {
	l.Key = nil // it stands beside the value
	e := Exported{Letter: l, Key: rec.Key, Value: rec.Value, Headers: []ExportedHeader{}, Timestamp: rec.Timestamp.UTC()}
	for _, h := range rec.Headers {
		e.Headers = append(e.Headers, ExportedHeader{h.Key, h.Value})
	}
	return e
}

// Attempt is one failed attempt of the record of a letter.
type Attempt struct {
	At          time.Time `json:"at"`
	Topic       string    `json:"topic"` // the retry or dead-letter topic that it stands on
	Attempt     int       `json:"attempt"`
	Class       string    `json:"class,omitempty"`
	Code        string    `json:"code,omitempty"`
	Disposition string    `json:"disposition,omitempty"`
	Message     string    `json:"message,omitempty"`
}

// Replay is one redrive of the record of a letter.
type Replay struct {
	Job     string          `json:"job"`
	Letter  ID              `json:"letter"` // that was redriven
	State   string          `json:"state"`  // claimed, moved, settled, refused or released
	Actor   string          `json:"actor"`
	Reason  string          `json:"reason"`
	At      time.Time       `json:"at"`
	MovedAt *time.Time      `json:"moved_at,omitempty"`
	Done    *time.Time      `json:"done_at,omitempty"`
	Problem string          `json:"problem,omitempty"`
	Edit    json.RawMessage `json:"edit,omitempty"` // what a person changed
}

// Details is everything that is known of a letter.
type Details struct {
	Letter   Letter    `json:"letter"`
	Found    bool      `json:"found"` // the topic still has the record
	Headers  []Text    `json:"headers"`
	Value    []byte    `json:"value,omitempty"` // only if asked for
	IsNull   bool      `json:"value_is_null"`
	Same     []ID      `json:"same_record"` // other letters of the same original record, oldest first
	Replays  []Replay  `json:"replays"`
	Attempts []Attempt `json:"attempts"`
}

// Text is a header as people read it.
type Text struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	selectSame = `d.group_name = $4 and d.original_topic = $5 and d.original_partition = $6 and d.original_offset = $7
  and (d.topic, d.partition, d."offset") <> ($1, $2, $3)`
	selectReplays = `select i.job::text, i.topic, i.partition, i."offset", i.state, r.actor, r.reason, r.at, i.moved_at, i.settled_at, i.problem, i.edit
  from leat_control.redrive_items i join leat_control.redrives r on r.id = i.job
 where (i.topic, i.partition, i."offset", i.at) = ($1, $2, $3, $4)
    or (i.topic, i.partition, i."offset") in (select * from unnest($5::text[], $6::int[], $7::bigint[]))
 order by r.at`
	selectAttempts = `select at, topic, attempt, class, code, disposition, message from leat_control.attempts
 where original_topic = $1 and original_partition = $2 and original_offset = $3 and group_name = $4
   and (event_id = $5 or $5 = '') and attempt > 0 order by at, topic, "offset"`
)

// Show returns what is known of the letter, and the record's headers from its topic; the value only if payload is asked for.
func (o *Office) Show(ctx context.Context, id ID, payload bool) (d Details, err error) {
	found, err := letters(ctx, o.DB, `(d.topic, d.partition, d."offset") = ($1, $2, $3)`, "1", 0, columnsOf(id))
	if err != nil {
		return d, fmt.Errorf("reading the index of dead letters: %w", err)
	}
	if len(found) == 0 {
		return d, fmt.Errorf("the index knows no dead letter %s: look with `leat dlq list`; `leat index run` brings it up to date", id)
	}
	d = Details{Letter: found[0], Headers: []Text{}, Same: []ID{}, Replays: []Replay{}, Attempts: []Attempt{}}
	if err := o.history(ctx, &d); err != nil {
		return d, fmt.Errorf("reading the history of %s: %w", id, err)
	}
	recs, err := o.fetch(ctx, []ID{id})
	if err != nil {
		return d, err
	}
	rec := recs[id]
	if d.Found = rec != nil; !d.Found {
		return d, nil
	}
	for _, h := range rec.Headers {
		d.Headers = append(d.Headers, Text{clean(h.Key, maxText), readable(h.Value)})
	}
	d.IsNull = rec.Value == nil
	if payload {
		d.Value = rec.Value
	}
	return d, nil
}

func columnsOf(id ID) []any { return []any{id.Topic, id.Partition, id.Offset} }

func (o *Office) history(ctx context.Context, d *Details) error {
	l := &d.Letter
	if l.Format == Leat {
		args := append(columnsOf(l.ID), l.Group, l.OriginalTopic, *l.OriginalPartition, *l.OriginalOffset)
		same, err := letters(ctx, o.DB, selectSame, `d.topic, d.partition, d."offset"`, 0, args)
		if err != nil {
			return err
		}
		d.Same = append(d.Same, idsOf(same)...)
	}
	rows, err := o.DB.Query(ctx, selectReplays, append(append(columnsOf(l.ID), l.At), columns(d.Same)...)...)
	if err != nil {
		return err
	}
	d.Replays, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Replay, err error) {
		err = row.Scan(&r.Job, &r.Letter.Topic, &r.Letter.Partition, &r.Letter.Offset, &r.State, &r.Actor, &r.Reason, &r.At, &r.MovedAt, &r.Done,
			&r.Problem, &r.Edit)
		return r, err
	})
	if err != nil || l.Format != Leat {
		return err
	}
	rows, err = o.DB.Query(ctx, selectAttempts, l.OriginalTopic, *l.OriginalPartition, *l.OriginalOffset, l.Group, l.EventID)
	if err != nil {
		return err
	}
	d.Attempts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Attempt, err error) {
		return a, row.Scan(&a.At, &a.Topic, &a.Attempt, &a.Class, &a.Code, &a.Disposition, &a.Message)
	})
	return err
}

// Find understands the id of a letter, or the id of an event that has one letter.
func (o *Office) Find(ctx context.Context, which string) (ID, error) {
	id, parseErr := ParseID(which)
	if parseErr == nil {
		return id, nil
	}
	found, err := letters(ctx, o.DB, `d.event_id = $1`, `d.at desc`, 10, []any{which})
	switch {
	case err != nil:
		return ID{}, fmt.Errorf("reading the index of dead letters: %w", err)
	case len(found) == 0:
		return ID{}, fmt.Errorf("%w, and no event with a dead letter either", parseErr)
	case len(found) > 1:
		return ID{}, fmt.Errorf("event %s has several dead letters: name one of %v", which, idsOf(found))
	}
	return found[0].ID, nil
}
