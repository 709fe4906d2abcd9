package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

const batch = 10_000

// readLimit reads the backlog as fast as the client can, and keeps nothing.
func (b *bench) readLimit(ctx context.Context) error {
	r, err := b.newBacklog(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	const page = `select id, event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at
		from leat.outbox where id > $1 order by id limit $2`
	begin, last, rows := time.Now(), int64(0), 0
	for {
		rs, err := r.source.Query(ctx, page, last, batch)
		if err != nil {
			return err
		}
		got := 0
		for rs.Next() {
			got++
			raw := rs.RawValues()[0]
			last = 0
			for _, c := range raw { // int8 in binary
				last = last<<8 | int64(c)
			}
		}
		if err := rs.Err(); err != nil {
			return err
		}
		if rows += got; got < batch {
			break
		}
	}
	b.report.add("read", "records/s", "records/s", float64(rows)/time.Since(begin).Seconds())
	return nil
}

// produceLimit produces records like the relay's, two transactional clients in turn.
func (b *bench) produceLimit(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	var cls [2]*kgo.Client
	for i := range cls {
		if cls[i], err = kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.TransactionalID(fmt.Sprint(r.system, i)), kgo.ProducerLinger(0),
			kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(2*batch),
			kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))); err != nil {
			return err
		}
		defer cls[i].Close()
	}
	records := make([]*kgo.Record, min(b.o.rows, 10*batch)) // made before the clock runs, used again
	for i := range records {
		records[i] = r.sourceRecord(i)
	}
	begin := time.Now()
	ended := make(chan error, 1)
	ended <- nil
	for at, n := 0, 0; at < b.o.rows; at, n = at+batch, n+1 {
		cl := cls[n%2]
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		promise := kgo.AbortingFirstErrPromise(cl)
		for i := range min(batch, b.o.rows-at) {
			rec := *records[(at+i)%len(records)]
			cl.Produce(ctx, &rec, promise.Promise())
		}
		if err := cl.Flush(ctx); err != nil {
			return err
		}
		if err := promise.Err(); err != nil {
			return err
		}
		if err := <-ended; err != nil {
			return err
		}
		go func() { ended <- cl.EndTransaction(ctx, kgo.TryCommit) }()
	}
	if err := <-ended; err != nil {
		return err
	}
	b.report.add("produce", "records/s", "records/s", float64(b.o.rows)/time.Since(begin).Seconds())
	return nil
}

// consumeLimit reads records like the relay's as fast as the client can, read_committed, and keeps nothing.
func (b *bench) consumeLimit(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	topic, err := r.topic(ctx, "consume", r.o.partitions)
	if err != nil {
		return err
	}
	if err := b.produce(ctx, b.o.rows, func(i int) *kgo.Record {
		rec := r.sourceRecord(i)
		rec.Topic = topic
		return rec
	}); err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer cl.Close()
	first, before, seen := time.Time{}, 0, 0
	for seen < b.o.rows {
		fetches := cl.PollRecords(ctx, batch)
		if err := fetches.Err(); err != nil {
			return err
		}
		if seen += fetches.NumRecords(); first.IsZero() {
			first, before = time.Now(), seen
		}
	}
	b.report.add("consume", "records/s", "records/s", float64(seen-before)/time.Since(first).Seconds())
	return nil
}

// copyLimit is a normalize that does nothing.
func (b *bench) copyLimit(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	if err := b.produce(ctx, b.o.rows, r.sourceRecord); err != nil {
		return err
	}
	sess, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(b.servers.brokers...), kgo.TransactionalID(r.system), kgo.ConsumerGroup(r.groups[1]),
		kgo.ConsumeTopics(r.sourceInvoices), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer sess.Close()
	var begin time.Time
	for done := 0; done < b.o.rows; {
		fetches := sess.PollRecords(ctx, batch)
		if begin.IsZero() && fetches.NumRecords() > 0 {
			begin = time.Now()
		}
		if err := sess.Begin(); err != nil {
			return err
		}
		promise := kgo.AbortingFirstErrPromise(sess.Client())
		fetches.EachRecord(func(in *kgo.Record) {
			sess.Produce(ctx, &kgo.Record{Topic: r.financeInvoices, Key: in.Key, Value: in.Value, Headers: in.Headers}, promise.Promise())
		})
		if ok, err := sess.End(ctx, promise.Err() == nil); err != nil || !ok {
			return fmt.Errorf("ending a transaction: %t, %w", ok, err)
		}
		done += fetches.NumRecords()
	}
	b.report.add("copy", "records/s", "records/s", float64(b.o.rows)/time.Since(begin).Seconds())
	return nil
}

// insertLimit writes outbox rows, 1,000 a statement, on two connections.
func (b *bench) insertLimit(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	const insert = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'acme', 'invoice', k, 'upsert', p from unnest($1::text[], $2::bytea[]) as i(k, p)`
	const connections, rows = 2, 1000
	begin := time.Now()
	var g errgroup.Group
	for w := range connections {
		g.Go(func() error {
			names, payloads := make([]string, rows), make([][]byte, rows)
			for at := w * rows; at < b.o.rows; at += connections * rows {
				for i := range rows {
					names[i], payloads[i] = key(at+i), r.sourcePayload(at+i)
				}
				if _, err := r.source.Exec(ctx, insert, names, payloads); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.report.add("insert", "records/s", "records/s", float64(b.o.rows)/time.Since(begin).Seconds())
	return nil
}
