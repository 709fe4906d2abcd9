package offsets

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/operations/audit"
)

// Undo restores the offsets that apply found: partitions that had no commit lose the one they were given. It refuses when the group
// no longer stands where apply has put it, for then it has read on, and going back to the old offsets would be another plan.
func (o *Offsets) Undo(ctx context.Context, op audit.Operator, id string, opt ApplyOptions) (*Report, error) {
	return o.change(ctx, op, id, opt, func(p *Plan) (*change, error) {
		if err := refuse(p.refuseUndo()); err != nil {
			return nil, err
		}
		return &change{action: actionUndo, verify: p.undoMoved, want: p.Before}, nil
	})
}

func (p *Plan) refuseUndo() string {
	switch {
	case p.State == Undone:
		return fmt.Sprintf("plan %s was undone by %s already", p.ID, p.UndoneBy)
	case p.State != Applied:
		return fmt.Sprintf("plan %s is %s, not applied: there is nothing to undo", p.ID, p.State)
	case p.Cancelled > 0:
		return fmt.Sprintf("plan %s took %d parked records off the retry topics; they are read again only from the offsets that it set, so undoing it would "+
			"lose them", p.ID, p.Cancelled)
	}
	return ""
}

// undoMoved says where the group no longer stands as apply left it.
func (p *Plan) undoMoved(commits kadm.OffsetResponses, facts []Facts, _ bool) (problems []string) {
	for i := range p.After {
		after, f := &p.After[i], &facts[i]
		now := commitOf(commits, f.Topic, f.Partition)
		switch {
		case f.TopicID != p.Partitions[i].TopicID:
			problems = append(problems, fmt.Sprintf("topic %s was made anew since plan %s was applied: nothing to go back to", f.Topic, p.ID))
		case !sameOffset(now, after.Commit):
			problems = append(problems, fmt.Sprintf("%s: the group stands at %s, plan %s had put it at %s: it has gone on since. To go back all the same, plan again: "+
				"`leat offsets export --plan %s --before` writes the old offsets for --from-file", f.name(), now, p.ID, after.Commit, p.ID))
		}
	}
	return problems
}
