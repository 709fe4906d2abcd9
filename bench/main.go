// Command bench measures Leat beside the limits of the machine and beside its peers: the leat binary as separate processes, a real
// Kafka and a real Postgres, and the bare client calls and the peers' programs on the same data. Without flags it starts the servers
// itself, measures everything, interleaved over several rounds, and writes docs/performance.md with its plots and
// docs/performance.json. Run it in the top folder of the repository.
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
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	kafka, postgres string
	rows            int
	rounds          int
	only            []string // names and groups; empty is everything
	out             string   // "" is nowhere
}

const (
	defaultRows   = 500_000
	defaultRounds = 3
	defaultOut    = "docs"
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	all := scenarios()
	o, err := parse(args, all, stderr)
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o755); err != nil { // now, not after half an hour
			return err
		}
	}
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	err = b.measure(ctx, selected(all, o.only))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(b.report.Results) == 0 { // an earlier report stays
		return err
	}
	return errors.Join(err, b.report.write(stdout, stderr, o.out, all))
}

func parse(args []string, all []scenario, stderr io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.kafka, "kafka", "", "`brokers` of an empty cluster, host:port with commas, instead of starting one")
	fs.StringVar(&o.postgres, "postgres", "", "`URL` of a server that may make databases, instead of starting one")
	fs.IntVar(&o.rows, "rows", defaultRows, "rows of a backlog; the other sizes go with it")
	fs.IntVar(&o.rounds, "rounds", defaultRounds, "how often each measurement is made at most, interleaved, after a short one that is not counted")
	fs.StringVar(&o.out, "out", "", "`directory` for performance.md, performance.json and plots (default: "+defaultOut+" when everything is\n"+
		"measured at its usual size, else only the page is printed, so that a look at one figure leaves the report alone)")
	var about strings.Builder
	for _, s := range all {
		fmt.Fprintf(&about, "\n  %-10s %-22s %s", s.group, s.name, s.about)
	}
	only := fs.String("only", "", "`names` or groups with commas, default everything:"+about.String())
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("does not know what to do with %q: it takes flags only", fs.Arg(0))
	}
	if o.rows < minRows || o.rounds < 1 {
		return o, fmt.Errorf("needs at least -rows %d and -rounds 1", minRows)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if len(selected(all, []string{name})) == 0 {
			return o, fmt.Errorf("there is no measurement or group %q: -help lists them", name)
		}
	}
	if o.out == "" && len(o.only) == 0 && o.rows == defaultRows && o.rounds >= defaultRounds {
		o.out = defaultOut
	}
	return o, nil
}

// selected are the scenarios of the names and groups, in their own order; all of them for none.
func selected(all []scenario, only []string) []scenario {
	if len(only) == 0 {
		return all
	}
	var some []scenario
	for _, s := range all {
		if slices.Contains(only, s.name) || slices.Contains(only, s.group) {
			some = append(some, s)
		}
	}
	return some
}
