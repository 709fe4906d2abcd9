package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/outcomes"
)

func outcomesCommand(e *env) *cobra.Command {
	var f outcomes.Filter
	var since time.Duration
	c := &cobra.Command{
		Use:   "outcomes",
		Short: "Show what became of records, by tenant: published, unchanged, refused and why",
		Long: `Sums up the business outcomes that the stages have committed, by tenant, stage and entity: normalized, filtered (with
the filter), applied, unchanged, superseded, dead_letter (with the error's code). Counted by the hour and written every
10 seconds; a stage that is killed loses what it has counted since. leat verify proves, this shows.`,
		Example: `  leat outcomes
  leat outcomes --tenant acme --since 720h -o json`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&f.Tenant, "tenant", "", "only of this tenant")
	c.Flags().StringVar(&f.Stage, "stage", "", "only of this stage: normalize, publish")
	c.Flags().StringVar(&f.Outcome, "outcome", "", "only this one: applied, dead_letter, ...")
	c.Flags().DurationVar(&since, "since", 24*time.Hour, "how far back, in whole hours")
	c.RunE = func(c *cobra.Command, _ []string) error {
		f.Since = time.Now().Add(-since)
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Outcomes(c.Context(), f) })
	}
	return c
}
