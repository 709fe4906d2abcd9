package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// scaled is a size of a run with the usual number of rows, in proportion to the rows of this one.
func (b *bench) scaled(n int) int { return n * b.o.rows / defaultRows }

// drain measures the relay once, over what the rig's outbox holds of invoices, and returns rows a second.
func (r *rig) drain(ctx context.Context, rows int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	p, err := r.start("relay", "run")
	if err != nil {
		return 0, err
	}
	rate, err := r.b.throughput(ctx, r.sourceInvoices, rows, p.failed)
	return rate, errors.Join(err, p.stop())
}

// drainSeries adds the drain of a backlog that is written for it.
func (b *bench) drainSeries(ctx context.Context, scenario, measure string, o rigOptions, s series) error {
	r, err := b.newRigOf(ctx, o)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.fillSeries(ctx, s); err != nil {
		return err
	}
	rate, err := r.drain(ctx, s.rows)
	if err != nil {
		return fmt.Errorf("draining with %s: %w", measure, err)
	}
	b.report.add(scenario, measure, "records/s", rate)
	if s.payload > usualPayload {
		b.report.add(scenario, measure+", MB/s", "MB/s", rate*float64(s.payload)/1e6)
	}
	return nil
}

const usualPayload = 500 // bytes

// scaleBacklog repeats the short ones: a fraction of a second says little.
func (b *bench) scaleBacklog(ctx context.Context) error {
	for _, p := range []struct{ rows, times int }{{100_000, 5}, {1_000_000, 2}, {10_000_000, 1}} {
		for range p.times {
			s := series{rows: max(minRows, b.scaled(p.rows)), tenants: 1, payload: usualPayload}
			const row = 2_000                                                // bytes, in Postgres with its log and in Kafka
			if err := b.servers.needDisk(uint64(s.rows) * row); err != nil { //nolint:gosec // not negative
				return err
			}
			if err := b.drainSeries(ctx, "backlog", strconv.Itoa(s.rows)+" rows", rigOptions{}, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) scaleTenants(ctx context.Context) error {
	for _, n := range []int{1, 100, 10_000} {
		s := series{rows: b.o.rows, tenants: n, payload: usualPayload}
		if err := b.drainSeries(ctx, "tenants", strconv.Itoa(n)+" tenants", rigOptions{}, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scalePartitions(ctx context.Context) error {
	for _, n := range []int{1, 8, 64} {
		s := series{rows: b.o.rows, tenants: 1, payload: usualPayload}
		if err := b.drainSeries(ctx, "partitions", strconv.Itoa(n)+" partitions", rigOptions{partitions: n}, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scalePayload(ctx context.Context) error {
	for _, p := range []struct{ bytes, rows int }{{200, 500_000}, {2_000, 200_000}, {20_000, 20_000}, {200_000, 4_000}} {
		s := series{rows: b.scaled(p.rows), tenants: 1, payload: p.bytes}
		if err := b.drainSeries(ctx, "payload", fmt.Sprintf("%g kB", float64(p.bytes)/1000), rigOptions{}, s); err != nil {
			return err
		}
	}
	return nil
}

// scaleWriters has others write while the backlog is drained, of another entity, whose rows go to another topic. They share a rate:
// what changes is how many transactions are open at once, and not how much of the machine they take.
func (b *bench) scaleWriters(ctx context.Context) error {
	const times = 3
	for range times {
		for _, writers := range []int{0, 1, 50, 200} {
			rate, err := b.drainBeside(ctx, func(ctx context.Context, r *rig) error { return r.writeBeside(ctx, writers) })
			if err != nil {
				return fmt.Errorf("draining beside %d writers: %w", writers, err)
			}
			b.report.add("writers", strconv.Itoa(writers)+" writers", "records/s", rate)
		}
	}
	return nil
}

// scaleHeld has a transaction open that has written an outbox row and a table of its own.
func (b *bench) scaleHeld(ctx context.Context) error {
	const times = 3
	for range times {
		for _, k := range []struct {
			measure string
			beside  func(context.Context, *rig) error
		}{
			{"no transaction open", func(context.Context, *rig) error { return nil }},
			{"a transaction held open", func(ctx context.Context, r *rig) error { return r.hold(ctx) }},
		} {
			rate, err := b.drainBeside(ctx, k.beside)
			if err != nil {
				return fmt.Errorf("draining with %s: %w", k.measure, err)
			}
			b.report.add("held", k.measure, "records/s", rate)
		}
	}
	return nil
}

// drainBeside drains a backlog while something else goes on in the source's database, until its context ends.
func (b *bench) drainBeside(ctx context.Context, beside func(context.Context, *rig) error) (float64, error) {
	r, err := b.newBacklogOf(ctx, rigOptions{more: true})
	if err != nil {
		return 0, err
	}
	defer r.close()
	going, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- beside(going, r) }()
	const settle = time.Second // the connections of 200 writers
	time.Sleep(settle)
	rate, err := r.drain(ctx, b.o.rows)
	stop()
	return rate, errors.Join(err, <-ended)
}

// writeBeside writes payments from many connections, together 1,000 transactions a second, until ctx ends.
func (r *rig) writeBeside(ctx context.Context, writers int) error {
	if writers == 0 {
		return nil
	}
	const together = 1_000
	interval := time.Second * time.Duration(writers) / together
	var n atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			conn, err := pgx.Connect(ctx, r.sourceURL)
			if err != nil {
				return unlessEnded(ctx, err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			next := time.Now().Add(time.Duration(w) * interval / time.Duration(writers)) // not all at the same moment
			for ; ctx.Err() == nil; next = next.Add(interval) {
				time.Sleep(time.Until(next))
				if err := r.writePayment(ctx, conn, int(n.Add(1))); err != nil {
					return unlessEnded(ctx, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *rig) writePayment(ctx context.Context, db outbox.Execer, n int) error {
	return outbox.Write(ctx, db, outbox.Event{
		Tenant: "acme", Entity: "payment", Key: strconv.Itoa(n), Operation: topics.Upsert, Payload: r.sourcePayload(n),
	})
}

// hold keeps a transaction with an outbox row open until ctx ends.
func (r *rig) hold(ctx context.Context) error {
	tx, err := r.source.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := r.writePayment(ctx, tx, 1); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// unlessEnded leaves out the error of a context that has ended.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
