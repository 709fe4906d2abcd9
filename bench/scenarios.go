package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The groups of scenarios, in the order of the report.
const (
	groupLimits  = "limits"
	groupLeat    = "leat"
	groupScaling = "scaling"
	groupPeers   = "peers"
)

// minRows is the smallest backlog with which every scenario still measures something.
const minRows = 20_000

// scenario is one measurement. It adds its results to the report, under its own name unless it says otherwise.
type scenario struct {
	name, group, about string
	rounds             int           // at most; 0 is as many as were asked for
	takes              time.Duration // about how long one round takes, for the estimate before the first has shown it
	run                func(*bench, context.Context) error
}

func scenarios() []scenario {
	const long = 40 * time.Second
	peers := peerScenarios()
	for i := range peers {
		if peers[i].rounds == 0 && peers[i].takes >= long {
			peers[i].rounds = 1 // or a whole run would take an hour
		}
	}
	return slices.Concat(limitScenarios(), leatScenarios(), scalingScenarios(), peers)
}

func limitScenarios() []scenario {
	return []scenario{
		{name: "read", group: groupLimits, about: "limit: read the outbox by primary key, 10,000 rows a query", takes: 3 * time.Second, run: (*bench).readLimit},
		{name: "produce", group: groupLimits, about: "limit: produce the same records in transactions of 10,000", takes: 5 * time.Second, run: (*bench).produceLimit},
		{name: "consume", group: groupLimits, about: "limit: consume the same records, read_committed", takes: 5 * time.Second, run: (*bench).consumeLimit},
		{name: "copy", group: groupLimits, about: "limit: read, copy and commit in transactions of 10,000", takes: 8 * time.Second, run: (*bench).copyLimit},
		{name: "insert", group: groupLimits, about: "limit: insert outbox rows, 1,000 a statement, two connections", rounds: 2, takes: 15 * time.Second, run: (*bench).insertLimit},
		{name: "upsert", group: groupLimits, about: "limit: bare guarded upsert of invoices alone, 1,000 a statement, two connections", takes: 4 * time.Second, run: (*bench).upsertLimit},
		{name: "upsert-flat", group: groupLimits, about: "limit: bare guarded upsert of invoices and their link rows, as publish-flat writes them", takes: 5 * time.Second, run: (*bench).upsertFlatLimit},
		{name: "upsert-rows", group: groupLimits, about: "limit: bare guarded upsert of invoices, lines and link rows, as publish writes them", takes: 6 * time.Second, run: (*bench).upsertRowsLimit},
	}
}

func leatScenarios() []scenario {
	return []scenario{
		{name: "relay", group: groupLeat, about: "relay: drain a backlog, exactly once", takes: 6 * time.Second, run: (*bench).relay},
		{name: "latency-500", group: groupLeat, about: "relay: commit in the source until a read_committed consumer sees it, 500 rows/s", rounds: 2, takes: 16 * time.Second, run: latencyAt(500)},
		{name: "latency-2000", group: groupLeat, about: "relay: commit in the source until a read_committed consumer sees it, 2,000 rows/s", takes: 18 * time.Second, run: latencyAt(2_000)},
		{name: "latency-10000", group: groupLeat, about: "relay: the same, 10,000 rows/s, five in a commit", rounds: 2, takes: 18 * time.Second, run: latencyAt(10_000)},
		{name: "normalize", group: groupLeat, about: "normalize: map, check the contract, exactly once", takes: 10 * time.Second, run: (*bench).normalize},
		{name: "publish", group: groupLeat, about: "publish: invoices with lines and links to the reporting tables", takes: 10 * time.Second, run: (*bench).publish},
		{name: "publish-flat", group: groupLeat, about: "publish: invoices without lines, with their link rows", takes: 8 * time.Second, run: (*bench).publishFlat},
		{name: "line-500", group: groupLeat, about: "the whole line: commit in the source until the row is in the reporting table, 500 rows/s", rounds: 2, takes: 18 * time.Second, run: lineAt(500)},
		{name: "line-2000", group: groupLeat, about: "the whole line, 2,000 rows/s", takes: 20 * time.Second, run: lineAt(2_000)},
		{name: "source", group: groupLeat, about: "source: business transactions with and without the outbox", takes: 30 * time.Second, run: (*bench).source},
		{name: "start", group: groupLeat, about: "relay: start of the process to the first record, 1,000 rows waiting", takes: 10 * time.Second, run: (*bench).start},
		{name: "failover", group: groupLeat, about: "relay: kill -9 of the owner under load until a record committed later is seen", takes: 25 * time.Second, run: (*bench).failover},
		{name: "verify", group: groupLeat, about: "verify: every row from the outbox to the reporting tables, record by record", rounds: 1, takes: 40 * time.Second, run: (*bench).verify},
	}
}

