package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/operations/index"
	"github.com/leat-io/leat/operations/trace"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// Trace follows the event or the record that what names. It waits 20 seconds at most for what does not answer.
func (a *App) Trace(ctx context.Context, what string, o trace.Options) (TraceReport, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	control, err := a.controlDB(ctx)
	if err != nil {
		return TraceReport{}, err
	}
	defer control.Close()
	ic, err := a.indexConfig(control)
	if err != nil {
		return TraceReport{}, err
	}
	c := trace.Config{
		Control: control, Publication: a.cfg.Publish.Reporting.Publication, Kafka: ic.Kafka, Groups: a.traceGroups(), Source: a.sourceConn,
		Index: func(ctx context.Context) ([]index.Status, error) { return index.ReadStatus(ctx, ic) },
	}
	for _, s := range a.cfg.Sources {
		c.Systems = append(c.Systems, s.Name)
	}
	if !a.cfg.Publish.Reporting.URL.Empty() {
		db, err := a.reportingDB(ctx)
		if err != nil {
			return TraceReport{}, err
		}
		defer db.Close()
		c.Reporting = db
	}
	r, err := trace.Find(ctx, c, what, o)
	return TraceReport{r}, err
}

func (a *App) traceGroups() []trace.Group {
	return []trace.Group{
		{Name: a.cfg.Normalize.Group, Reads: func(t string) bool { return strings.HasPrefix(t, "source.") }},
		{Name: a.cfg.Publish.Group, Reads: func(t string) bool { return slices.Contains(reporting.Inputs(), t) }},
	}
}

// sourceConn connects to the database of a source system.
func (a *App) sourceConn(ctx context.Context, system string) (*pgx.Conn, error) {
	s := a.cfg.Source(system)
	if s == nil {
		return nil, a.unknownSource(system)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, s.URL.Reveal())
}

// TraceReport is the way of an event.
type TraceReport struct{ trace.Report }

// WriteText prints the journey as a timeline, then how far the groups are and what the target has.
func (r TraceReport) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	j := &r.Journey
	if v := j.Version; v != nil {
		line("event %s: row %d of outbox %s, epoch %d", v.EventID, v.Sequence, v.System, v.Epoch)
	} else {
		line("%s", r.Query)
	}
	line("%s: %s%s", strings.ReplaceAll(j.State, "_", " "), j.Meaning, took(j.Took))
	line("")
	writeTimeline(line, timeline(j))
	if !j.Outbox.Found && j.Outbox.Note != "" {
		line("\t\toutbox\t%s", j.Outbox.Note)
	}
	writeGroups(line, j)
	writeTarget(line, j)
	writeVersions(line, &r.Report)
	for _, p := range j.Problems {
		line("PROBLEM: %s", p)
	}
	return t.Flush()
}

func took(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	return fmt.Sprintf(", %s after the change", round(time.Duration(*seconds*float64(time.Second))))
}

// moment is a line of the timeline.
type moment struct {
	at    time.Time
	where string
	what  string
}

func timeline(j *trace.Journey) []moment {
	var ms []moment
	if o := j.Outbox; o.Found {
		ms = append(ms, moment{*o.OccurredAt, "outbox " + o.System, fmt.Sprintf("row %d: %s of %s %s/%s/%s, event %s",
			o.ID, o.Operation, o.Entity, o.Tenant, o.System, o.Key, o.EventID)})
	} else if len(j.Places) > 0 {
		ms = append(ms, moment{j.Places[0].ChangedAt, "source", "the change occurred"})
	}
	for _, p := range j.Places {
		what := fmt.Sprintf("%s, event %s", p.Key, p.EventID)
		if p.Deletion {
			what = "deletion of " + what
		}
		if p.Former {
			what += " (the topic was made anew since)"
		}
		ms = append(ms, moment{p.At, fmt.Sprintf("%s/%d at %d", p.Topic, p.Partition, p.Offset), what})
	}
	for _, a := range j.Attempts {
		what := fmt.Sprintf("attempt %d failed: %s %s: %s", a.Attempt, a.Class, a.Code, a.Message)
		if a.Disposition != "retry" {
			what += "; given up: dead letter " + fmt.Sprintf("%s/%d/%d", a.Topic, a.Partition, a.Offset)
		} else if a.SettledAt == nil && a.NotBefore != nil {
			what += "; not tried again before " + a.NotBefore.UTC().Format(time.RFC3339)
		}
		ms = append(ms, moment{a.At, cmp.Or(a.Group, a.Stage), what})
	}
	for _, d := range j.DeadLetters {
		if d.StateAt.After(d.At) {
			ms = append(ms, moment{d.StateAt, "dead letter", fmt.Sprintf("%s/%d/%d is %s", d.Topic, d.Partition, d.Offset,
				strings.ReplaceAll(d.State, "_", " "))})
		}
	}
	for _, l := range j.Links {
		if l.Compared == "this" {
			ms = append(ms, moment{l.PublishedAt, "target", fmt.Sprintf("%s %s applied", l.Entity, l.Key)})
		}
	}
	slices.SortStableFunc(ms, func(a, b moment) int { return a.at.Compare(b.at) })
	return ms
}

