package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leat-io/leat/topics"
)

// watch follows a topic and notes when rows are first seen.
type watch struct {
	newest atomic.Int64 // number of the newest row seen, -1 before the first
	wake   chan struct{}
	end    func() error
}

func (b *bench) watch(ctx context.Context, topic string) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{wake: make(chan struct{}, 1)}
	w.newest.Store(-1)
	ended := make(chan error, 1)
	go func() {
		ended <- b.arrivalsOn(rowOfSchema, topic)(ctx, func(row int) {
			w.newest.Store(max(w.newest.Load(), int64(row)))
			select {
			case w.wake <- struct{}{}:
			default:
			}
		})
	}()
	w.end = func() error {
		cancel()
		return <-ended
	}
	return w
}

// until waits for a row of that number or a later one.
func (w *watch) until(ctx context.Context, row int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for w.newest.Load() < int64(row) {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return fmt.Errorf("waiting for row %d to arrive: %w", row, ctx.Err())
		}
	}
	return nil
}

// start measures from the start of a process until the first of the rows that waited for it is seen.
func (b *bench) start(ctx context.Context) error {
	const waiting, starts = 1_000, 3
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	w := b.watch(ctx, r.sourceInvoices)
	for n := range starts {
		if err := r.writeOutbox(ctx, n*waiting, waiting); err != nil {
			return errors.Join(err, w.end())
		}
		begin := time.Now()
		p, err := r.start("relay", "run")
		if err == nil {
			err = w.until(ctx, n*waiting)
		}
		if err != nil {
			return errors.Join(err, w.end())
		}
		b.report.add("start", "first record s", "s", time.Since(begin).Seconds())
		if err := errors.Join(w.until(ctx, (n+1)*waiting-1), p.stop()); err != nil {
			return errors.Join(err, w.end())
		}
	}
	return w.end()
}

// failover kills the owner of a source under load: once with nobody there, and the process is started anew at once; once with a
// second process standing by.
func (b *bench) failover(ctx context.Context) error {
	if err := b.killUnderLoad(ctx, "first after kill s", false); err != nil {
		return err
	}
	return b.killUnderLoad(ctx, "first after kill with standby s", true)
}

func (b *bench) killUnderLoad(ctx context.Context, measure string, standby bool) error {
	r, err := b.newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	w := b.watch(ctx, r.sourceInvoices)
	var next atomic.Int64
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() { loaded <- r.trickle(loading, &next) }()
	seconds, err := b.killed(ctx, r, w, &next, standby)
	stop()
	if err = errors.Join(err, <-loaded, w.end()); err == nil {
		b.report.add("failover", measure, "s", seconds)
	}
	return err
}

func (b *bench) killed(ctx context.Context, r *rig, w *watch, next *atomic.Int64, standby bool) (float64, error) {
	const steady = 200 // rows; by then the relay is in its stride
	owner, err := r.start("relay", "run")
	if err == nil {
		err = w.until(ctx, steady)
	}
	if err != nil {
		return 0, err
	}
	if standby {
		if owner, err = r.joinSecond(ctx, owner); err == nil {
			err = w.until(ctx, int(next.Load())+steady)
		}
		if err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	owner.Kill()
	later := int(next.Load()) + 1 // the one being written may have been committed before
	if !standby {
		if _, err := r.start("relay", "run"); err != nil {
			return 0, err
		}
	}
	if err := w.until(ctx, later); err != nil {
		return 0, err
	}
	return time.Since(begin).Seconds(), nil
}

// joinSecond starts a second relay, waits until the group has settled, and returns the process that has the source now: a group that
// grows may hand it over.
func (r *rig) joinSecond(ctx context.Context, first *process) (owner *process, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	members, err := r.members(ctx)
	if err != nil {
		return nil, err
	}
	if len(members) != 1 {
		return nil, fmt.Errorf("group %s has %d members, not one", r.groups[0], len(members))
	}
	second, err := r.startAs("two", "relay", "run")
	if err != nil {
		return nil, err
	}
	partition, err := r.b.growing(ctx, topics.Cursors)
	if err != nil {
		return nil, err
	}
	before := members[0].MemberID
	for ; ; time.Sleep(100 * time.Millisecond) {
		members, err := r.members(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			assigned, ok := m.Assigned.AsConsumer()
			if len(members) < 2 || !ok || !slices.ContainsFunc(assigned.Topics, func(t kmsg.ConsumerMemberAssignmentTopic) bool {
				return t.Topic == topics.Cursors && slices.Contains(t.Partitions, partition)
			}) {
				continue
			}
			if m.MemberID == before {
				return first, nil
			}
			return second, nil
		}
	}
}

// members are those of the relay's group, none while it rebalances.
func (r *rig) members(ctx context.Context) ([]kadm.DescribedGroupMember, error) {
	groups, err := r.b.adm.DescribeGroups(ctx, r.groups[0])
	if err == nil {
		err = groups.Error()
	}
	if err != nil || groups[r.groups[0]].State != "Stable" {
		return nil, err
	}
	return groups[r.groups[0]].Members, nil
}

// growing finds the partition that is being written to.
func (b *bench) growing(ctx context.Context, topic string) (int32, error) {
	before, err := b.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	for {
		now, err := b.adm.ListEndOffsets(ctx, topic)
		if err != nil {
			return 0, err
		}
		for _, o := range now.Offsets().Sorted() {
			if was, ok := before.Lookup(topic, o.Partition); ok && o.At > was.Offset {
				return o.Partition, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// trickle writes 200 rows a second, one a transaction, and keeps next at the number of the next one, until ctx ends.
func (r *rig) trickle(ctx context.Context, next *atomic.Int64) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.writeOutbox(ctx, int(next.Load()), 1); err != nil && ctx.Err() == nil {
			return err
		}
		next.Add(1)
	}
}
