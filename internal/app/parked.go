package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/processors"
)

// ParkedSelection says which parked records are meant.
type ParkedSelection struct {
	Group   string
	Topics  []string
	Tenant  string
	Key     string
	Offsets []string // topic/partition/offset
}

// Empty reports whether it means all records of the group.
func (s ParkedSelection) Empty() bool {
	return len(s.Topics)+len(s.Offsets) == 0 && s.Tenant == "" && s.Key == ""
}

// ParkedList is parked records.
type ParkedList []control.ParkedRecord

// Parked returns the parked records that s selects. It reads Kafka and needs no running process.
func (a *App) Parked(ctx context.Context, s ParkedSelection) (ParkedList, error) {
	if err := a.cfg.Require(config.NeedKafka); err != nil {
		return nil, err
	}
	selection := control.Selection{Group: s.Group, Topics: s.Topics, Tenant: s.Tenant, Key: s.Key}
	for _, text := range s.Offsets {
		o, err := control.ParseOffset(text)
		if err != nil {
			return nil, err
		}
		selection.Offsets = append(selection.Offsets, o)
	}
	kafka, err := a.KafkaOptions()
	if err != nil {
		return nil, err
	}
	list, err := control.ReadParked(ctx, kafka, selection)
	if list == nil {
		list = ParkedList{}
	}
	return list, err
}

// WriteText prints two lines for each record.
func (l ParkedList) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(l) == 0 {
		line("nothing is parked")
	}
	for _, r := range l {
		what := fmt.Sprintf("attempt %d failed", r.Attempt)
		switch {
		case r.Attempt == 0 && r.Disposition == "blocked-by":
			what = "waits behind an earlier record of its key"
		case r.Attempt == 0 && r.Disposition == "paused":
			what = "waits: its tenant is paused"
		case r.Attempt == 0:
			what = "waits"
		}
		if !r.NotBefore.IsZero() {
			what += ", next not before " + r.NotBefore.UTC().Format(time.RFC3339)
		}
		line("%s/%d/%d\t%s\t%s\t%s", r.Topic, r.Partition, r.Offset, r.Key, r.Disposition, what)
		if r.Error != "" {
			line("\t%s %s:\t%s", r.Class, r.Code, strings.ReplaceAll(r.Error, "\n", " "))
		}
	}
	return t.Flush()
}

// ParkedOrders are orders about parked records, and what became of them.
type ParkedOrders struct {
	Action  processors.ParkedAction `json:"action"`
	Applied int                     `json:"applied"`
	Missing int                     `json:"missing"` // records that were no longer parked
	Waiting int                     `json:"waiting"` // records whose partition has no running owner yet
	Orders  []control.ParkedOrder   `json:"orders"`
}

// Err is nil unless an order was refused.
func (o ParkedOrders) Err() error {
	for _, one := range o.Orders {
		if !one.DoneAt.IsZero() && one.Problem != "" {
			return fmt.Errorf("order %s about %s/%d: %s", one.ID, one.Topic, one.Partition, one.Problem)
		}
	}
	return nil
}

// WriteText says what was done, and what waits.
func (o ParkedOrders) WriteText(w io.Writer) error {
	done := map[processors.ParkedAction]string{
		processors.ParkedRetry: "are due now", processors.ParkedCancel: "were dropped", processors.ParkedDeadLetter: "were moved to the dead letters",
	}[o.Action]
	var b strings.Builder
	fmt.Fprintf(&b, "%d records %s\n", o.Applied, done)
	if o.Missing > 0 {
		fmt.Fprintf(&b, "%d records were no longer parked\n", o.Missing)
	}
	for _, one := range o.Orders {
		if one.Problem != "" {
			fmt.Fprintf(&b, "%s/%d, %d records: %s (order %s)\n", one.Topic, one.Partition, len(one.Offsets), one.Problem, one.ID)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// OrderParked orders something about the parked records that s selects, and waits at most for wait until it is done. What is not done by
// then is done when the owner of the partition runs.
func (a *App) OrderParked(ctx context.Context, action string, s ParkedSelection, reason string, wait time.Duration,
) (done ParkedOrders, err error) {
	op, err := a.operator(reason)
	if err != nil {
		return done, err
	}
	list, err := a.Parked(ctx, s)
	if err != nil {
		return done, err
	}
	done = ParkedOrders{Action: processors.ParkedAction(action), Orders: []control.ParkedOrder{}}
	if len(list) == 0 {
		return done, nil
	}
	err = a.withControl(ctx, func(db control.DB) error {
		orders, err := control.OrderParked(ctx, db, op, done.Action, list)
		if err != nil {
			return err
		}
		done.Orders, err = control.AwaitParked(ctx, db, orders, wait)
		return err
	})
	for _, o := range done.Orders {
		done.Applied += o.Applied
		done.Missing += len(o.Missing)
		if o.DoneAt.IsZero() {
			done.Waiting += len(o.Offsets)
		}
	}
	return done, err
}