func writeTimeline(line func(string, ...any), ms []moment) {
	var last time.Time
	for _, m := range ms {
		delay := ""
		if !last.IsZero() {
			delay = "+" + round(m.at.Sub(last)).String()
		}
		last = m.at
		line("  %s\t%s\t%s\t%s", m.at.UTC().Format("2006-01-02 15:04:05.000"), delay, m.where, m.what)
	}
}

// round keeps three digits or so.
func round(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		if d >= 10*unit {
			return d.Round(unit / 10)
		}
	}
	return d.Round(time.Millisecond)
}

func writeGroups(line func(string, ...any), j *trace.Journey) {
	for _, p := range j.Places {
		for _, g := range p.Groups {
			state := "settled"
			switch {
			case g.Committed < 0:
				state = "the group has committed nothing yet"
			case !g.Past:
				state = fmt.Sprintf("not reached: the group is at %d", g.Committed)
			}
			line("  group %s\t\t%s/%d at %d\t%s", g.Group, p.Topic, p.Partition, p.Offset, state)
		}
	}
}

func writeTarget(line func(string, ...any), j *trace.Journey) {
	for _, l := range j.Links {
		line("  link\t\t%s %s\t%s version: row %d, epoch %d; event %s from %s/%d at %d", l.Entity, l.Key,
			map[string]string{"this": "this", "newer": "a newer", "older": "an older"}[l.Compared],
			l.Sequence, l.Epoch, l.EventID, l.Topic, l.Partition, l.Offset)
	}
	for _, t := range j.Targets {
		what := t.Status
		if t.Amount != nil {
			what += " " + *t.Amount
		}
		if t.Currency != nil {
			what += " " + strings.TrimSpace(*t.Currency)
		}
		if t.DeletedAt != nil {
			what += ", deleted " + t.DeletedAt.UTC().Format(time.RFC3339)
		}
		line("  %s\t\t%s\t%s, as of row %d, published %s", t.Table, t.Key, what, t.Sequence, t.PublishedAt.UTC().Format(time.RFC3339))
	}
}

func writeVersions(line func(string, ...any), r *trace.Report) {
	if o := r.Waiting; o != nil {
		line("\na newer change waits in the outbox: row %d, event %s", o.ID, o.EventID)
	}
	if len(r.Versions) == 0 {
		return
	}
	line("\nversions, newest first")
	for _, v := range r.Versions {
		what := "upsert"
		if v.Deletion {
			what = "deletion"
		}
		line("  %s\trow %d\t%s\t%s\tevent %s", v.ChangedAt.UTC().Format("2006-01-02 15:04:05.000"), v.Sequence, v.Topic, what, v.EventID)
	}
	if others := otherEntities(r.Versions); len(others) > 0 {
		line("records of other entities have the same key; follow one of them with --entity %s", strings.Join(others, ", --entity "))
	}
}

// otherEntities are the source entities of versions that the newest is not of.
func otherEntities(versions []trace.Version) []string {
	entity := func(v trace.Version) string { return v.Topic[strings.LastIndexByte(v.Topic, '.')+1:] }
	var others []string
	for _, v := range versions {
		if strings.HasPrefix(v.Topic, "source.") && entity(v) != entity(versions[0]) && !slices.Contains(others, entity(v)) {
			others = append(others, entity(v))
		}
	}
	return others
}
