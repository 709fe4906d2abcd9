package main

import (
	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func indexCommand(e *env) *cobra.Command {
	run := runCommand(e, &cobra.Command{
		Short: "Keep what operators look up: where each event stands, what failed",
		Long: `Reads all topics of the installation and writes to the control database where each event stands on Kafka and which attempts
failed. leat trace and others look things up there, instead of reading topics. No stage depends on it: when it is away,
only what operators see is late. A second process stands by. Needs kafka.brokers, sources and control.url.`,
		Example: "  leat index run",
	}, (*app.App).RunIndex)
	return group(&cobra.Command{
		Use:   "index",
		Short: "Keep what operators look up: run, status, rebuild",
		Long: `The index is a set of tables in the control database, each made from topics. Everything in it can be made again from the topics as
far as they reach.`,
		Example: "  leat index run\n  leat index status\n  leat index rebuild journal --reason \"restored the control database\"",
	}, run, indexStatusCommand(e), indexRebuildCommand(e))
}

func indexStatusCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far the index has read",
		Long: `Shows for each table of the index whether a process keeps it, how many records of its topics are not in it yet, and the
partitions that are farthest behind. What is behind is counted in offsets, which markers of transactions use too.`,
		Example: "  leat index status\n  leat index status -o json",
		Args:    noArgs(),
	}
	o := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.IndexStatus(c.Context()) })
	}
	return c
}

func indexRebuildCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "rebuild [PROJECTION...]",
		Short: "Make tables of the index anew from the topics",
		Long: `Empties the named tables of the index, or all, and their positions; a running index then reads the topics again from their
beginning. Until it has come to their end, less can be looked up. What topics have no longer does not come back. Nothing
else is touched: no stage depends on the index.`,
		Example: `  leat index rebuild --reason "restored the control database"
  leat index rebuild attempts --reason "new column"`,
	}
	o := outputFlag(c)
	reason := c.Flags().String("reason", "", "why, for those who come later")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.IndexRebuild(c.Context(), *reason, args...) })
	}
	return c
}
