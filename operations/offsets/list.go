package offsets

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Listed is a group and where it stands.
type Listed struct {
	Group      string            `json:"group"`
	Own        bool              `json:"own"`      // of this installation
	State      string            `json:"state"`    // Dead: Kafka does not know it
	Protocol   string            `json:"protocol"` // classic or consumer
	Members    []Member          `json:"members"`
	Partitions []ListedPartition `json:"partitions"`
	Note       string            `json:"note,omitempty"`
}

// ListedPartition is where a group stands in a partition.
type ListedPartition struct {
	Facts
	Lag    int64  `json:"lag"`              // offsets below the last stable one that are still to be read; -1: no commit
	Margin Margin `json:"retention_margin"` // of the oldest record that is still to be read
}

// List returns the groups of this installation, or those that are named. It makes no group.
func (o *Offsets) List(ctx context.Context, groups ...string) ([]Listed, error) {
	if len(groups) == 0 {
		for _, g := range o.cfg.Groups {
			groups = append(groups, g.Name)
		}
	}
	var all []Listed
	for _, name := range groups {
		l, err := o.list(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func (o *Offsets) list(ctx context.Context, name string) (Listed, error) {
	own := o.own(name)
	l := Listed{Group: name, Own: own != nil}
	g, err := o.describe(ctx, name)
	if err != nil {
		return l, err
	}
	l.State, l.Protocol, l.Members = g.State, g.Protocol, g.Members
	if !g.exists() && own == nil {
		return l, refuse(fmt.Sprintf("there is no group %s: is the name right?", name))
	}
	if err := refuse(g.refuseType(name)); err != nil {
		return l, err
	}
	commits, err := o.committed(ctx, name, false)
	if err != nil {
		return l, err
	}
	ps, err := o.listed(ctx, own, commits)
	if err != nil {
		return l, err
	}
	if own != nil && len(commits) == 0 {
		l.Note = "has committed nothing: it has never run, or Kafka has forgotten its offsets; started now it begins at the earliest record"
	}
	return l, o.fill(ctx, &l, ps, commits)
}

// listed are the partitions with commits and those of the topics that the group reads, as far as they exist.
func (o *Offsets) listed(ctx context.Context, own *Group, commits kadm.OffsetResponses) ([]tp, error) {
	names := map[string]bool{}
	commits.Each(func(c kadm.OffsetResponse) { names[c.Topic] = true })
	if own != nil {
		for _, t := range own.Reads {
			names[t] = true
		}
	}
	var ps []tp
	if len(names) == 0 {
		return nil, nil
	}
	details, err := o.adm.ListTopics(ctx, slices.Sorted(maps.Keys(names))...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	for topic, d := range details {
		for partition := range d.Partitions {
			_, committed := commits.Lookup(topic, partition)
			if d.Err == nil && (committed || own != nil && slices.Contains(own.Reads, topic)) {
				ps = append(ps, tp{topic, partition})
			}
		}
	}
	slices.SortFunc(ps, compareTP)
	return ps, nil
}

func (o *Offsets) fill(ctx context.Context, l *Listed, ps []tp, commits kadm.OffsetResponses) error {
	facts, err := o.facts(ctx, ps, commits)
	if err != nil {
		return err
	}
	places := make([]placed, len(facts))
	for i := range facts {
		f := &facts[i]
		places[i] = placed{f, f.LogStart}
		if f.Committed != nil {
			places[i].offset = f.Committed.Offset
		}
	}
	margins, err := o.marginsOf(ctx, places)
	if err != nil {
		return err
	}
	for i, f := range facts {
		l.Partitions = append(l.Partitions, ListedPartition{Facts: f, Lag: f.lag(), Margin: margins[i]})
	}
	return nil
}

// Export returns the committed offsets of groups as rows for WriteCSV.
func (o *Offsets) Export(ctx context.Context, groups ...string) ([]Row, error) {
	listed, err := o.List(ctx, groups...)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, l := range listed {
		for _, p := range l.Partitions {
			if p.Committed != nil {
				rows = append(rows, Row{l.Group, p.Topic, p.Partition, p.Committed.Offset})
			}
		}
	}
	return rows, nil
}

// Rows are the targets of a plan as rows for WriteCSV.
func (p *Plan) Rows() []Row {
	rows := make([]Row, len(p.Partitions))
	for i := range p.Partitions {
		rows[i] = Row{p.Group, p.Partitions[i].Topic, p.Partitions[i].Partition, p.Partitions[i].Target}
	}
	return rows
}

// RowsBefore are the offsets that apply found, as rows for WriteCSV: the way back when the group has read on and undo refuses.
func (p *Plan) RowsBefore() ([]Row, error) {
	if p.Before == nil {
		return nil, refuse(fmt.Sprintf("plan %s is %s: it has not found offsets yet", p.ID, p.State))
	}
	var rows []Row
	for _, b := range p.Before {
		if b.Commit != nil {
			rows = append(rows, Row{p.Group, b.Topic, b.Partition, b.Commit.Offset})
		}
	}
	return rows, nil
}
