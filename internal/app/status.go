package app

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/operations/status"
	"github.com/leat-io/leat/outbox/relay"
	"github.com/leat-io/leat/topics"
)

// StatusReport is what runs and how far everything is, at one moment.
type StatusReport struct {
	*status.Report
	All bool `json:"-"` // print every partition, not only those that have something to say
}

// Status looks at everything that the configuration has an address of.
func (a *App) Status(ctx context.Context, all bool) (StatusReport, error) {
	kafka, err := a.KafkaOptions()
	if err != nil {
		return StatusReport{}, err
	}
	names, err := a.TopicNames()
	if err != nil {
		return StatusReport{}, err
	}
	c := status.Config{Kafka: kafka, Topics: names, Groups: a.readers()}
	if a.cfg.Require(config.NeedSources, config.NeedSourceURL) == nil {
		c.Sources = func(ctx context.Context) ([]relay.Status, error) { return a.RelayStatus(ctx) }
	}
	if !a.cfg.Control.URL.Empty() {
		db, err := a.controlDB(ctx)
		if err != nil {
			return StatusReport{}, err
		}
		defer db.Close()
		c.Processes = func(ctx context.Context) ([]control.Process, error) { return control.Processes(ctx, db) }
		c.Pauses = func(ctx context.Context) ([]control.Pause, error) { return control.Pauses(ctx, db) }
		c.DeadLetters = func(ctx context.Context) ([]status.DeadLetters, error) { return status.OpenDeadLetters(ctx, db) }
	}
	r, err := status.Read(ctx, c)
	return StatusReport{r, all}, err
}

// readers are the consumer groups of this installation.
func (a *App) readers() []status.Reader {
	var sources []string
	for _, s := range a.cfg.Sources {
		for _, e := range s.Entities {
			sources = append(sources, topics.Source(s.Name, e))
		}
	}
	return []status.Reader{
		{Stage: "normalize", Group: a.cfg.Normalize.Group, Topics: sources},
		{Stage: "publish", Group: a.cfg.Publish.Group, Topics: financeTopics()},
	}
}

// Err says that something is wrong.
func (r StatusReport) Err() error {
	if n := len(r.Problems); n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	return nil
}

// WriteText prints a section for each kind of thing.
func (r StatusReport) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	line("%s", r.At.Format(time.RFC3339))
	r.writeProblems(line)
	r.writeProcesses(line)
	r.writeSources(line)
	r.writeGroups(line)
	if len(r.Transactions) > 0 {
		line("\nOPEN TRANSACTION\tPARTITION\tSINCE\tHIDES\t")
	}
	for _, x := range r.Transactions {
		hung := ""
		if x.Hung {
			hung = "HUNG"
		}
		line("%s (%s)\t%s/%d\t%s\t%d offsets\t%s", x.TransactionalID, x.State, x.Topic, x.Partition, ago(x.AgeSeconds), x.Behind, hung)
	}
	return t.Flush()
}

type printLine func(format string, args ...any)

func (r StatusReport) writeProblems(line printLine) {
	if len(r.Problems) == 0 {
		line("all is well")
		return
	}
	for _, p := range r.Problems {
		line("PROBLEM  %s", p)
	}
}

func (r StatusReport) writeProcesses(line printLine) {
	for i, p := range r.Processes {
		if i == 0 {
			line("\nPROCESS\tINSTANCE\tSTATE\tUP\tVERSION")
		}
		state := "ready"
		switch {
		case !p.Alive():
			state = fmt.Sprintf("gone, last seen %s ago", ago(p.AgeSeconds))
		case p.PausedBy != "":
			state = "paused: " + p.PausedBy
		case !p.Ready:
			state = "NOT READY: " + p.Problem
		}
		line("%s\t%s\t%s\t%s\t%s", p.Stage, p.Instance, state, ago(r.At.Sub(p.StartedAt).Seconds()), p.Version)
	}
	for i, p := range r.Pauses {
		if i == 0 {
			line("\nPAUSED\tNAME\tBY\tSINCE\tREASON")
		}
		line("%s\t%s\t%s\t%s\t%s", p.Scope, p.Name, p.Actor, ago(r.At.Sub(p.At).Seconds()), p.Reason)
	}
}

func (r StatusReport) writeSources(line printLine) {
	for i, s := range r.Sources {
		if i == 0 {
			line("\nSOURCE\tBEHIND\tOLDEST\tRELAYED\tOWNER")
		}
		relayed, owner := "nothing yet", s.Owner
		if s.Position != nil {
			relayed = fmt.Sprintf("%d rows, to id %d", s.Position.Rows, s.Position.LastID)
		}
		if owner == "" {
			owner = "no relay runs"
		}
		line("%s\t%d rows\t%s\t%s\t%s", s.Source, s.RowsBehind, ago(s.SecondsBehind), relayed, owner)
		for _, x := range s.Transactions {
			if x.HoldsOutbox || x.BlocksRelay {
				line("  transaction of pid %d, %s %s, open for %s%s", x.PID, x.User, x.Application, ago(x.AgeSeconds), held(x))
			}
		}
	}
}

func (r StatusReport) writeGroups(line printLine) {
	for i, g := range r.Groups {
		if i == 0 {
			line("\nGROUP\tSTATE\tMEMBERS\tBREAKER\tLAG\tOLDEST\tPARKED KEYS\tDEAD LETTERS")
		}
		line("%s\t%s\t%d\t%s\t%d\t%s\t%d\t%d", g.Group, strings.ToLower(g.State), g.Members, g.Breaker, g.Lag, ago(g.LagSeconds),
			g.ParkedKeys, g.Dead)
	}
	first := true
	for _, g := range r.Groups {
		for _, p := range g.Partitions {
			if !r.All && p.Lag == 0 && p.ParkedKeys == 0 && (p.State == "running" || p.State == "owned") {
				continue
			}
			if first {
				line("\nPARTITION\tGROUP\tSTATE\tLAG\tOLDEST\tPARKED KEYS\tMARGIN")
				first = false
			}
			margin := "never committed"
			if p.Margin != nil {
				margin = strconv.FormatInt(*p.Margin, 10)
			}
			line("%s/%d\t%s\t%s\t%d\t%s\t%d\t%s", p.Topic, p.Partition, g.Group, p.State, p.Lag, ago(p.LagSeconds), p.ParkedKeys, margin)
		}
	}
}

// ago is a duration as people read it: 0 s, 12 s, 3 min, 5 h, 2 d.
func ago(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d <= 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f d", d.Hours()/24)
	}
}
