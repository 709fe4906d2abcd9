package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/incidents"
)

// Incidents are those that were asked for.
type Incidents []incidents.Incident

// Incidents lists incidents.
func (a *App) Incidents(ctx context.Context, f incidents.Filter) (Incidents, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return incidents.List(ctx, db, a.policy(), f)
}

// WriteText prints two lines for each incident.
func (is Incidents) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	if len(is) == 0 {
		line("no incidents")
	}
	for _, i := range is {
		keys := fmt.Sprintf("%d keys", i.Keys)
		if i.MoreKeys {
			keys = fmt.Sprintf("more than %d keys", i.Keys)
		}
		mark := ""
		if i.NotifyFailed {
			mark = "  NOBODY WAS TOLD: notification failed"
		}
		line("%s\t%s\t%s %s\t%d failures, %d dead letters, %s\tlast %s%s", i.State, i.Fingerprint, i.Stage, i.Code, i.Failures, i.Dead, keys,
			i.Last.UTC().Format(time.RFC3339), mark)
		line("\t%s", i.Message)
		if i.Owner != "" || i.Note != "" {
			line("\towner %s\t%s", i.Owner, i.Note)
		}
	}
	return t.Flush()
}

// IncidentDetail is all that is known of an incident.
type IncidentDetail struct{ incidents.Detail }

// Incident shows one incident.
func (a *App) Incident(ctx context.Context, fingerprint string) (IncidentDetail, error) {
	db, err := a.controlDB(ctx)
	if err != nil {
		return IncidentDetail{}, err
	}
	defer db.Close()
	d, err := incidents.Show(ctx, db, a.policy(), fingerprint)
	return IncidentDetail{d}, err
}

// WriteText prints what is known, and what to do next.
func (d IncidentDetail) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { printRow(t, format, args...) }
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	line("%s\t%s", d.Fingerprint, d.Message)
	line("  state\t%s since %s: %s", d.State, stamp(d.Since), d.Why)
	line("  stage\t%s, group %s", d.Stage, strings.Join(d.Groups, ", "))
	line("  error\t%s %s, severity %s", d.Class, d.Code, d.Severity)
	line("  seen\t%s to %s, episode %d since %s", stamp(d.First), stamp(d.Last), d.Episode, stamp(d.Opened))
	keys := fmt.Sprintf("%d keys", d.Keys)
	if d.MoreKeys {
		keys = "more than " + keys
	}
	line("  failures\t%d attempts of %s, %d records given up, %d of them open", d.Failures, keys, d.Dead, d.OpenDeadLetters)
	if d.Owner != "" || d.Note != "" {
		line("  owner\t%s\t%s", d.Owner, d.Note)
	}
	if e := d.Example; e.Topic != "" {
		line("  example\tevent %s of %s, first read at %s/%d@%d", e.Event, e.Tenant, e.Topic, e.Partition, e.Offset)
	}
	d.writeLists(line, stamp)
	if !d.Systemic {
		line("  next\tleat dlq list --fingerprint %s", d.Fingerprint)
		line("  \tleat incidents resolve %s --reason ...", d.Fingerprint)
	}
	return t.Flush()
}

func (d IncidentDetail) writeLists(line func(string, ...any), stamp func(time.Time) string) {
	for i, x := range d.Tenants {
		if i == 20 {
			line("  \tand %d more tenants: -o json", len(d.Tenants)-i)
			break
		}
		line("  tenant\t%s\t%d failures, %d dead letters, %d keys, last %s", x.Tenant, x.Failures, x.Dead, x.Keys, stamp(x.Last))
	}
	for _, h := range d.Hours[max(0, len(d.Hours)-24):] {
		line("  hour\t%s\t%d failures, %d dead letters", stamp(h.Hour), h.Failures, h.Dead)
	}
	if len(d.KeySample) > 0 {
		line("  keys\t%s", strings.Join(d.KeySample[:min(5, len(d.KeySample))], ", "))
	}
	for _, n := range d.Notices {
		text := n.State
		if !n.Sent.IsZero() {
			text += " " + stamp(n.Sent)
		}
		if n.Error != "" {
			text += fmt.Sprintf(" after %d attempts: %s", n.Attempts, n.Error)
		}
		line("  told\t%s\t%s, episode %d: %s", n.Receiver, n.Kind, n.Episode, text)
	}
}

// IncidentChanged is an incident after a person has changed it.
type IncidentChanged struct{ incidents.Incident }

// WriteText says how the incident stands now.
func (i IncidentChanged) WriteText(w io.Writer) error {
	text := fmt.Sprintf("incident %s is %s: %s\n", i.Fingerprint, i.State, i.Why)
	switch {
	case !i.MutedUntil.IsZero():
		text += "  until " + i.MutedUntil.UTC().Format(time.RFC3339) + "\n"
	case i.State == incidents.Muted && !i.MutedUntilEscalating:
		text += "  for good: leat incidents unmute " + i.Fingerprint + "\n"
	}
	if i.MutedUntilEscalating {
		text += "  until it escalates\n"
	}
	if i.Owner != "" {
		text += "  owner " + i.Owner + "\n"
	}
	if i.Note != "" {
		text += "  note " + i.Note + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// ResolveIncident closes an incident whose cause is gone.
func (a *App) ResolveIncident(ctx context.Context, reason, fingerprint string) (IncidentChanged, error) {
	return a.decide(ctx, reason, func(db *pgxpool.Pool, op audit.Operator) (incidents.Incident, error) {
		return incidents.Resolve(ctx, db, op, a.policy(), fingerprint)
	})
}

// MuteIncident silences an incident.
func (a *App) MuteIncident(ctx context.Context, reason, fingerprint string, s incidents.Silence) (IncidentChanged, error) {
	return a.decide(ctx, reason, func(db *pgxpool.Pool, op audit.Operator) (incidents.Incident, error) {
		return incidents.Mute(ctx, db, op, a.policy(), fingerprint, s)
	})
}

// UnmuteIncident ends a mute.
func (a *App) UnmuteIncident(ctx context.Context, reason, fingerprint string) (IncidentChanged, error) {
	return a.decide(ctx, reason, func(db *pgxpool.Pool, op audit.Operator) (incidents.Incident, error) {
		return incidents.Unmute(ctx, db, op, a.policy(), fingerprint)
	})
}

// AssignIncident says who looks after an incident; a nil note leaves it as it is.
func (a *App) AssignIncident(ctx context.Context, reason, fingerprint, owner string, note *string) (IncidentChanged, error) {
	return a.decide(ctx, reason, func(db *pgxpool.Pool, op audit.Operator) (incidents.Incident, error) {
		return incidents.Assign(ctx, db, op, a.policy(), fingerprint, a.hider.Told(owner), a.told(note))
	})
}

func (a *App) decide(ctx context.Context, reason string,
	change func(*pgxpool.Pool, audit.Operator) (incidents.Incident, error),
) (IncidentChanged, error) {
	op, err := a.operator(reason)
	if err != nil {
		return IncidentChanged{}, err
	}
	db, err := a.controlDB(ctx)
	if err != nil {
		return IncidentChanged{}, err
	}
	defer db.Close()
	i, err := change(db, op)
	return IncidentChanged{i}, err
}
