package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/topics"
)

// state says what an owned source is doing.
type state string

const (
	stateStarting state = "starting"
	stateRunning  state = "running"
	stateDatabase state = "waiting for the database"
	stateKafka    state = "waiting for kafka"
	stateTopics   state = "waiting for topics"
	stateFenced   state = "waiting for the group"
	stateRefused  state = "waiting for an operator"
	statePaused   state = "paused by order"
)

// source relays one source for as long as the group leaves it to this process.
type source struct {
	cfg     *Config
	spec    Source
	log     *slog.Logger
	metrics *metrics
	admin   *kadm.Client
	orders  *orders
	confirm func(ctx context.Context) error // asks the group whether we are a member of its present generation

	partitions int // of the cursor topic
	pending    pending

	mu        sync.Mutex
	state     state
	err       error
	committed position
}

// run returns when pollCtx is done and what was under way has ended: at once when workCtx is done too.
func (s *source) run(pollCtx, workCtx context.Context) {
	defer s.pending.forget()
	wait := backoff{}
	for pollCtx.Err() == nil {
		s.set(stateStarting, nil)
		started := time.Now()
		err := s.serve(pollCtx, workCtx)
		s.pending.forget()
		if pollCtx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			wait = backoff{}
		}
		s.recover(pollCtx, err, &wait)
	}
}

// recover waits until serving can be tried again after err.
func (s *source) recover(ctx context.Context, err error, wait *backoff) {
	switch {
	case errors.Is(err, errLimitsChanged):
		s.log.InfoContext(ctx, "limits of a topic have changed, beginning anew")
	case errors.Is(err, ErrRefused):
		s.set(stateRefused, err)
		s.awaitAdoption(ctx)
	case fenced(err):
		// If the other owner is rightful, the group knows: whoever initialized without asking it would fence the rightful owner in turn.
		s.metrics.fenced.WithLabelValues(s.spec.Name).Inc()
		s.set(stateFenced, err)
		for wait.sleep(ctx) && s.confirm(ctx) != nil {
			continue
		}
	case errors.Is(err, errTopicMissing):
		s.set(stateTopics, err)
		wait.sleep(ctx)
	default:
		s.set(stateKafka, err)
		wait.sleep(ctx)
	}
}

// awaitAdoption waits until the cursor is another one, or for half a minute: what was refused may also have been put right in the
// database.
func (s *source) awaitAdoption(ctx context.Context) {
	before, err := readCursor(ctx, s.cfg.Kafka, s.spec.Name, s.partitions)
	for range 15 {
		if err != nil || !sleep(ctx, 2*time.Second) {
			sleep(ctx, time.Second)
			return
		}
		var now *cursor
		if now, err = readCursor(ctx, s.cfg.Kafka, s.spec.Name, s.partitions); err == nil && now != nil &&
			(before == nil || !now.WrittenAt.Equal(before.WrittenAt)) {
			return
		}
	}
}

// serve takes the source over and relays it until something fails or pollCtx is done.
func (s *source) serve(pollCtx, workCtx context.Context) error {
	dests := newDestinations(s.spec.Name, s.spec.Entities, s.admin)
	if err := dests.open(pollCtx); err != nil {
		return err
	}
	session, err := openSession(pollCtx, s.cfg, s.spec.Name, dests.limit)
	if err != nil {
		return err
	}
	defer session.close()
	c, err := readCursor(pollCtx, s.cfg.Kafka, s.spec.Name, s.partitions)
	if err != nil {
		return err
	}
	if c == nil {
		first := newCursor(s.spec.Name, identity{})
		c = &first
	}
	s.log.InfoContext(pollCtx, "took source over", "last_id", c.Last, "rows", c.Rows, "written_at", c.WrittenAt)

	s.commit(c.position)
	readCtx, stop := context.WithCancel(pollCtx)
	defer stop()
	batches, free := make(chan *batch), make(chan *batch, batchesInUse)
	for range batchesInUse {
		free <- &batch{}
	}
	readErr := make(chan error, 1)
	go func() {
		defer close(batches)
		loop := readLoop{source: s, dests: dests, enc: newEncoder(s.spec.Name, dests, s.cfg.Tracer), cursor: *c, out: batches, free: free}
		readErr <- loop.run(readCtx)
	}()
	var upkeep sync.WaitGroup
	upkeep.Go(func() { s.maintain(readCtx) })
	defer upkeep.Wait()
	p := pipeline{
		session: session, dlqMax: dests.dlq.maxBytes, metrics: s.metrics, source: s.spec.Name, free: free, done: s.delivered,
	}
	err = p.run(workCtx, batches)
	stop() // the reader and the upkeep
	return errors.Join(err, <-readErr)
}

