package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/outbox/relay"
	"github.com/leat-io/leat/processors"
)

// newAgent makes the part of a process that takes orders from operators.
func (a *App) newAgent(db control.DB, stages []stage) *control.Agent {
	c := control.AgentConfig{DB: db, Version: a.version, Logger: a.log, Hide: a.hider.Hide}
	for _, s := range stages {
		c.Members = append(c.Members, a.member(s))
	}
	return control.NewAgent(c)
}

// member is what the control database hears of s, and how s takes its orders.
func (a *App) member(s stage) control.Member {
	m := control.Member{Stage: s.name, Instance: defaultInstance(), Ready: s.Ready}
	switch r := s.runnable.(type) {
	case *relay.Relay:
		m.Group = a.cfg.Relay.Group
		for _, source := range a.cfg.Sources {
			m.Sources = append(m.Sources, source.Name)
		}
		m.Status = func() any { return r.Status() }
		m.Obey = func(o control.Orders) {
			if o.Leave != "" { // its group commits no offsets: there is nothing to leave it for
				o.Pause = o.Leave
			}
			r.Obey(relay.Orders{Pause: o.Pause, Sources: o.Sources})
		}
	case *processors.Runner:
		m.Group, m.Instance = r.Member()
		m.Status = func() any { return r.Status() }
		m.Obey = func(o control.Orders) { r.Obey(o.Orders) }
		m.Settle = r.Settle
		if s.name == "publish" {
			m.Targets = []string{a.cfg.Publish.Reporting.Publication}
		}
	}
	return m
}

// names are what the configuration calls by name.
func (a *App) names() control.Names {
	n := control.Names{
		Stages: []string{"relay", "normalize", "publish"}, Groups: []string{a.cfg.Relay.Group, a.cfg.Normalize.Group, a.cfg.Publish.Group},
		Targets: []string{a.cfg.Publish.Reporting.Publication},
	}
	for _, s := range a.cfg.Sources {
		n.Sources = append(n.Sources, s.Name)
	}
	return n
}

// withControl calls f with the control database.
func (a *App) withControl(ctx context.Context, f func(db control.DB) error) error {
	db, err := a.controlDB(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}

// Pauses are orders to stand still.
type Pauses []control.Pause

// Pauses returns what is paused or drained now.
func (a *App) Pauses(ctx context.Context) (ps Pauses, err error) {
	err = a.withControl(ctx, func(db control.DB) error { ps, err = control.Pauses(ctx, db); return err })
	return ps, err
}

// WriteText prints a line for each.
func (ps Pauses) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if len(ps) == 0 {
		_, _ = fmt.Fprintln(t, "nothing is paused") // Flush has the error
	}
	for _, p := range ps {
		until := "until resumed"
		if !p.Until.IsZero() {
			until = "until " + p.Until.UTC().Format(time.RFC3339)
		}
		what := "paused"
		if p.Mode == control.ModeDrain {
			what = "drained"
		}
		_, _ = fmt.Fprintf(t, "%s %s\t%s\tby %s at %s\t%s\t%s\n", p.Scope, p.Name, what, p.Actor, p.At.UTC().Format(time.RFC3339), until, p.Reason)
	}
	return t.Flush()
}

// Paused is what Pause or Resume has changed.
type Paused struct {
	Action string          `json:"action"` // pause, resume
	Pauses []control.Pause `json:"pauses"` // that hold now, or were lifted
}

