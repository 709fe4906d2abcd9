package offsets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/operations/audit"
)

// ApplyOptions say how apply and undo deal with a group that has members.
type ApplyOptions struct {
	Drain   bool          // have the members of our own group step aside, and come back afterwards
	Wait    time.Duration // how long to wait for members that are gone to be forgotten; default 0
	Timeout time.Duration // how long draining may take, and parked records with ParkedDrain; default 2 min
}

// Report is what apply or undo did.
type Report struct {
	Plan       *Plan    `json:"plan"`
	Partitions []Result `json:"partitions"`
	Cancelled  int64    `json:"cancelled"` // parked records that were taken off the retry topics
	Drained    bool     `json:"drained"`
	Members    []Member `json:"members"` // those that are back after a drain
	Notes      []string `json:"notes"`
}

// Result is what became of one partition.
type Result struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Before    *Commit `json:"before"`
	After     *Commit `json:"after"` // as Kafka showed it when it had been written
	Problem   string  `json:"problem,omitempty"`

	refused bool // Kafka has said no, or was not asked
}

// The actions, as the audit log has them.
const (
	actionApply = "offsets apply"
	actionUndo  = "offsets undo"
)

// change is an apply or an undo under way.
type change struct {
	o      *Offsets
	locked *pgxpool.Conn // has the lock
	op     audit.Operator
	opt    ApplyOptions
	plan   *Plan
	action string // actionApply or actionUndo
	report *Report

	// verify compares the plan with what stands in Kafka. running says that the group has members, who may still move on.
	verify func(commits kadm.OffsetResponses, facts []Facts, running bool) (problems []string)
	want   []Position // what is to stand in Kafka
	before []Position // what stood there when it was written
}

// Apply does what a plan says, or refuses with a *RefusedError and changes nothing. If writing began and did not end well, the error
// says so and the plan is failed; the report then shows what stands in Kafka.
func (o *Offsets) Apply(ctx context.Context, op audit.Operator, id string, opt ApplyOptions) (*Report, error) {
	return o.change(ctx, op, id, opt, func(p *Plan) (*change, error) {
		if err := refuse(p.refuseApply()); err != nil {
			return nil, err
		}
		c := &change{action: actionApply, verify: p.moved}
		for i := range p.Partitions {
			part := &p.Partitions[i]
			c.want = append(c.want, Position{part.Topic, part.Partition, &Commit{Offset: part.Target, LeaderEpoch: -1}})
		}
		return c, nil
	})
}

// change runs an apply or an undo. One runs at a time for a group.
func (o *Offsets) change(ctx context.Context, op audit.Operator, id string, opt ApplyOptions, begin func(*Plan) (*change, error)) (*Report, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	p, err := o.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	locked, unlock, err := o.lock(ctx, p.Group)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p, err = o.Get(ctx, id); err != nil { // as it is under the lock
		return nil, err
	}
	c, err := begin(p)
	if err != nil {
		return nil, err
	}
	opt.Timeout = cmp.Or(opt.Timeout, 2*time.Minute)
	c.o, c.locked, c.op, c.opt, c.plan, c.report = o, locked, op, opt, p, &Report{Plan: p}
	return c.run(ctx)
}

// refuseApply says why a plan in its state cannot be applied.
func (p *Plan) refuseApply() string {
	switch p.State {
	case Planned:
		return ""
	case Expired:
		return fmt.Sprintf("plan %s expired at %s: plan again", p.ID, p.ExpiresAt.Format(time.RFC3339))
	case Failed:
		return fmt.Sprintf("plan %s failed when it was applied: %s: plan again", p.ID, p.Problem)
	}
	return fmt.Sprintf("plan %s was applied by %s at %s already: plan again", p.ID, p.AppliedBy, p.AppliedAt.UTC().Format(time.RFC3339))
}

