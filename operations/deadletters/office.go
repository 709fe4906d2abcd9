package deadletters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/processors"
)

// Stage is what handles the records of a group.
type Stage struct {
	Handler processors.Handler
	// Next, if there is one, is told the outputs of Handler in a dry run, to say what would become of them. It must change nothing.
	Next processors.Handler
}

// Office is where people look at dead letters and decide. DB and Kafka are needed for all but what only asks the index.
type Office struct {
	DB    *pgxpool.Pool
	Kafka []kgo.Opt
	// Stage returns how a group handles records now, for a dry run; nothing it returns may change anything. An error says why
	// there is none.
	Stage func(ctx context.Context, group string) (Stage, error)

	MaxReplays int  // how often a record may be redriven before it takes force; default 3
	AllowEdit  bool // whether a redrive may change a record

	Hide func(string) string // takes secrets out of the errors that are kept; default: leaves them as they are

	Progress func(Progress) // called now and then by what takes long; optional
}

// Progress of something that takes long.
type Progress struct {
	Job         string // the redrive; empty for anything else
	Done, Total int64
	Elapsed     time.Duration
}

// problem is the text of an error as it is kept.
func (o *Office) problem(err error) string {
	text := err.Error()
	if o.Hide != nil {
		text = o.Hide(text)
	}
	return clean(text, maxMessage)
}

func (o *Office) progress(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// Assignment is what Assign changes; nil leaves it as it is, "" removes it.
type Assignment struct {
	Owner *string
	Note  *string
}

// Decided is what a decision about letters did.
type Decided struct {
	Action  string `json:"action"`
	Letters int64  `json:"letters"` // that it changed
	Left    int64  `json:"left"`    // that were selected but are not in a state in which this can be done
}

// ErrNothing is returned if a selection selects no letter with which the asked could be done.
var ErrNothing = errors.New("no dead letter is selected")

const assignLetters = `insert into leat_control.dead_letter_notes (topic, partition, "offset", at, owner, note)
select d.topic, d.partition, d."offset", d.at, coalesce($1, ''), coalesce($2, '')`

const assignAgain = ` on conflict (topic, partition, "offset", at) do update
   set owner = coalesce($1, dead_letter_notes.owner), note = coalesce($2, dead_letter_notes.note)`

// Assign gives the letters that s selects an owner or a note, whatever their state.
func (o *Office) Assign(ctx context.Context, op audit.Operator, s Selection, a Assignment) (d Decided, err error) {
	d.Action = "assign"
	if a.Owner == nil && a.Note == nil {
		return d, errors.New("nothing to assign: give an owner or a note")
	}
	where, args := s.where([]any{a.Owner, a.Note})
	err = o.decide(ctx, op, s, "dlq assign", func(tx pgx.Tx) (any, error) {
		tag, err := tx.Exec(ctx, assignLetters+lettersAndNotes+where+assignAgain, args...)
		d.Letters = tag.RowsAffected()
		return map[string]any{"owner": a.Owner, "note": a.Note, "letters": d.Letters}, nothing(err, d.Letters)
	})
	return d, err
}

// Only open letters can be put aside, and only discarded ones taken out again; the lock keeps a redrive from claiming them meanwhile.
const (
	lockInState    = `select d.topic, d.partition, d."offset"` + lettersAndNotes
	discardLetters = `insert into leat_control.dead_letter_notes (topic, partition, "offset", at, discarded_by, discarded_at, discarded_why)
select d.topic, d.partition, d."offset", d.at, $4, clock_timestamp(), $5
  from leat_control.dead_letters d join unnest($1::text[], $2::int[], $3::bigint[]) as k(topic, partition, "offset")
    on d.topic = k.topic and d.partition = k.partition and d."offset" = k."offset"
    on conflict (topic, partition, "offset", at) do update set discarded_by = $4, discarded_at = clock_timestamp(), discarded_why = $5`
	restoreLetters = `update leat_control.dead_letter_notes n set discarded_by = '', discarded_at = null, discarded_why = ''
  from leat_control.dead_letters d join unnest($1::text[], $2::int[], $3::bigint[]) as k(topic, partition, "offset")
    on d.topic = k.topic and d.partition = k.partition and d."offset" = k."offset"
 where n.topic = d.topic and n.partition = d.partition and n."offset" = d."offset" and n.at = d.at`
)

// Discard puts the open letters among those that s selects aside: nobody needs to look at them any more. Their records stay on the
// topic, byte for byte, so that Restore can undo it.
func (o *Office) Discard(ctx context.Context, op audit.Operator, s Selection) (Decided, error) {
	return o.put(ctx, op, s, "discard", Open)
}

// Restore undoes Discard: discarded letters among those that s selects are open again.
func (o *Office) Restore(ctx context.Context, op audit.Operator, s Selection) (Decided, error) {
	return o.put(ctx, op, s, "restore", Discarded)
}

func (o *Office) put(ctx context.Context, op audit.Operator, s Selection, action string, from State) (d Decided, err error) {
	d.Action = action
	where, args := s.where(nil)
	err = o.decide(ctx, op, s, "dlq "+action, func(tx pgx.Tx) (any, error) {
		var all int64
		if err := tx.QueryRow(ctx, `select count(*)`+lettersAndNotes+where, args...).Scan(&all); err != nil {
			return nil, err
		}
		letters, err := ids(tx.Query(ctx, lockInState+where+fmt.Sprintf(` and d.state = '%s' order by 1, 2, 3 for update of d`, from), args...))
		if err != nil {
			return nil, err
		}
		d.Letters, d.Left = int64(len(letters)), all-int64(len(letters))
		if err := nothing(nil, d.Letters); err != nil {
			return nil, fmt.Errorf("%w in state %s (%d in others)", err, from, d.Left)
		}
		sql, args := restoreLetters, columns(letters)
		if action == "discard" {
			sql, args = discardLetters, append(args, op.Name, op.Reason)
		}
		if _, err := tx.Exec(ctx, sql, args...); err != nil {
			return nil, err
		}
		return map[string]any{"letters": d.Letters, "state": action}, refresh(ctx, tx, letters)
	})
	return d, err
}

// decide makes a change and its entry in the audit log in one transaction.
func (o *Office) decide(ctx context.Context, op audit.Operator, s Selection, action string, change func(pgx.Tx) (after any, err error)) error {
	if err := errors.Join(op.Validate(), s.Validate()); err != nil {
		return err
	}
	if s.Empty() {
		return fmt.Errorf("%s of every dead letter is refused: select some, or name them", action)
	}
	err := pgx.BeginFunc(ctx, o.DB, func(tx pgx.Tx) error {
		after, err := change(tx)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, audit.Entry{
			Actor: op.Name, Reason: op.Reason, Action: action, Object: s.String(), Before: map[string]any{"selection": s}, After: after,
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	return nil
}

func nothing(err error, n int64) error {
	if err == nil && n == 0 {
		return ErrNothing
	}
	return err
}
