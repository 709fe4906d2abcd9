package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/incidents"
)

func incidentsCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:   "incidents",
		Short: "Failures by cause: list, show, resolve, mute, unmute, assign",
		Long: `All failures of one cause are one incident: of the same stage, class and code, with messages that differ only in the
values of the records. Its fingerprint names it. An incident is

  new         it has just begun
  ongoing     it has lasted for incidents.ongoing_after (1h)
  escalating  it has far more failures in this hour than usual (incidents.escalation_factor, escalation_floor)
  regressed   it has failed again after it was resolved
  muted       nobody is told of it, until a time, until it escalates, or for good
  resolved    by a person, or after incidents.quiet (24h) without a failure

Incidents are counted by "leat index run" and moved by "leat notify run", which also tells people. Records that failed
wait on their topics whatever the state of their incident is.`,
		Example: `  leat incidents list
  leat incidents show v1:0123456789abcdef
  leat incidents resolve v1:0123456789abcdef --reason "mapping corrected"`,
	}, incidentsListCommand(e), incidentsShowCommand(e), incidentsResolveCommand(e), incidentsMuteCommand(e), incidentsUnmuteCommand(e),
		incidentsAssignCommand(e))
}

func incidentsListCommand(e *env) *cobra.Command {
	var f incidents.Filter
	var state string
	c := &cobra.Command{
		Use:   "list",
		Short: "List what is not resolved, what deserves attention first",
		Long: `Lists incidents that are not resolved: first those that escalate, then regressed, new, ongoing and muted ones, of each
the newest first. The message of an incident has "?" where the values of records stood.`,
		Example: `  leat incidents list
  leat incidents list --tenant acme
  leat incidents list --all -o json`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	c.Flags().BoolVar(&f.All, "all", false, "resolved ones too")
	c.Flags().StringVar(&state, "state", "", "only this one: new, ongoing, escalating, regressed, muted, resolved")
	c.Flags().StringVar(&f.Stage, "stage", "", "only of this stage: relay, normalize, publish")
	c.Flags().StringVar(&f.Tenant, "tenant", "", "only what hits this tenant")
	c.Flags().IntVar(&f.Limit, "limit", 100, "the newest so many")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.State = incidents.State(state); state != "" && !slices.Contains(incidents.States(), f.State) {
			return &usageError{c.CommandPath(), errors.New("--state: there is no such state")}
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Incidents(c.Context(), f) })
	}
	return c
}

func incidentsShowCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show FINGERPRINT",
		Short: "Show an incident: why it is where it is, whom it hits, who was told",
		Long: `Shows the state of an incident and the rule or person that moved it there, its failures by hour and tenant, some of the
keys it hits, an example, and the notifications about it with their delivery.`,
		Example: "  leat incidents show v1:0123456789abcdef\n  leat incidents show breaker:publish/reporting -o json",
		Args:    positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Incident(c.Context(), args[0]) })
	}
	return c
}

// changeIncident makes c a command that changes the incident it names, with a reason.
func changeIncident(e *env, c *cobra.Command,
	change func(ctx context.Context, a *app.App, reason, fingerprint string) (app.IncidentChanged, error),
) *cobra.Command {
	c.Args = positional(cobra.ExactArgs(1))
	o := outputFlag(c)
	reason := c.Flags().String("reason", "", "why, for those who come later")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		changed, err := change(c.Context(), a, *reason, args[0])
		if err != nil {
			return err
		}
		return e.print(*o, changed)
	}
	return c
}

func incidentsResolveCommand(e *env) *cobra.Command {
	return changeIncident(e, &cobra.Command{
		Use:   "resolve FINGERPRINT",
		Short: "Say that the cause is gone; people who were told of it are told so",
		Long: `Closes an incident. If it fails again after this moment it is regressed, and people are told again. Its dead letters
stay where they are: leat dlq redrive brings them back.`,
		Example: `  leat incidents resolve v1:0123456789abcdef --reason "mapping corrected in release 42"`,
	}, func(ctx context.Context, a *app.App, reason, fingerprint string) (app.IncidentChanged, error) {
		return a.ResolveIncident(ctx, reason, fingerprint)
	})
}

func incidentsMuteCommand(e *env) *cobra.Command {
	var s incidents.Silence
	var span time.Duration
	c := changeIncident(e, &cobra.Command{
		Use:   "mute FINGERPRINT",
		Short: "Tell nobody of an incident, until a time or until it escalates",
		Long: `Silences an incident: it goes on being counted, and nobody is told. With --for it ends after a while, with
--until-escalating when there are far more failures than usual; with both, whichever comes first; with neither it lasts
until leat incidents unmute.`,
		Example: `  leat incidents mute v1:0123456789abcdef --for 72h --reason "the source team fixes it on Monday"
  leat incidents mute v1:0123456789abcdef --until-escalating --reason "a few a day are known"`,
	}, func(ctx context.Context, a *app.App, reason, fingerprint string) (app.IncidentChanged, error) {
		if span > 0 {
			s.Until = time.Now().Add(span)
		}
		return a.MuteIncident(ctx, reason, fingerprint, s)
	})
	c.Flags().DurationVar(&span, "for", 0, "how long: 24h")
	c.Flags().BoolVar(&s.UntilEscalating, "until-escalating", false, "end when it escalates")
	return c
}

func incidentsUnmuteCommand(e *env) *cobra.Command {
	return changeIncident(e, &cobra.Command{
		Use:     "unmute FINGERPRINT",
		Short:   "End a mute",
		Long:    `Ends a mute: people are told of the incident again, from what happens next.`,
		Example: `  leat incidents unmute v1:0123456789abcdef --reason "it is not fixed after all"`,
	}, func(ctx context.Context, a *app.App, reason, fingerprint string) (app.IncidentChanged, error) {
		return a.UnmuteIncident(ctx, reason, fingerprint)
	})
}

func incidentsAssignCommand(e *env) *cobra.Command {
	var owner, note string
	var c *cobra.Command
	c = changeIncident(e, &cobra.Command{
		Use:     "assign FINGERPRINT",
		Short:   "Say who looks after an incident, and leave a note",
		Long:    `Gives an incident an owner, and a note for whoever looks at it next. Without --owner it belongs to nobody.`,
		Example: `  leat incidents assign v1:0123456789abcdef --owner ana --note "asked the source team" --reason "month end"`,
	}, func(ctx context.Context, a *app.App, reason, fingerprint string) (app.IncidentChanged, error) {
		var n *string
		if c.Flags().Changed("note") {
			n = &note
		}
		return a.AssignIncident(ctx, reason, fingerprint, owner, n)
	})
	c.Flags().StringVar(&owner, "owner", "", "who looks after it")
	c.Flags().StringVar(&note, "note", "", "what is known")
	return c
}