// moved says what has changed since the plan was made.
//
// A plan for a group that was running allows that the group has gone on by itself until now: it lists the records up to where the group
// stood, and those that it has read since are read again as well.
func (p *Plan) moved(commits kadm.OffsetResponses, facts []Facts, _ bool) (problems []string) {
	ran := len(p.Members) > 0
	for i := range p.Partitions {
		part, f := &p.Partitions[i], &facts[i]
		now := commitOf(commits, f.Topic, f.Partition)
		wentOn := ran && part.Committed != nil && now != nil && now.Offset > part.Committed.Offset && now.Offset <= f.End &&
			(part.Direction == Reread || part.Direction == Stay || now.Offset <= part.Target)
		switch {
		case f.TopicID != part.TopicID:
			problems = append(problems, fmt.Sprintf("topic %s was made anew since the plan: plan again", f.Topic))
		case !sameOffset(now, part.Committed) && !wentOn:
			problems = append(problems, fmt.Sprintf("%s: the committed offset moved from %s to %s since the plan: plan again",
				f.name(), part.Committed, now))
		case part.Target < f.LogStart:
			problems = append(problems, fmt.Sprintf("%s: retention has moved the start of the log to %d since the plan, beyond offset %d: plan again",
				f.name(), f.LogStart, part.Target))
		case part.Target > f.End:
			problems = append(problems, fmt.Sprintf("%s: the end of the log is %d now, before offset %d: plan again", f.name(), f.End, part.Target))
		}
	}
	return slices.Compact(problems)
}

// String is the offset for people.
func (c *Commit) String() string {
	if c == nil {
		return "none"
	}
	return strconv.FormatInt(c.Offset, 10)
}

func sameOffset(a, b *Commit) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Offset == b.Offset)
}

// run is the way of every change: look, drain, look again, write, read back, let go.
func (c *change) run(ctx context.Context) (*Report, error) {
	g, err := c.admit(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.look(ctx, g.active(), false); err != nil {
		return nil, err
	}
	if err := c.record(ctx, "started", nil); err != nil {
		return nil, err
	}
	err = c.aside(ctx, g, func() error {
		if err := c.look(ctx, false, true); err != nil {
			return err
		}
		return c.write(ctx)
	})
	if err == nil {
		return c.report, nil
	}
	outcome := "refused"
	if refused := (*RefusedError)(nil); !errors.As(err, &refused) {
		outcome = "failed"
	}
	return c.report, errors.Join(err, c.record(context.WithoutCancel(ctx), outcome, err))
}

// admit checks the group's type, state and members against the plan.
func (c *change) admit(ctx context.Context) (groupInfo, error) {
	p := c.plan
	g, err := c.o.describe(ctx, p.Group)
	if err != nil {
		return g, err
	}
	if g.active() && !c.opt.Drain && c.opt.Wait > 0 {
		if g, err = c.o.awaitEmpty(ctx, p.Group, c.opt.Wait); err != nil {
			return g, err
		}
	}
	if err := refuse(g.refuseType(p.Group)); err != nil {
		return g, err
	}
	ours := c.o.own(p.Group) != nil && c.o.cfg.Drains != nil
	return g, refuse(p.refuseGroup(&g, c.action, c.opt.Drain, ours))
}

// refuseGroup says why the group, as it is now, is not the one that the plan is for. ours says that its members can be drained.
func (p *Plan) refuseGroup(g *groupInfo, action string, drain, ours bool) string {
	apply := action == actionApply
	switch {
	case !g.exists() && !p.Create && p.GroupState != noGroup:
		return fmt.Sprintf("group %s is gone since the plan: plan again", p.Group)
	case g.active() && !drain:
		return g.refuseActive(p.Group, ours)
	case g.active() && !ours:
		return fmt.Sprintf("group %s is not of this installation, so --drain cannot reach its members: %s", p.Group, names(g.Members))
	case g.active() && len(p.Members) == 0 && apply:
		return fmt.Sprintf("group %s has become active since the plan, with %s: plan again", p.Group, names(g.Members))
	case g.active() && apply && !sameMembers(g.Members, p.Members):
		return fmt.Sprintf("the members of group %s have changed since the plan, from %s to %s: plan again", p.Group, names(p.Members),
			names(g.Members))
	case !g.active() && p.Parked == ParkedDrain && apply:
		return "--parked drain lets the running members settle what is parked, and group " + p.Group + " has none now: plan again"
	}
	return ""
}

func sameMembers(a, b []Member) bool {
	ids := func(ms []Member) (ids []string) {
		for _, m := range ms {
			ids = append(ids, m.ID)
		}
		slices.Sort(ids)
		return ids
	}
	return slices.Equal(ids(a), ids(b))
}

// look compares the plan with Kafka. With settle it waits for offsets that open transactions are about to commit.
func (c *change) look(ctx context.Context, running, settle bool) error {
	commits, err := c.o.committed(ctx, c.plan.Group, settle)
	if err != nil {
		return err
	}
	ps := c.plan.place()
	if _, err := c.o.partitions(ctx, scopeOf(ps)); err != nil {
		return err
	}
	facts, err := c.o.facts(ctx, ps, commits)
	if err != nil {
		return err
	}
	c.before = c.before[:0]
	for _, p := range ps {
		c.before = append(c.before, Position{p.topic, p.partition, commitOf(commits, p.topic, p.partition)})
	}
	return refuse(c.verify(commits, facts, running)...)
}

func scopeOf(ps []tp) map[string][]int32 {
	scope := map[string][]int32{}
	for _, p := range ps {
		scope[p.topic] = append(scope[p.topic], p.partition)
	}
	return scope
}

// aside calls do while the group has no members.
func (c *change) aside(ctx context.Context, g groupInfo, do func() error) (err error) {
	if !g.active() {
		return do()
	}
	group := c.plan.Group
	if c.plan.Parked == ParkedDrain && c.action == actionApply {
		if err := c.awaitParked(ctx); err != nil {
			return err
		}
	}
	// The order to stay away ends by itself if this process dies: the group never stands still for longer than that.
	until := c.o.now().Add(c.opt.Timeout + time.Minute)
	if err := c.o.cfg.Drains.Drain(ctx, c.op, group, until); err != nil {
		return fmt.Errorf("draining group %s: %w", group, err)
	}
	c.report.Drained = true
	defer func() {
		// Also when ctx has ended: members that were asked to leave must come back.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if endErr := c.o.cfg.Drains.EndDrain(back, c.op, group); endErr != nil {
			err = errors.Join(err, fmt.Errorf("letting group %s come back (it does by itself at %s): %w", group, until.UTC().Format(time.RFC3339), endErr))
			return
		}
		c.awaitBack(ctx)
	}()
	if g, err = c.o.awaitEmpty(ctx, group, c.opt.Timeout); err != nil {
		return err
	}
	if g.active() {
		return refuse(fmt.Sprintf("the members of group %s did not leave within %s, and go on: %s", group, c.opt.Timeout, names(g.Members)))
	}
	return do()
}

