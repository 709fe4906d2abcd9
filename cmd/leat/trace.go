package main

import (
	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/trace"
)

func traceCommand(e *env) *cobra.Command {
	var opts trace.Options
	c := &cobra.Command{
		Use:   "trace EVENT-ID|TENANT/SYSTEM/ID",
		Short: "Follow one event from its outbox row to the target",
		Long: `Shows the way of one event with times and delays: its outbox row, where it stands on Kafka, which attempts failed and why, the
finance records made of it, whether each group has come past it, and what the target has now. The first lines say where
it is.

An event is named by its id, as it stands in the outbox or in ce_id on any topic, finance topics too. A record is named by
its key: that lists its newest versions and follows the newest. Records of different entities may have the same key:
--entity tells them apart.

It reads the index (leat index run) and never a topic, so it is as quick for old events. No payload is shown.`,
		Example: `  leat trace 0193a1b2-7c4d-7e8f-9a0b-1c2d3e4f5a6b
  leat trace acme/chinook/42 --entity invoice
  leat trace acme/chinook/42 -o json`,
		Args: positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&opts.Entity, "entity", "", "only records of this entity, of the source or of finance")
	c.Flags().IntVar(&opts.Limit, "limit", 10, "how many versions of a record to list")
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Trace(c.Context(), args[0], opts) })
	}
	return c
}
