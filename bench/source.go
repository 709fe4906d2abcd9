package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	makeBusiness = `create table invoices (id int primary key, status text not null, total numeric not null, changed_at timestamptz not null)`
	fillBusiness = `insert into invoices select i, 'open', 31.50, now() from generate_series(1, 100000) i`
	changeSQL    = `update invoices set status = 'paid', total = total + 1, changed_at = now() where id = $1`
	eventSQL     = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		values (gen_random_uuid(), 'acme', 'invoice', $1::text, 'upsert', $2)`
	// changeAndEventSQL takes the lock of the business row before the event is inserted: the outer insert reads what the update returns.
	changeAndEventSQL = `with changed as (` + changeSQL + ` returning id)
		insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'acme', 'invoice', id::text, 'upsert', $2 from changed`
	// A bare table is the least that a second row costs.
	makeBare         = `create table bare_events (id bigint generated always as identity primary key, payload bytea not null)`
	changeAndBareSQL = `with changed as (` + changeSQL + ` returning id) insert into bare_events (payload) select $2 from changed`
)

// source measures what the outbox costs the source's own transactions, from a few clients to many. It has no relay: only its polls
// would be added.
func (b *bench) source(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	for _, sql := range []string{makeBusiness, fillBusiness, "vacuum analyze invoices", makeBare} {
		if _, err := r.source.Exec(ctx, sql); err != nil {
			return err
		}
	}
	payload := r.sourcePayload(1)
	kinds := []struct {
		name string
		run  func(context.Context, *pgx.Conn, int) error
	}{
		{"business", func(ctx context.Context, c *pgx.Conn, id int) error {
			_, err := c.Exec(ctx, changeSQL, id)
			return err
		}},
		{"business+bare row in one statement", func(ctx context.Context, c *pgx.Conn, id int) error {
			_, err := c.Exec(ctx, changeAndBareSQL, id, payload)
			return err
		}},
		{"business+outbox in one statement", func(ctx context.Context, c *pgx.Conn, id int) error {
			_, err := c.Exec(ctx, changeAndEventSQL, id, payload)
			return err
		}},
		{"begin, business, commit", func(ctx context.Context, c *pgx.Conn, id int) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, changeSQL, id)
				return err
			})
		}},
		{"begin, business, outbox, commit", func(ctx context.Context, c *pgx.Conn, id int) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, changeSQL, id); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, eventSQL, strconv.Itoa(id), payload)
				return err
			})
		}},
	}
	for _, clients := range []int{1, 8, 32} {
		for _, k := range kinds {
			rate, err := r.transactions(ctx, clients, k.run)
			if err != nil {
				return fmt.Errorf("running %s with %d clients: %w", k.name, clients, err)
			}
			b.report.add("source", fmt.Sprintf("%s, %d clients", k.name, clients), "tx/s", rate)
		}
	}
	return nil
}

// transactions runs as many as the clients can in a while, after a short one that is not counted, and returns how many a second.
func (r *rig) transactions(ctx context.Context, clients int, run func(context.Context, *pgx.Conn, int) error) (float64, error) {
	const warmUp, measured = 300 * time.Millisecond, 2 * time.Second
	conns := make([]*pgx.Conn, clients)
	for i := range conns {
		c, err := pgx.Connect(ctx, r.sourceURL)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close(ctx) }()
		conns[i] = c
	}
	var done atomic.Int64
	begin := time.Now()
	var g errgroup.Group
	for _, c := range conns {
		g.Go(func() error {
			for since := time.Since(begin); since < warmUp+measured; since = time.Since(begin) {
				if err := run(ctx, c, 1+rand.IntN(100_000)); err != nil { //nolint:gosec // not a secret
					return err
				}
				if since >= warmUp {
					done.Add(1)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(done.Load()) / (time.Since(begin) - warmUp).Seconds(), err
}
