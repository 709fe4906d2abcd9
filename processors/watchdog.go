package processors

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errStuck is the cause of a batch's cancelled context when the watchdog has tripped.
var errStuck = errors.New("no progress within twice the transaction timeout")

// ErrStuck is returned by Run when a handler or a client does not come back even after its context was cancelled.
var ErrStuck = errors.New("a batch is stuck and does not react to cancellation")

// watchdog sees that work in flight comes to an end. Kafka does not: a group member that heartbeats keeps its partitions for
// ever, whatever its handler does.
type watchdog struct {
	limit time.Duration
	trips func()

	mu      sync.Mutex
	started time.Time // zero: nothing in flight
	cancel  context.CancelCauseFunc
	tripped bool
}

// begin notes that a batch is in flight; cancel ends its context.
func (w *watchdog) begin(cancel context.CancelCauseFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started, w.cancel, w.tripped = time.Now(), cancel, false
}

// end notes that the batch has ended: its transaction was committed or aborted.
func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started, w.cancel = time.Time{}, nil
}

// inFlight returns when the batch in flight began, zero if there is none, and whether it is late: it has taken longer than a
// transaction should.
func (w *watchdog) inFlight() (since time.Time, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started, !w.started.IsZero() && time.Since(w.started) > w.limit/2
}

// run returns ErrStuck when a batch does not end, or nil when ctx has ended.
func (w *watchdog) run(ctx context.Context) error {
	tick := time.NewTicker(w.limit / 16)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if w.check() {
				return ErrStuck
			}
		}
	}
}

func (w *watchdog) check() (stuck bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started.IsZero() {
		return false
	}
	age := time.Since(w.started)
	if age > w.limit && !w.tripped {
		w.tripped = true
		w.trips()
		w.cancel(errStuck)
	}
	return age > w.limit+w.limit/4
}