// WriteText says what was done.
func (p Paused) WriteText(w io.Writer) error {
	for _, one := range p.Pauses {
		text := fmt.Sprintf("%s %s goes on", one.Scope, one.Name)
		if p.Action == "pause" {
			text = fmt.Sprintf("%s %s stands still within seconds, until it is resumed", one.Scope, one.Name)
			if !one.Until.IsZero() {
				text = fmt.Sprintf("%s %s stands still within seconds, until %s", one.Scope, one.Name, one.Until.UTC().Format(time.RFC3339))
			}
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// Pause makes something stand still, for ever if d is 0.
func (a *App) Pause(ctx context.Context, scope, name, reason string, d time.Duration) (done Paused, err error) {
	op, err := a.operator(reason)
	if err != nil {
		return done, err
	}
	err = a.withControl(ctx, func(db control.DB) error {
		names, err := control.KnownNames(ctx, db, a.names())
		if err != nil {
			return err
		}
		p, err := control.SetPause(ctx, db, op, control.Pause{Scope: control.Scope(scope), Name: name, Until: after(d)}, names)
		done = Paused{"pause", []control.Pause{p}}
		return err
	})
	return done, err
}

// after is the time after d, zero if d is 0.
func after(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// Resume takes a pause back.
func (a *App) Resume(ctx context.Context, scope, name, reason string) (done Paused, err error) {
	op, err := a.operator(reason)
	if err != nil {
		return done, err
	}
	err = a.withControl(ctx, func(db control.DB) error {
		lifted, err := control.LiftPause(ctx, db, op, control.Scope(scope), name)
		done = Paused{"resume", lifted}
		return err
	})
	return done, err
}

// BreakerReport is the breakers of running processes, and the orders about them.
type BreakerReport struct {
	Orders   []control.BreakerOrder `json:"orders"`
	Breakers []control.Breaker      `json:"breakers"`
}

// Breakers returns what is known of breakers.
func (a *App) Breakers(ctx context.Context) (r BreakerReport, err error) {
	err = a.withControl(ctx, func(db control.DB) error {
		if r.Orders, err = control.BreakerOrders(ctx, db); err != nil {
			return err
		}
		r.Breakers, err = control.Breakers(ctx, db)
		return err
	})
	return r, err
}

// WriteText prints a paragraph for each breaker, and the orders about groups of which no process runs.
func (r BreakerReport) WriteText(w io.Writer) error {
	var b strings.Builder
	seen := map[string]bool{}
	for _, br := range r.Breakers {
		seen[br.Group] = true
		fmt.Fprintf(&b, "%s %s, instance %s: %s since %s", br.Stage, br.Group, br.Instance, br.State, br.Since.UTC().Format(time.RFC3339))
		if br.Order != "" {
			fmt.Fprintf(&b, ", held %s %s", br.Order, br.Ordered)
		}
		if !br.Alive {
			b.WriteString("; NOT HEARD OF lately")
		}
		b.WriteString("\n")
		if br.Sample != "" {
			fmt.Fprintf(&b, "  rule    %s\n  sample  %s\n", br.Reason, br.Sample)
		}
		if !br.Probe.IsZero() {
			fmt.Fprintf(&b, "  probes  %d failed, next at %s\n", br.Probes, br.Probe.UTC().Format(time.RFC3339))
		}
	}
	for _, o := range r.Orders {
		if !seen[o.Group] {
			fmt.Fprintf(&b, "group %s: to be held %s by %s: %s; no process of it runs\n", o.Group, o.State, o.Actor, o.Reason)
		}
	}
	if b.Len() == 0 {
		b.WriteString("no process with a breaker runs\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// BreakerOrdered is what an order about a breaker has changed.
type BreakerOrdered struct {
	Action string `json:"action"` // open, close, release
	control.BreakerOrder
}

// WriteText says what was done.
func (o BreakerOrdered) WriteText(w io.Writer) error {
	text := map[string]string{
		"open":    "is open within seconds: nothing is handled",
		"close":   "is closed within seconds: the target is tried at once, and nothing is taken for an outage but what the target itself says",
		"release": "decides by itself again",
	}[o.Action]
	_, err := fmt.Fprintf(w, "the breaker of group %s %s\n", o.Group, text)
	return err
}

// OrderBreaker opens, closes or releases the breaker of a group, for ever if d is 0.
func (a *App) OrderBreaker(ctx context.Context, action, group, reason string, d time.Duration) (done BreakerOrdered, err error) {
	op, err := a.operator(reason)
	if err != nil {
		return done, err
	}
	done.Action = action
	err = a.withControl(ctx, func(db control.DB) error {
		if action == "release" {
			done.BreakerOrder, err = control.ReleaseBreaker(ctx, db, op, group)
			return err
		}
		names, err := control.KnownNames(ctx, db, a.names())
		if err != nil {
			return err
		}
		state := map[string]processors.BreakerState{"open": processors.BreakerOpen, "close": processors.BreakerClosed}[action]
		done.BreakerOrder, err = control.OrderBreaker(ctx, db, op, control.BreakerOrder{Group: group, State: state, Until: after(d)}, names)
		return err
	})
	return done, err
}
