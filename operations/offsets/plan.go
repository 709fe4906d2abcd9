package offsets

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/operations/audit"
)

// State of a plan.
type State string

// The states.
const (
	Planned State = "planned"
	Applied State = "applied"
	Undone  State = "undone"
	Expired State = "expired" // was not applied in time
	Failed  State = "failed"  // apply began to write and did not end well
)

// Plan is what is to become of a group's offsets, as it is stored. Content never changes; the rest is what became of the plan.
type Plan struct {
	ID    string `json:"id"`
	Hash  string `json:"hash"` // SHA-256 of the stored content
	State State  `json:"state"`
	Content

	AppliedBy string     `json:"applied_by,omitempty"`
	AppliedAt *time.Time `json:"applied_at,omitempty"`
	UndoneBy  string     `json:"undone_by,omitempty"`
	UndoneAt  *time.Time `json:"undone_at,omitempty"`
	Before    []Position `json:"before,omitempty"` // what apply found
	After     []Position `json:"after,omitempty"`  // what Kafka showed when apply had written
	Cancelled int64      `json:"cancelled"`        // parked records that apply took off the retry topics
	Problem   string     `json:"problem,omitempty"`
}

// Content is what a plan says.
type Content struct {
	Group          string     `json:"group"`
	Author         string     `json:"author"`
	Reason         string     `json:"reason"`
	CreatedAt      time.Time  `json:"created_at"`
	ExpiresAt      time.Time  `json:"expires_at"`
	Target         string     `json:"target"` // as on the command line
	Parked         ParkedMode `json:"parked"`
	AllowTruncated bool       `json:"allow_truncated"`
	Create         bool       `json:"create"`

	GroupState string   `json:"group_state"`
	Protocol   string   `json:"protocol"` // classic or consumer
	Members    []Member `json:"members"`

	Partitions []Partition `json:"partitions"`
	Total      Total       `json:"total"`
	Forecast   string      `json:"forecast"` // what the outlook rests on, or why there is none
	Notes      []string    `json:"notes"`
}

// Partition is a partition of a plan.
type Partition struct {
	Facts
	Target    int64     `json:"target"`
	Truncated string    `json:"truncated,omitempty"` // what was asked for and is not there; Target is the nearest
	Direction Direction `json:"direction"`
	From      int64     `json:"from"` // the records between: from <= offset < to
	To        int64     `json:"to"`
	Lost      int64     `json:"lost"` // offsets between that are no longer in the log

	Records Count   `json:"records"`
	Bytes   Count   `json:"bytes"` // of keys, values and headers, before compression
	First   *Mark   `json:"first"`
	Last    *Mark   `json:"last"`
	Outlook Outlook `json:"outlook"`

	ParkedInRange int64 `json:"parked_in_range"`
	Parked        int64 `json:"parked"` // in all
	DeadInRange   Count `json:"dead_letters_in_range"`

	Margin Margin `json:"retention_margin"` // of the target
}

// Mark is a record at an end of a range.
type Mark struct {
	Offset  int64     `json:"offset"`
	Time    time.Time `json:"time"`
	Key     string    `json:"key"`
	EventID string    `json:"event_id,omitempty"`
}

// Margin is how far an offset is from being deleted by retention.
type Margin struct {
	Records int64    `json:"records"` // offsets between the log's start and it
	Seconds *float64 `json:"seconds"` // until retention reaches its record; null: never by time, or there is no record
}

// Outlook is what replaying records would do to the targets, by the link rows that stand there now: in records of the target, of which
// an input may become none or several. For a skip it says what the targets would never see.
type Outlook struct {
	Records    int64 `json:"records"`    // inputs that were judged
	Applied    int64 `json:"applied"`    // changes the target: new to it, or of equal version with other content
	Unchanged  int64 `json:"unchanged"`  // stands there already, as it is
	Superseded int64 `json:"superseded"` // a newer version stands there
	Failed     int64 `json:"failed"`     // inputs that the handler of now refuses
	Silent     int64 `json:"silent"`     // inputs that become nothing
}

func (a Outlook) plus(b Outlook) Outlook {
	return Outlook{
		a.Records + b.Records, a.Applied + b.Applied, a.Unchanged + b.Unchanged, a.Superseded + b.Superseded, a.Failed + b.Failed,
		a.Silent + b.Silent,
	}
}

// Total is the sum over all partitions.
type Total struct {
	Reread        Count   `json:"reread"` // records
	Skip          Count   `json:"skip"`
	Bytes         Count   `json:"bytes"`
	Lost          int64   `json:"lost"`
	ParkedInRange int64   `json:"parked_in_range"`
	DeadInRange   Count   `json:"dead_letters_in_range"`
	Outlook       Outlook `json:"outlook"`
}

// Position is a committed offset.
type Position struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Commit    *Commit `json:"commit"` // null: none
}

// Plan makes a plan and stores it. It changes nothing in Kafka. What is wrong with the request is a *RefusedError that names every
// partition it is wrong for.
func (o *Offsets) Plan(ctx context.Context, op audit.Operator, r Request) (*Plan, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	r.Parked = cmp.Or(r.Parked, ParkedKeep)
	now := o.now().UTC().Truncate(time.Microsecond)
	c := Content{
		Group: r.Group, Author: op.Name, Reason: op.Reason, CreatedAt: now, ExpiresAt: now.Add(cmp.Or(r.Expires, time.Hour)),
		Target: r.Target.String(), Parked: r.Parked, AllowTruncated: r.AllowTruncated, Create: r.Create,
	}
	commits, err := o.admit(ctx, &r, &c)
	if err != nil {
		return nil, err
	}
	if err := o.aim(ctx, &r, &c, commits); err != nil {
		return nil, err
	}
	if err := o.measure(ctx, &r, &c); err != nil {
		return nil, err
	}
	return o.store(ctx, c)
}

// admit checks that the group is one whose offsets can be planned, and returns what it has committed.
func (o *Offsets) admit(ctx context.Context, r *Request, c *Content) (kadm.OffsetResponses, error) {
	g, err := o.describe(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	if err := refuse(g.refuseType(r.Group)); err != nil {
		return nil, err
	}
	commits, err := o.committed(ctx, r.Group, false)
	if err != nil {
		return nil, err
	}
	if len(commits) == 0 && !r.Create {
		switch {
		case o.own(r.Group) != nil:
			return nil, refuse(fmt.Sprintf("group %s is of this installation, but has committed nothing: it has never run, or Kafka has forgotten its "+
				"offsets (offsets.retention.minutes after its last member left). Started now it begins at the earliest record. To let it begin "+
				"elsewhere, say where and add --create; `leat offsets show` has the offsets of earlier plans", r.Group))
		case !g.exists():
			return nil, refuse(fmt.Sprintf("there is no group %s: is the name right? Nothing is ever committed for a group that does not exist, unless --create is given",
				r.Group))
		default:
			return nil, refuse(fmt.Sprintf("group %s has committed nothing: say that this is intended with --create", r.Group))
		}
	}
	c.GroupState, c.Protocol, c.Members = g.State, g.Protocol, slices.Clone(g.Members)
	if g.active() && r.Parked != ParkedDrain {
		c.Notes = append(c.Notes, "the group is running: its offsets move on until it is stopped or drained; a replay then covers the records in between as well")
	}
	if r.Parked == ParkedDrain && !g.active() {
		return nil, refuse("--parked drain lets the running members settle what is parked, and group " + r.Group + " has none: start it, or use keep or cancel")
	}
	return commits, nil
}

// aim finds the partitions and their targets.
func (o *Offsets) aim(ctx context.Context, r *Request, c *Content, commits kadm.OffsetResponses) error {
	ps, err := o.scope(ctx, r, commits)
	if err != nil {
		return err
	}
	facts, err := o.facts(ctx, ps, commits)
	if err != nil {
		return err
	}
	goals, notes, err := o.goals(ctx, r, facts)
	if err != nil {
		return err
	}
	c.Notes = append(c.Notes, notes...)
	c.Notes = append(c.Notes, o.foreign(r.Group, facts)...)
	var problems []string
	for i := range facts {
		if goals[i].untold {
			continue
		}
		p, problem := aimAt(facts[i], goals[i], r.AllowTruncated)
		if problem != "" {
			problems = append(problems, problem)
			continue
		}
		c.Partitions = append(c.Partitions, p)
	}
	return refuse(problems...)
}

// aimAt makes a partition of a plan, or says why it cannot be.
func aimAt(f Facts, g goal, truncate bool) (p Partition, problem string) {
	offset, problem := g.offset, g.problem
	possible := problem == "" || g.nearest
	if problem == "" {
		offset, problem = f.fit(offset)
	}
	switch {
	case problem == "":
	case possible && truncate:
		p.Truncated = problem
	case possible:
		return p, problem + fmt.Sprintf("; --allow-truncated takes %d", offset)
	default:
		return p, problem
	}
	p.Facts, p.Target = f, offset
	p.Direction, p.From, p.To, p.Lost = f.move(offset)
	return p, ""
}

// foreign notes topics that a group of this installation does not read.
func (o *Offsets) foreign(group string, fs []Facts) (notes []string) {
	own := o.own(group)
	if own == nil {
		return nil
	}
	for i := range fs {
		if note := "group " + group + " does not read topic " + fs[i].Topic; !slices.Contains(own.Reads, fs[i].Topic) &&
			!slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	return notes
}

// place is what stands in Kafka and must not have moved when the plan is applied.
func (c *Content) place() []tp {
	ps := make([]tp, len(c.Partitions))
	for i := range c.Partitions {
		ps[i] = tp{c.Partitions[i].Topic, c.Partitions[i].Partition}
	}
	return ps
}
