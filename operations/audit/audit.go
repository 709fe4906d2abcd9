// Package audit keeps who changed what, when and why: every change that a person makes through Leat, from the command line or from
// a console, is an entry of one append-only table.
//
// It decides nothing and refuses nobody. The change and its entry belong in one transaction (Record with its pgx.Tx); where the
// change is not in Postgres, its entry is written before it is made (outcome "started") and again when it is known how it ended.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Entry is one change.
type Entry struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"` // as the command says it: "offsets apply", "dlq redrive", "pause"
	Object string    `json:"object"` // what was changed, as the command names it: "group reporting", "plan 0190…"
	Reason string    `json:"reason"`
	Before any       `json:"before,omitempty"` // anything that becomes JSON; never a payload, never a secret
	After  any       `json:"after,omitempty"`
}

// Operator is the person on whose behalf a change is made, and why. Every change takes one.
type Operator struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// ErrNoReason is returned for a change without a reason.
var ErrNoReason = errors.New("a reason is needed, for those who come later: --reason")

// Validate reports what is missing.
func (o Operator) Validate() error {
	if strings.TrimSpace(o.Name) == "" {
		return errors.New("who does this is not known: set LEAT_ACTOR")
	}
	if strings.TrimSpace(o.Reason) == "" {
		return ErrNoReason
	}
	return nil
}

// Actor names the person at the command line: $LEAT_ACTOR, else the user of the operating system and its host.
func Actor(getenv func(string) string) string {
	if a := getenv("LEAT_ACTOR"); a != "" {
		return a
	}
	name := getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return cmp.Or(name, "unknown") + "@" + cmp.Or(host, "unknown")
}

// Execer is a pgx.Tx, a pgx.Conn or a pgxpool.Pool.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Queryer is a pgx.Tx, a pgx.Conn or a pgxpool.Pool.
type Queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const insertEntry = `insert into leat_control.audit_log (actor, action, object, reason, before, after) values ($1, $2, $3, $4, $5, $6)`

// Record writes e; its ID and At are the database's. In the transaction of the change, both happen or neither.
func Record(ctx context.Context, db Execer, e Entry) error {
	before, err := document(e.Before)
	if err != nil {
		return fmt.Errorf("recording %s of %s: before: %w", e.Action, e.Object, err)
	}
	after, err := document(e.After)
	if err != nil {
		return fmt.Errorf("recording %s of %s: after: %w", e.Action, e.Object, err)
	}
	if _, err := db.Exec(ctx, insertEntry, e.Actor, e.Action, e.Object, e.Reason, before, after); err != nil {
		return fmt.Errorf("recording %s of %s in the audit log: %w", e.Action, e.Object, err)
	}
	return nil
}

// document makes JSON of v, nil of nil.
func document(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// Filter selects entries. Its zero value selects all.
type Filter struct {
	Actor  string
	Action string // its beginning: "offsets" selects "offsets apply" and "offsets undo"
	Object string // a part of it
	Since  time.Time
	Until  time.Time
	Limit  int // the newest so many; default 100
}

// Newest first: who asks wants to know what happened just now.
const selectEntries = `select id, at, actor, action, object, reason, before, after from leat_control.audit_log
where ($1 = '' or actor = $1) and starts_with(action, $2) and strpos(object, $3) > 0
  and ($4::timestamptz is null or at >= $4) and ($5::timestamptz is null or at < $5)
order by id desc limit $6`

// List returns the entries that f selects, newest first.
func List(ctx context.Context, db Queryer, f Filter) ([]Entry, error) {
	rows, err := db.Query(ctx, selectEntries, f.Actor, f.Action, f.Object, optional(f.Since), optional(f.Until), cmp.Or(f.Limit, 100))
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
		var before, after json.RawMessage
		err = row.Scan(&e.ID, &e.At, &e.Actor, &e.Action, &e.Object, &e.Reason, &before, &after)
		if before != nil {
			e.Before = before
		}
		if after != nil {
			e.After = after
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	return entries, nil
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
