package relay

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Orders are what an operator wants of a Relay. The zero value: every source is relayed.
type Orders struct {
	Pause   string            // why no source is relayed. Empty: they are
	Sources map[string]string // sources that are not relayed, and why
}

// Obey replaces the orders that hold so far. It never blocks. A source that is paused stays with its owner; what is in flight is
// finished, then its database is left alone, but for the upkeep of its partitions, until the order is lifted.
func (r *Relay) Obey(o Orders) {
	o.Sources = maps.Clone(o.Sources)
	r.owner.orders.set(o)
}

// orders are those of an operator, as they change.
type orders struct {
	mu      sync.Mutex
	known   bool
	now     Orders
	changed chan struct{} // closed at the next change
}

func newOrders(known bool) *orders { return &orders{known: known, changed: make(chan struct{})} }

func (o *orders) set(now Orders) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known && o.now.Pause == now.Pause && maps.Equal(o.now.Sources, now.Sources) {
		return
	}
	o.now, o.known = now, true
	close(o.changed)
	o.changed = make(chan struct{})
}

// of returns why source is not to be relayed, empty if it is, and a channel that is closed when that may have changed.
func (o *orders) of(source string) (why string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return cmp.Or(o.now.Pause, o.now.Sources[source]), o.changed
}

// await waits until orders are known. It returns false if ctx is done first.
func (o *orders) await(ctx context.Context) bool {
	o.mu.Lock()
	known, changed := o.known, o.changed
	o.mu.Unlock()
	if known {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
		return true
	}
}

// errNoOrders is why a Relay does not begin.
var errNoOrders = errors.New("waits for its orders: whether sources are paused is not known yet")

// obey waits while the source is paused, without a connection to its database: perhaps that is why. It reports whether it has waited.
func (l *readLoop) obey(ctx context.Context) bool {
	why, changed := l.orders.of(l.spec.Name)
	if why == "" {
		return false
	}
	l.disconnect()
	l.set(statePaused, errors.New(why))
	for why != "" && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-changed:
		}
		why, changed = l.orders.of(l.spec.Name)
	}
	return true
}

// Process is what a Relay does now.
type Process struct {
	Time    time.Time       `json:"time"`
	Joined  bool            `json:"joined"`          // it is a member of its group
	Error   string          `json:"error,omitempty"` // why it is not
	Sources []ProcessSource `json:"sources"`         // that it owns
}

// ProcessSource is a source that a Relay owns.
type ProcessSource struct {
	Source          string  `json:"source"`
	State           string  `json:"state"` // "running", "paused by order", "waiting for the database" and others
	Reason          string  `json:"reason,omitempty"`
	LastID          int64   `json:"last_id"`           // of the outbox, delivered
	InFlightSeconds float64 `json:"in_flight_seconds"` // since Kafka has acknowledged anything, while something is in flight
}

// Status returns what r does now. It never waits.
func (r *Relay) Status() Process {
	p := Process{Time: time.Now(), Sources: []ProcessSource{}}
	o := r.owner
	o.mu.Lock()
	p.Joined = o.joined
	if o.err != nil {
		p.Error = o.err.Error()
	}
	o.mu.Unlock()
	for _, r := range o.all() {
		p.Sources = append(p.Sources, r.describe(p.Time))
	}
	slices.SortFunc(p.Sources, func(a, b ProcessSource) int { return cmp.Compare(a.Source, b.Source) })
	return p
}

func (s *source) describe(now time.Time) ProcessSource {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := ProcessSource{
		Source: s.spec.Name, State: string(s.state), LastID: s.committed.Last, InFlightSeconds: s.pending.stuck(now).Seconds(),
	}
	if s.err != nil {
		d.Reason = s.err.Error()
	}
	return d
}
