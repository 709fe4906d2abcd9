package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

func sourceKinds() []kind {
	source := func(w *world) *database { return w.source }
	return []kind{
		{"source_restart", sourceArea, 0, 2 * time.Second, restart(source, syscall.SIGINT), "fast shutdown of the source's PostgreSQL, started again"},
		{"source_crash", sourceArea, 0, 2 * time.Second, restart(source, syscall.SIGKILL), "SIGKILL of the source's PostgreSQL, started again: it recovers"},
		{"source_failover", sourceArea, 0, time.Second, failOver, "SIGKILL of the source's primary, its synchronous standby is promoted; a new standby is made"},
		{"source_connections", sourceArea, 500 * time.Millisecond, 3 * time.Second, fillConnections(source), "the source's table of connections is full"},
		{"source_timeouts", sourceArea, 500 * time.Millisecond, 3 * time.Second, statementTimeouts(source), "statement_timeout of 1 ms for everybody in the source"},
		{"source_hung_transaction", sourceArea, 2 * time.Second, 6 * time.Second, hungTransaction, "a transaction with an early id and an event stays open, then commits"},
		{"source_prepared_transaction", sourceArea, 2 * time.Second, 6 * time.Second, preparedTransaction, "the same, prepared and forgotten for a while"},
		{"source_schema_business", sourceArea, 0, 200 * time.Millisecond, alter("business_invoice"), "a column is added to the table of the business"},
		{"source_schema_outbox", sourceArea, 0, 200 * time.Millisecond, alter("leat.outbox"), "a nullable column is added to the outbox"},
		{"source_schema_entity", sourceArea, 0, 200 * time.Millisecond, changeEntity, "events have one more field from now on"},
	}
}

func reportingKinds() []kind {
	reporting := func(w *world) *database { return w.reporting }
	return []kind{
		{"reporting_restart", reportingArea, 0, 2 * time.Second, restart(reporting, syscall.SIGINT), "fast shutdown of the target, started again"},
		{"reporting_crash", reportingArea, 0, 2 * time.Second, restart(reporting, syscall.SIGQUIT), "immediate shutdown of the target, started again: it recovers"},
		{"reporting_connections", reportingArea, 500 * time.Millisecond, 3 * time.Second, fillConnections(reporting), "the target's table of connections is full"},
		{"reporting_timeouts", reportingArea, 500 * time.Millisecond, 3 * time.Second, statementTimeouts(reporting), "statement_timeout of 1 ms for everybody in the target"},
		{"reporting_locked", reportingArea, time.Second, 5 * time.Second, lockTarget, "somebody holds locks on all invoices of the target, or on the whole table"},
		{"reporting_disk_full", reportingArea, time.Second, 3 * time.Second, fillDisk, "the file system of the target is full; in half of the cases it cannot even write its log, and dies of it"},
	}
}

type pick func(*world) *database

type beginning = func(context.Context, *world, planned) (healer, error)

func restart(of pick, sig syscall.Signal) beginning {
	return func(_ context.Context, w *world, _ planned) (healer, error) {
		return of(w).start, of(w).stop(sig)
	}
}

func failOver(ctx context.Context, w *world, _ planned) (healer, error) {
	if err := w.source.caughtUp(ctx); err != nil {
		return nil, err
	}
	return w.source.addStandby, w.source.failOver(ctx)
}

// fillConnections ends the sessions of clients and takes every place before they are back, or as many as it gets.
func fillConnections(of pick) beginning {
	return func(ctx context.Context, w *world, _ planned) (healer, error) {
		d := of(w)
		if err := d.cut(ctx, "%"); err != nil {
			return nil, err
		}
		held := d.takeAll(ctx)
		return func(ctx context.Context) error {
			for _, conn := range held {
				_ = conn.Close(ctx)
			}
			return nil
		}, nil
	}
}

// takeAll opens connections as a client until the server refuses one.
func (d *database) takeAll(ctx context.Context) (held []*pgx.Conn) {
	for range connections {
		conn, err := pgx.Connect(ctx, d.url(d.address()))
		if err != nil {
			return held
		}
		held = append(held, conn)
	}
	return held
}

func statementTimeouts(of pick) beginning {
	return func(ctx context.Context, w *world, _ planned) (healer, error) {
		d := of(w)
		set := func(ctx context.Context, what string) error {
			if err := d.exec(ctx, "alter database "+d.name+" "+what); err != nil {
				return err
			}
			return d.cut(ctx, "%")
		}
		return func(ctx context.Context) error { return set(ctx, "reset statement_timeout") }, set(ctx, "set statement_timeout = 1")
	}
}

