package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/offsets"
)

func offsetsCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:   "offsets",
		Short: "See and move consumer groups: list, plan, show, apply, undo, export",
		Long: `Moves a consumer group on its topics in three steps. plan says, for each partition, where the group stands, where it would
stand, which records it would read again or skip, and what that would do to the targets; it changes nothing. apply does
exactly what the plan says, or refuses when anything has moved since. undo takes it back.

The targets have the names that Kafka's own kafka-consumer-groups.sh gives them. Unlike there, nothing is clamped to an
offset that happens to exist, a mistyped group is never made, and what apply has written is read back.

Needs kafka.brokers and control.url.`,
		Example: `  leat offsets list
  leat offsets plan --group normalize --topic source.shop.invoice --to-earliest --reason "corrected mapping, ticket 12"
  leat offsets apply k3m9x2qa --drain
  leat offsets undo k3m9x2qa --reason "the wrong mapping was corrected"`,
	}, offsetsListCommand(e), offsetsPlanCommand(e), offsetsShowCommand(e), offsetsApplyCommand(e), offsetsUndoCommand(e), offsetsExportCommand(e))
}

func offsetsListCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "Show where groups stand: committed offsets, lag, members",
		Long: `Shows for each partition of each group the committed offset, the lag against the last stable offset (in offsets: markers of
transactions count), the start and end of the log, and how long it takes until retention reaches the oldest record that
the group has not read. Without --group: the groups of this installation.`,
		Example: "  leat offsets list\n  leat offsets list --group normalize -o json",
		Args:    noArgs(),
	}
	o := outputFlag(c)
	groups := c.Flags().StringArrayP("group", "g", nil, "this group, also one of others; repeatable")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.OffsetsList(c.Context(), *groups...) })
	}
	return c
}

func offsetsPlanCommand(e *env) *cobra.Command {
	var r offsets.Request
	var reason, file string
	var offset, shift int64
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what moving a group would do, and keep that as a plan",
		Long: `Makes a plan: for each partition the committed offset, the target, and the records in between, which are read once to count
them (offsets are not records: markers of transactions and holes left by compaction have offsets too). For groups of this
installation each record is also judged: normalize's by running the mappings of now, and all by the link rows of the
target: would it be applied, is it there unchanged, is a newer version there? Changes nothing in Kafka.

What does not fit is refused, for every partition at once: an offset outside of the log, a time past the last record, an
empty partition, a partition without a commit for --to-current and --shift-by, a group that does not exist.

Exactly one target. --to-event moves only the partition that the event stands in: the group goes on with the event itself.
It is looked up in the journal of "leat index run", else searched for from the time in its id on.
--to-first-dead-letter moves each partition to the first record that the group has given up.

A plan may be applied for an hour (--expires). Parked records of a range that is read again stay parked (keep), are settled
first by the running members (drain), or taken off (cancel). One that is still parked when it is read again keeps its place;
one whose retry comes before that comes out twice, with the same ids.`,
		Example: `  leat offsets plan --group normalize --topic source.shop.invoice --to-earliest --reason "corrected mapping, ticket 12"
  leat offsets plan --group reporting --topic finance.invoice.v1:0,3 --to-datetime 2026-11-23T00:00:00.000 --reason "..."
  leat offsets plan --group normalize --to-first-dead-letter --fingerprint v1:9f86d081884c7d65 --reason "fixed in 1.4"
  leat offsets plan --group reporting --from-file offsets.csv --reason "as before the move"`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	f := c.Flags()
	f.StringVarP(&r.Group, "group", "g", "", "the group to move (needed)")
	f.StringArrayVarP(&r.Topics, "topic", "t", nil, "topic, or topic:0,1,2 for some of its partitions; repeatable")
	f.BoolVar(&r.AllTopics, "all-topics", false, "every partition in which the group has committed an offset")
	t := &r.Target
	f.BoolVar(&t.Earliest, "to-earliest", false, "to the start of the log")
	f.BoolVar(&t.Latest, "to-latest", false, "to the end of the log")
	f.BoolVar(&t.Current, "to-current", false, "to where the group stands, to keep its offsets from expiring")
	f.Int64Var(&offset, "to-offset", 0, "to this offset")
	f.Int64Var(&shift, "shift-by", 0, "by so many offsets: -100 back, 100 forth")
	f.StringVar(&t.Datetime, "to-datetime", "", "to the first record of this time or later: YYYY-MM-DDTHH:mm:SS.sss, UTC or with a zone")
	f.StringVar(&t.Duration, "by-duration", "", "to the first record so long ago or later: PnDTnHnMnS")
	f.StringVar(&file, "from-file", "", "to the offsets of a CSV file: topic,partition,offset or group,topic,partition,offset")
	f.StringVar(&t.EventID, "to-event", "", "to the record with this event id (ce_id)")
	f.StringVar(&t.EventKey, "event-key", "", "with --to-event: the record's key, tenant/system/id, to search one partition only")
	f.StringVar(&t.EventTime, "event-time", "", "with --to-event: about when it happened, where its id does not tell")
	f.StringVar(&t.Group, "to-group", "", "to where this group stands")
	f.BoolVar(&t.FirstDeadLetter, "to-first-dead-letter", false, "to the first record of each partition that the group has given up")
	f.StringVar(&t.Fingerprint, "fingerprint", "", "with --to-first-dead-letter: only failures of this kind")
	f.StringVar((*string)(&r.Parked), "parked", "keep", "what becomes of parked records that are read again: keep, drain or cancel")
	f.BoolVar(&r.AllowTruncated, "allow-truncated", false, "take the nearest offset where the target is not in the log")
	f.BoolVar(&r.Create, "create", false, "allow a group that has committed nothing, or does not exist")
	f.DurationVar(&r.Expires, "expires", time.Hour, "how long the plan may be applied")
	f.Int64Var(&r.Limit, "limit", 500_000, "read at most so many records to count and judge them")
	f.StringVar(&reason, "reason", "", "why, for those who come later (needed)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "group", "reason"); err != nil {
			return err
		}
		if f.Changed("to-offset") {
			t.Offset = &offset
		}
		if f.Changed("shift-by") {
			t.ShiftBy = &shift
		}
		if file != "" {
			var err error
			if t.File, err = app.OffsetsFile(file); err != nil {
				return err
			}
		}
		if err := r.Validate(); err != nil {
			return &usageError{c.CommandPath(), err}
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		plan, err := a.OffsetsPlan(c.Context(), r, reason, e.stderr)
		if err != nil {
			return err
		}
		return e.print(*o, plan)
	}
	return c
}

func offsetsShowCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show [PLAN]",
		Short: "Show a plan again, or the newest plans",
		Long: `Shows a plan as it was made, and what became of it: planned, applied, undone, expired or failed. Without a plan: the newest
ones, in a line each.`,
		Example: "  leat offsets show\n  leat offsets show k3m9x2qa -o json",
		Args:    positional(cobra.MaximumNArgs(1)),
	}
	o := outputFlag(c)
	group := c.Flags().StringP("group", "g", "", "only plans of this group")
	limit := c.Flags().Int("limit", 20, "the newest so many")
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			plan, err := a.OffsetsShow(c.Context(), args[0])
			if err != nil {
				return err
			}
			return e.print(*o, plan)
		}
		plans, err := a.OffsetsPlans(c.Context(), *group, *limit)
		if err != nil {
			return err
		}
		return e.print(*o, plans)
	}
	return c
}

const changeNotes = `

A group with members is refused, because they would go on from where they are. Stop its processes; static members
(static_member in the configuration) still count until their session timeout has passed: --wait waits for that. Or use
--drain, for groups of this installation: the running members finish their transaction and leave the group, the offsets are
written and read back, and the members come back by themselves. If that takes longer than --timeout, they come back and
nothing was changed.

All partitions are checked before one is written, and all are written in one request. What Kafka shows afterwards is
compared with the plan; a difference is an error that lists every partition. The audit log has the change with the offsets
before and after.`

func changeFlags(c *cobra.Command, opt *offsets.ApplyOptions) {
	f := c.Flags()
	f.BoolVar(&opt.Drain, "drain", false, "have the running members of the group step aside, and come back afterwards")
	f.DurationVar(&opt.Wait, "wait", 0, "without --drain: wait so long for members that were stopped to be forgotten")
	f.DurationVar(&opt.Timeout, "timeout", 2*time.Minute, "how long draining may take")
}

func offsetsApplyCommand(e *env) *cobra.Command {
	var opt offsets.ApplyOptions
	c := &cobra.Command{
		Use:   "apply PLAN",
		Short: "Do what a plan says, or nothing",
		Long: `Writes the offsets of a plan. It refuses, and says what moved, when the committed offsets, the state or members of the group,
or the topics are no longer what they were when the plan was made, when the plan has expired or was applied before: then
plan again. A plan for a running group allows that the group has read on; it reads those records again as well.` + changeNotes,
		Example: `  leat offsets apply k3m9x2qa
  leat offsets apply k3m9x2qa --drain
  leat offsets apply k3m9x2qa --wait 1m`,
		Args: positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	changeFlags(c, &opt)
	reason := c.Flags().String("reason", "", "why (default: the reason of the plan)")
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		report, err := a.OffsetsApply(c.Context(), args[0], *reason, opt, e.stderr)
		if err != nil {
			return err
		}
		return e.print(*o, report)
	}
	return c
}

func offsetsUndoCommand(e *env) *cobra.Command {
	var opt offsets.ApplyOptions
	c := &cobra.Command{
		Use:   "undo PLAN",
		Short: "Put a group back where it stood before a plan was applied",
		Long: `Restores the offsets that apply found; partitions that had none lose the one they were given. It refuses when the group no
longer stands where apply has put it, for then it has read on, and the way back is another plan.` + changeNotes,
		Example: `  leat offsets undo k3m9x2qa --reason "the wrong topic"`,
		Args:    positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	changeFlags(c, &opt)
	reason := c.Flags().String("reason", "", "why, for those who come later (needed)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		report, err := a.OffsetsUndo(c.Context(), args[0], *reason, opt, e.stderr)
		if err != nil {
			return err
		}
		return e.print(*o, report)
	}
	return c
}

func offsetsExportCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write committed offsets, or the targets of a plan, as CSV",
		Long: `Writes lines topic,partition,offset, or group,topic,partition,offset for several groups: what --from-file reads, here and in
Kafka's kafka-consumer-groups.sh. Without --group: the groups of this installation.`,
		Example: `  leat offsets export --group normalize > normalize.csv
  leat offsets export --plan k3m9x2qa > plan.csv
  kafka-consumer-groups.sh --bootstrap-server BROKER --group normalize --reset-offsets --from-file plan.csv --dry-run`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	groups := c.Flags().StringArrayP("group", "g", nil, "this group, also one of others; repeatable")
	plan := c.Flags().String("plan", "", "the targets of this plan")
	before := c.Flags().Bool("before", false, "with --plan: the offsets that apply found, to go back to when undo refuses")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *before && *plan == "" {
			return &usageError{c.CommandPath(), errors.New("--before goes with --plan")}
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.OffsetsExport(c.Context(), *plan, *before, *groups...) })
	}
	return c
}
