// Package dev is `leat dev`: the sample shop, the relay and every stage in one process, on an embedded Kafka and Postgres
// or on given ones, with a summary that compares the shop's tables with the reporting tables.
//
// It is a rehearsal, not a way to run Leat in production: its databases are made anew each time.
package dev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/leat-io/leat/internal/app"
)

// Options of Run. The zero value runs everything on embedded servers until the context ends.
type Options struct {
	Once     bool          // load the data, wait until it is published, compare, and end
	JSON     bool          // print the live summary as JSON, a line each time
	Rate     float64       // business transactions of the shop a second; default 2
	Duration time.Duration // end after this time; with Once give up after it, default 2 minutes
	Seed     uint64        // of the shop's life; default 1
	Kafka    string        // brokers with commas; default LEAT_KAFKA_BROKERS, else embedded
	Postgres string        // database URL; default DATABASE_URL, else local or downloaded
	Listen   string        // of metrics and health; default 127.0.0.1:9464, or a free port if that is taken
	Verbose  bool          // log to App.Stderr
	App      app.Options
	Stdout   io.Writer // the summary
}

// Run runs everything until ctx ends, or with Once until the data has been published; only then there is a Report.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	o.Rate, o.Seed, o.Listen = cmp.Or(o.Rate, 2), cmp.Or(o.Seed, 1), cmp.Or(o.Listen, defaultListen(ctx))
	if o.Once {
		o.Duration = cmp.Or(o.Duration, 2*time.Minute)
	}
	if o.App.Getenv == nil {
		o.App.Getenv = os.Getenv
	}
	if !o.Verbose {
		o.App.Stderr = io.Discard
	}
	begin := time.Now()
	s, err := startServers(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	r, err := newRehearsal(ctx, o, s, begin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if o.Once {
		return r.once(ctx)
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	return nil, r.live(ctx)
}

func defaultListen(ctx context.Context) string {
	const usual = "127.0.0.1:9464"
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", usual)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close() // it was only asked whether the address is free
	return usual
}

// live runs until ctx ends: the shop stops first, then relay, stages and HTTP, and the summary last.
func (r *rehearsal) live(ctx context.Context) error {
	summary := newSummary(r)
	return r.app.RunAll(ctx,
		[]app.Part{{Name: "sample shop", Run: r.loadAndLive}},
		[]app.Part{{Name: "dead letters", Run: r.watchDeadLetters(summary.deadLetter)}, {Name: "summary", Run: summary.run}})
}

func (r *rehearsal) loadAndLive(ctx context.Context) error {
	if _, err := r.shop.Load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop while loading
		}
		return err
	}
	return r.shop.Run(ctx)
}

// once loads the data and waits until the books agree with it.
func (r *rehearsal) once(ctx context.Context) (*Report, error) {
	runCtx, cancel := context.WithTimeout(ctx, r.Duration)
	defer cancel()
	var report *Report
	err := r.app.RunAll(runCtx, []app.Part{{Name: "sample shop", Run: func(partCtx context.Context) (err error) {
		if report, err = r.loadAndAwait(runCtx); err != nil {
			return err
		}
		cancel() // ends the whole run, in order
		<-partCtx.Done()
		return nil
	}}}, nil)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted before everything was published")
	}
	return report, err
}

// loadAndAwait loads the data and waits until all of it has arrived, or can no longer. A deadline is no error: the report
// says what is missing.
func (r *rehearsal) loadAndAwait(ctx context.Context) (*Report, error) {
	if _, err := r.shop.Load(ctx); err != nil {
		return nil, fmt.Errorf("loading the sample data: %w", err)
	}
	reportCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		settled, err := r.settled(ctx)
		switch {
		case ctx.Err() != nil:
			return r.report(reportCtx, fmt.Errorf("the data was not published within %s", r.Duration))
		case err != nil:
			return nil, err
		case settled:
			return r.report(reportCtx, nil)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