// batchesInUse are enough for one that is read while the other is produced.
const batchesInUse = 2

// delivered is called for each committed batch in order.
func (s *source) delivered(b sent) {
	name := s.spec.Name
	s.commit(b.cursor.position)
	s.metrics.transactions.WithLabelValues(name, resultCommitted).Inc()
	s.metrics.rows.WithLabelValues(name).Add(float64(b.rows))
	s.metrics.batchRows.Observe(float64(b.rows))
	s.metrics.sendSeconds.Observe(time.Since(b.started).Seconds())
	if b.late > 0 {
		s.metrics.lateRows.WithLabelValues(name).Add(float64(b.late))
	}
	for _, span := range b.spans {
		span.End()
	}
	for _, d := range b.dead {
		s.metrics.deadLetters.WithLabelValues(name, d.reason.code).Inc()
		s.log.Warn("kafka does not take an outbox row, it is in the dead letters", "outbox_id", d.id, "event_id", d.event,
			"entity", d.entity, "key", d.key, "code", d.reason.code, "reason", topics.Parameterize(d.reason.message))
	}
	s.pending.delivered()
}

// set notes what the source does, and logs it if that is new.
func (s *source) set(st state, err error) {
	s.mu.Lock()
	changed := s.state != st && (st != stateStarting || s.state == "")
	if st == stateStarting && s.state != "" {
		s.mu.Unlock()
		return // it is still what it was waiting for
	}
	s.state, s.err = st, err
	s.mu.Unlock()
	is := func(other state) float64 {
		if st == other {
			return 1
		}
		return 0
	}
	s.metrics.running.WithLabelValues(s.spec.Name).Set(is(stateRunning))
	s.metrics.refused.WithLabelValues(s.spec.Name).Set(is(stateRefused))
	s.metrics.paused.WithLabelValues(s.spec.Name).Set(is(statePaused))
	switch {
	case !changed:
	case err == nil:
		s.log.Info("source is "+string(st), "state", string(st)) //nolint:sloglint // one message for each of a few states
	default:
		s.log.Warn("source is "+string(st), "state", string(st), "error", err) //nolint:sloglint // as above
	}
}

// stuckAfter is how long a batch may be in flight before the source is not ready: Kafka takes no records.
const stuckAfter = 10 * time.Second

// ready says why nothing flows, nil if it does.
func (s *source) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateRunning {
		if s.err != nil {
			return fmt.Errorf("source %s is %s: %w", s.spec.Name, s.state, s.err)
		}
		return fmt.Errorf("source %s is %s", s.spec.Name, s.state)
	}
	if d := s.pending.stuck(time.Now()); d > stuckAfter {
		return fmt.Errorf("source %s is waiting for kafka: nothing was acknowledged for %s", s.spec.Name, d.Round(time.Second))
	}
	return nil
}

// backoff grows from 100 ms to 5 s.
type backoff struct{ last time.Duration }

// sleep waits a little longer than before, with jitter. It returns false if ctx is done.
func (b *backoff) sleep(ctx context.Context) bool {
	b.last = min(max(2*b.last, 100*time.Millisecond), 5*time.Second)
	return sleep(ctx, b.last/2+rand.N(b.last/2))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