// hang begins a transaction with an early id and an event of a record of its own.
func hang(ctx context.Context, w *world) (pgx.Tx, *pgx.Conn, map[string]change, error) {
	conn, err := w.source.connect(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	hung := &writer{ledger: w.ledger, rnd: rand.New(rand.NewPCG(3, uint64(w.ledger.tried.Add(1))))}
	if _, err := tx.Exec(ctx, "insert into noise values (2)"); err != nil {
		return nil, nil, nil, err
	}
	id, c, err := hung.emit(ctx, tx, record{"acme", fmt.Sprintf("hung-%d", hung.rnd.Uint32())})
	return tx, conn, map[string]change{id: c}, err
}

func hungTransaction(ctx context.Context, w *world, _ planned) (healer, error) {
	tx, conn, events, err := hang(ctx, w)
	return func(ctx context.Context) error {
		defer func() { _ = conn.Close(ctx) }()
		if err := tx.Commit(ctx); err != nil {
			w.ledger.note(w.ledger.doubtful, events)
			return err
		}
		w.ledger.note(w.ledger.committed, events)
		return nil
	}, err
}

func preparedTransaction(ctx context.Context, w *world, _ planned) (healer, error) {
	const name = "'forgotten'"
	tx, conn, events, err := hang(ctx, w)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = tx.Exec(ctx, "prepare transaction "+name)
	return func(ctx context.Context) error {
		if err := w.source.exec(ctx, "commit prepared "+name); err != nil {
			w.ledger.note(w.ledger.doubtful, events)
			return err
		}
		w.ledger.note(w.ledger.committed, events)
		return nil
	}, err
}

// alter adds a column under load. It asks for the lock in short tries, as one does where others must go on.
func alter(table string) beginning {
	return func(ctx context.Context, w *world, _ planned) (healer, error) {
		column := fmt.Sprintf("added_%d", w.ledger.tried.Add(1))
		return nothing, again(ctx, func() error {
			return w.source.exec(ctx, "set lock_timeout = '300ms'", "alter table "+table+" add column "+column+" text")
		})
	}
}

func changeEntity(_ context.Context, w *world, _ planned) (healer, error) {
	w.ledger.shape.Add(1)
	return nothing, nil
}

func lockTarget(ctx context.Context, w *world, p planned) (healer, error) {
	conn, err := w.reporting.connect(ctx)
	if err != nil {
		return nil, err
	}
	sql := "select 1 from reporting.invoices for update"
	if p.Amount < 50 {
		sql = "lock table reporting.invoices in access exclusive mode"
	}
	_, err = conn.Exec(ctx, "begin; "+sql)
	return func(ctx context.Context) error { return conn.Close(ctx) }, err
}

// fillDisk fills the file system of the target. With Amount below 50 it also makes the server begin a new file of its write-ahead log, which
// it cannot survive.
func fillDisk(ctx context.Context, w *world, p planned) (healer, error) {
	if w.mounted != nil {
		w.note("reporting_disk_full was replaced by statement timeouts: mounting a small file system: %v", w.mounted)
		return statementTimeouts(func(w *world) *database { return w.reporting })(ctx, w, p)
	}
	ballast := filepath.Join(w.reporting.base, "ballast")
	if err := fill(ballast); !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("filling the disk of the target: %w", err)
	}
	if p.Amount < 50 {
		w.reporting.wasteLog(ctx)
	}
	return func(ctx context.Context) error {
		if err := os.Remove(ballast); err != nil {
			return err
		}
		answered := w.reporting.exec(ctx, "checkpoint")
		if answered == nil {
			return nil
		}
		w.reporting.primary.Kill() // it tries to recover for ever, or has given up: an operator starts it again
		return w.reporting.start(ctx)
	}, nil
}

// wasteLog makes the server begin new files of its write-ahead log until it answers no more.
func (d *database) wasteLog(ctx context.Context) {
	for range 8 {
		if d.exec(ctx, "create table if not exists filler ()", "drop table filler", "select pg_switch_wal()") != nil {
			return
		}
	}
}

func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			if len(block) == 1 {
				return err
			}
			block = block[:len(block)/2]
		}
	}
	return nil
}
