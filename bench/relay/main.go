// Command relay measures the relay beside the limits of the machine, in one run: reading the outbox without Kafka, producing
// transactions without Postgres, draining a backlog with the relay, and the time from a commit to a read_committed
// consumer. README.md says how to run it. It makes a database and topics of its own, and drops them.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/outbox/relay"
	"github.com/leat-io/leat/topics"
)

// bench is one run.
type bench struct {
	postgres   string // URL of the server
	brokers    []string
	rows       int
	size       int
	keys       int
	partitions int
	rate       int
	duration   time.Duration
	profile    string

	system string
	url    string // of the run's own database
	admin  *kadm.Client
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var b bench
	var brokers, child string
	flag.StringVar(&b.postgres, "postgres", os.Getenv("LEAT_TEST_POSTGRES_URL"), "URL of a PostgreSQL server")
	flag.StringVar(&brokers, "kafka", os.Getenv("LEAT_TEST_KAFKA_BROKERS"), "brokers, separated by commas")
	flag.IntVar(&b.rows, "rows", 500_000, "rows of the backlog")
	flag.IntVar(&b.size, "size", 500, "bytes of a payload")
	flag.IntVar(&b.keys, "keys", 50_000, "different keys")
	flag.IntVar(&b.partitions, "partitions", 8, "partitions of the topic")
	flag.IntVar(&b.rate, "rate", 2_000, "commits per second when latency is measured; 0 leaves it out")
	flag.DurationVar(&b.duration, "duration", 15*time.Second, "how long latency is measured")
	flag.StringVar(&b.profile, "cpuprofile", "", "write a CPU profile of the draining relay to this file")
	flag.StringVar(&child, "relay-of", "", "used by the benchmark itself: be the relay of this system")
	flag.Parse()
	b.brokers = strings.Split(brokers, ",")
	run := b.run
	if child != "" {
		run = func(ctx context.Context) error { return b.beRelay(ctx, child) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "relay benchmark:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.postgres == "" || b.brokers[0] == "" {
		return errors.New("say where the services are: -postgres and -kafka")
	}
	b.system = "bench-" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...))
	if err != nil {
		return err
	}
	defer client.Close()
	b.admin = kadm.NewClient(client)
	drop, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	fmt.Printf("%d CPUs, %s, %d rows of %d bytes, %d partitions\n\n", runtime.NumCPU(), runtime.Version(), b.rows, b.size, b.partitions)
	if err := b.fill(ctx); err != nil {
		return fmt.Errorf("filling the outbox: %w", err)
	}
	for _, step := range []func(context.Context) error{b.bareRead, b.bareProduce, b.drain, b.latency} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes database and topics, and returns what drops them.
func (b *bench) prepare(ctx context.Context) (drop func() error, err error) {
	admin, err := pgx.Connect(ctx, b.postgres)
	if err != nil {
		return nil, err
	}
	database := strings.ReplaceAll(b.system, "-", "_")
	if _, err := admin.Exec(ctx, "create database "+database); err != nil {
		return nil, err
	}
	u, err := url.Parse(b.postgres)
	if err != nil {
		return nil, err
	}
	u.Path = "/" + database
	b.url = u.String()
	db, err := sql.Open("pgx", b.url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	if _, err := migrations.Up(ctx, db, migrations.Outbox); err != nil {
		return nil, err
	}
	own := []string{topics.Source(b.system, "invoice"), topics.Source(b.system, "bare")}
	for name, partitions := range map[string]int{
		own[0]: b.partitions, own[1]: b.partitions, topics.Cursors: topics.CursorPartitions, topics.RelayDLQ: b.partitions,
	} {
		limit := strconv.Itoa(topics.DefaultMaxMessageBytes)
		_, err := b.admin.CreateTopic(ctx, int32(partitions), 1, map[string]*string{"max.message.bytes": &limit}, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return nil, err
		}
	}
	return func() error {
		ctx := context.WithoutCancel(ctx)
		_, err := b.admin.DeleteTopics(ctx, own...)
		_, dropErr := admin.Exec(ctx, "drop database "+database+" with (force)")
		return errors.Join(err, dropErr, admin.Close(ctx))
	}, nil
}

// fill writes the backlog in transactions of 100 rows, from four connections.
func (b *bench) fill(ctx context.Context) error {
	started := time.Now()
	const writers, perTx = 4, 100
	errs := make(chan error, writers)
	for range writers {
		go func() { errs <- b.fillOne(ctx, b.rows/writers, perTx) }()
	}
	for range writers {
		if err := <-errs; err != nil {
			return err
		}
	}
	fmt.Printf("%-34s %9.0f rows/s\n", "writing the backlog", rate(b.rows/writers*writers, started))
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "checkpoint") // its writing would fall into the measurement
	return err
}

const fillSQL = `insert into leat.outbox (event_id, tenant, entity, key, operation, payload)
select gen_random_uuid(), 'acme', 'invoice', (random() * $3)::int::text, 'upsert',
  convert_to(left(repeat(md5(random()::text), $2 / 32 + 1), $2), 'UTF8') from generate_series(1, $1)`

func (b *bench) fillOne(ctx context.Context, rows, perTx int) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for done := 0; done < rows; done += perTx {
		if _, err := conn.Exec(ctx, fillSQL, min(perTx, rows-done), b.size, b.keys-1); err != nil {
			return err
		}
	}
	return nil
}

func rate(n int, since time.Time) float64 { return float64(n) / time.Since(since).Seconds() }

// child starts the relay as a process of its own, so that its CPU time and memory are its own.
func (b *bench) child(ctx context.Context, extra ...string) (*exec.Cmd, error) {
	args := append([]string{"-relay-of", b.system, "-postgres", b.url, "-kafka", strings.Join(b.brokers, ",")}, extra...)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd, cmd.Start()
}

// beRelay is the child.
func (b *bench) beRelay(ctx context.Context, system string) error {
	stop, err := profile(b.profile)
	if err != nil {
		return err
	}
	defer stop()
	reg := prometheus.NewRegistry()
	defer func() { _ = b.summary(reg) }()
	r, err := relay.New(relay.Config{
		Registerer: reg,
		Sources:    []relay.Source{{Name: system, URL: b.postgres, Entities: []string{"invoice"}}},
		Kafka:      []kgo.Opt{kgo.SeedBrokers(b.brokers...)}, Group: "leat-relay-" + system,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// summary prints what the relay measured itself.
func (b *bench) summary(reg *prometheus.Registry) error {
	families, err := reg.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h != nil && h.GetSampleCount() > 0 {
				fmt.Fprintf(os.Stderr, "  %-32s %6d times, mean %.4f\n", f.GetName(), h.GetSampleCount(),
					h.GetSampleSum()/float64(h.GetSampleCount()))
			}
		}
	}
	return nil
}
