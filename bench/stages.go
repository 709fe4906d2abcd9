package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

func (b *bench) relay(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.fillOutbox(ctx, b.o.rows); err != nil {
		return err
	}
	return b.stage(ctx, r, "relay", "rows", topics.Source(r.system, "invoice"), b.o.rows)
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
	return b.stage(ctx, r, "normalize", "invoices", r.financeInvoices, b.o.rows)
}

// stage runs a stage until its output topic holds n records.
func (b *bench) stage(ctx context.Context, r *rig, name, what, output string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p, err := r.start(ctx, name, "run")
	if err != nil {
		return err
	}
	rate, err := b.throughput(ctx, output, n)
	if err != nil {
		return err
	}
	b.report.add(name, what, what+"/s", rate)
	return p.usage(&b.report, name, n)
}

// publish measures from the start of its first commit, seen by polling the table, to the last invoice.
func (b *bench) publish(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	n := b.publishRows()
	distinct := min(n, keys)
	if err := b.produce(ctx, n, r.financeRecord); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p, err := r.start(ctx, "publish", "run")
	if err != nil {
		return err
	}
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
		time.Sleep(20 * time.Millisecond)
	}
	b.report.add("publish", "invoices", "invoices/s", float64(n-already)/time.Since(first).Seconds())
	return p.usage(&b.report, "publish", n)
}

// latency writes at a steady rate and measures from the acknowledged commit to the consumer.
func (b *bench) latency(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	p, err := r.start(ctx, "relay", "run")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	committed, seen := map[string]time.Time{}, map[string]time.Time{}
	var consumer sync.WaitGroup
	consumer.Go(func() { b.arrivals(ctx, topics.Source(r.system, "invoice"), &mu, seen) })
	const warmUp, measured = 3 * time.Second, 10 * time.Second
	begin := time.Now()
	if err := r.write(ctx, warmUp+measured, b.o.rate, &mu, committed); err != nil {
		return err
	}
	var ms []float64
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		mu.Lock()
		ms = ms[:0]
		missing := 0
		for id, at := range committed {
			arrived, ok := seen[id]
			if !ok {
				missing++
			} else if at.Sub(begin) > warmUp {
				ms = append(ms, float64(arrived.Sub(at).Microseconds())/1000)
			}
		}
		mu.Unlock()
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d rows did not arrive within 10 s", missing, len(committed))
		}
	}
	cancel()
	consumer.Wait()
	slices.Sort(ms)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p95", .95}, {"p99", .99}, {"maximum", 1}} {
		i := min(len(ms)-1, int(q.at*float64(len(ms))))
		b.report.add("latency", fmt.Sprintf("%s at %d a second", q.name, b.o.rate), "ms", ms[i])
	}
	return p.usage(&b.report, "latency", len(committed))
}

// write commits rate events a second from eight connections, each in a statement and transaction of its own.
func (r *rig) write(ctx context.Context, d time.Duration, rate int, mu *sync.Mutex, committed map[string]time.Time) error {
	const writers = 8
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			tick := time.NewTicker(time.Second * writers / time.Duration(rate))
			defer tick.Stop()
			for n, end := 0, time.Now().Add(d); time.Now().Before(end); n++ {
				<-tick.C
				id := fmt.Sprintf("%d-%d", w, n)
				key := strconv.Itoa((w*7919 + n) % 1000)
				err := outbox.Write(ctx, r.source, outbox.Event{
					Tenant: "acme", Entity: "invoice", Key: key, Operation: topics.Upsert, SchemaVersion: id,
					Payload: fmt.Appendf(nil, `{"total": "31.50", "memo": "%0460d"}`, n),
				})
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				committed[id] = time.Now()
				mu.Unlock()
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// arrivals notes when a read_committed consumer sees each record, until ctx ends.
func (b *bench) arrivals(ctx context.Context, topic string, mu *sync.Mutex, seen map[string]time.Time) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers()...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMinBytes(1), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return
	}
	defer cl.Close()
	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, -1)
		now := time.Now()
		mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) {
			for _, h := range rec.Headers {
				if h.Key == topics.HeaderDataSchema {
					seen[string(h.Value)] = now
				}
			}
		})
		mu.Unlock()
	}
}