func scalingScenarios() []scenario {
	return []scenario{
		{name: "backlog", group: groupScaling, about: "relay drain: rows of the backlog", rounds: 1, takes: 4 * time.Minute, run: (*bench).scaleBacklog},
		{name: "tenants", group: groupScaling, about: "relay drain: tenants", rounds: 1, takes: 40 * time.Second, run: (*bench).scaleTenants},
		{name: "partitions", group: groupScaling, about: "relay drain: partitions of the topic", rounds: 1, takes: 40 * time.Second, run: (*bench).scalePartitions},
		{name: "payload", group: groupScaling, about: "relay drain: size of the payload", rounds: 1, takes: time.Minute, run: (*bench).scalePayload},
		{name: "writers", group: groupScaling, about: "relay drain: concurrent writers, together 1,000 transactions a second", rounds: 1, takes: time.Minute, run: (*bench).scaleWriters},
		{name: "held", group: groupScaling, about: "relay drain: a writing transaction held open for the whole run", rounds: 1, takes: 30 * time.Second, run: (*bench).scaleHeld},
	}
}

// measure runs scenarios round by round, so that what else the machine does falls on all alike. One that fails is left out of
// later rounds; the others go on, and the error names all that failed.
func (b *bench) measure(ctx context.Context, todo []scenario) error {
	if err := b.warmUp(ctx, slices.ContainsFunc(todo, scenario.paced)); err != nil {
		return fmt.Errorf("warming up: %w", err)
	}
	var errs []error
	plan := newPlan(todo, b.o.rounds)
	for step, ok := plan.next(); ok; step, ok = plan.next() {
		_, _ = fmt.Fprintf(b.log, "round %d of %d, %s: %s (about %s left)\n", step.round, b.o.rounds, step.name, step.about, plan.left().Round(10*time.Second))
		begin := time.Now()
		err := step.run(b, ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		took := time.Since(begin)
		plan.took(step.name, took)
		b.report.took(step.name, took)
		if err != nil {
			_, _ = fmt.Fprintf(b.log, "%s FAILED after %s: %v\n", step.name, took.Round(time.Second), err)
			errs = append(errs, fmt.Errorf("measuring %s: %w", step.name, err))
			plan.drop(step.name)
			b.report.Failed = append(b.report.Failed, step.name)
		}
	}
	return errors.Join(errs...)
}

// paced reports whether s measures a steady load of small transactions.
func (s scenario) paced() bool {
	return strings.Contains(s.name, "latency") || strings.HasPrefix(s.name, "line-")
}

// warmUp runs the stages without counting: a JVM that has just started compiles while it works. Small transactions take the broker longest:
// after a minute of them one takes it half of the processor time that it took at first.
func (b *bench) warmUp(ctx context.Context, paced bool) error {
	_, _ = fmt.Fprintln(b.log, "warming up")
	counted, rows := b.report.Results, b.o.rows
	defer func() { b.report.Results, b.o.rows = counted, rows }()
	b.o.rows = max(minRows, rows/5)
	all := []func(*bench, context.Context) error{(*bench).produceLimit, (*bench).normalize}
	if paced {
		const seconds = 60
		all = append(all, slices.Repeat([]func(*bench, context.Context) error{latencyAt(2_000)}, seconds/int((flowWarmUp+flowMeasured).Seconds())+1)...)
	}
	for _, warm := range all {
		if err := warm(b, ctx); err != nil {
			return err
		}
	}
	return nil
}
