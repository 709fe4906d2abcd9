package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

func profile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

// bareRead pages through the outbox by primary key and drops the rows: what Postgres and pgx can do.
func (b *bench) bareRead(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	const page = `select id, event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at
		from leat.outbox where id > $1 order by id limit 10000`
	started, rows, last := time.Now(), 0, int64(0)
	for {
		got, err := conn.Query(ctx, page, last)
		if err != nil {
			return err
		}
		n := 0
		for got.Next() {
			last = int64(binary.BigEndian.Uint64(got.RawValues()[0]))
			n++
		}
		if err := got.Err(); err != nil {
			return err
		}
		rows += n
		if n == 0 {
			break
		}
	}
	fmt.Printf("%-34s %9.0f rows/s\n", "reading alone", rate(rows, started))
	return nil
}

// bareProduce commits transactions of 10,000 records with two transactional ids in turn: what Kafka and franz-go can do.
func (b *bench) bareProduce(ctx context.Context) error {
	topic := topics.Source(b.system, "bare")
	var clients [2]*kgo.Client
	for i := range clients {
		c, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.TransactionalID(b.system+"-bare-"+strconv.Itoa(i)), kgo.ProducerLinger(0),
			kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
		if err != nil {
			return err
		}
		defer c.Close()
		if _, _, err := c.ProducerID(ctx); err != nil {
			return err
		}
		clients[i] = c
	}
	value := make([]byte, b.size)
	last := make(chan error, 1)
	last <- nil
	started := time.Now()
	for turn, done := 0, 0; done < b.rows; turn++ {
		c, n := clients[turn%2], min(10_000, b.rows-done)
		if err := c.BeginTransaction(); err != nil {
			return err
		}
		var failed kgo.FirstErrPromise
		for range n {
			key := strconv.AppendInt([]byte("acme/bench/"), int64(done%b.keys), 10)
			c.Produce(ctx, &kgo.Record{Topic: topic, Key: key, Value: value}, failed.Promise())
			done++
		}
		if err := errors.Join(c.Flush(ctx), failed.Err(), <-last); err != nil {
			return err
		}
		go func() { last <- c.EndTransaction(ctx, kgo.TryCommit) }()
	}
	err := <-last
	fmt.Printf("%-34s %9.0f rows/s\n", "producing transactions alone", rate(b.rows, started))
	return err
}

// drain lets a relay deliver the backlog to a read_committed consumer, which counts duplicates and inversions.
func (b *bench) drain(ctx context.Context) error {
	consumer, err := b.consumer()
	if err != nil {
		return err
	}
	defer consumer.Close()
	var extra []string
	if b.profile != "" {
		extra = []string{"-cpuprofile", b.profile}
	}
	cmd, err := b.child(ctx, extra...)
	if err != nil {
		return err
	}
	want := b.rows / 4 * 4
	seen, last := make([]bool, 2*want+1), map[string]int64{}
	var n, twice, inverted int
	var first time.Time
	for n < want {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		if first.IsZero() && fetches.NumRecords() > 0 {
			first = time.Now()
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			id := sequence(rec)
			if seen[id] {
				twice++
				return
			}
			seen[id] = true
			n++
			if id < last[string(rec.Key)] {
				inverted++
			}
			last[string(rec.Key)] = id
		})
	}
	took := time.Since(first)
	if err := end(cmd); err != nil {
		return err
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fmt.Printf("%-34s %9.0f rows/s   relay: %.2f CPU s per 100,000 rows, %d MB resident at most\n", "draining with the relay",
		float64(n)/took.Seconds(), cpu.Seconds()/float64(n)*100_000, usage.Maxrss/1024)
	fmt.Printf("%-34s %d twice, %d out of order\n", "", twice, inverted)
	return nil
}

func end(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}

func (b *bench) consumer() (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics(topics.Source(b.system, "invoice")),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
}

func sequence(rec *kgo.Record) int64 {
	for _, h := range rec.Headers {
		if h.Key == topics.HeaderSequence {
			n, _ := strconv.ParseInt(string(h.Value), 10, 64)
			return n
		}
	}
	return 0
}

// latency writes rows at a fixed rate, each in a transaction of its own, and measures from the answer to the commit until
// the consumer has the record.
func (b *bench) latency(ctx context.Context) error {
	if b.rate == 0 {
		return nil
	}
	consumer, err := b.consumer()
	if err != nil {
		return err
	}
	defer consumer.Close()
	cmd, err := b.child(ctx)
	if err != nil {
		return err
	}
	l := &latencies{committed: map[string]time.Time{}, received: map[string]time.Time{}}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	go l.receive(reading, consumer)
	const warmUp = 5 * time.Second
	if err := b.writeAt(ctx, l, warmUp+b.duration); err != nil {
		return err
	}
	for range 100 {
		if l.missing() == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	l.report(b.rate, warmUp)
	return end(cmd)
}

type latencies struct {
	mu        sync.Mutex
	started   time.Time
	committed map[string]time.Time // by event id
	received  map[string]time.Time
}

func (l *latencies) receive(ctx context.Context, consumer *kgo.Client) {
	for ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		now := time.Now()
		l.mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) {
			for _, h := range rec.Headers {
				if h.Key == topics.HeaderID {
					l.received[string(h.Value)] = now
				}
			}
		})
		l.mu.Unlock()
	}
}

func (l *latencies) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.committed {
		if _, ok := l.received[id]; !ok {
			n++
		}
	}
	return n
}

// writeAt commits rows at the rate from eight connections.
func (b *bench) writeAt(ctx context.Context, l *latencies, d time.Duration) error {
	const writers = 8
	l.started = time.Now()
	errs := make(chan error, writers)
	payload := make([]byte, b.size)
	for w := range writers {
		go func() {
			conn, err := pgx.Connect(ctx, b.url)
			if err != nil {
				errs <- err
				return
			}
			defer func() { _ = conn.Close(ctx) }()
			period := time.Second * writers / time.Duration(b.rate)
			for due := l.started.Add(period * time.Duration(w) / writers); time.Since(l.started) < d; due = due.Add(period) {
				time.Sleep(time.Until(due))
				id := uuid.New()
				_, err := conn.Exec(ctx, `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
					values ($1, 'acme', 'invoice', $2, 'upsert', $3)`, id, strconv.Itoa(int(id[0])), payload)
				if err != nil {
					errs <- err
					return
				}
				now := time.Now()
				l.mu.Lock()
				l.committed[id.String()] = now
				l.mu.Unlock()
			}
			errs <- nil
		}()
	}
	var err error
	for range writers {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (l *latencies) report(rate int, warmUp time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	lost := 0
	for id, at := range l.committed {
		got, ok := l.received[id]
		switch {
		case !ok:
			lost++
		case at.Sub(l.started) > warmUp:
			took = append(took, got.Sub(at))
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		fmt.Println("nothing was received")
		return
	}
	at := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1000 }
	fmt.Printf("%-34s p50 %.1f  p95 %.1f  p99 %.1f  max %.1f ms, at %d/s, %d missing\n", "commit to read_committed consumer",
		at(0.5), at(0.95), at(0.99), at(1), rate, lost)
}
