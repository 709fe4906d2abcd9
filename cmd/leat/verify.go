package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func verifyCommand(e *env) *cobra.Command {
	c := group(&cobra.Command{
		Use:   "verify",
		Short: "Prove that what a source wrote has arrived, once and unchanged: run, list, show, check, keygen",
		Long: `Compares a window of a source's outbox with its source topics, those with the finance topics, and those with the reporting
tables: counts, an order-independent hash of ids and payloads, control totals by currency and status, and each record by
itself. It names what is missing, too many or different, with the command that shows its way, and writes a signed report (JSON)
and a page for people (HTML).

It only reads, and may run while records flow: what is on its way is called pending. What it expects of the finance topics it
computes with the mappings of now. Without a window it looks at the whole outbox.

Exit code 0 if everything agrees, 1 if not, or if something could not be looked at.`,
		Example: `  leat verify --source chinook --window 24h
  leat verify --source chinook --since 2026-11-01 --until 2026-12-01 --html november.html --json november.json
  leat verify --source chinook --from-id 1000001 --to-id 1500000 -o json
  leat verify check november.json --public-key verify.key.pub`,
	}, verifyRunCommand(e), verifyListCommand(e), verifyShowCommand(e), verifyCheckCommand(e), verifyKeygenCommand(e))
	var v app.VerifyOptions
	var since, until string
	o := outputFlag(c)
	f := c.Flags()
	f.StringVarP(&v.Source, "source", "s", "", "the source, if the configuration has several")
	f.DurationVar(&v.Last, "window", 0, "changes of the last so long: 24h")
	f.StringVar(&since, "since", "", "changes from this day or moment: 2026-11-01, 2026-11-01T08:00:00Z")
	f.StringVar(&until, "until", "", "changes before this day or moment")
	f.Int64Var(&v.Window.FromID, "from-id", 0, "changes from this outbox id")
	f.Int64Var(&v.Window.ToID, "to-id", 0, "changes up to this outbox id")
	f.IntVar(&v.List, "list", 50, "how many differences to list, of each kind; all are counted")
	f.StringVar(&v.JSONFile, "json", "", "also write the signed report to this file")
	f.StringVar(&v.HTMLFile, "html", "", "also write the page for people to this file")
	unknown := c.RunE
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if len(args) > 0 {
			return unknown(c, args)
		}
		if v.Last > 0 && (since != "" || until != "") {
			return &usageError{c.CommandPath(), errors.New("--window and --since/--until exclude each other")}
		}
		if v.Window.Since, err = dayOrMoment(since); err != nil {
			return &usageError{c.CommandPath(), fmt.Errorf("--since: %w", err)}
		}
		if v.Window.Until, err = dayOrMoment(until); err != nil {
			return &usageError{c.CommandPath(), fmt.Errorf("--until: %w", err)}
		}
		if err := v.Window.Validate(); err != nil {
			return &usageError{c.CommandPath(), err}
		}
		a, err := e.load()
		if err != nil {
			return err
		}
		v.Progress = e.stderr
		report, err := a.Verify(c.Context(), v)
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

// dayOrMoment reads a day, whose beginning in UTC it is, or a moment.
func dayOrMoment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is neither a day as 2026-11-01 nor a moment as 2026-11-01T08:00:00Z", s)
	}
	return t, nil
}

func verifyCheckCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check the signature of a report",
		Long: `Says whether a report (JSON) is as it was signed, and by which key. Needs no configuration and no services. With
--public-key, exit code 0 means: unchanged, and signed with that key. Without it only that it is unchanged is checked.`,
		Example: `  leat verify check november.json --public-key verify.key.pub`,
		Args:    positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	key := c.Flags().String("public-key", "", "file of the public key, or the key itself in base64")
	c.RunE = func(_ *cobra.Command, args []string) error {
		checked, err := app.VerifyCheck(args[0], *key)
		if err != nil {
			return err
		}
		if err := e.print(*o, checked); err != nil {
			return err
		}
		return checked.Err()
	}
	return c
}

func verifyKeygenCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key for signing reports",
		Long: `Makes an Ed25519 key: FILE, which only its owner can read and verify.signing_key_file names, and FILE.pub, which everybody may
have and ` + "`leat verify check`" + ` needs. Keep both: a report can be checked as long as its public key is known.`,
		Example: `  leat verify keygen /etc/leat/verify.key`,
		Args:    positional(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			fingerprint, err := app.VerifyKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.stdout, "wrote %s and %s.pub\nfingerprint of the public key: %s\n", args[0], args[0], fingerprint)
			return err
		},
	}
}

func verifyRunCommand(e *env) *cobra.Command {
	return runCommand(e, &cobra.Command{
		Short: "Verify all sources again and again, and keep the reports",
		Long: `Verifies each source every verify.every: the changes of the last verify.window, up to verify.lag before now. Reports are
kept in the control database (` + "`leat verify list`" + `) and, with verify.directory, as files. The metrics leat_verify_agrees,
leat_verify_differences, leat_verify_waiting and leat_verify_age_seconds tell of the last one of each source. Of several
processes each verification is made by one.`,
		Example: "  leat verify run",
	}, (*app.App).RunVerify)
}

func verifyListCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show the reports of scheduled verifications, newest first",
		Long:    "Shows the reports that `leat verify run` has kept in the control database, newest first.",
		Example: "  leat verify list --source chinook\n  leat verify list -o json",
		Args:    noArgs(),
	}
	o := outputFlag(c)
	source := c.Flags().StringP("source", "s", "", "only reports of this source")
	limit := c.Flags().Int("limit", 50, "the newest so many")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.VerifyList(c.Context(), *source, *limit) })
	}
	return c
}

func verifyShowCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a kept report, or write it to files",
		Long:    "Shows a report that `leat verify run` has kept, as it was signed. Exit code 0 whatever it says.",
		Example: "  leat verify show 0199c1d2-… --html report.html --json report.json",
		Args:    positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(c)
	jsonFile := c.Flags().String("json", "", "also write the signed report to this file")
	htmlFile := c.Flags().String("html", "", "also write the page for people to this file")
	c.RunE = func(c *cobra.Command, args []string) error {
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.VerifyShow(c.Context(), args[0], *jsonFile, *htmlFile) })
	}
	return c
}
