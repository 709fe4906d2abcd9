package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/topics"
)

// keys is how many invoices the records are changes of.
const keys = 50_000

// fillOutbox writes n rows of about 500 bytes of payload, in transactions of one row each, on the server: the shape of a backlog
// that many small business transactions leave. A procedure can commit between them.
const fillOutbox = `
create procedure fill(n int, first int, step int) language plpgsql as $$
begin
  for i in 0 .. n - 1 loop
    if i % step = first then
      insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
      values (gen_random_uuid(), 'acme', 'invoice', 'invoice-' || i % 50000, 'upsert', convert_to(format(
        '{"invoice_id": %s, "customer_id": %s, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD", "total": "31.50", "billing_country": "Brazil", "lines": [{"invoice_line_id": 1, "invoice_id": %s, "track_id": 2, "unit_price": "10.50", "quantity": 1}, {"invoice_line_id": 2, "invoice_id": %s, "track_id": 4, "unit_price": "10.50", "quantity": 2}], "memo": "%s"}',
        i % 50000, i % 59, i, i, md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text)), 'UTF8'));
      commit;
    end if;
  end loop;
end
$$`

// newBacklog is a rig whose outbox holds b.o.rows rows of many small transactions. They are written once, and every rig has a copy: all rounds drain the same.
func (b *bench) newBacklog(ctx context.Context) (*rig, error) {
	return b.newBacklogOf(ctx, rigOptions{})
}

func (b *bench) newBacklogOf(ctx context.Context, o rigOptions) (*rig, error) {
	name := "bench_filled_" + strconv.Itoa(b.o.rows)
	if b.filled[name] == "" {
		r, err := b.newRig(ctx)
		if err != nil {
			return nil, err
		}
		defer r.close()
		if err := r.fillOutbox(ctx, b.o.rows); err != nil {
			return nil, fmt.Errorf("filling the outbox: %w", err)
		}
		r.source.Close() // a database in use cannot be copied, nor renamed
		b.dropDatabase(name)
		if err := b.admin(ctx, "alter database "+r.system+"_source rename to "+name); err != nil {
			return nil, err
		}
		b.filled[name] = name
	}
	o.source = name
	return b.newRigOf(ctx, o)
}

func (r *rig) fillOutbox(ctx context.Context, n int) error {
	if _, err := r.source.Exec(ctx, fillOutbox); err != nil {
		return err
	}
	const writers = 2
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			conn, err := r.source.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			if _, err := conn.Exec(ctx, "set synchronous_commit = off"); err != nil {
				return err
			}
			_, err = conn.Exec(ctx, "call fill($1, $2, $3)", n, w, writers)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err := r.source.Exec(ctx, "vacuum analyze leat.outbox")
	return err
}

// series is a backlog that a few big transactions leave: quick to write.
type series struct {
	rows, tenants int
	payload       int // bytes, about
}

// fillSeries takes the first and the last number of its rows, the number of tenants, and how many times 32 characters the payload has.
// They are random beyond 500 bytes: a payload that repeats itself would be compressed by Postgres to nothing.
const (
	fillSeries = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'tenant-' || i % $3, 'invoice', 'invoice-' || i % 50000, 'upsert',
		       convert_to('{"memo": "' || repeat(md5(i::text), $4) || '"}', 'UTF8')
		from generate_series($1::int, $2::int) i`
	fillRandom = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
		select gen_random_uuid(), 'tenant-' || i % $3, 'invoice', 'invoice-' || i % 50000, 'upsert',
		       convert_to('{"memo": "' || (select string_agg(md5(i::text || n), '') from generate_series(1, $4::int) n) || '"}', 'UTF8')
		from generate_series($1::int, $2::int) i`
	makePartitions = `select count(*) from leat.make_partitions($1)`
)

