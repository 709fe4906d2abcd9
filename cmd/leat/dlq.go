package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/deadletters"
)

func dlqCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:   "dlq",
		Short: "Work on dead letters: list, show, export, redrive, jobs, discard, assign, reindex",
		Long: `A record that its group cannot process becomes a dead letter: on the topic <topic>.<group>.dlq, byte for byte, with the reason in
its headers. "leat index run" keeps an index of all of them in the control database, with what became of each:

  open          nobody has decided
  redriving     claimed by a redrive that has not moved it yet
  redriven      handed to its group again
  resolved      its group has handled it
  failed_again  it has become another dead letter, its successor
  discarded     put aside by a person

A letter is named <topic>/<partition>/<offset>. Nothing here deletes a record.`,
		Example: `  leat dlq list
  leat dlq show source.shop.invoice.normalize.dlq/3/128
  leat dlq redrive --group normalize --fingerprint v1:8a1c0f2e55b1d9a7 --dry-run
  leat dlq redrive --group normalize --fingerprint v1:8a1c0f2e55b1d9a7 --reason "mapping corrected"`,
	},
		dlqListCommand(e), dlqShowCommand(e), dlqExportCommand(e), dlqRedriveCommand(e), dlqJobsCommand(e), dlqDiscardCommand(e),
		dlqAssignCommand(e), dlqReindexCommand(e),
	)
}

const selectionNotes = `

Letters are selected by their ids, or by flags, which must all hold; counts are exact. The topic may be the dead-letter topic or
the one that the record came from. Times are RFC 3339, or an age: 90m, 24h.`

// selectionFlags gives c the flags and arguments that select letters; call the result when they are parsed.
func selectionFlags(c *cobra.Command) func(args []string) (deadletters.Selection, error) {
	c.Long += selectionNotes
	var s deadletters.Selection
	var states []string
	var since, until string
	f := c.Flags()
	f.StringVar(&s.Group, "group", "", "only letters of this group")
	f.StringVar(&s.Topic, "topic", "", "only letters on, or of records from, this topic")
	f.StringVar(&s.Tenant, "tenant", "", "only letters of this tenant")
	f.StringVar(&s.Class, "class", "", "only this class of error: permanent, transient")
	f.StringVar(&s.Code, "code", "", "only this code of error")
	f.StringVar(&s.Fingerprint, "fingerprint", "", "only this kind of failure")
	f.StringSliceVar(&states, "state", nil, "only these states, with commas between")
	f.StringVar(&since, "since", "", "only letters given up at or after this")
	f.StringVar(&until, "until", "", "only letters given up before this")
	f.StringVar(&s.Key, "key", "", "only letters of this record: <tenant>/<system>/<id>")
	f.StringVar(&s.EventID, "event", "", "only letters of this event")
	f.StringVar(&s.Owner, "owner", "", "only letters that this person has taken")
	f.StringVar(&s.Job, "job", "", "only letters of this redrive")
	return func(args []string) (deadletters.Selection, error) {
		var errs []error
		for _, a := range args {
			id, err := deadletters.ParseID(a)
			s.IDs, errs = append(s.IDs, id), append(errs, err)
		}
		for _, st := range states {
			s.States = append(s.States, deadletters.State(st))
		}
		var err1, err2 error
		s.Since, err1 = moment("since", since)
		s.Until, err2 = moment("until", until)
		if err := errors.Join(append(errs, err1, err2, s.Validate())...); err != nil {
			return s, &usageError{c.CommandPath(), err}
		}
		return s, nil
	}
}

// moment reads a time, or how long ago it was.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return time.Now().Add(-age), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("--%s: %q is neither a time such as 2026-11-24T08:00:00Z nor an age such as 24h", flag, text)
	}
	return t, nil
}

func reasonFlag(c *cobra.Command) *string {
	return c.Flags().String("reason", "", "why, for those who come later")
}

// progressTo shows how something long goes on, on standard error, at most about once a second.
func (e *env) progressTo(doing string) func(deadletters.Progress) {
	var last time.Time
	return func(p deadletters.Progress) {
		if p.Done < p.Total && time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		name := doing
		if p.Job != "" {
			name += " " + p.Job
		}
		rate := float64(p.Done) / max(p.Elapsed.Seconds(), 0.001)
		_, _ = fmt.Fprintf(e.stderr, "%s: %d of %d, %.0f/s\n", name, p.Done, p.Total, rate)
	}
}

func dlqListCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "list [ID...]",
		Short: "List dead letters, newest first, with totals by state and by kind of failure",
		Long:  `Shows how many letters are selected, by state and by kind of failure (fingerprint), and the newest of them.`,
		Example: `  leat dlq list
  leat dlq list --group normalize --state open,failed_again --since 24h
  leat dlq list --key acme/shop/inv-12 -o json`,
	}
	o, selection := outputFlag(c), selectionFlags(c)
	limit := c.Flags().Int("limit", 20, "the newest so many")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := selection(args)
		if err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQList(c.Context(), s, *limit) })
	}
	return c
}

func dlqShowCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show LETTER|EVENT",
		Short: "Show everything that is known of a dead letter",
		Long: `Shows what the index knows of the letter, its failed attempts and redrives, and all headers of the record, from its topic. The
value may hold what not everybody may see: it is shown with --payload only. An event may be named instead of a letter if it has
only one.`,
		Example: `  leat dlq show source.shop.invoice.normalize.dlq/3/128
  leat dlq show 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11 --payload`,
		Args: positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	payload := c.Flags().Bool("payload", false, "show the value too")
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQShow(c.Context(), args[0], *payload) })
	}
	return c
}

func dlqExportCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "export [ID...]",
		Short: "Write dead letters to a file, byte for byte",
		Long: `Writes a line of JSON for each letter, oldest first: what the index knows of it, and key, value and headers of the record as
base64, byte for byte. The file is new and for its owner only. An export is an entry of the audit log: it takes payloads out.`,
		Example: `  leat dlq export --group normalize --state open --file letters.ndjson --reason "for the shop's developers"
  jq -r '.value | @base64d' letters.ndjson     # then, the payloads alone`,
	}
	o, selection, reason := outputFlag(c), selectionFlags(c), reasonFlag(c)
	file := c.Flags().String("file", "", "the file to be made")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := selection(args)
		if err = errors.Join(required(c, "file", "reason"), err); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) {
			return a.DLQExport(c.Context(), *reason, s, *file, e.progressTo("export"))
		})
	}
	return c
}

func dlqDiscardCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "discard [ID...]",
		Short: "Put open dead letters aside, for good reasons",
		Long: `Marks open letters as discarded: nobody needs to look at them, they are neither counted as open nor redriven. The records stay on
their topics, byte for byte; nothing of Leat deletes them. --undo makes discarded letters open again.`,
		Example: `  leat dlq discard --key acme/shop/test-1 --reason "a test of the shop, no invoice"
  leat dlq discard source.shop.invoice.normalize.dlq/3/128 --undo --reason "it was an invoice after all"`,
	}
	o, selection, reason := outputFlag(c), selectionFlags(c), reasonFlag(c)
	undo := c.Flags().Bool("undo", false, "make discarded letters open again")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := selection(args)
		if err = errors.Join(required(c, "reason"), err); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQDiscard(c.Context(), *reason, s, *undo) })
	}
	return c
}

func dlqAssignCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "assign [ID...]",
		Short: "Say who looks after dead letters, and what is known of them",
		Long:  `Gives letters an owner (--assign-to) and a note, whatever their state. An empty text removes it.`,
		Example: `  leat dlq assign --fingerprint v1:8a1c0f2e55b1d9a7 --assign-to ana --note "waits for the shop's release 41" --reason "on call"
  leat dlq assign --owner ana --assign-to bo --reason "ana is away"`,
	}
	o, selection, reason := outputFlag(c), selectionFlags(c), reasonFlag(c)
	owner := c.Flags().String("assign-to", "", "who looks after them")
	note := c.Flags().String("note", "", "what is known of them")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := selection(args)
		if err = errors.Join(required(c, "reason"), err); err != nil {
			return err
		}
		var as deadletters.Assignment
		if c.Flags().Changed("assign-to") {
			as.Owner = owner
		}
		if c.Flags().Changed("note") {
			as.Note = note
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQAssign(c.Context(), *reason, s, as) })
	}
	return c
}

func dlqReindexCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "reindex",
		Short: "Make the index of dead letters anew from the topics",
		Long: `Empties the index of dead letters; a running "leat index run" then reads the topics again from their beginning. States come back:
owners, notes and discards are kept beside the index, and so is what redrives have moved. The same as
"leat index rebuild deadletters".`,
		Example: "  leat dlq reindex --reason \"the control database was restored\"\n  leat index status     # how far it is",
		Args:    noArgs(),
	}
	o, reason := outputFlag(c), reasonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "reason"); err != nil {
			return err
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQReindex(c.Context(), *reason) })
	}
	return c
}
