package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/operations/deadletters"
)

func dlqRedriveCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Hand dead letters back to the group that gave them up",
		Long: `Writes each selected open letter to the retry topic of its own group, which takes it up as a record with attempt 0. No other group
sees it, and nothing goes to the source topic. Within a key the order of the source holds: a record whose key has earlier ones
parked waits for them. A newer version that is published already is not overwritten: targets keep the newest.

Try it first: --dry-run hands the letters to the handlers of this configuration, without any effect, and says how many would
succeed, what would become of them, and why the others would fail.

Each letter is moved once, whatever is killed and whoever redrives at the same time. Interrupted (Ctrl-C) it stops after its
transaction; --resume goes on with it, --cancel gives the rest up. What fails again is a new letter; when most of what was moved
does, it stops too. A record that was redriven redrive.max_replays times is refused unless --force is given.

--edit and --set-header change the one letter that is named, if redrive.allow_edit is on: the letter itself stays as it is, the
redrive keeps the difference, and the changed record must pass the handler of now.`,
		Example: `  leat dlq redrive --group normalize --code mapping --dry-run
  leat dlq redrive --group normalize --code mapping --reason "mapping corrected" --rate 200
  leat dlq redrive --resume 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11 --reason "the broker is back"
  leat dlq redrive source.shop.invoice.normalize.dlq/3/128 --edit fixed.json --reason "comma instead of point, told by the shop"`,
	}
	o, selection, reason := outputFlag(c), selectionFlags(c), reasonFlag(c)
	var r deadletters.Request
	f := c.Flags()
	dry := f.Bool("dry-run", false, "say what it would come to, and change nothing")
	f.IntVar(&r.Rate, "rate", 1000, "records a second")
	f.IntVar(&r.Max, "max", 0, "so many records at most; 0: all that are selected")
	f.BoolVar(&r.Force, "force", false, "also what was redriven too often, also if most fails again, or an edited record would")
	resume := f.String("resume", "", "go on with this redrive")
	cancel := f.String("cancel", "", "give up what this redrive has not moved")
	edit := f.String("edit", "", "file with the new value of the one letter that is named")
	headers := f.StringArray("set-header", nil, "a header of the one letter that is named: name=value")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if r.Selection, err = selection(args); err != nil {
			return err
		}
		if err := exclusive(c, "resume", "cancel", "dry-run"); err != nil {
			return err
		}
		if r.Edit, err = readEdit(*edit, *headers); err != nil {
			return &usageError{c.CommandPath(), err}
		}
		if !*dry {
			if err := required(c, "reason"); err != nil {
				return err
			}
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		if *dry {
			d, err := a.DLQDryRun(c.Context(), r, e.progressTo("dry run"))
			if err != nil {
				return err
			}
			return e.print(*o, d)
		}
		var j *app.DLQJob
		switch {
		case *resume != "":
			j, err = a.DLQResume(c.Context(), *reason, *resume, e.progressTo("redrive"))
		case *cancel != "":
			j, err = a.DLQCancel(c.Context(), *reason, *cancel)
		default:
			j, err = a.DLQRedrive(c.Context(), *reason, r, e.progressTo("redrive"))
		}
		if j != nil {
			err = errors.Join(err, e.print(*o, j))
		}
		return err
	}
	return c
}

// exclusive reports flags among names that were given together.
func exclusive(c *cobra.Command, names ...string) error {
	var given []string
	for _, n := range names {
		if c.Flags().Changed(n) {
			given = append(given, "--"+n)
		}
	}
	if len(given) > 1 {
		return &usageError{c.CommandPath(), fmt.Errorf("%s do not go together", strings.Join(given, " and "))}
	}
	return nil
}

// readEdit returns nil if nothing is to be changed.
func readEdit(file string, headers []string) (*deadletters.Edit, error) {
	if file == "" && len(headers) == 0 {
		return nil, nil
	}
	edit := &deadletters.Edit{Headers: map[string]string{}}
	if file != "" {
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the new value: %w", err)
		}
		edit.Value = value
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--set-header %q: want name=value", h)
		}
		edit.Headers[name] = value
	}
	return edit, nil
}

func dlqJobsCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "jobs [REDRIVE]",
		Short: "List redrives and what became of their letters",
		Long: `Shows the newest redrives, or the one that is named, with what became of their letters. A redrive whose process was killed is
shown as running, and can be resumed.`,
		Example: "  leat dlq jobs\n  leat dlq jobs 0190b4a2-1f6c-7cc0-8d5a-0d9d2c1e7a11 -o json",
		Args:    positional(cobra.MaximumNArgs(1)),
	}
	o := outputFlag(c)
	limit := c.Flags().Int("limit", 20, "the newest so many")
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.DLQJobs(c.Context(), strings.Join(args, ""), *limit) })
	}
	return c
}
