package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/processors"
)

// BreakerOrder is an order about the breakers of a group's members.
type BreakerOrder struct {
	Group  string                  `json:"group"`
	State  processors.BreakerState `json:"state"` // open or closed
	Actor  string                  `json:"actor"`
	Reason string                  `json:"reason"`
	At     time.Time               `json:"at"`
	Until  time.Time               `json:"until,omitzero"` // zero: until it is taken back
}

const (
	selectBreakerOrders = `select group_name, state, actor, reason, at, until, extract(epoch from until - now())::float8
from leat_control.breaker_orders where (until is null or until > now()) and ($1 = '' or group_name = $1) order by group_name`
	insertBreakerOrder = `insert into leat_control.breaker_orders (group_name, state, actor, reason, until) values ($1, $2, $3, $4, $5)
on conflict (group_name) do update set state = excluded.state, actor = excluded.actor, reason = excluded.reason, at = now(), until = excluded.until
returning at`
	deleteBreakerOrder = `delete from leat_control.breaker_orders where group_name = $1`
)

type heldBreaker struct {
	BreakerOrder
	left *float64
}

func readBreakerOrders(ctx context.Context, db audit.Queryer, group string) ([]heldBreaker, error) {
	rows, err := db.Query(ctx, selectBreakerOrders, group)
	if err != nil {
		return nil, fmt.Errorf("reading orders about breakers: %w", hint(err))
	}
	held, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h heldBreaker, err error) {
		var until *time.Time
		err = row.Scan(&h.Group, &h.State, &h.Actor, &h.Reason, &h.At, &until, &h.left)
		if until != nil {
			h.Until = *until
		}
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading orders about breakers: %w", hint(err))
	}
	return held, nil
}

// BreakerOrders returns the orders that hold, by group.
func BreakerOrders(ctx context.Context, db audit.Queryer) ([]BreakerOrder, error) {
	held, err := readBreakerOrders(ctx, db, "")
	if err != nil {
		return nil, err
	}
	orders := make([]BreakerOrder, len(held))
	for i, h := range held {
		orders[i] = h.BreakerOrder
	}
	return orders, nil
}

// OrderBreaker holds the breakers of a group open or closed (processors.Runner.Obey says what that means) until ReleaseBreaker, or
// until o.Until. It replaces an order that is there.
func OrderBreaker(ctx context.Context, db DB, op audit.Operator, o BreakerOrder, names Names) (BreakerOrder, error) {
	if err := cmp.Or(op.Validate(), names.check(Group, o.Group)); err != nil {
		return o, err
	}
	action := "breaker open"
	switch o.State {
	case processors.BreakerOpen:
	case processors.BreakerClosed:
		action = "breaker close"
	default:
		return o, fmt.Errorf("a breaker is held open or closed, not %q", o.State)
	}
	o.Actor, o.Reason = op.Name, op.Reason
	return o, changeBreaker(ctx, db, op, o.Group, action, &o, func(ctx context.Context, tx pgx.Tx, _ *BreakerOrder) error {
		var until *time.Time
		if !o.Until.IsZero() {
			until = &o.Until
		}
		return tx.QueryRow(ctx, insertBreakerOrder, o.Group, o.State, o.Actor, o.Reason, until).Scan(&o.At)
	})
}

// ErrNoBreakerOrder is returned by ReleaseBreaker for a group without one.
var ErrNoBreakerOrder = errors.New("has no order about its breaker")

// ReleaseBreaker lets the breakers of a group decide by themselves again, and returns the order that held.
func ReleaseBreaker(ctx context.Context, db DB, op audit.Operator, group string) (released BreakerOrder, err error) {
	if err := op.Validate(); err != nil {
		return released, err
	}
	err = changeBreaker(ctx, db, op, group, "breaker release", nil, func(ctx context.Context, tx pgx.Tx, before *BreakerOrder) error {
		if before == nil {
			return fmt.Errorf("group %s %w; leat breaker list shows them", group, ErrNoBreakerOrder)
		}
		released = *before
		_, err := tx.Exec(ctx, deleteBreakerOrder, group)
		return err
	})
	return released, err
}

func changeBreaker(ctx context.Context, db DB, op audit.Operator, group, action string, after *BreakerOrder,
	change func(ctx context.Context, tx pgx.Tx, before *BreakerOrder) error,
) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		held, err := readBreakerOrders(ctx, tx, group)
		if err != nil {
			return err
		}
		entry := audit.Entry{Actor: op.Name, Action: action, Object: "group " + group, Reason: op.Reason}
		var before *BreakerOrder
		if len(held) > 0 {
			before = &held[0].BreakerOrder
			entry.Before = before
		}
		if err := change(ctx, tx, before); err != nil {
			return err
		}
		if after != nil {
			entry.After = after
		}
		return audit.Record(ctx, tx, entry)
	})
	if err != nil && !errors.Is(err, ErrNoBreakerOrder) {
		err = fmt.Errorf("%s of group %s: %w", action, group, hint(err))
	}
	return err
}

// Breaker is the breaker of one running member of a group.
type Breaker struct {
	Stage    string `json:"stage"`
	Group    string `json:"group"`
	Instance string `json:"instance"`
	Alive    bool   `json:"alive"` // false: the process was not heard of lately, and this is what it said last
	processors.Breaker
}

// Breakers returns the breakers of the processes that were seen, by group and instance.
func Breakers(ctx context.Context, db audit.Queryer) ([]Breaker, error) {
	ps, err := Processes(ctx, db)
	if err != nil {
		return nil, err
	}
	list := []Breaker{}
	for _, p := range ps {
		var status struct {
			Breaker *processors.Breaker `json:"breaker"`
		}
		if err := json.Unmarshal(p.Status, &status); err != nil || status.Breaker == nil {
			continue // a relay and the others have none
		}
		list = append(list, Breaker{Stage: p.Stage, Group: p.Group, Instance: p.Instance, Alive: p.Alive(), Breaker: *status.Breaker})
	}
	return list, nil
}
