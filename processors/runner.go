package processors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Runner runs one Handler as a member of a consumer group.
//
// Each batch is one Kafka transaction that holds the outputs, the parked records, the dead letters and the input offsets.
// A record of the input takes effect exactly once, for readers under read_committed; the order of a key is kept, also
// while one of its records waits for a retry.
type Runner struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	breaker  *breaker
	watchdog *watchdog
	now      func() time.Time

	orders atomic.Pointer[Orders] // nil: not known yet
	news   chan struct{}          // orders have changed

	mu        sync.Mutex
	session   *session           // nil while there is no client
	leave     context.CancelFunc // ends the session as if Run's context had ended
	lastError string
}

// ErrFenced is returned by Run when another process goes on taking this instance's transactional id.
var ErrFenced = errors.New("another process runs as this instance of the group")

// NewRunner checks cfg and registers metrics. It starts nothing.
func NewRunner(cfg Config) (*Runner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("checking the runner's configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	r := &Runner{
		cfg: cfg, now: time.Now, breaker: newBreaker(time.Now), news: make(chan struct{}, 1),
		log: cfg.Logger.With("stage", cfg.Name, "group", cfg.Group, "instance", cfg.Instance),
	}
	if !cfg.AwaitOrders {
		r.orders.Store(&Orders{})
	}
	r.watchdog = &watchdog{limit: 2 * cfg.TransactionTimeout, trips: func() {
		r.metrics.watchdog.Inc()
		r.log.Error("watchdog: cancelling a batch that makes no progress", "limit", 2*cfg.TransactionTimeout)
	}}
	var err error
	if r.metrics, err = newMetrics(cfg.Registerer, cfg.Name, newStatusCollector(r.Status)); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return r, nil
}

// Run processes until ctx has ended, then lets the batch in flight finish within the grace period and returns nil. It does what
// Obey says; with Config.AwaitOrders it joins its group only after the first Obey.
//
// It outlives brokers that are down: it makes a new client, after a growing pause, as often as needed. It returns an error
// for what only a person can help: topics that are missing or do not fit each other, a handler that breaks its contract, another process
// with the same instance name, or a handler that does not come back (ErrStuck; its goroutine is left behind).
func (r *Runner) Run(ctx context.Context) error {
	pause := 100 * time.Millisecond
	fenced := 0
	for r.mayJoin(ctx) {
		started := r.now()
		err := r.runSession(ctx)
		if ctx.Err() != nil && !errors.Is(err, ErrStuck) {
			return nil
		}
		if err == nil { // left by order
			continue
		}
		if isFenced(err) {
			fenced++
		}
		if fenced > 3 {
			err = errors.Join(ErrFenced, err)
		}
		if isFinal(err) {
			return fmt.Errorf("running stage %s: %w", r.cfg.Name, err)
		}
		if r.now().Sub(started) > time.Minute {
			pause, fenced = 100*time.Millisecond, 0
		}
		r.log.Warn("starting a new Kafka client", "error", err, "pause", pause)
		sleep(ctx, pause+rand.N(pause))
		pause = min(2*pause, 15*time.Second)
	}
	return nil
}

// isFinal reports whether another client would meet the same error.
func isFinal(err error) bool {
	var contract *contractError
	return errors.Is(err, errTopics) || errors.Is(err, ErrStuck) || errors.Is(err, ErrFenced) || errors.As(err, &contract)
}

// contractError says that a handler does not do what Handler asks of it.
type contractError struct{ text string }

func (e *contractError) Error() string { return e.text }

// runSession runs one client until it fails, ctx has ended, or an order says to leave. Without an error it has left the group.
func (r *Runner) runSession(parent context.Context) (err error) {
	ctx, leave := r.untilLeave(parent)
	left := func() bool { return ctx.Err() != nil && parent.Err() == nil }
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if left() && !errors.Is(err, ErrStuck) {
			err = nil
		}
		leave()
		r.session, r.leave, r.lastError = nil, nil, ""
		if err != nil {
			r.lastError = err.Error()
		}
	}()
	s, err := r.newSession()
	if err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		s.fold.cl.Close()
		return err
	}
	r.mu.Lock()
	r.session, r.lastError = s, ""
	r.mu.Unlock()

	// Work goes on for a while after ctx has ended: polling ends with ctx, handlers and transactions with workCtx.
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	sideCtx, stopSide := context.WithCancel(workCtx)
	var side sync.WaitGroup
	stuck := make(chan error, 1)
	side.Go(func() { s.fold.run(sideCtx) })
	side.Go(func() { s.watchLag(sideCtx) })
	side.Go(func() { stuck <- r.watchdog.run(sideCtx) })
	loop := make(chan error, 1)
	go func() {
		defer close(s.done)
		loop <- s.loop(ctx, workCtx)
	}()
	err = r.await(ctx, cancel, loop, stuck)
	r.close(s)
	if left() && r.cfg.StaticMember {
		r.leaveStatic(s.fold.adm)
	}
	stopSide()
	side.Wait()
	return err
}

// await returns the loop's error, or ErrStuck if the loop does not end when it should.
func (r *Runner) await(ctx context.Context, cancel context.CancelFunc, loop, stuck <-chan error) error {
	select {
	case err := <-loop:
		return err
	case err := <-stuck:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(r.cfg.ShutdownGrace)
	defer grace.Stop()
	select {
	case err := <-loop:
		return err
	case <-grace.C:
		cancel() // handlers are interrupted, the transaction aborts
	}
	grace.Reset(r.cfg.ShutdownGrace)
	select {
	case err := <-loop:
		return err
	case <-grace.C:
		return fmt.Errorf("shutting down: %w", ErrStuck)
	}
}

// close leaves the group, also if a poll or a batch is left behind. It is bounded: a broker that is gone cannot hold it up.
func (r *Runner) close(s *session) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.sess.CloseAllowingRebalance()
	}()
	timer := time.NewTimer(r.cfg.ShutdownGrace)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		r.log.Warn("closing the Kafka client takes too long; leaving it behind")
	}
}
