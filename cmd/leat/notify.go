package main

import (
	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func notifyCommand(e *env) *cobra.Command {
	run := runCommand(e, &cobra.Command{
		Short: "Tell people of incidents: once when one opens, escalates, comes back or closes",
		Long: `Moves incidents by the rules under incidents: and tells the receivers under notify: of them: Slack, Alertmanager, a
webhook, or e-mail. A message says which rule fired with which numbers, whom it hits, and which command shows more. What
a receiver does not take is sent again, for 24 hours; each message has an id that stays the same. Needs control.url; the
incidents come from leat index run.

It also tells of a target that a stage has waited for longer than 30 seconds. It reads nothing from Kafka, so it tells
of an outage of Kafka too.`,
		Example: "  leat notify run",
	}, (*app.App).RunNotify)
	return group(&cobra.Command{
		Use:     "notify",
		Short:   "Tell people of incidents: run, test",
		Long:    `The notifier tells people of incidents, one message for one cause. docs/operations.md describes the messages.`,
		Example: "  leat notify run\n  leat notify test finance-ops",
	}, run, notifyTestCommand(e))
}

func notifyTestCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "test RECEIVER",
		Short: "Send a sample to a receiver and show its answer",
		Long: `Sends a sample message to a receiver of the configuration and shows what it answers; exit code 1 if it does not take it.
Needs no database. Alertmanager gets an alert that has ended already.`,
		Example: "  leat notify test finance-ops",
		Args:    positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.NotifyTest(c.Context(), args[0]) })
	}
	return c
}
