package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// lineAt measures all stages together: from the acknowledged commit of the business to when a reader finds the row in the
// reporting table.
func lineAt(rate int) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		r, err := b.newRig(ctx)
		if err != nil {
			return err
		}
		defer r.close()
		var pids []int
		for _, stage := range []string{"relay", "normalize", "publish"} {
			p, err := r.start(stage, "run")
			if err != nil {
				return err
			}
			pids = append(pids, p.PID())
		}
		scenario, m := "line-"+strconv.Itoa(rate), b.meter(pids...)
		rows, err := b.measureFlow(ctx, scenario, flow{rate: rate, commit: r.writeInvoices, arrivals: r.reported})
		if err != nil {
			return err
		}
		if err := r.failed(); err != nil {
			return err
		}
		return m.add(scenario, rows)
	}
}

// writeInvoices writes events of invoices that did not exist before, each named by the number of its row.
func (r *rig) writeInvoices(ctx context.Context, first, n int) error {
	events := make([]outbox.Event, n)
	for i := range events {
		row := first + i
		events[i] = outbox.Event{
			Tenant: "acme", Entity: "invoice", Key: "row-" + strconv.Itoa(row), Operation: topics.Upsert, Payload: r.sourcePayload(row),
		}
	}
	return outbox.Write(ctx, r.source, events...)
}

// recentSQL finds the rows at the end of the table. They are all new, so they stand at the end; looking at the last pages only
// costs the database next to nothing.
const recentSQL = `select source_id, (ctid::text::point)[0]::int from reporting.invoices where ctid >= $1::text::tid`

// reported reports the rows that a reader of the reporting database finds, who looks every 2 ms.
func (r *rig) reported(ctx context.Context, seen func(int)) error {
	const back = 64 // pages; concurrent transactions fill pages out of order
	page, known := 0, map[string]bool{}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		rows, err := r.reporting.Query(ctx, recentSQL, fmt.Sprintf("(%d,0)", max(0, page-back)))
		if err != nil {
			return unlessEnded(ctx, fmt.Errorf("looking for reported rows: %w", err))
		}
		var id string
		for rows.Next() {
			if err := rows.Scan(&id, &page); err != nil {
				rows.Close()
				return err
			}
			if row, err := strconv.Atoi(strings.TrimPrefix(id, "row-")); err == nil && !known[id] {
				known[id] = true
				seen(row)
			}
		}
		if err := rows.Err(); err != nil {
			return unlessEnded(ctx, err)
		}
		<-tick.C
	}
	return nil
}
