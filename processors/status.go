package processors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Status is what a Runner does now.
type Status struct {
	Time       time.Time         `json:"time"`
	Running    bool              `json:"running"`                  // a client is up
	Error      string            `json:"error,omitempty"`          // why the last client ended
	Paused     string            `json:"paused,omitempty"`         // why nothing is handled, by order; also while the orders are not known
	Tenants    map[string]string `json:"paused_tenants,omitempty"` // whose records wait by order, and why
	Batch      time.Time         `json:"batch_since,omitzero"`     // when the batch in flight began
	Stuck      bool              `json:"stuck,omitempty"`          // it has taken longer than a transaction should; the watchdog ends it after twice as long
	Breaker    Breaker           `json:"breaker"`
	Isolating  bool              `json:"isolating"` // batches are small, to find a record that Kafka refuses
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus is the state of a partition that a Runner owns.
type PartitionStatus struct {
	Topic         string        `json:"topic"`
	Partition     int32         `json:"partition"`
	State         string        `json:"state"`  // "folding" (reads its retry partition), "running", "full" (too much is parked)
	Offset        int64         `json:"offset"` // the next one to be settled
	Lag           int64         `json:"lag"`    // records from Offset to the last stable offset
	LagTime       time.Duration `json:"lag_time"`
	LogStart      int64         `json:"log_start"`  // the earliest offset that Kafka keeps; -1: not known yet. Above Offset: records were deleted unread
	StuckTime     time.Duration `json:"stuck_time"` // for how long the last stable offset has stood still below an open transaction
	ParkedKeys    int           `json:"parked_keys"`
	ParkedRecords int           `json:"parked_records"`
	ParkedBytes   int           `json:"parked_bytes"`
	ParkedSince   time.Time     `json:"parked_since,omitzero"` // first failure of the key parked longest
}

// Status returns what r does now. It never blocks on work in flight.
func (r *Runner) Status() Status {
	now := r.now()
	st := Status{Time: now, Breaker: r.breaker.snapshot()}
	st.Batch, st.Stuck = r.watchdog.inFlight()
	if err := r.byOrder(); err != nil {
		st.Paused = err.Error()
	}
	if o := r.orders.Load(); o != nil {
		st.Tenants = maps.Clone(o.Tenants)
	}
	r.mu.Lock()
	s := r.session
	st.Error = r.lastError
	r.mu.Unlock()
	if s == nil {
		return st
	}
	st.Running = true
	st.Isolating = s.isolating.Load()
	if text := s.kafkaError.Load(); text != nil {
		st.Error = *text
	}
	s.mu.Lock()
	for _, p := range s.parts {
		ps := *p.view.Load()
		ps.Lag = max(0, p.stable.Load()-ps.Offset)
		if since := max(p.caughtUp.Load(), p.lastTime.Load()); ps.Lag > 0 {
			ps.LagTime = max(0, now.Sub(time.UnixMilli(since)))
		}
		ps.LogStart = p.logStart.Load()
		if since := p.stuck.Load(); since > 0 {
			ps.StuckTime = max(0, now.Sub(time.UnixMilli(since)))
		}
		st.Partitions = append(st.Partitions, ps)
	}
	s.mu.Unlock()
	slices.SortFunc(st.Partitions, func(a, b PartitionStatus) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return st
}

// Ready returns why nothing can flow, or nil. That a tenant is paused does not count: the others flow.
func (r *Runner) Ready() error {
	if err := r.byOrder(); err != nil {
		return err
	}
	if since, late := r.watchdog.inFlight(); late {
		return fmt.Errorf("a batch makes no progress since %s", since.UTC().Format(time.RFC3339))
	}
	switch b := r.breaker.snapshot(); {
	case b.Order == BreakerOpen:
		return fmt.Errorf("breaker is open by order: %s", b.Ordered)
	case b.State == BreakerClosed && b.Reason != "":
		return fmt.Errorf("breaker is held closed by order, but since %s: %s: %s", b.Since.UTC().Format(time.RFC3339), b.Reason, b.Sample)
	case b.State != BreakerClosed:
		return fmt.Errorf("breaker is %s since %s: %s: %s", b.State, b.Since.UTC().Format(time.RFC3339), b.Reason, b.Sample)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.session == nil && r.lastError != "":
		return errors.New(r.lastError)
	case r.session == nil:
		return errors.New("not connected to Kafka yet")
	}
	if text := r.session.kafkaError.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}

// Parked lists the parked records of the partitions that r owns, up to n, by topic, partition and offset. It waits for the
// batch in flight.
func (r *Runner) Parked(ctx context.Context, n int) ([]Parked, error) {
	reply := make(chan []Parked, 1)
	s, err := r.ask(ctx, func(s *session) { reply <- s.listParked(n) })
	if err != nil {
		return nil, fmt.Errorf("listing parked records: %w", err)
	}
	select {
	case list := <-reply:
		return list, nil
	case <-s.done:
		return nil, fmt.Errorf("listing parked records: %w", errSessionEnded)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var (
	errNotConnected = errors.New("not connected to Kafka")
	errSessionEnded = errors.New("the Kafka client has ended")
)

// ask lets the loop of the session call f, between two batches.
func (r *Runner) ask(ctx context.Context, f func(*session)) (*session, error) {
	r.mu.Lock()
	s := r.session
	r.mu.Unlock()
	if s == nil {
		return nil, errNotConnected
	}
	select {
	case s.asks <- func() { f(s) }:
		s.waker.wake()
		return s, nil
	case <-s.done:
		return nil, errSessionEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) listParked(n int) []Parked {
	var list []Parked
	for _, p := range s.owned() {
		for _, e := range p.lot.byOffset {
			list = append(list, Parked{e.msg.Key, e.msg.Headers, e.fail})
		}
	}
	slices.SortFunc(list, func(a, b Parked) int {
		return cmp.Or(cmp.Compare(a.Failure.Topic, b.Failure.Topic), cmp.Compare(a.Failure.Partition, b.Failure.Partition),
			cmp.Compare(a.Failure.Offset, b.Failure.Offset))
	})
	return list[:min(n, len(list))]
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }
