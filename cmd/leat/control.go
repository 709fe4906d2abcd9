package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

const scopesHelp = `
  stage NAME    every process of relay, normalize or publish
  group NAME    the members of one consumer group
  source NAME   the outbox of one source system: the relay leaves it and its database alone
  tenant NAME   the records of one tenant in every group: they are parked in order, the others go on
  target NAME   whatever writes to one target, such as the publication "reporting"`

func pauseCommand(e *env) *cobra.Command {
	var reason string
	var d time.Duration
	c := &cobra.Command{
		Use:   "pause SCOPE NAME",
		Short: "Make a stage, group, source, tenant or target stand still, within seconds",
		Long: `Orders running processes to stand still, and those that start later too, until it is taken back with "leat resume" or --for
is over. Nothing is lost: a batch in flight is finished first, what is not handled stays where it is, and nobody is thrown
out of a consumer group. SCOPE NAME is one of:
` + scopesHelp + `

Each change has an entry in the audit log. Needs control.url in the configuration of the processes.`,
		Example: `  leat pause target reporting --reason "the books are being restored" --for 2h
  leat pause tenant acme --reason "their ledger is closed until Monday"
  leat pause source shop --reason "database upgrade"`,
		Args: positional(cobra.ExactArgs(2)),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for those who come later (needed)")
	c.Flags().DurationVar(&d, "for", 0, "how long, such as 2h (default: until it is resumed)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		if d < 0 {
			return &usageError{c.CommandPath(), errors.New("--for is negative")}
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Pause(c.Context(), args[0], args[1], reason, d) })
	}
	return c
}

func resumeCommand(e *env) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "resume SCOPE NAME",
		Short: "Take a pause back",
		Long: `Takes back what "leat pause" has ordered, with the same SCOPE and NAME; of a group also a drain of "leat offsets apply
--drain" whose author does not come back. Processes go on within seconds. The records of a tenant are due at once, in order.`,
		Example: `  leat resume target reporting --reason "the books are back"
  leat resume tenant acme --reason "Monday"`,
		Args: positional(cobra.ExactArgs(2)),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for those who come later (needed)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Resume(c.Context(), args[0], args[1], reason) })
	}
	return c
}

func pausesCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "pauses",
		Short:   "Show what is paused, by whom, why and until when",
		Long:    `Shows every pause that holds, and groups that are drained for a change of offsets.`,
		Example: "  leat pauses\n  leat pauses -o json",
		Args:    noArgs(),
	}
	o := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Pauses(c.Context()) })
	}
	return c
}

func breakerCommand(e *env) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "Show the breaker of every process, with its rule, the numbers and a sample error",
		Long: `Shows for each running member of a group whether its breaker is closed, half-open or open, since when, the rule that opened
it with the numbers, one of the errors, the probes that failed, and what an operator has ordered.`,
		Example: "  leat breaker list\n  leat breaker list -o json",
		Args:    noArgs(),
	}
	o := outputFlag(list)
	list.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Breakers(c.Context()) })
	}
	return group(&cobra.Command{
		Use:   "breaker",
		Short: "See and hold the breakers of stages: list, open, close, release",
		Long: `A stage whose target or dependency is down opens its breaker: nothing is handled, no attempt is spent, no dead letter is
written; a probe goes out now and then and closes it again. That needs nobody. When you know better, hold it open or closed.`,
		Example: `  leat breaker list
  leat breaker close reporting --reason "the database is up again" --for 10m
  leat breaker release reporting --reason "done"`,
	}, list, breakerOrderCommand(e, "open", "Hold a group's breaker open: nothing is handled until it is released",
		`Nothing is handled until it is released, or --for is over. It is like a pause of the group, and shows as an open breaker: for a
target of which you know that it must not be touched.`, true),
		breakerOrderCommand(e, "close", "Hold a group's breaker closed: try at once, and guess no outage",
			`The target is tried at once, with full batches instead of a probe. The guess that many failures of one kind are an outage is
off: the records have their attempts, and then they are dead letters. What the target itself reports as an outage (a refused
connection) is still no failure of a record: the batch is tried again after at most 5 s.`, true),
		breakerOrderCommand(e, "release", "Let a group's breaker decide by itself again", `Takes back what "open" or "close" has ordered.`, false))
}

