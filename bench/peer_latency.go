package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// debeziumLatency measures at 2,000 rows a second and at 500, after a time at the higher rate that is not counted.
func debeziumLatency(scenario string, exactlyOnce bool) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout)
		defer cancel()
		d, err := b.newDebezium(ctx, exactlyOnce, map[string]string{
			"poll.interval.ms": "5", "producer.override.linger.ms": "0", "producer.override.compression.type": "none",
			"producer.override.batch.size": "16384",
		})
		if err != nil {
			return err
		}
		defer d.close()
		warm, err := d.flow(ctx, "warmup", 2_000)
		if err != nil {
			return err
		}
		if err := warm.load(ctx, time.Now(), 5*warm.rate, func(int) {}); err != nil {
			return err
		}
		for _, rate := range []int{500, 2_000} {
			if err := d.latency(ctx, scenario, rate); err != nil {
				return d.said(err)
			}
		}
		return nil
	}
}

func (d *debezium) flow(ctx context.Context, name string, rate int) (flow, error) {
	topic, err := d.topic(ctx, name, defaultPartitions)
	return flow{rate: rate, perCommit: 1, commit: d.commitTo(topic), arrivals: d.b.arrivalsOn(rowOfInvoice, topic)}, err
}

// latency measures at a rate. The names of the lower one's measures say it.
func (d *debezium) latency(ctx context.Context, scenario string, rate int) error {
	b := d.b
	f, err := d.flow(ctx, fmt.Sprintf("rate%d", rate), rate)
	if err != nil {
		return err
	}
	m := b.meter(d.PID())
	if rate >= 2_000 {
		n, err := b.measureFlow(ctx, scenario, f)
		return errors.Join(err, m.add(scenario, n))
	}
	lower, err := b.apart(func() error {
		_, err := b.measureFlow(ctx, scenario, f)
		return err
	})
	for _, x := range lower {
		b.report.add(scenario, fmt.Sprintf("%s at %d/s", x.Measure, rate), x.Unit, x.Values[0])
	}
	return err
}

// commitTo writes rows with a destination, all of a call in one transaction.
func (r *rig) commitTo(topic string) func(ctx context.Context, first, n int) error {
	const insert = `insert into outbox (aggregatetype, aggregateid, type, payload)
		select $1, key, 'upsert', payload::jsonb from unnest($2::text[], $3::text[]) as u(key, payload)`
	return func(ctx context.Context, first, n int) error {
		key, payload := make([]string, n), make([]string, n)
		for i := range n {
			key[i], payload[i] = fmt.Sprintf("acme/%s/invoice-%d", r.system, (first+i)%keys), string(r.sourcePayload(first+i))
		}
		_, err := r.source.Exec(ctx, insert, topic, key, payload)
		return err
	}
}

func rowOfInvoice(rec *kgo.Record) (int, bool) {
	row, err := sequence(rec.Value)
	return row, err == nil
}
