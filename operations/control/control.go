// Package control keeps what operators order about running processes, and brings it to them: pauses, breakers by order, orders about
// parked records, drains. An order is a row in Leat's own database that holds until it is taken back; an Agent in every process
// reads the rows every second, hands them to the stages of its process, and writes a heartbeat that says what they do.
//
// It does not talk to processes over the network, and it stops nothing by itself: a stage obeys between two transactions. What an order
// means for records is the stage's affair (processors.Orders). Without a control database there are no orders.
package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/topics"
)

// DB is a *pgxpool.Pool on a database with the control schema.
type DB interface {
	audit.Execer
	audit.Queryer
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Scope is a kind of thing that can be paused.
type Scope string

// The scopes.
const (
	Stage  Scope = "stage"  // relay, normalize, publish: every process of it
	Group  Scope = "group"  // the members of one consumer group
	Source Scope = "source" // the outbox of one source system: the relay leaves it alone
	Tenant Scope = "tenant" // the records of one tenant, in every group: they are parked, in order
	Target Scope = "target" // whatever writes to one target
)

// Scopes returns all of them.
func Scopes() []Scope { return []Scope{Stage, Group, Source, Tenant, Target} }

// The modes of a Pause.
const (
	ModePause = "pause" // it stays a member of its group
	ModeDrain = "drain" // it leaves its group: of Drain
)

// Pause is an order to stand still.
type Pause struct {
	Scope  Scope     `json:"scope"`
	Name   string    `json:"name"`
	Mode   string    `json:"mode"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is taken back
}

func (p Pause) object() string { return string(p.Scope) + " " + p.Name }

// Names are what is known by name, from the configuration and from the processes that were seen.
type Names struct {
	Stages, Groups, Sources, Targets []string
}

func (n Names) of(s Scope) []string {
	return map[Scope][]string{Stage: n.Stages, Group: n.Groups, Source: n.Sources, Target: n.Targets}[s]
}

// check refuses a name that nothing has: a pause of a typo would stop nothing and look as if it did. Tenants are known to their
// source systems alone.
func (n Names) check(s Scope, name string) error {
	if !slices.Contains(Scopes(), s) {
		return fmt.Errorf("unknown scope %q: use stage, group, source, tenant or target", s)
	}
	if s == Tenant {
		if !topics.ValidName(name) {
			return fmt.Errorf("tenant %q is no valid name: 1 to 63 lower-case letters, digits, - and _", name)
		}
		return nil
	}
	known := n.of(s)
	switch {
	case slices.Contains(known, name):
		return nil
	case len(known) == 0:
		return fmt.Errorf("there is no %s %q: the configuration names none, and no process of one was seen", s, name)
	}
	return fmt.Errorf("there is no %s %q; known are: %s", s, name, strings.Join(known, ", "))
}

const selectNames = `select stage, group_name, sources, targets from leat_control.processes`

// KnownNames adds to configured what the processes that were seen call themselves.
func KnownNames(ctx context.Context, db audit.Queryer, configured Names) (Names, error) {
	rows, err := db.Query(ctx, selectNames)
	if err != nil {
		return Names{}, fmt.Errorf("looking for names of processes: %w", hint(err))
	}
	var stage, group string
	var sources, targets []string
	n := configured
	_, err = pgx.ForEachRow(rows, []any{&stage, &group, &sources, &targets}, func() error {
		n.Sources, n.Targets = append(n.Sources, sources...), append(n.Targets, targets...)
		if group != "" { // the others take no orders
			n.Stages, n.Groups = append(n.Stages, stage), append(n.Groups, group)
		}
		return nil
	})
	if err != nil {
		return Names{}, fmt.Errorf("looking for names of processes: %w", hint(err))
	}
	for _, list := range []*[]string{&n.Stages, &n.Groups, &n.Sources, &n.Targets} {
		*list = slices.Compact(slices.Sorted(slices.Values(*list)))
	}
	return n, nil
}

// Reads ask for the time that is left, so that an order ends in time also where no later read comes through.
const selectPauses = `select scope, name, mode, actor, reason, at, until, extract(epoch from until - now())::float8
from leat_control.pauses where until is null or until > now() order by scope, name, mode`

// Pauses returns the pauses and drains that hold, by scope and name.
func Pauses(ctx context.Context, db audit.Queryer) ([]Pause, error) {
	held, err := readPauses(ctx, db)
	if err != nil {
		return nil, err
	}
	pauses := make([]Pause, len(held))
	for i, h := range held {
		pauses[i] = h.Pause
	}
	return pauses, nil
}

// heldPause is a pause with the time that is left to it, nil for ever.
type heldPause struct {
	Pause
	left *float64
}

func readPauses(ctx context.Context, db audit.Queryer) ([]heldPause, error) {
	rows, err := db.Query(ctx, selectPauses)
	if err != nil {
		return nil, fmt.Errorf("reading pauses: %w", hint(err))
	}
	held, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h heldPause, err error) {
		var until *time.Time
		err = row.Scan(&h.Scope, &h.Name, &h.Mode, &h.Actor, &h.Reason, &h.At, &until, &h.left)
		if until != nil {
			h.Until = *until
		}
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading pauses: %w", hint(err))
	}
	return held, nil
}

// A new pause replaces an older one of the same thing; a drain that somebody else holds is kept (Drain asks before). The row is
// locked first, so that before and after in the audit log are of one change.
const (
	lockPauses = `select scope, name, mode, actor, reason, at, until, extract(epoch from until - now())::float8
from leat_control.pauses where scope = $1 and name = $2 and (until is null or until > now()) order by mode for update`
	insertPause = `insert into leat_control.pauses (scope, name, mode, actor, reason, until) values ($1, $2, $3, $4, $5, $6)
on conflict (scope, name, mode) do update set actor = excluded.actor, reason = excluded.reason, at = now(), until = excluded.until
returning at`
	deletePauses = `delete from leat_control.pauses where scope = $1 and name = $2`
	deleteDrain  = `delete from leat_control.pauses where scope = 'group' and name = $1 and mode = 'drain'`
)

// SetPause makes what p names stand still within seconds, and returns the order as it is kept. A pause that is there already gets the
// new reason and end. Names says what exists.
func SetPause(ctx context.Context, db DB, op audit.Operator, p Pause, names Names) (Pause, error) {
	p.Mode = ModePause
	if err := cmp.Or(op.Validate(), names.check(p.Scope, p.Name)); err != nil {
		return p, err
	}
	return p, changePauses(ctx, db, op, &p, "pause", func(ctx context.Context, tx pgx.Tx, _ []Pause) error { return keep(ctx, tx, op, &p) })
}

// ErrNotPaused is returned by LiftPause for what is not paused.
var ErrNotPaused = errors.New("is not paused")

// LiftPause takes the pause of what scope and name mean back, and a drain too, and returns what was lifted.
func LiftPause(ctx context.Context, db DB, op audit.Operator, scope Scope, name string) (lifted []Pause, err error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	p := Pause{Scope: scope, Name: name}
	err = changePauses(ctx, db, op, &p, "resume", func(ctx context.Context, tx pgx.Tx, before []Pause) error {
		if lifted = before; len(before) == 0 {
			return fmt.Errorf("%s %w; leat pauses shows what is", p.object(), ErrNotPaused)
		}
		_, err := tx.Exec(ctx, deletePauses, scope, name)
		return err
	})
	return lifted, err
}

// changePauses lets change work on the pauses of one thing, and records it.
func changePauses(ctx context.Context, db DB, op audit.Operator, p *Pause, action string,
	change func(ctx context.Context, tx pgx.Tx, before []Pause) error,
) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, lockPauses, p.Scope, p.Name)
		if err != nil {
			return err
		}
		before, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Pause, err error) {
			var until *time.Time
			err = row.Scan(&p.Scope, &p.Name, &p.Mode, &p.Actor, &p.Reason, &p.At, &until, nil)
			if until != nil {
				p.Until = *until
			}
			return p, err
		})
		if err != nil {
			return err
		}
		if err := change(ctx, tx, before); err != nil {
			return err
		}
		entry := audit.Entry{Actor: op.Name, Action: action, Object: p.object(), Reason: op.Reason}
		if len(before) > 0 {
			entry.Before = before
		}
		if p.Mode != "" {
			entry.After = *p
		}
		return audit.Record(ctx, tx, entry)
	})
	if err != nil && !errors.Is(err, ErrNotPaused) && !errors.Is(err, ErrDrained) {
		err = fmt.Errorf("%s %s: %w", action, p.object(), hint(err))
	}
	return err
}

func keep(ctx context.Context, tx pgx.Tx, op audit.Operator, p *Pause) error {
	var until *time.Time
	if !p.Until.IsZero() {
		until = &p.Until
	}
	p.Actor, p.Reason = op.Name, op.Reason
	return tx.QueryRow(ctx, insertPause, p.Scope, p.Name, p.Mode, p.Actor, p.Reason, until).Scan(&p.At)
}

// ErrDrained is returned by Drain while somebody else drains the group.
var ErrDrained = errors.New("is drained already")

// Drain makes the members of a group finish the transaction in flight, give their partitions back and leave. They join again when
// EndDrain is called, or at until, so that the death of the caller stops nobody for ever. It returns before they have left: ask Kafka.
func Drain(ctx context.Context, db DB, op audit.Operator, group string, until time.Time) error {
	if err := op.Validate(); err != nil {
		return err
	}
	if until.IsZero() {
		return errors.New("draining a group needs an end")
	}
	p := Pause{Scope: Group, Name: group, Mode: ModeDrain, Until: until}
	return changePauses(ctx, db, op, &p, "drain", func(ctx context.Context, tx pgx.Tx, before []Pause) error {
		for _, b := range before {
			if b.Mode == ModeDrain && b.Actor != op.Name {
				return fmt.Errorf("group %s %w, by %s until %s: %s", group, ErrDrained, b.Actor, b.Until.UTC().Format(time.RFC3339), b.Reason)
			}
		}
		return keep(ctx, tx, op, &p)
	})
}

// EndDrain lets the members of a drained group join again. It is no error if nothing is drained any more.
func EndDrain(ctx context.Context, db DB, op audit.Operator, group string) error {
	if err := op.Validate(); err != nil {
		return err
	}
	p := Pause{Scope: Group, Name: group}
	return changePauses(ctx, db, op, &p, "end drain", func(ctx context.Context, tx pgx.Tx, _ []Pause) error {
		_, err := tx.Exec(ctx, deleteDrain, group)
		return err
	})
}

// hint adds the remedy to an error of the database, where there is one.
func hint(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case "42P01", "42703", "3F000": // undefined table, undefined column, no such schema
		return fmt.Errorf("%w; run `leat migrate up control`", err)
	case "42501": // insufficient privilege
		return fmt.Errorf("%w; the owner of the control database grants rights: select leat_control.grant_process('role'), "+
			"grant_index, grant_notify or grant_verify for those processes, grant_operator for people, grant_viewer for those who only look", err)
	}
	return err
}
