// Command bench measures Leat against the limits of the machine it runs on: the leat binary as separate processes, a real Kafka and a
// real Postgres, and the bare client calls on the same data beside them.
//
// It measures; it asserts nothing. Compare ratios of one run: machines differ and are noisy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	kafka, postgres string
	rows, rate      int
	rounds          int
	only            []string
	out             string
}

// scenario is one measurement. It adds its results to the report.
type scenario struct {
	name, about string
	run         func(*bench, context.Context) error
}

func scenarios() []scenario {
	return []scenario{
		{"read", "limit: read the outbox by primary key, 10,000 rows a query", (*bench).readLimit},
		{"produce", "limit: produce the same records in transactions of 10,000", (*bench).produceLimit},
		{"relay", "relay: drain a backlog, exactly once", (*bench).relay},
		{"latency", "relay: commit in the source until a read_committed consumer sees it", (*bench).latency},
		{"copy", "limit: read, copy and commit in transactions of 10,000", (*bench).copyLimit},
		{"normalize", "normalize: map, check the contract, exactly once", (*bench).normalize},
		{"upsert", "limit: bare guarded upsert of invoices without lines and links", (*bench).upsertLimit},
		{"publish", "publish: invoices with lines and links to the reporting tables", (*bench).publish},
		{"verify", "verify: every row from the outbox to the reporting tables, record by record", (*bench).verify},
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	o := options{}
	fs.StringVar(&o.kafka, "kafka", getenv("LEAT_TEST_KAFKA_BROKERS"), "brokers, host:port with commas ($LEAT_TEST_KAFKA_BROKERS)")
	fs.StringVar(&o.postgres, "postgres", getenv("LEAT_TEST_POSTGRES_URL"), "a URL that may create databases ($LEAT_TEST_POSTGRES_URL)")
	fs.IntVar(&o.rows, "rows", 500_000, "rows of a backlog")
	fs.IntVar(&o.rate, "rate", 2_000, "business transactions a second for latency")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each measurement is made, interleaved, after one that is not counted")
	fs.StringVar(&o.out, "out", "", "directory for performance.md and performance.json (default: only print)")
	only := fs.String("only", "", "names with commas (default all): "+strings.Join(names(), ", "))
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no measurement %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	if o.kafka == "" || o.postgres == "" {
		return errors.New("needs a Kafka and a Postgres: set -kafka and -postgres, for example those of `docker compose up kafka postgres`")
	}
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	for round := range o.rounds + 1 {
		for _, s := range scenarios() {
			if len(o.only) > 0 && !slices.Contains(o.only, s.name) {
				continue
			}
			what := fmt.Sprintf("round %d of %d", round, o.rounds)
			if round == 0 {
				what = "warming up"
			}
			_, _ = fmt.Fprintf(stderr, "%s: %s\n", what, s.about)
			if err := s.run(b, ctx); err != nil {
				return fmt.Errorf("measuring %s: %w", s.name, err)
			}
		}
		if round == 0 {
			b.report.Results = nil // a JVM that has just started compiles while it works
		}
	}
	return b.report.write(stdout, o)
}

func names() []string {
	var ns []string
	for _, s := range scenarios() {
		ns = append(ns, s.name)
	}
	return ns
}
