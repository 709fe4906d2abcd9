package app

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/operations/offsets"
)

const nothing = "-"

// WriteText prints a table of partitions, what lies between, and what it would do.
func (p OffsetsPlan) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	line("plan %s: group %s, %s", p.ID, p.Group, p.Target)
	line("  state\t%s", planState(p.Plan))
	line("  reason\t%s (%s, %s)", p.Reason, p.Author, stamp(p.CreatedAt))
	line("  group\t%s, %d members", groupState(p.GroupState), len(p.Members))
	line("  parked\t%s", p.Parked)
	line("")
	line("PARTITION\tCOMMITTED\tTARGET\tLOG START\tSTABLE\tEND\tRECORDS\tBYTES\tPARKED\tDEAD\tMARGIN")
	for i := range p.Partitions {
		q := &p.Partitions[i]
		line("%s/%d\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%d\t%s\t%s", q.Topic, q.Partition, q.Committed, q.Target, q.LogStart, q.Stable, q.End,
			records(q), bytesOf(q.Bytes), q.ParkedInRange, count(q.DeadInRange), margin(q.Margin))
	}
	line("")
	for i := range p.Partitions {
		q := &p.Partitions[i]
		if q.First != nil {
			line("%s/%d\tfrom %s", q.Topic, q.Partition, markText(q.First))
			line("\tto %s", markText(q.Last))
		}
		if q.Truncated != "" {
			line("TRUNCATED\t%s", q.Truncated)
		}
		if q.Lost > 0 {
			line("%s/%d\t%d offsets in between are no longer in the log", q.Topic, q.Partition, q.Lost)
		}
	}
	total := p.Total
	line("in all\tre-read %s records, skip %s, %s; %d parked and %s dead letters among them", count(total.Reread), count(total.Skip),
		bytesOf(total.Bytes), total.ParkedInRange, count(total.DeadInRange))
	line("downstream\t%s", outlook(total.Outlook))
	line("\t%s", p.Forecast)
	for _, n := range p.Notes {
		line("note\t%s", n)
	}
	if p.State == offsets.Planned {
		line("\nto do it:\tleat offsets apply %s", p.ID)
	}
	return t.Flush()
}

func planState(p *offsets.Plan) string {
	switch p.State {
	case offsets.Planned:
		return "planned, may be applied until " + stamp(p.ExpiresAt)
	case offsets.Applied:
		return "applied by " + p.AppliedBy + " at " + stamp(*p.AppliedAt)
	case offsets.Undone:
		return "undone by " + p.UndoneBy + " at " + stamp(*p.UndoneAt)
	case offsets.Failed:
		return "failed: " + p.Problem
	}
	return string(p.State)
}

// groupState is Kafka's own word, but for the one that says there is no group: people take "dead" for an alarm.
func groupState(s string) string {
	if s == "Dead" {
		return "unknown to Kafka"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func records(p *offsets.Partition) string {
	switch p.Direction {
	case offsets.Reread:
		return "re-read " + count(p.Records)
	case offsets.Skip:
		return "skip " + count(p.Records)
	case offsets.Begin:
		return "begins here"
	}
	return "stays"
}

func count(c offsets.Count) string {
	if c.Exact {
		return strconv.FormatInt(c.N, 10)
	}
	return fmt.Sprintf("up to %d", c.N)
}

func bytesOf(c offsets.Count) string {
	about := ""
	if !c.Exact {
		about = "about "
	}
	switch {
	case c.N < 10<<10:
		return fmt.Sprintf("%s%d B", about, c.N)
	case c.N < 10<<20:
		return fmt.Sprintf("%s%d KiB", about, c.N>>10)
	default:
		return fmt.Sprintf("%s%d MiB", about, c.N>>20)
	}
}

func margin(m offsets.Margin) string {
	if m.Seconds == nil {
		return nothing
	}
	return (time.Duration(*m.Seconds) * time.Second).Round(time.Minute).String()
}

func markText(m *offsets.Mark) string {
	text := fmt.Sprintf("offset %d, %s, key %s", m.Offset, m.Time.Format(time.RFC3339), m.Key)
	if m.EventID != "" {
		text += ", event " + m.EventID
	}
	return text
}

func outlook(o offsets.Outlook) string {
	if o.Records == 0 {
		return "nothing to judge"
	}
	return fmt.Sprintf("%d records judged: %d would be applied, %d are there unchanged, %d superseded by newer ones; %d would fail, %d become nothing",
		o.Records, o.Applied, o.Unchanged, o.Superseded, o.Failed, o.Silent)
}

// WriteText prints a line for each partition that was written.
func (r OffsetsReport) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	verb := "applied"
	if r.undo {
		verb = "undone"
	}
	line("plan %s is %s: group %s", r.Plan.ID, verb, r.Plan.Group)
	line("PARTITION\tBEFORE\tNOW")
	for _, p := range r.Partitions {
		line("%s/%d\t%s\t%s\t%s", p.Topic, p.Partition, p.Before, p.After, p.Problem)
	}
	if r.Cancelled > 0 {
		line("%d parked records were cancelled: they are read again", r.Cancelled)
	}
	switch {
	case r.Drained && len(r.Members) > 0:
		line("%d members are back: %s", len(r.Members), memberNames(r.Members))
	case !r.Drained:
		line("start the processes of the group again")
	}
	for _, n := range r.Notes {
		line("note\t%s", n)
	}
	if !r.undo {
		line("to take it back, as long as the group has not read on:\tleat offsets undo %s --reason ...", r.Plan.ID)
	}
	return t.Flush()
}

func memberNames(ms []offsets.Member) string {
	var all []string
	for _, m := range ms {
		all = append(all, m.String())
	}
	return strings.Join(all, ", ")
}

// WriteText prints a line for each plan.
func (ps OffsetsPlans) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(ps) == 0 {
		line("no plans")
	}
	for _, p := range ps {
		line("%s\t%s\t%s\t%s\t%s\t%s", p.ID, stamp(p.CreatedAt), p.Group, p.Target, planState(p), p.Reason)
	}
	return t.Flush()
}

// WriteText prints a paragraph for each group.
func (l OffsetsList) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	for i, g := range l {
		if i > 0 {
			line("")
		}
		line("group %s: %s, %d members", g.Group, groupState(g.State), len(g.Members))
		for _, m := range g.Members {
			line("  member\t%s", m)
		}
		if g.Note != "" {
			line("  NOTE\t%s", g.Note)
		}
		if len(g.Partitions) > 0 {
			line("  PARTITION\tCOMMITTED\tLAG\tLOG START\tSTABLE\tEND\tRETENTION MARGIN")
		}
		for _, p := range g.Partitions {
			lag := nothing
			if p.Lag >= 0 {
				lag = strconv.FormatInt(p.Lag, 10)
			}
			line("  %s/%d\t%s\t%s\t%d\t%d\t%d\t%s", p.Topic, p.Partition, p.Committed, lag, p.LogStart, p.Stable, p.End, margin(p.Margin))
		}
	}
	return t.Flush()
}