func breakerOrderCommand(e *env, action, short, long string, timed bool) *cobra.Command {
	var reason string
	var d time.Duration
	c := &cobra.Command{
		Use: action + " GROUP", Short: short, Long: long, Args: positional(cobra.ExactArgs(1)),
		Example: fmt.Sprintf("  leat breaker %s reporting --reason \"ticket 12\"", action),
	}
	o := outputFlag(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for those who come later (needed)")
	if timed {
		c.Flags().DurationVar(&d, "for", 0, "how long, such as 10m (default: until it is released)")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.OrderBreaker(c.Context(), action, args[0], reason, d) })
	}
	return c
}

// parkedFlags adds the flags that select parked records.
func parkedFlags(c *cobra.Command) *app.ParkedSelection {
	s := &app.ParkedSelection{}
	f := c.Flags()
	f.StringVarP(&s.Group, "group", "g", "", "the consumer group that parked them (needed)")
	f.StringSliceVar(&s.Topics, "topic", nil, "only those of these topics")
	f.StringVar(&s.Tenant, "tenant", "", "only those of this tenant")
	f.StringVar(&s.Key, "key", "", "only those with this record key: tenant/system/id")
	f.StringSliceVar(&s.Offsets, "offset", nil, "only these: topic/partition/offset, as the list shows them")
	return s
}

func parkedCommand(e *env) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "Show the records that wait for a retry",
		Long: `Shows the parked records of a group: where they stand, their key, the attempts made, the error, and when the next attempt is
due. It reads the retry topics themselves, up to what is committed now, and needs no running process.`,
		Example: `  leat parked list --group reporting
  leat parked list --group reporting --tenant acme -o json`,
		Args: noArgs(),
	}
	o := outputFlag(list)
	s := parkedFlags(list)
	list.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "group"); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.Parked(c.Context(), *s) })
	}
	return group(&cobra.Command{
		Use:   "parked",
		Short: "See and settle records that wait for a retry: list, retry, cancel, dead-letter",
		Long: `A record whose failure may pass is parked: it waits for its next attempt, and later records of its key wait behind it, in
order. What is ordered here is carried out by the process that owns the partition, in one Kafka transaction, once, also if
that process dies in between. Without a running owner an order waits until there is one.`,
		Example: `  leat parked list --group reporting
  leat parked retry --group reporting --key acme/shop/4711 --reason "the contact is there now"`,
	}, list,
		parkedOrderCommand(e, "retry", "Make records due now",
			`The oldest record of each selected key is tried at once, and what waits behind it follows in order. It is the next attempt,
not an additional one. A record of a paused tenant waits on.`),
		parkedOrderCommand(e, "cancel", "Drop records: they are never handled",
			`The records are dropped and leave no dead letter; they stay on the topic that they came from. The next records of their keys
have their turn. Needs --yes.`),
		parkedOrderCommand(e, "dead-letter", "Move records to the dead letters",
			`The records are moved to the dead letters, with the disposition "manual". The next records of their keys have their turn.`))
}

func parkedOrderCommand(e *env, action, short, long string) *cobra.Command {
	var reason string
	var all, yes, dry bool
	var wait time.Duration
	c := &cobra.Command{
		Use: action, Short: short, Args: noArgs(),
		Long:    long + "\n\nSelect with --topic, --tenant, --key or --offset, or take --all. --dry-run shows what is selected.",
		Example: fmt.Sprintf("  leat parked %s --group reporting --tenant acme --dry-run\n  leat parked %[1]s --group reporting --key acme/shop/4711 --reason \"ticket 12\"", action),
	}
	o := outputFlag(c)
	s := parkedFlags(c)
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "why, for those who come later (needed)")
	f.BoolVar(&all, "all", false, "all parked records of the group")
	f.BoolVar(&dry, "dry-run", false, "only show what is selected")
	f.DurationVar(&wait, "wait", 30*time.Second, "how long to wait for the owners of the partitions")
	if action == "cancel" {
		f.BoolVar(&yes, "yes", false, "I know that the records are dropped (needed)")
		c.Example += " --yes"
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "group"); err != nil {
			return err
		}
		if s.Empty() != all {
			return &usageError{c.CommandPath(), errors.New("select with --topic, --tenant, --key or --offset, or take --all")}
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		if dry {
			report, err := a.Parked(c.Context(), *s)
			if err != nil {
				return err
			}
			return e.print(*o, report)
		}
		if err := required(c, "reason"); err != nil {
			return err
		}
		if action == "cancel" && !yes {
			return &usageError{c.CommandPath(), errors.New("--yes is needed: the records are dropped for good")}
		}
		report, err := a.OrderParked(c.Context(), action, *s, reason, wait)
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
