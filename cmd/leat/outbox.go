package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func outboxCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:   "outbox",
		Short: "Work on the outbox of a source: capture, release, list, grant, partitions",
		Long: `The outbox is the table leat.outbox in the database of a source system ("leat migrate up outbox" makes it). Applications write
their events to it in their own transactions; for tables whose application cannot change, triggers do (capture). The
commands connect with the url of the source in the configuration, whose role must own the tables.`,
		Example: `  leat outbox capture --table shop.customers --key customer_id --entity customer --tenant acme
  leat outbox grant app_user writer`,
	}, captureCommand(e), releaseCommand(e), listCommand(e), grantCommand(e), partitionsCommand(e))
}

// onSource is a command that works on the outbox of one source and prints what came of it.
func onSource(e *env, c *cobra.Command,
	do func(ctx context.Context, a *app.App, source string, args []string) (textWriter, error),
) *cobra.Command {
	o := outputFlag(c)
	source := c.Flags().StringP("source", "s", "", "the source, if the configuration has several")
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		report, err := do(c.Context(), a, *source, args)
		if err != nil {
			return err
		}
		return e.print(*o, report)
	}
	return c
}

func captureCommand(e *env) *cobra.Command {
	var spec app.Capture
	c := &cobra.Command{
		Use:   "capture",
		Short: "Write an event for each change of a table, by a trigger",
		Long: `Makes triggers on a table whose application cannot write events itself. The payload is the row as JSON; an UPDATE that
changes nothing of it writes nothing; a changed key is a delete and an upsert; TRUNCATE is refused. Capturing again
replaces what was said before. Writers wait for the moment that the triggers need, and for the backfill.`,
		Example: `  leat outbox capture --table shop.customers --key customer_id --entity customer --tenant acme --backfill
  leat outbox capture --table orders --key company,number --entity order --tenant-column company --omit password_hash`,
		Args: noArgs(),
	}
	f := c.Flags()
	f.StringVar(&spec.Table, "table", "", "the table, as schema.table (needed)")
	f.StringSliceVar(&spec.Key, "key", nil, "column or columns that identify a row (needed)")
	f.StringVar(&spec.Entity, "entity", "", "entity of its events (needed)")
	f.StringVar(&spec.Tenant, "tenant", "", "tenant of all its events")
	f.StringVar(&spec.TenantColumn, "tenant-column", "", "column with the tenant of each row, instead of --tenant")
	f.StringSliceVar(&spec.Omit, "omit", nil, "columns that never leave the table")
	f.BoolVar(&spec.Backfill, "backfill", false, "also write an event for each row that is there already")
	return onSource(e, c, func(ctx context.Context, a *app.App, source string, _ []string) (textWriter, error) {
		if err := required(c, "table", "key", "entity"); err != nil {
			return nil, err
		}
		return a.OutboxCapture(ctx, source, spec)
	})
}

func releaseCommand(e *env) *cobra.Command {
	return onSource(e, &cobra.Command{
		Use:     "release TABLE",
		Short:   "Remove the triggers of a captured table",
		Long:    `Changes of the table write no events any more. The events that were written stay in the outbox and are relayed.`,
		Example: "  leat outbox release shop.customers",
		Args:    positional(cobra.ExactArgs(1)),
	}, func(ctx context.Context, a *app.App, source string, args []string) (textWriter, error) {
		return a.OutboxRelease(ctx, source, args[0])
	})
}

func listCommand(e *env) *cobra.Command {
	return onSource(e, &cobra.Command{
		Use:     "list",
		Short:   "List the captured tables of a source",
		Long:    `Lists every table whose changes become events by triggers, with its entity, key and tenant.`,
		Example: "  leat outbox list\n  leat outbox list --source chinook -o json",
		Args:    noArgs(),
	}, func(ctx context.Context, a *app.App, source string, _ []string) (textWriter, error) {
		return a.OutboxList(ctx, source)
	})
}

func grantCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "grant ROLE writer|relay",
		Short: "Give a database role the least rights it needs on the outbox",
		Long: `A writer may insert events and do nothing else. A relay may read them, and make and drop partitions through functions. The role
must exist: create role app_user login. --dry-run prints the statements for those who may run them.`,
		Example: `  leat outbox grant app_user writer
  leat outbox grant leat_relay relay --dry-run`,
		Args: positional(cobra.ExactArgs(2)),
	}
	dryRun := c.Flags().Bool("dry-run", false, "only print the statements")
	return onSource(e, c, func(ctx context.Context, a *app.App, source string, args []string) (textWriter, error) {
		return a.OutboxGrant(ctx, source, args[0], args[1], *dryRun)
	})
}

func partitionsCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "partitions",
		Short: "Make partitions of the outbox ahead of the ids in use",
		Long: `Makes empty partitions of a million ids each, so that none is missing when a source writes much. A running relay does the same,
and drops old partitions once all their rows have been relayed and are older than outbox_retention.`,
		Example: "  leat outbox partitions\n  leat outbox partitions --ahead 10",
		Args:    noArgs(),
	}
	ahead := c.Flags().Int("ahead", 2, "how many empty partitions to have")
	return onSource(e, c, func(ctx context.Context, a *app.App, source string, _ []string) (textWriter, error) {
		return a.OutboxPartitions(ctx, source, *ahead)
	})
}
