package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/audit"
)

func auditCommand(e *env) *cobra.Command {
	var f audit.Filter
	var since time.Duration
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what through Leat, when and why",
		Long: `Shows the newest entries of the audit log: every change that a person made through Leat, with actor, reason, and what was before
and after. Nobody can change or delete an entry.

The actor of a change is $LEAT_ACTOR, else the user of the operating system and its host.`,
		Example: `  leat audit --since 24h
  leat audit --action offsets --object "group reporting" -o json`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&f.Actor, "actor", "", "only changes of this person")
	c.Flags().StringVar(&f.Action, "action", "", "only actions that begin like this: offsets, dlq, pause, ...")
	c.Flags().StringVar(&f.Object, "object", "", "only objects that contain this")
	c.Flags().DurationVar(&since, "since", 0, "only entries so old at most: 24h")
	c.Flags().IntVar(&f.Limit, "limit", 100, "the newest so many")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if since > 0 {
			f.Since = time.Now().Add(-since)
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Audit(c.Context(), f) })
	}
	return c
}
