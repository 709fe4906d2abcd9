package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stageTimeout is how long a stage may take for its backlog.
const stageTimeout = 10 * time.Minute

func (b *bench) relay(ctx context.Context) error {
	r, err := b.newBacklog(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	return b.stage(ctx, r, "relay", "relay", r.sourceInvoices, b.o.rows)
}

func (b *bench) normalize(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	if err := b.produce(ctx, b.o.rows, r.sourceRecord); err != nil {
		return err
	}
	return b.stage(ctx, r, "normalize", "normalize", r.financeInvoices, b.o.rows)
}

// stage runs a stage until its output topic holds n records.
func (b *bench) stage(ctx context.Context, r *rig, scenario, name, output string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	p, err := r.start(name, "run")
	if err != nil {
		return err
	}
	m := b.meter(p.PID())
	rate, err := b.throughput(ctx, output, n, p.failed)
	if err != nil {
		return err
	}
	b.report.add(scenario, "records/s", "records/s", rate)
	if err := m.add(scenario, n); err != nil {
		return err
	}
	return p.stop()
}

func (b *bench) publish(ctx context.Context) error {
	return b.publishing(ctx, "publish", (*rig).financeRecord)
}

func (b *bench) publishFlat(ctx context.Context) error {
	return b.publishing(ctx, "publish-flat", (*rig).flatRecord)
}

// publishing measures from the start of the first commit, seen by polling the table, to the last invoice. Record i has the outbox id
// i+1 and the key i%keys.
func (b *bench) publishing(ctx context.Context, scenario string, record func(*rig, int) *kgo.Record) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	n := b.publishRows()
	if err := b.produce(ctx, n, func(i int) *kgo.Record { return record(r, i) }); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stageTimeout)
	defer cancel()
	distinct := min(n, keys)
	p, err := r.start("publish", "run")
	if err != nil {
		return err
	}
	m := b.meter(p.PID())
	var first time.Time
	var already int
	for {
		// The newest sequence of every invoice is among the last `distinct` records.
		var done, some int
		if err := r.reporting.QueryRow(ctx, "select count(*) filter (where sequence > $1), count(*) from reporting.links", n-distinct).
			Scan(&done, &some); err != nil {
			return err
		}
		if first.IsZero() && some > 0 {
			first, already = time.Now(), some
		}
		if done == distinct {
			break
		}
		if err := p.failed(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.report.add(scenario, "records/s", "records/s", float64(n-already)/time.Since(first).Seconds())
	if err := m.add(scenario, n); err != nil {
		return err
	}
	return p.stop()
}
