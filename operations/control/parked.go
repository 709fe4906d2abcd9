package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/processors"
)

// ParkedOrder is an order about parked records of one partition, and what became of it.
type ParkedOrder struct {
	ID        string                  `json:"id"`
	Group     string                  `json:"group"`
	Topic     string                  `json:"topic"` // that the records were read from
	Partition int32                   `json:"partition"`
	Offsets   []int64                 `json:"offsets"`
	Action    processors.ParkedAction `json:"action"`
	Actor     string                  `json:"actor"`
	Reason    string                  `json:"reason"`
	At        time.Time               `json:"at"`
	DoneAt    time.Time               `json:"done_at,omitzero"` // zero: it waits for a running owner of the partition
	Applied   int                     `json:"applied"`          // records to which it was applied
	Missing   []int64                 `json:"missing"`          // offsets at which nothing was parked any more
	Problem   string                  `json:"problem,omitempty"`
}

// offsetsPerOrder is how many records an order takes: it is one transaction.
const offsetsPerOrder = 1000

const insertParkedOrder = `insert into leat_control.parked_orders (group_name, topic, partition, offsets, action, actor, reason)
values ($1, $2, $3, $4, $5, $6, $7) returning id::text, at`

// OrderParked orders something about parked records, and returns the orders, one for each partition and thousand records. They are
// carried out by the owners of the partitions, within seconds if those run; AwaitParked waits for that.
func OrderParked(ctx context.Context, db DB, op audit.Operator, action processors.ParkedAction, records []ParkedRecord) ([]ParkedOrder, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	switch action {
	case processors.ParkedRetry, processors.ParkedCancel, processors.ParkedDeadLetter:
	default:
		return nil, fmt.Errorf("unknown action %q: use retry, cancel or dead-letter", action)
	}
	orders := split(action, op, records)
	if len(orders) == 0 {
		return nil, errors.New("no parked record is selected")
	}
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		for i := range orders {
			o := &orders[i]
			err := tx.QueryRow(ctx, insertParkedOrder, o.Group, o.Topic, o.Partition, o.Offsets, o.Action, o.Actor, o.Reason).Scan(&o.ID, &o.At)
			if err != nil {
				return err
			}
			entry := audit.Entry{
				Actor: op.Name, Action: "parked " + string(action), Object: fmt.Sprintf("group %s %s/%d", o.Group, o.Topic, o.Partition),
				Reason: op.Reason, After: map[string]any{"order": o.ID, "offsets": o.Offsets},
			}
			if err := audit.Record(ctx, tx, entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ordering parked %s: %w", action, hint(err))
	}
	return orders, nil
}

// split makes orders of records: they stand by group, topic, partition and offset.
func split(action processors.ParkedAction, op audit.Operator, records []ParkedRecord) (orders []ParkedOrder) {
	for _, r := range slices.SortedFunc(slices.Values(records), compareParked) {
		last := len(orders) - 1
		if last < 0 || orders[last].Group != r.Group || orders[last].Topic != r.Topic || orders[last].Partition != r.Partition ||
			len(orders[last].Offsets) == offsetsPerOrder {
			orders = append(orders, ParkedOrder{
				Group: r.Group, Topic: r.Topic, Partition: r.Partition, Action: action, Actor: op.Name, Reason: op.Reason, Missing: []int64{},
			})
			last++
		}
		orders[last].Offsets = append(orders[last].Offsets, r.Offset)
	}
	return orders
}

const selectParkedOrders = `select id::text, group_name, topic, partition, offsets, action, actor, reason, at, done_at,
  coalesce(applied, 0), coalesce(missing, '{}'), problem
from leat_control.parked_orders where id = any ($1::uuid[]) order by group_name, topic, partition, at, offsets`

// Oldest first: a later order about the same record sees what the earlier one has left.
const selectOpenOrders = `select id::text, group_name, topic, partition, offsets, action, actor, reason, at, done_at,
  coalesce(applied, 0), coalesce(missing, '{}'), problem
from leat_control.parked_orders where done_at is null and group_name = $1 order by at, id limit 200`

func readParkedOrders(ctx context.Context, db audit.Queryer, sql string, arg any) ([]ParkedOrder, error) {
	rows, err := db.Query(ctx, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("reading orders about parked records: %w", hint(err))
	}
	orders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o ParkedOrder, err error) {
		var done *time.Time
		err = row.Scan(&o.ID, &o.Group, &o.Topic, &o.Partition, &o.Offsets, &o.Action, &o.Actor, &o.Reason, &o.At, &done,
			&o.Applied, &o.Missing, &o.Problem)
		if done != nil {
			o.DoneAt = *done
		}
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading orders about parked records: %w", hint(err))
	}
	return orders, nil
}

