// Command peers does the relay's work as others do it, with Go libraries: it moves the rows of a table outbox to a topic of Kafka.
// bench starts it, as a process of its own, to measure it beside Leat; it is of no use otherwise. What runs on Java is in the folder java.
//
// It is a module of its own, so that nobody who uses Leat gets these libraries.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// setup is what every peer gets.
type setup struct {
	postgres string
	brokers  []string
}

func run(ctx context.Context, args []string) error {
	peers := map[string]func(context.Context, setup) error{
		"skiplocked":     skipLocked,
		"river-fill":     riverFill,
		"river":          riverRun,
		"watermill-fill": watermillFill,
		"watermill":      watermillRun,
	}
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	postgres := fs.String("postgres", "", "URL of the database with the outbox")
	kafka := fs.String("kafka", "", "brokers, host:port with commas")
	if err := fs.Parse(args); err != nil {
		return err
	}
	peer := peers[fs.Arg(0)]
	if peer == nil {
		return fmt.Errorf("there is no peer %q", fs.Arg(0))
	}
	return peer(ctx, setup{postgres: *postgres, brokers: strings.Split(*kafka, ",")})
}
