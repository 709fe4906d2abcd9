package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
)

func statusCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, how far everything is, and what holds it up",
		Long: `Shows, with what is wrong first:

  processes     each running process, whether records can flow, since when it is up, and who paused it
  sources       rows of each outbox that are not on Kafka yet, the age of the oldest, and the transactions that keep rows back
  groups        lag up to the last stable offset in offsets and as the age of the oldest record, parked keys, open dead letters
  partitions    those that lag, have parked keys or no owner (--all: every one); MARGIN is how many offsets Kafka's retention may
                still delete before the group loses records
  transactions  open Kafka transactions that hide records from readers, with their owner; HUNG ones are older than their timeout

It only reads, and works when nothing of Leat runs. Processes, pauses and dead letters need control.url.
Exit code 1 if there is a problem.`,
		Example: `  leat status
  leat status --watch
  leat status -o json | jq '.groups[] | {group, lag, lag_seconds}'`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	watch := c.Flags().Bool("watch", false, "show it on the whole terminal, again and again, until Ctrl-C")
	every := c.Flags().Duration("every", 2*time.Second, "with --watch: how often")
	all := c.Flags().Bool("all", false, "show every partition")
	c.RunE = func(c *cobra.Command, _ []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		if *watch {
			out, _ := e.terminal.(*os.File)
			return a.WatchStatus(c.Context(), out, *every, *all)
		}
		report, err := a.Status(c.Context(), *all)
		if err != nil {
			return err
		}
		if err := e.print(*o, report); err != nil {
			return err
		}
		return report.Err()
	}
	return c
}