// awaitBack waits until the group has members again. They may be slow to come; that is no failure of the change.
func (c *change) awaitBack(ctx context.Context) {
	deadline := c.o.now().Add(c.opt.Timeout)
	for {
		g, err := c.o.describe(ctx, c.plan.Group)
		if err == nil && len(g.Members) > 0 && (g.State == "Stable" || g.State == "Assigning" || g.State == "Reconciling") {
			c.report.Members = g.Members
			return
		}
		if !c.o.now().Before(deadline) || wait(ctx, 200*time.Millisecond) != nil {
			c.report.Notes = append(c.report.Notes, "no member has come back yet: see whether the processes of group "+c.plan.Group+" still run")
			return
		}
	}
}

// awaitParked waits until the members have settled what is parked in the range.
func (c *change) awaitParked(ctx context.Context) error {
	deadline := c.o.now().Add(c.opt.Timeout)
	for {
		parked, err := c.o.parked(ctx, c.plan.Group, c.plan.place())
		if err != nil {
			return err
		}
		n := c.plan.parkedInRange(parked, nil)
		if n == 0 {
			return nil
		}
		if !c.o.now().Before(deadline) {
			return refuse(fmt.Sprintf("%d records of the range are still parked after %s: nothing was changed. See why they fail, or plan with --parked keep or cancel",
				n, c.opt.Timeout))
		}
		c.o.progress("%d records of the range are still parked", n)
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// parkedInRange counts the parked records that the plan has the group read again, and calls each for them.
func (p *Plan) parkedInRange(parked map[tp][]int64, each func(at tp, offset int64)) (n int64) {
	for i := range p.Partitions {
		part := &p.Partitions[i]
		if part.Direction != Reread {
			continue
		}
		at := tp{part.Topic, part.Partition}
		for _, offset := range parked[at] {
			if offset >= part.Target { // all parked records are below the committed offset, wherever it is by now
				n++
				if each != nil {
					each(at, offset)
				}
			}
		}
	}
	return n
}

// describeResults is for errors: what stands where.
func describeResults(rs []Result) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "\n  %s: was %s, is %s", partitionName(r.Topic, r.Partition), r.Before, r.After)
		if r.Problem != "" {
			b.WriteString(": " + r.Problem)
		}
	}
	return b.String()
}
