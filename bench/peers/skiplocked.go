package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pollBatch    = 1000
	pollInterval = 5 * time.Millisecond // when there was nothing
)

// takeRows deletes the oldest rows that nobody else has locked: a crash brings them back, sent or not.
const takeRows = `
delete from outbox where seq = any (array(select seq from outbox order by seq limit $1 for update skip locked))
returning seq, aggregatetype, aggregateid, payload`

// row is one of the outbox.
type row struct {
	seq              int64
	destination, key string
	payload          []byte
}

// skipLocked is the poller that everybody writes, at least once: in one transaction it takes a batch, sends it, and commits.
func skipLocked(ctx context.Context, s setup) error {
	conn, err := pgx.Connect(ctx, s.postgres)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	cl, err := producer(s)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		sent, err := sendBatch(ctx, conn, cl)
		if err != nil {
			return err
		}
		if sent > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func producer(s setup) (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
}

func sendBatch(ctx context.Context, conn *pgx.Conn, cl *kgo.Client) (sent int, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		taken, err := tx.Query(ctx, takeRows, pollBatch)
		if err != nil {
			return fmt.Errorf("taking rows: %w", err)
		}
		rows, err := pgx.CollectRows(taken, func(r pgx.CollectableRow) (x row, err error) {
			return x, r.Scan(&x.seq, &x.destination, &x.key, &x.payload)
		})
		if err != nil {
			return fmt.Errorf("taking rows: %w", err)
		}
		slices.SortFunc(rows, func(a, b row) int { return int(a.seq - b.seq) }) // returning has no order
		records := make([]*kgo.Record, len(rows))
		for i := range rows {
			records[i] = &kgo.Record{Topic: rows[i].destination, Key: []byte(rows[i].key), Value: rows[i].payload}
		}
		sent = len(rows)
		return cl.ProduceSync(ctx, records...).FirstErr()
	})
	return sent, err
}
