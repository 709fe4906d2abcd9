package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
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

// upsertLimit writes invoices into a table with the columns that the guard needs, two connections, 1,000 rows a statement.
func (b *bench) upsertLimit(ctx context.Context) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	const table = `create table bare (tenant text, system text, source_id text, number text, contact_id text, issue_date date, currency text,
		status text, total numeric, sequence bigint, hash bytea, primary key (tenant, system, source_id))`
	if _, err := r.reporting.Exec(ctx, table); err != nil {
		return err
	}
	const upsert = `insert into bare select 'acme', 'shop', id, id, 'c', '2026-11-23', 'USD', 'open', t::numeric, n, '\x00'
		from unnest($1::text[], $2::text[], $3::bigint[]) as u(id, t, n)
		on conflict (tenant, system, source_id) do update set number = excluded.number, contact_id = excluded.contact_id,
		  issue_date = excluded.issue_date, currency = excluded.currency, status = excluded.status, total = excluded.total,
		  sequence = excluded.sequence, hash = excluded.hash where bare.sequence < excluded.sequence`
	n := b.publishRows()
	begin := time.Now()
	errs := make(chan error, 2)
	for w := range 2 {
		go func() {
			ids, totals, versions := make([]string, 1000), make([]string, 1000), make([]int64, 1000)
			for at := w * 1000; at < n; at += 2000 {
				for i := range ids {
					ids[i], totals[i], versions[i] = fmt.Sprintf("invoice-%d", at+i), "31.50", int64(at+i+1)
				}
				if _, err := r.reporting.Exec(ctx, upsert, ids, totals, versions); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			return err
		}
	}
	b.report.add("upsert", "records/s", "records/s", float64(n)/time.Since(begin).Seconds())
	return nil
}

// publishRows is how many invoices are published: lines and links make three to four rows of each.
func (b *bench) publishRows() int { return max(10_000, b.o.rows/5) }
