package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/twmb/franz-go/pkg/kgo"
)

const riverWorkers = 2_000

// sendArgs is a job that sends one record.
type sendArgs struct {
	Topic   string          `json:"topic"`
	Key     string          `json:"key"`
	Payload json.RawMessage `json:"payload"`
}

func (sendArgs) Kind() string { return "send" }

type sender struct {
	river.WorkerDefaults[sendArgs]
	cl *kgo.Client
}

func (s *sender) Work(ctx context.Context, job *river.Job[sendArgs]) error {
	rec := &kgo.Record{Topic: job.Args.Topic, Key: []byte(job.Args.Key), Value: job.Args.Payload}
	return s.cl.ProduceSync(ctx, rec).FirstErr()
}

// riverRun works jobs off.
func riverRun(ctx context.Context, s setup) error {
	pool, err := pgxpool.New(ctx, s.postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	cl, err := producer(s)
	if err != nil {
		return err
	}
	defer cl.Close()
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &sender{cl: cl}); err != nil {
		return err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		Workers:       workers,
		FetchCooldown: 10 * time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return client.Stop(stopping)
}

// riverFill makes a job of each row of the outbox.
func riverFill(ctx context.Context, s setup) error {
	pool, err := pgxpool.New(ctx, s.postgres)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{})
	if err != nil {
		return err
	}
	err = eachBatch(ctx, pool, 5_000, func(rows []row) error {
		jobs := make([]river.InsertManyParams, len(rows))
		for i, r := range rows {
			jobs[i] = river.InsertManyParams{Args: sendArgs{Topic: r.destination, Key: r.key, Payload: r.payload}}
		}
		_, err := client.InsertManyFast(ctx, jobs)
		return err
	})
	if err != nil {
		return fmt.Errorf("making jobs: %w", err)
	}
	_, err = pool.Exec(ctx, "analyze river_job") // a fresh table that nobody has analysed makes River slower
	return err
}

// eachBatch calls f with all rows of the outbox in turn.
func eachBatch(ctx context.Context, pool *pgxpool.Pool, size int, f func([]row) error) error {
	const page = "select seq, aggregatetype, aggregateid, payload from outbox where seq > $1 order by seq limit $2"
	for after := int64(0); ; {
		got, err := pool.Query(ctx, page, after, size)
		if err != nil {
			return err
		}
		rows, err := pgx.CollectRows(got, func(r pgx.CollectableRow) (x row, err error) {
			return x, r.Scan(&x.seq, &x.destination, &x.key, &x.payload)
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := f(rows); err != nil {
			return err
		}
		after = rows[len(rows)-1].seq
	}
}