// AwaitParked waits until orders are carried out, at most for d, and returns what became of them. One that is not done waits for a
// running owner of its partition and is carried out then; Problem says whether one was heard of.
func AwaitParked(ctx context.Context, db DB, orders []ParkedOrder, d time.Duration) ([]ParkedOrder, error) {
	ids := make([]string, len(orders))
	for i, o := range orders {
		ids[i] = o.ID
	}
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := readParkedOrders(ctx, db, selectParkedOrders, ids)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(now, func(o ParkedOrder) bool { return o.DoneAt.IsZero() }) {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return now, explain(ctx, db, now)
		case <-tick.C:
		}
	}
}

// explain says for each order that waits what it waits for.
func explain(ctx context.Context, db DB, orders []ParkedOrder) error {
	ps, err := Processes(ctx, db)
	if err != nil {
		return err
	}
	for i := range orders {
		o := &orders[i]
		if !o.DoneAt.IsZero() || o.Problem != "" {
			continue
		}
		runs := slices.ContainsFunc(ps, func(p Process) bool { return p.Group == o.Group && p.Alive() })
		if o.Problem = "no process of group " + o.Group + " runs; it is carried out when one does"; runs {
			o.Problem = "no process has carried it out yet: the partition is being moved or read, or a batch is in flight"
		}
	}
	return nil
}

// Only of an order that is still open: after a rebalance two processes may believe that it is theirs to answer.
const (
	closeParkedOrder = `update leat_control.parked_orders set done_at = now(), applied = $2, missing = $3, problem = $4
where id = $1 and done_at is null`
	noteParkedOrder = `update leat_control.parked_orders set problem = $2 where id = $1 and done_at is null and problem <> $2`
)

// settleLimit bounds the time that an order may take: a batch in flight is waited for.
const settleLimit = time.Minute

// settle carries out the open orders of partitions that members own.
func (a *Agent) settle(ctx context.Context) {
	for _, m := range a.Members {
		if m.Settle == nil {
			continue
		}
		askCtx, cancel := context.WithTimeout(ctx, askLimit)
		open, err := readParkedOrders(askCtx, a.DB, selectOpenOrders, m.Group)
		cancel()
		if err != nil {
			return // the reader of orders warns of it
		}
		for _, o := range open {
			if err := a.settleOne(ctx, m, o); err != nil {
				a.Logger.Warn("carrying out an order about parked records", "order", o.ID, "error", err)
				break
			}
		}
	}
}

// settleOne carries out o if m owns its partition. If the process dies between the Kafka transaction and the row, the next owner
// finds the order open, learns from Kafka that it was carried out, and closes it with the same result.
func (a *Agent) settleOne(ctx context.Context, m Member, o ParkedOrder) error {
	settleCtx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	s, err := m.Settle(settleCtx, processors.ParkedOrder{
		ID: o.ID, Action: o.Action, Topic: o.Topic, Partition: o.Partition, Offsets: o.Offsets, Reason: said(o.Actor, o.Reason, time.Time{}),
	})
	var problem string
	switch {
	case errors.Is(err, processors.ErrNotOwned):
		return nil // another process does, or will
	case errors.Is(err, processors.ErrOrderRefused):
		problem, s.Missing = a.Hide(err.Error()), o.Offsets
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	askCtx, cancelAsk := context.WithTimeout(ctx, askLimit)
	defer cancelAsk()
	if s.Missing == nil {
		s.Missing = []int64{}
	}
	if _, err := a.DB.Exec(askCtx, closeParkedOrder, o.ID, s.Applied, s.Missing, problem); err != nil {
		return fmt.Errorf("closing it: %w", hint(err))
	}
	a.Logger.Info("order about parked records carried out", "order", o.ID, "action", string(o.Action), "actor", o.Actor, "topic", o.Topic,
		"partition", o.Partition, "applied", s.Applied, "missing", len(s.Missing), "problem", problem)
	return nil
}

// Selection says which parked records are meant. Its zero value means all of the group.
type Selection struct {
	Group   string   // needed
	Topics  []string // of the group; empty: all that have a retry topic
	Tenant  string
	Key     string // the whole record key
	Offsets []Offset
}

// Offset is a place on a topic.
type Offset struct {
	Topic     string
	Partition int32
	Offset    int64
}

// ParseOffset reads "topic/partition/offset".
func ParseOffset(s string) (Offset, error) {
	parts := strings.Split(s, "/")
	var o Offset
	if len(parts) == 3 {
		o.Topic = parts[0]
		if _, err := fmt.Sscanf(parts[1]+" "+parts[2], "%d %d", &o.Partition, &o.Offset); err == nil && fmt.Sprintf("%s/%d/%d", o.Topic, o.Partition, o.Offset) == s {
			return o, nil
		}
	}
	return o, fmt.Errorf("offset %q is not topic/partition/offset, such as source.shop.invoice/3/4711", s)
}

func (s *Selection) selects(r *ParkedRecord) bool {
	return (s.Tenant == "" || r.Tenant == s.Tenant) && (s.Key == "" || r.Key == s.Key) &&
		(len(s.Offsets) == 0 || slices.Contains(s.Offsets, Offset{r.Topic, r.Partition, r.Offset}))
}
