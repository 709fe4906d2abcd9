package processors

import (
	"sync"
	"time"
)

// BreakerState says whether a runner's target is believed to work.
type BreakerState string

// The states. Their order is the value of leat_breaker_state: 0, 1, 2.
const (
	BreakerClosed   BreakerState = "closed"    // work flows
	BreakerHalfOpen BreakerState = "half-open" // a probe is let through
	BreakerOpen     BreakerState = "open"      // nothing is handled until the next probe
)

// Breaker is the state of the breaker as an operator sees it.
type Breaker struct {
	State  BreakerState `json:"state"`
	Reason string       `json:"reason,omitempty"` // the rule that opened it, with its numbers
	Sample string       `json:"sample,omitempty"` // one of the errors
	Since  time.Time    `json:"since"`            // when it left the state closed, or entered it
	Probe  time.Time    `json:"probe,omitzero"`   // when the next probe goes out
	Probes int          `json:"probes,omitempty"` // probes that failed

	Order   BreakerState `json:"order,omitempty"`   // closed or open by order of an operator
	Ordered string       `json:"ordered,omitempty"` // who ordered it, and why
}

const (
	breakerMinPause = 100 * time.Millisecond
	breakerMaxPause = 5 * time.Second
)

// breaker decides when to handle records again after a systemic failure. While it is open nothing is handled; then a probe
// goes through; its result closes the breaker, or opens it for twice as long.
type breaker struct {
	mu      sync.Mutex
	now     func() time.Time
	current Breaker
	pause   time.Duration
	guessed bool // opened by the rule on many failures, not by a handler's word

	ordered   BreakerState // by an operator; empty: it decides by itself
	orderedBy string
	orderedAt time.Time
}

func newBreaker(now func() time.Time) *breaker {
	return &breaker{now: now, current: Breaker{State: BreakerClosed, Since: now()}}
}

// order lays an operator's word over the breaker. Open: nothing is handled, and what the breaker knows by itself is kept for when
// the order is taken back. Closed: it closes now, and trip no longer opens it.
func (b *breaker) order(state BreakerState, by string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state != b.ordered {
		b.orderedAt = b.now()
		if state == BreakerClosed {
			b.current, b.pause, b.guessed = Breaker{State: BreakerClosed, Since: b.orderedAt}, 0, false
		}
	}
	b.ordered, b.orderedBy = state, by
}

// heldClosed reports whether an order keeps the breaker closed.
func (b *breaker) heldClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ordered == BreakerClosed
}

// trip opens the breaker, for longer if a probe brought the failure. Held closed by an order it only waits before the next batch.
func (b *breaker) trip(reason, sample string, guessed bool) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.current.State == BreakerClosed && b.current.Reason == "" {
		b.pause = 0
		b.current = Breaker{Since: now}
	} else {
		b.current.Probes++
	}
	b.pause = min(max(2*b.pause, breakerMinPause), breakerMaxPause)
	b.guessed = guessed
	b.current.State, b.current.Reason, b.current.Sample = BreakerOpen, reason, sample
	b.current.Probe = now.Add(b.pause)
	if b.ordered == BreakerClosed {
		b.current.State, b.guessed = BreakerClosed, false
	}
	return b.pause
}

// wait returns how long nothing may be handled. When the pause is over it lets a probe through and returns 0.
func (b *breaker) wait() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ordered == BreakerOpen {
		return holdFor
	}
	if d := b.current.Probe.Sub(b.now()); d > 0 {
		return d
	}
	if b.current.State == BreakerOpen {
		b.current.State = BreakerHalfOpen
	}
	return 0
}

// probing reports whether the next batch is a probe, and whether the breaker was opened by the guess.
func (b *breaker) probing() (probing, guessed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current.State == BreakerHalfOpen, b.guessed
}

// succeed closes the breaker and reports whether it was not closed before.
func (b *breaker) succeed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current.State == BreakerClosed && b.current.Reason == "" {
		return false
	}
	b.current = Breaker{State: BreakerClosed, Since: b.now()}
	b.guessed = false
	return true
}

func (b *breaker) snapshot() Breaker {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.current
	if b.ordered == BreakerOpen {
		c = Breaker{State: BreakerOpen, Reason: "by order", Since: b.orderedAt}
	}
	c.Order, c.Ordered = b.ordered, b.orderedBy
	return c
}