func (r *rig) fillSeries(ctx context.Context, s series) error {
	const connections, step = 2, 50_000
	const million = 1_000_000
	if _, err := r.source.Exec(ctx, makePartitions, s.rows/million+2); err != nil {
		return fmt.Errorf("making partitions: %w", err)
	}
	sql := fillSeries
	if s.payload > 1000 {
		sql = fillRandom
	}
	var next atomic.Int64
	var g errgroup.Group
	for range connections {
		g.Go(func() error {
			for {
				from := int(next.Add(step)) - step
				if from >= s.rows {
					return nil
				}
				if _, err := r.source.Exec(ctx, sql, from, min(from+step, s.rows)-1, s.tenants, (s.payload+31)/32); err != nil {
					return fmt.Errorf("filling the outbox: %w", err)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err := r.source.Exec(ctx, "vacuum analyze leat.outbox")
	return err
}

// sourcePayload is what the source system writes of a change: an invoice with two lines, about 500 bytes.
func (r *rig) sourcePayload(i int) []byte {
	return fmt.Appendf(nil, `{"invoice_id": %d, "customer_id": %d, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD", "total": "31.50", "billing_country": "Brazil", "lines": [{"invoice_line_id": 1, "invoice_id": %d, "track_id": 2, "unit_price": "10.50", "quantity": 1}, {"invoice_line_id": 2, "invoice_id": %d, "track_id": 4, "unit_price": "10.50", "quantity": 2}], "memo": "%096x"}`,
		i%keys, i%59, i, i, i)
}

// sourceRecord is what the relay makes of a row.
func (r *rig) sourceRecord(i int) *kgo.Record {
	return r.record(r.sourceInvoices, topics.SourceKind("invoice"), i, r.sourcePayload(i))
}

// financeRecord is what normalize makes of it: its payload is what the contract asks for.
func (r *rig) financeRecord(i int) *kgo.Record {
	value := fmt.Appendf(nil, `{"tenant":"acme","system":"%s","source_id":"%s","type":"invoice","number":"%d","contact_id":"%d","issue_date":"2026-11-23","currency":"USD","status":"open","lines":[{"id":"1","item":"2","quantity":"1","unit_price":%s,"total":%s},{"id":"2","item":"4","quantity":"2","unit_price":%s,"total":%s}],"subtotal":%s,"total":%s}`,
		r.system, key(i), i, i%59, dollars(1050), dollars(1050), dollars(1050), dollars(2100), dollars(3150), dollars(3150))
	return r.record(r.financeInvoices, topics.FinanceKind("invoice", 1), i, value)
}

// flatRecord is a finance record that becomes one row of one table: an invoice without lines.
func (r *rig) flatRecord(i int) *kgo.Record {
	value := fmt.Appendf(nil, `{"tenant":"acme","system":"%s","source_id":"%s","type":"invoice","number":"%d","contact_id":"%d","issue_date":"2026-11-23","currency":"USD","status":"open","lines":[],"total":%s}`,
		r.system, key(i), i, i%59, dollars(3150))
	return r.record(r.financeInvoices, topics.FinanceKind("invoice", 1), i, value)
}

func dollars(cents int) string {
	return fmt.Sprintf(`{"amount":"%d.%02d","currency":"USD"}`, cents/100, cents%100)
}

func (r *rig) record(topic, kind string, i int, value []byte) *kgo.Record {
	subject := key(i)
	e := topics.Envelope{
		ID: uuid.NewString(), Tenant: "acme", System: r.system, Kind: kind, Operation: topics.Upsert, Subject: subject, Time: time.Now(),
		Sequence: int64(i + 1), Epoch: 1, DataSchema: "1", ContentType: "application/json",
	}
	rec := &kgo.Record{Topic: topic, Key: topics.Key("acme", r.system, subject), Value: value}
	for _, h := range e.Append(nil) {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return rec
}

// produce writes n records, made by record, without transactions.
func (b *bench) produce(ctx context.Context, n int, record func(int) *kgo.Record) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	promise := kgo.AbortingFirstErrPromise(cl)
	for i := range n {
		cl.Produce(ctx, record(i), promise.Promise())
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	return promise.Err()
}

// arrival is how the records of a topic became visible.
type arrival struct {
	first, last time.Time
	before      int64 // records that could be seen at first
	visible     int64 // offsets in the end: markers of transactions count too
}

// throughput is how many of n records become visible to a read_committed consumer in a second, from the first transaction to the last.
func (b *bench) throughput(ctx context.Context, topic string, n int, failed func() error) (float64, error) {
	a, err := b.arrive(ctx, topic, n, failed)
	if err != nil {
		return 0, err
	}
	if a.before == a.visible {
		return 0, fmt.Errorf("all %d records of %s could be seen at once, so there is no rate: measure more of them", n, topic)
	}
	return float64(int64(n)-a.before) / a.last.Sub(a.first).Seconds(), nil
}

// arrive waits until n records are visible to a read_committed consumer. It watches the last stable offsets, as a consumer of every
// record would take a good part of the machine, and counts the records afterwards. It gives up when failed has an error.
func (b *bench) arrive(ctx context.Context, topic string, n int, failed func() error) (a arrival, err error) {
	for a.visible < int64(n) || time.Since(a.last) < time.Second {
		time.Sleep(5 * time.Millisecond)
		if err := failed(); err != nil {
			return a, err
		}
		offsets, err := b.adm.ListCommittedOffsets(ctx, topic)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return a, err
		}
		var sum int64
		offsets.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		if sum == a.visible {
			continue
		}
		a.visible, a.last = sum, time.Now()
		if a.first.IsZero() {
			a.first, a.before = a.last, sum
		}
	}
	return a, b.count(ctx, topic, n)
}

// count reads a topic to its end and fails unless it holds n records.
func (b *bench) count(ctx context.Context, topic string, n int) error {
	ends, err := b.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return err
	}
	positions := map[int32]int64{}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	atEnd := func() (done bool) {
		done = true
		ends.Each(func(o kadm.ListedOffset) {
			done = done && positions[o.Partition] >= o.Offset
		})
		return done
	}
	seen := 0
	for !atEnd() {
		fetches := cl.PollRecords(ctx, -1)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			positions[rec.Partition] = rec.Offset + 1
			if !rec.Attrs.IsControl() {
				seen++
			}
		})
	}
	if seen != n {
		return fmt.Errorf("%s holds %d records, not %d", topic, seen, n)
	}
	return nil
}
