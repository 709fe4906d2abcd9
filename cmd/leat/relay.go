package main

import (
	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func relayStatusCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "status [SOURCE...]",
		Short: "Show how far each source has been relayed, and what holds it up",
		Long: `Shows for each source (all, or those named) the position, rows and seconds behind, the oldest undelivered row, the
outbox partitions, late rows, and the transactions that other writers wait for, with their pid. It reads Kafka and the
source's database and needs no running relay. Exit code 1 if a source has a problem.`,
		Example: `  leat relay status
  leat relay status chinook -o json`,
	}
	o := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		report, err := a.RelayStatus(c.Context(), args...)
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

func relayAdoptCommand(e *env) *cobra.Command {
	var a app.Adoption
	c := &cobra.Command{
		Use:   "adopt",
		Short: "Set the position of a source after its database was restored, moved or made anew",
		Long: `A relay refuses to go on when its position does not belong to the database as it is now: after a restore, a promotion that lost
rows, a move. It says what it found. When it is clear what was lost, say where to go on: from the beginning of the table
(what is in it is delivered again), from its end (what is in it is not delivered), or after an id. A running relay goes
on by itself; the reason is kept with the position.`,
		Example: `  leat relay adopt --source chinook --from beginning --reason "restored from the backup of Monday"
  leat relay adopt --source chinook --from id:4711 --reason "moved to another server, see ticket 12"`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	c.Flags().StringVarP(&a.Source, "source", "s", "", "the source (needed)")
	c.Flags().StringVar(&a.From, "from", "", "beginning, end or id:N (needed)")
	c.Flags().StringVar(&a.Reason, "reason", "", "why, for those who come later (needed)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "source", "from", "reason"); err != nil {
			return err
		}
		leat, err := e.load()
		if err != nil {
			return err
		}
		report, err := leat.RelayAdopt(c.Context(), a)
		if err != nil {
			return err
		}
		return e.print(*o, report)
	}
	return c
}
