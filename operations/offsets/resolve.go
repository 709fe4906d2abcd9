package offsets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// tp is a partition of a topic.
type tp struct {
	topic     string
	partition int32
}

func (t tp) String() string { return partitionName(t.topic, t.partition) }

func compareTP(a, b tp) int {
	if c := strings.Compare(a.topic, b.topic); c != 0 {
		return c
	}
	return int(a.partition) - int(b.partition)
}

// goal is where a group is to stand in one partition, or why that cannot be said.
type goal struct {
	offset  int64
	problem string // no offset meets the request
	nearest bool   // offset is the nearest one that can stand for what was asked, if that is allowed
	untold  bool   // the target says nothing about this partition: it is left alone
}

// scope finds the partitions that a request is about. Every problem is returned, as a RefusedError.
func (o *Offsets) scope(ctx context.Context, r *Request, commits kadm.OffsetResponses) ([]tp, error) {
	wanted := map[string][]int32{}
	switch own := o.own(r.Group); {
	case r.Target.File != nil:
		for _, row := range fileRows(r) {
			wanted[row.Topic] = append(wanted[row.Topic], row.Partition)
		}
		if len(wanted) == 0 {
			return nil, refuse("the file has no offsets of group " + r.Group)
		}
	case r.AllTopics:
		commits.Each(func(c kadm.OffsetResponse) { wanted[c.Topic] = append(wanted[c.Topic], c.Partition) })
		if len(wanted) == 0 {
			return nil, refuse(fmt.Sprintf("--all-topics are those in which a group has committed offsets, and group %s has none: name its topics with --topic",
				r.Group))
		}
	case len(r.Topics) > 0:
		for _, s := range r.Topics {
			topic, partitions, err := parseScope(s)
			if err != nil {
				return nil, err
			}
			if before, ok := wanted[topic]; len(partitions) == 0 || ok && before == nil {
				wanted[topic] = nil
				continue
			}
			wanted[topic] = append(wanted[topic], partitions...)
		}
	case own != nil:
		for _, t := range own.Reads {
			wanted[t] = nil
		}
	default:
		return nil, refuse("--topic is needed: group " + r.Group + " is not of this installation, so its topics are not known")
	}
	return o.partitions(ctx, wanted)
}

func fileRows(r *Request) (rows []Row) {
	for _, row := range r.Target.File {
		if row.Group == "" || row.Group == r.Group {
			rows = append(rows, row)
		}
	}
	return rows
}

// partitions checks that topics and partitions exist; nil stands for all partitions of a topic.
func (o *Offsets) partitions(ctx context.Context, wanted map[string][]int32) ([]tp, error) {
	names := slices.Sorted(maps.Keys(wanted))
	details, err := o.adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	var all []tp
	var problems []string
	for _, topic := range names {
		d, ok := details[topic]
		if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) || errors.Is(d.Err, kerr.InvalidTopicException) {
			problems = append(problems, fmt.Sprintf("topic %s does not exist", topic))
			continue
		}
		if d.Err != nil {
			return nil, fmt.Errorf("describing topic %s: %w", topic, d.Err)
		}
		ps := wanted[topic]
		if ps == nil {
			ps = d.Partitions.Numbers()
		}
		slices.Sort(ps)
		for _, p := range slices.Compact(ps) {
			if _, ok := d.Partitions[p]; !ok {
				problems = append(problems, fmt.Sprintf("topic %s has no partition %d: it has 0 to %d", topic, p, len(d.Partitions)-1))
				continue
			}
			all = append(all, tp{topic, p})
		}
	}
	return all, refuse(problems...)
}

// facts asks Kafka about partitions.
func (o *Offsets) facts(ctx context.Context, ps []tp, commits kadm.OffsetResponses) ([]Facts, error) {
	return steady(ctx, func() ([]Facts, error) { return o.factsOnce(ctx, ps, commits) })
}

func (o *Offsets) factsOnce(ctx context.Context, ps []tp, commits kadm.OffsetResponses) ([]Facts, error) {
	names := topicNames(ps)
	details, err := o.adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	starts, err := o.adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing log starts: %w", err)
	}
	stable, err := o.adm.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing last stable offsets: %w", err)
	}
	ends, err := o.adm.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing high watermarks: %w", err)
	}
	all := make([]Facts, len(ps))
	for i, p := range ps {
		f := Facts{
			Topic: p.topic, Partition: p.partition, TopicID: details[p.topic].ID.String(),
			Committed: commitOf(commits, p.topic, p.partition),
		}
		for _, l := range []struct {
			from kadm.ListedOffsets
			to   *int64
		}{{starts, &f.LogStart}, {stable, &f.Stable}, {ends, &f.End}} {
			listed, ok := l.from.Lookup(p.topic, p.partition)
			if !ok || listed.Err != nil {
				return nil, fmt.Errorf("listing the offsets of %s: %w", p, orUnknown(listed.Err))
			}
			*l.to = listed.Offset
		}
		all[i] = f
	}
	return all, nil
}

