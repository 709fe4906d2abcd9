package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/internal/dev"
)

func devCommand(e *env) *cobra.Command {
	o := dev.Options{}
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with a sample source system; needs no services and no configuration",
		Long: `Starts an embedded Kafka and a Postgres (the database of DATABASE_URL, else a local installation as a child process, else
one that is downloaded once), makes the schemas and topics, and runs a sample shop as source system together with relay,
normalize and publish. The shop loads 59 customers and 412 invoices with 2,240 lines, and then keeps living: new invoices,
payments, corrections, cancellations, deletions, and now and then a broken record that ends in the dead letters.

The summary compares the shop's tables with the reporting tables. With --once the shop only loads its data; leat waits until all
of it is published, prints the control totals of both sides with every count, and exits with 0 only when they agree.

Databases and topics live as long as the command, unless they are yours (--kafka, --postgres).`,
		Example: `  leat dev
  leat dev --rate 50 --duration 1m
  leat dev --once -o json
  leat dev --kafka localhost:9092 --postgres postgres://postgres@localhost:5432/postgres`,
		Args: noArgs(),
	}
	out := outputFlag(c)
	f := c.Flags()
	f.BoolVar(&o.Once, "once", false, "load the sample data, wait until it is published, compare the totals, and end")
	f.Float64Var(&o.Rate, "rate", 2, "business transactions of the sample shop a second")
	f.DurationVar(&o.Duration, "duration", 0, "end after this time (default: at Ctrl-C; with --once give up after 2m)")
	f.Uint64Var(&o.Seed, "seed", 1, "the same seed gives the shop the same life")
	f.StringVar(&o.Kafka, "kafka", "", "brokers as host:port with commas (default $LEAT_KAFKA_BROKERS, else embedded)")
	f.StringVar(&o.Postgres, "postgres", "", "database URL (default $DATABASE_URL, else a local or downloaded Postgres)")
	f.StringVar(&o.Listen, "listen", "", "address of /metrics, /healthz and /readyz, off for none (default 127.0.0.1:9464, or a free port)")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "show the log of every part on standard error")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.JSON = *out == "json"
		o.App, o.Stdout = e.options(), e.terminal
		report, err := dev.Run(c.Context(), o)
		if err != nil {
			return err
		}
		if report == nil {
			return nil
		}
		if err := e.print(*out, report); err != nil {
			return err
		}
		return report.Err()
	}
	return c
}

func sampleCommand(e *env) *cobra.Command {
	o := app.SampleOptions{}
	run := &cobra.Command{
		Use:   "run",
		Short: "Run the sample shop on its database until told to stop",
		Long: `Makes the shop's tables in the database of the source chinook (schema shop), loads 59 customers and 412 invoices where they are
not there yet, and then lives: a business transaction with its outbox event each. Needs the outbox schema: run
"leat migrate up outbox" first. The configuration needs the source chinook with entities customer, invoice and payment.`,
		Example: `  leat sample run
  leat sample run --rate 100 --seed 7`,
		Args: noArgs(),
	}
	f := run.Flags()
	f.Float64Var(&o.Rate, "rate", 2, "business transactions a second; 0 loads the data and waits")
	f.Uint64Var(&o.Seed, "seed", 1, "the same seed gives the same life")
	f.DurationVar(&o.Wait, "wait", time.Minute, "how long to wait for the database and its outbox schema")
	run.RunE = func(c *cobra.Command, _ []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		return a.RunSample(c.Context(), o)
	}
	return group(&cobra.Command{
		Use:     "sample",
		Short:   "The sample source system as a process of its own: run",
		Long:    `The sample source system is a shop with customers, invoices and payments: examples/chinook.`,
		Example: "  leat sample run --rate 10",
	}, run)
}
