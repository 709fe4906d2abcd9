package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/topics"
)

// owner runs the sources whose cursor partitions the consumer group assigns to this process. The group only assigns: it
// reads nothing and commits no offsets.
type owner struct {
	cfg     *Config
	metrics *metrics
	orders  *orders

	client     *kgo.Client
	admin      *kadm.Client
	partitions int // of the cursor topic

	mu      sync.Mutex
	joined  bool
	err     error
	running map[string]*running
}

// running is a source with the means to end it.
type running struct {
	*source
	endPolling context.CancelFunc // what is under way may be finished
	endWork    context.CancelFunc // at once
	done       chan struct{}
}

func newOwner(c *Config, m *metrics) *owner {
	err := errors.New("not started")
	if c.AwaitOrders {
		err = errNoOrders
	}
	return &owner{cfg: c, metrics: m, orders: newOrders(!c.AwaitOrders), running: map[string]*running{}, err: err}
}

func (o *owner) run(ctx context.Context) error {
	if !o.orders.await(ctx) {
		return nil
	}
	plain, err := kgo.NewClient(o.cfg.Kafka...)
	if err != nil {
		return fmt.Errorf("making kafka client: %w", err)
	}
	defer plain.Close()
	o.admin = kadm.NewClient(plain)
	if !o.awaitCursorTopic(ctx) {
		return nil
	}
	if o.client, err = kgo.NewClient(o.groupOptions()...); err != nil {
		return fmt.Errorf("making kafka client: %w", err)
	}
	o.client.PauseFetchTopics(topics.Cursors)
	o.watch(ctx)
	o.stop(o.all(), false)
	o.client.CloseAllowingRebalance() // leaves the group, unless it is a static member
	return nil
}

func (o *owner) groupOptions() []kgo.Opt {
	opts := slices.Concat(o.cfg.Kafka, []kgo.Opt{
		kgo.ConsumerGroup(o.cfg.Group),
		kgo.ConsumeTopics(topics.Cursors),
		kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), // sources that stay do not notice those that move
		kgo.SessionTimeout(o.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(time.Second, o.cfg.SessionTimeout/4)),
		kgo.RebalanceTimeout(o.cfg.Grace + 3*time.Second), // handing over takes the grace period at most
		kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, p map[string][]int32) { o.assigned(ctx, p[topics.Cursors]) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { o.stop(o.at(p[topics.Cursors]), false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { o.stop(o.at(p[topics.Cursors]), true) }),
	})
	if o.cfg.Instance != "" {
		opts = append(opts, kgo.InstanceID(o.cfg.Instance))
	}
	return opts
}

// awaitCursorTopic waits until the cursor topic exists. It returns false if ctx is done first.
func (o *owner) awaitCursorTopic(ctx context.Context) bool {
	var wait backoff
	for {
		listed, err := o.admin.ListTopics(ctx, topics.Cursors)
		if err == nil {
			err = listed.Error()
		}
		if n := len(listed[topics.Cursors].Partitions); err == nil && n > 0 {
			o.partitions = n
			return true
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			err = fmt.Errorf("%w: %s; create it with: leat topics apply", errTopicMissing, topics.Cursors)
		}
		o.note(err)
		if !wait.sleep(ctx) {
			return false
		}
	}
}

// watch notes what goes wrong in the group until ctx is done. The client tries again by itself.
func (o *owner) watch(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := o.client.PollFetches(ctx)
		if ctx.Err() == nil {
			o.note(fetches.Err())
		}
	}
}

func (o *owner) note(err error) {
	o.mu.Lock()
	changed := (err == nil) != (o.err == nil) || err != nil && err.Error() != o.err.Error()
	o.err = err
	o.mu.Unlock()
	if changed && err != nil {
		o.cfg.Logger.Warn("relay cannot join its group", "group", o.cfg.Group, "error", err)
	}
}

// assigned starts the sources of the partitions. It is also called, with none, when a rebalance brings nothing new.
func (o *owner) assigned(ctx context.Context, partitions []int32) {
	o.note(nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.joined = true
	for _, spec := range o.cfg.Sources {
		_, runs := o.running[spec.Name]
		if runs || !slices.Contains(partitions, cursorPartition(spec.Name, o.partitions)) {
			continue
		}
		pollCtx, endPolling := context.WithCancel(context.WithoutCancel(ctx))
		workCtx, endWork := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{endPolling: endPolling, endWork: endWork, done: make(chan struct{}), source: &source{
			cfg: o.cfg, spec: spec, log: o.cfg.Logger.With("source", spec.Name), metrics: o.metrics, admin: o.admin,
			orders: o.orders, confirm: o.confirm, partitions: o.partitions,
		}}
		o.running[spec.Name] = r
		go func() {
			defer close(r.done)
			r.run(pollCtx, workCtx)
		}()
	}
	o.metrics.owned.Set(float64(len(o.running)))
}

func (o *owner) at(partitions []int32) []*running {
	return slices.DeleteFunc(o.all(), func(r *running) bool {
		return !slices.Contains(partitions, cursorPartition(r.spec.Name, o.partitions))
	})
}

func (o *owner) all() []*running {
	o.mu.Lock()
	defer o.mu.Unlock()
	var rs []*running
	for _, r := range o.running {
		rs = append(rs, r)
	}
	return rs
}

// stop ends sources and returns when they have ended. Unless they are lost already, what is under way is finished first, for
// at most the grace period.
func (o *owner) stop(rs []*running, lost bool) {
	for _, r := range rs {
		r.endPolling()
		if lost {
			r.endWork()
			continue
		}
		time.AfterFunc(o.cfg.Grace, r.endWork)
	}
	for _, r := range rs {
		<-r.done
		r.endWork()
		r.log.Info("gave source up", "lost", lost)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range rs {
		delete(o.running, r.spec.Name)
		o.metrics.running.DeleteLabelValues(r.spec.Name)
		o.metrics.refused.DeleteLabelValues(r.spec.Name)
		o.metrics.paused.DeleteLabelValues(r.spec.Name)
		o.metrics.lag.DeleteLabelValues(r.spec.Name)
	}
	o.metrics.owned.Set(float64(len(o.running)))
}

// confirm asks the group's coordinator whether this process is a member of the present generation. Only then is what it was
// assigned still its own: a member that was thought dead learns it here before it takes a source from its new owner.
func (o *owner) confirm(ctx context.Context) error {
	member, generation := o.client.GroupMetadata()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = o.cfg.Group, member, generation
	if o.cfg.Instance != "" {
		req.InstanceID = &o.cfg.Instance
	}
	resp, err := req.RequestWith(ctx, o.client)
	if err != nil {
		return fmt.Errorf("asking group %s: %w", o.cfg.Group, err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("asking group %s: %w", o.cfg.Group, err)
	}
	return nil
}

func (o *owner) ready() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	if o.err != nil {
		errs = append(errs, fmt.Errorf("relay group %s: %w", o.cfg.Group, o.err))
	} else if !o.joined {
		errs = append(errs, fmt.Errorf("relay group %s: not joined yet", o.cfg.Group))
	}
	for _, r := range o.running {
		errs = append(errs, r.ready())
	}
	return errors.Join(errs...)
}

// pending yields what each owned source has in flight.
func (o *owner) pending(yield func(source string, p *pending)) {
	for _, r := range o.all() {
		yield(r.spec.Name, &r.pending)
	}
}
