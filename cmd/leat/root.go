package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/internal/safetext"
)

// run is the program. Tests call it with their own arguments, environment and writers.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	e := &env{getenv: getenv, terminal: stdout, stdout: safetext.NewWriter(stdout), stderr: safetext.NewWriter(stderr)}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	return e.hider.Error(app.Explain(root.ExecuteContext(ctx)))
}

// env is what every command is given from outside, and the flags that all of them have.
type env struct {
	getenv         func(string) string
	stdout, stderr *safetext.Writer // without secrets and control characters
	terminal       io.Writer        // standard output for what controls the terminal, and cleans what it shows itself
	config         string
	hider          safetext.Hider
}

func (e *env) options() app.Options {
	return app.Options{Version: buildVersion(), Getenv: e.getenv, Stderr: e.stderr, Stdout: e.stdout}
}

// load reads the configuration.
func (e *env) load() (*app.App, error) {
	a, err := app.Load(e.config, e.options())
	if err == nil {
		e.hider = a.Hider()
		e.stdout.Hide(e.hider)
		e.stderr.Hide(e.hider)
	}
	return a, err
}

func newRoot(e *env) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "leat",
		Short: "Carries changes from the systems of a business to its books, exactly once and in order",
		Long: `Leat carries changes from source systems to finance: source systems write rows to a Postgres outbox in their own
transactions, the relay brings them to Kafka exactly once, normalize turns them into the finance model, publish brings that
to targets. What fails waits where a person can see it.

Start with "leat dev": everything in one process, on an embedded Kafka and Postgres, with a sample shop as source.

Exit codes: 0 success; 1 an error, told on standard error; 2 the command line cannot be understood.`,
		Example: `  leat dev                             # see everything run, no services needed
  leat config check --config leat.yaml # what does my configuration mean, and what is wrong with it?
  leat migrate up                      # make the schemas
  leat topics apply                    # make the topics
  leat relay run                       # and normalize run, publish run: a process for each stage`,
	})
	section(root, "Run it:",
		devCommand(e),
		relayCommand(e),
		normalizeCommand(e),
		publishCommand(e),
		indexCommand(e),
		notifyCommand(e),
		sampleCommand(e),
	)
	section(root, "See and operate it:",
		statusCommand(e),
		pauseCommand(e),
		resumeCommand(e),
		pausesCommand(e),
		breakerCommand(e),
		parkedCommand(e),
		traceCommand(e),
		dlqCommand(e),
		offsetsCommand(e),
		incidentsCommand(e),
		outcomesCommand(e),
		verifyCommand(e),
		auditCommand(e),
		healthCommand(e),
	)
	section(root, "Set it up:",
		configCommand(e),
		migrateCommand(e),
		topicsCommand(e),
		outboxCommand(e),
		mappingCommand(e),
		versionCommand(e),
	)
	root.PersistentFlags().StringVarP(&e.config, "config", "c", "",
		"configuration file (default $LEAT_CONFIG, else leat.yaml); docs/configuration.md describes it")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return &usageError{c.CommandPath(), err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// usageError is a command line that cannot be understood: exit code 2.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return fmt.Sprintf("%v (see `%s --help`)", e.err, e.command) }
func (e *usageError) Unwrap() error { return e.err }

// section adds commands to root, under a title of their own in its help.
func section(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
	}
	root.AddCommand(commands...)
}

// group makes c a command that only has sub-commands: alone it prints its help, with an unknown one it is an error.
func group(c *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	c.AddCommand(subs...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		msg := fmt.Sprintf("unknown command %q", args[0])
		c.SuggestionsMinimumDistance = 2
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			msg += ", did you mean " + strings.Join(s, " or ") + "?"
		}
		return &usageError{c.CommandPath(), errors.New(msg)}
	}
	return c
}

// positional makes what cobra says about arguments a usageError.
func positional(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{c.CommandPath(), err}
		}
		return nil
	}
}

func noArgs() cobra.PositionalArgs { return positional(cobra.NoArgs) }

// required reports the flags among names that were not given.
func required(c *cobra.Command, names ...string) error {
	var missing []string
	for _, n := range names {
		if !c.Flags().Changed(n) {
			missing = append(missing, "--"+n)
		}
	}
	if len(missing) > 0 {
		return &usageError{c.CommandPath(), errors.New(strings.Join(missing, ", ") + " is needed")}
	}
	return nil
}

// output is the value of -o.
type output string

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "text|json" }
func (o *output) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("want text or json")
	}
	*o = output(s)
	return nil
}

// outputFlag gives c the flag -o.
func outputFlag(c *cobra.Command) *output {
	o := output("text")
	c.Flags().VarP(&o, "output", "o", "how to print the result")
	return &o
}

// textWriter is a result that knows how people want to read it.
type textWriter interface {
	WriteText(w io.Writer) error
}

// show prints what do returns, of an App that is what the configuration says.
func (e *env) show(o output, do func(*app.App) (textWriter, error)) error {
	a, err := e.load()
	if err != nil {
		return err
	}
	result, err := do(a)
	if err != nil {
		return err
	}
	return e.print(o, result)
}

func (e *env) print(o output, result textWriter) error {
	if o != "json" {
		return result.WriteText(e.stdout)
	}
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}
