package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// flow is a steady load and where it arrives. Rows are numbered from 0.
type flow struct {
	rate      int                                             // rows a second
	perCommit int                                             // rows in a business transaction; 0 is 1
	commit    func(ctx context.Context, first, n int) error   // commits rows first to first+n-1; returns when that is acknowledged
	arrivals  func(ctx context.Context, seen func(int)) error // reports each row that can be seen, until ctx ends
}

const (
	flowWarmUp   = 3 * time.Second
	flowMeasured = 10 * time.Second
	flowWriters  = 8
	flowLate     = 30 * time.Second // after the last commit everything has to have arrived by then
)

// measureFlow adds the percentiles of the time from the acknowledgement of a commit to the arrival. The load is an open loop: a
// commit that is due does not wait for the ones before it, as far as eight connections allow.
func (b *bench) measureFlow(ctx context.Context, scenario string, f flow) (rows int, err error) {
	f.perCommit = max(1, f.perCommit)
	commits := int((flowWarmUp+flowMeasured).Seconds()*float64(f.rate)) / f.perCommit
	rows = commits * f.perCommit
	committed, arrived := make([]atomic.Int64, rows), make([]atomic.Int64, rows)
	begin := time.Now()
	since := func() int64 { return int64(time.Since(begin)) + 1 } // 0 is "not yet"

	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() {
		watched <- f.arrivals(watching, func(row int) {
			if row < rows {
				arrived[row].CompareAndSwap(0, since())
			}
		})
	}()
	if err := f.load(ctx, begin, commits, func(row int) { committed[row].Store(since()) }); err != nil {
		return rows, err
	}
	for deadline := time.Now().Add(flowLate); ; time.Sleep(20 * time.Millisecond) {
		missing := 0
		for i := range arrived {
			if arrived[i].Load() == 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			return rows, fmt.Errorf("%d of %d rows did not arrive within %s", missing, rows, flowLate)
		}
	}
	stop()
	if err := <-watched; err != nil {
		return rows, err
	}
	var ms []float64
	for i := range committed {
		if at := committed[i].Load(); at > int64(flowWarmUp) {
			ms = append(ms, float64(arrived[i].Load()-at)/float64(time.Millisecond))
		}
	}
	b.report.percentiles(scenario, ms)
	return rows, nil
}

func (f *flow) load(ctx context.Context, begin time.Time, commits int, committed func(row int)) error {
	interval := time.Second * time.Duration(f.perCommit) / time.Duration(f.rate)
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range flowWriters {
		g.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= commits {
					return nil
				}
				time.Sleep(time.Until(begin.Add(time.Duration(n) * interval)))
				if err := f.commit(ctx, n*f.perCommit, f.perCommit); err != nil {
					return err
				}
				for i := range f.perCommit {
					committed(n*f.perCommit + i)
				}
			}
		})
	}
	return g.Wait()
}

func (r *report) percentiles(scenario string, ms []float64) {
	slices.Sort(ms)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50 ms", .5}, {"p95 ms", .95}, {"p99 ms", .99}, {"max ms", 1}} {
		r.add(scenario, q.name, "ms", ms[min(len(ms)-1, int(q.at*float64(len(ms))))])
	}
}

// arrivalsOn reports what a read_committed consumer sees; id reads the number of a row from its record.
func (b *bench) arrivalsOn(id func(*kgo.Record) (int, bool), topic ...string) func(context.Context, func(int)) error {
	return func(ctx context.Context, seen func(int)) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.ConsumeTopics(topic...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.FetchMinBytes(1), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			return err
		}
		defer cl.Close()
		for ctx.Err() == nil {
			fetches := cl.PollRecords(ctx, -1)
			if err := fetches.Err(); err != nil && ctx.Err() == nil {
				return err
			}
			fetches.EachRecord(func(rec *kgo.Record) {
				if row, ok := id(rec); ok {
					seen(row)
				}
			})
		}
		return nil
	}
}

// latencyAt measures the relay. At high rates a business transaction writes five rows: the machine has not much more than 10,000
// commits a second in it, and all of them would go into the load.
func latencyAt(rate int) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		r, err := b.newRig(ctx)
		if err != nil {
			return err
		}
		defer r.close()
		p, err := r.start("relay", "run")
		if err != nil {
			return err
		}
		scenario, m := "latency-"+strconv.Itoa(rate), b.meter(p.PID())
		f := flow{rate: rate, commit: r.writeOutbox, arrivals: b.arrivalsOn(rowOfSchema, r.sourceInvoices)}
		if rate > 5_000 {
			f.perCommit = 5
		}
		rows, err := b.measureFlow(ctx, scenario, f)
		if err != nil {
			return err
		}
		if err := m.add(scenario, rows); err != nil {
			return err
		}
		return p.stop()
	}
}

// writeOutbox writes rows of about 500 bytes of payload; their number goes as the version of their schema.
func (r *rig) writeOutbox(ctx context.Context, first, n int) error {
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{
			Tenant: "acme", Entity: "invoice", Key: strconv.Itoa((first + i) % 1000), Operation: topics.Upsert, SchemaVersion: strconv.Itoa(first + i),
			Payload: fmt.Appendf(nil, `{"total": "31.50", "memo": "%0460d"}`, first+i),
		}
	}
	return outbox.Write(ctx, r.source, events...)
}

func rowOfSchema(rec *kgo.Record) (int, bool) {
	for _, h := range rec.Headers {
		if h.Key == topics.HeaderDataSchema {
			row, err := strconv.Atoi(string(h.Value))
			return row, err == nil
		}
	}
	return 0, false
}
