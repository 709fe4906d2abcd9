package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-io/leat/operations/incidents"
)

// Config describes a Notifier. Zero values of the lower half mean the default.
type Config struct {
	DB         *pgxpool.Pool // the control database
	Receivers  []Receiver    // none: incidents move, and nobody is told
	Policy     incidents.Policy
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Version    string // told to receivers
	Link       string // an address that shows an incident, with {fingerprint} in it; optional

	Interval    time.Duration // between two looks at the incidents; default 2 s
	Timeout     time.Duration // of one message; default 10 s
	PerMinute   int           // messages to one receiver; default 6
	Backoff     time.Duration // before a second attempt, doubled each time up to 5 min; default 2 s
	GiveUpAfter time.Duration // a message that was not taken for so long is given up; default 24 h
	OpenBreaker time.Duration // a breaker that is open for so long is an incident; default 30 s
}

func (c Config) withDefaults() Config {
	c.Policy = c.Policy.WithDefaults()
	c.Version = cmp.Or(c.Version, "unknown")
	c.Interval = cmp.Or(c.Interval, 2*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.PerMinute = cmp.Or(c.PerMinute, 6)
	c.Backoff = cmp.Or(c.Backoff, 2*time.Second)
	c.GiveUpAfter = cmp.Or(c.GiveUpAfter, 24*time.Hour)
	c.OpenBreaker = cmp.Or(c.OpenBreaker, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Notifier moves incidents and tells receivers of them.
type Notifier struct {
	cfg     Config
	senders []*sender
	metrics *metrics
	problem atomic.Pointer[string]
}

// New makes a Notifier. It opens no connection. Every receiver that is wrong is reported.
func New(c Config) (*Notifier, error) {
	n := &Notifier{cfg: c.withDefaults()}
	if c.DB == nil {
		return nil, errors.New("configuring the notifier: no database")
	}
	senders, err := newSenders(n.cfg.Receivers, n.cfg.Version, n.cfg.Timeout)
	if err != nil {
		return nil, fmt.Errorf("configuring the notifier: %w", err)
	}
	n.senders = senders
	n.metrics = newMetrics(n.cfg.Registerer, n.cfg.Receivers)
	return n, nil
}

func newSenders(receivers []Receiver, version string, timeout time.Duration) ([]*sender, error) {
	var senders []*sender
	var errs []error
	for i, r := range receivers {
		if slices.ContainsFunc(receivers[:i], func(o Receiver) bool { return o.Name == r.Name }) || r.Name == "" || strings.Contains(r.Name, " ") {
			errs = append(errs, fmt.Errorf("receiver %q: want a name that no other has", r.Name))
		}
		s, err := newSender(r, version, timeout)
		errs = append(errs, err)
		senders = append(senders, s)
	}
	return senders, errors.Join(errs...)
}

// Run moves incidents and sends until ctx ends, then returns nil. It outlives a database or a receiver that is down.
func (n *Notifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range n.senders {
		wg.Go(func() { n.serve(ctx, s) })
	}
	tick := time.NewTicker(n.cfg.Interval)
	defer tick.Stop()
	for {
		err := n.look(ctx)
		n.report(ctx, err)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// report tells of a problem once, however often it comes again.
func (n *Notifier) report(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		n.problem.Store(nil)
		return
	}
	text := err.Error()
	if before := n.problem.Swap(&text); before == nil {
		n.cfg.Logger.ErrorContext(ctx, "looking at incidents", "error", err)
	}
}

// Ready returns why nobody can be told of anything, or nil. A receiver that does not answer is none: its metrics tell.
func (n *Notifier) Ready() error {
	if text := n.problem.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}

// Try sends a sample to one of receivers and returns its answer.
func Try(ctx context.Context, receivers []Receiver, name, version string) (Answer, error) {
	var names []string
	for _, r := range receivers {
		if r.Name != name {
			names = append(names, r.Name)
			continue
		}
		s, err := newSender(r, version, Config{}.withDefaults().Timeout)
		if err != nil {
			return Answer{}, err
		}
		a, err := s.send(ctx, Sample(time.Now().UTC()))
		if err != nil {
			return a, fmt.Errorf("receiver %s: %w", name, err)
		}
		return a, nil
	}
	return Answer{}, fmt.Errorf("there is no receiver %q under notify.receivers; they are: %s", name, cmp.Or(strings.Join(names, ", "), "none"))
}