func topicNames(ps []tp) []string {
	names := map[string]bool{}
	for _, p := range ps {
		names[p.topic] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// goals says where r wants the group to stand in each partition of fs.
func (o *Offsets) goals(ctx context.Context, r *Request, fs []Facts) (goals []goal, notes []string, err error) {
	t := &r.Target
	each := func(f func(*Facts) goal) ([]goal, []string, error) {
		goals := make([]goal, len(fs))
		for i := range fs {
			goals[i] = f(&fs[i])
		}
		return goals, nil, nil
	}
	switch {
	case t.Earliest:
		return each(func(f *Facts) goal { return goal{offset: f.LogStart} })
	case t.Latest:
		return each(func(f *Facts) goal { return goal{offset: f.End} })
	case t.Current:
		return each(func(f *Facts) goal { return relative(f, "--to-current", 0) })
	case t.ShiftBy != nil:
		return each(func(f *Facts) goal { return relative(f, "--shift-by", *t.ShiftBy) })
	case t.Offset != nil:
		return each(func(*Facts) goal { return goal{offset: *t.Offset} })
	case t.File != nil:
		rows := map[tp]int64{}
		for _, row := range fileRows(r) {
			rows[tp{row.Topic, row.Partition}] = row.Offset
		}
		return each(func(f *Facts) goal { return goal{offset: rows[tp{f.Topic, f.Partition}]} })
	case t.Datetime != "":
		at, err := parseDatetime(t.Datetime)
		if err != nil {
			return nil, nil, err
		}
		return o.goalsAt(ctx, at, fs)
	case t.Duration != "":
		d, err := parseDuration(t.Duration)
		if err != nil {
			return nil, nil, err
		}
		return o.goalsAt(ctx, o.now().Add(-d), fs)
	case t.Group != "":
		goals, err := o.goalsOf(ctx, t.Group, fs)
		return goals, nil, err
	case t.EventID != "":
		return o.goalsBefore(ctx, r, fs)
	default:
		return o.goalsDead(ctx, r, fs)
	}
}

func relative(f *Facts, option string, by int64) goal {
	if f.Committed == nil {
		return goal{problem: fmt.Sprintf("%s: %s needs a committed offset, and the group has none here; name the partitions that have one with --topic t:0,1",
			f.name(), option)}
	}
	return goal{offset: f.Committed.Offset + by}
}

// goalsAt are the first records at or after a time. A partition without one has no answer: its end would be a guess.
func (o *Offsets) goalsAt(ctx context.Context, at time.Time, fs []Facts) ([]goal, []string, error) {
	ps := make([]tp, len(fs))
	for i := range fs {
		ps[i] = tp{fs[i].Topic, fs[i].Partition}
	}
	listed, err := o.adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topicNames(ps)...)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the records of %s: %w", at.Format(time.RFC3339), err)
	}
	goals := make([]goal, len(fs))
	for i := range fs {
		f := &fs[i]
		l, ok := listed.Lookup(f.Topic, f.Partition)
		if !ok || l.Err != nil {
			return nil, nil, fmt.Errorf("looking for the records of %s in %s: %w", at.Format(time.RFC3339), f.name(), orUnknown(l.Err))
		}
		switch when := at.Format("2006-01-02T15:04:05.999Z07:00"); {
		case f.LogStart == f.End:
			goals[i] = goal{offset: f.End, nearest: true, problem: fmt.Sprintf(
				"%s: is empty, so no record of %s or later is in it; leave it out with --topic t:0,1, or use --to-latest", f.name(), when)}
		case l.Timestamp < 0: // the client gives the end where the broker has no answer
			goals[i] = goal{offset: f.End, nearest: true, problem: fmt.Sprintf(
				"%s: its last record is older than %s; to skip all of it use --to-latest", f.name(), when)}
		default:
			goals[i] = goal{offset: l.Offset}
		}
	}
	return goals, nil, nil
}

// goalsOf are the commits of another group.
func (o *Offsets) goalsOf(ctx context.Context, group string, fs []Facts) ([]goal, error) {
	g, err := o.describe(ctx, group)
	if err != nil {
		return nil, err
	}
	if !g.exists() {
		return nil, refuse("--to-group: there is no group " + group)
	}
	if problem := g.refuseType(group); problem != "" {
		return nil, refuse("--to-group: " + problem)
	}
	commits, err := o.committed(ctx, group, false)
	if err != nil {
		return nil, err
	}
	goals := make([]goal, len(fs))
	for i := range fs {
		if c := commitOf(commits, fs[i].Topic, fs[i].Partition); c != nil {
			goals[i] = goal{offset: c.Offset}
		} else {
			goals[i] = goal{problem: fmt.Sprintf("%s: group %s has committed nothing here", fs[i].name(), group)}
		}
	}
	return goals, nil
}
