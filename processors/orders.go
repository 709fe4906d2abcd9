package processors

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/topics"
)

// Orders are what an operator wants of a Runner. The zero value: work, and decide by yourself.
type Orders struct {
	Pause   string            // why it handles nothing; it stays a member of its group. Empty: it works
	Leave   string            // why it gives its partitions back and leaves its group (a drain). Empty: it stays
	Tenants map[string]string // tenants whose records wait, and why
	Breaker string            // "open" or "closed": by order; empty: the breaker decides

	BreakerReason string // who ordered that of the breaker, and why
}

func (o *Orders) equal(p *Orders) bool {
	return o.Pause == p.Pause && o.Leave == p.Leave && o.Breaker == p.Breaker && o.BreakerReason == p.BreakerReason &&
		maps.Equal(o.Tenants, p.Tenants)
}

// Obey replaces the orders that hold so far. It never blocks; a batch in flight is finished first, under the orders it began with.
//
// Pause: nothing is handled, rebalances are not held up. Leave: the session ends and a static member leaves the group too; Run
// waits until the order is lifted, then joins anew. Tenants: their records are parked without an attempt, in order, and are due
// at once when the order is lifted; other tenants go on, until as much is parked as a partition may hold. Breaker "open":
// nothing is handled until the order is taken back. Breaker "closed": the breaker does not open. It tries again at once, with full
// batches, and takes no failures of many records for an outage: they have their attempts. What the handler itself calls systemic
// still aborts its batch, spends no attempt and is tried again after a pause of at most 5 s: an outage is not a failure of records,
// whatever is ordered.
func (r *Runner) Obey(o Orders) {
	o.Tenants = maps.Clone(o.Tenants)
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.orders.Load(); old != nil && old.equal(&o) {
		return
	}
	r.orders.Store(&o)
	r.breaker.order(BreakerState(o.Breaker), o.BreakerReason)
	r.log.Info("orders", "pause", o.Pause, "leave", o.Leave, "tenants", len(o.Tenants), "breaker", o.Breaker)
	if o.Leave != "" && r.leave != nil {
		r.leave()
	}
	if r.session != nil {
		r.session.waker.wake()
	}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// mayJoin waits until the orders are known and none says to leave. It reports false if ctx has ended.
func (r *Runner) mayJoin(ctx context.Context) bool {
	for ctx.Err() == nil {
		if o := r.orders.Load(); o != nil && o.Leave == "" {
			return true
		}
		select {
		case <-ctx.Done():
		case <-r.news:
		}
	}
	return false
}

// untilLeave returns a context that ends with ctx or when an order says to leave.
func (r *Runner) untilLeave(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, leave := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave = leave
	if r.orders.Load().Leave != "" { // given since mayJoin has looked
		leave()
	}
	return ctx, leave
}

// leaveStatic takes a static member out of its group. Closing its client does not: the group would keep its partitions for it until the
// session times out, and an operator's change of offsets would be refused for that long.
func (r *Runner) leaveStatic(adm *kadm.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.ShutdownGrace)
	defer cancel()
	left, err := adm.LeaveGroup(ctx, kadm.LeaveGroup(r.cfg.Group).Reason("by order of an operator").InstanceIDs(r.cfg.Instance))
	if err == nil {
		err = left.Error()
	}
	if err != nil {
		r.log.Warn("taking a static member out of its group", "error", err)
	}
}

// byOrder says why nothing is handled: nil if nothing is ordered.
func (r *Runner) byOrder() error {
	switch o := r.orders.Load(); {
	case o == nil:
		return fmt.Errorf("group %s waits for its orders: whether it is paused is not known yet", r.cfg.Group)
	case o.Leave != "":
		return fmt.Errorf("group %s is drained: %s", r.cfg.Group, o.Leave)
	case o.Pause != "":
		return fmt.Errorf("paused: %s", o.Pause)
	}
	return nil
}

// holdFor is how long the loop rests at a time while an order holds it. It is woken when orders change.
const holdFor = time.Minute

// hold returns how long nothing may be handled, by order or by the breaker.
func (s *session) hold() time.Duration {
	if s.r.orders.Load().Pause != "" {
		return holdFor
	}
	return s.r.breaker.wait()
}

// tenantOf says whose record it is: by its key, else by its header.
func tenantOf(key []byte, headers []topics.Header) string {
	if tenant, _, _, err := topics.SplitKey(key); err == nil {
		return tenant
	}
	return header(headers, topics.HeaderTenant)
}

// Member names r among those that take orders: its consumer group, and its slot in it.
func (r *Runner) Member() (group, instance string) { return r.cfg.Group, r.cfg.Instance }
