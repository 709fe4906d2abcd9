package main

import (
	"cmp"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func configCommand(e *env) *cobra.Command {
	check := &cobra.Command{
		Use:   "check",
		Short: "Report everything that is wrong with the configuration, or what it means",
		Long: `Reads the configuration with the environment of now. Every problem is told with its line, its key and what to do about
it; exit code 1. Without problems it prints what the file means, with defaults and without secrets. It opens no
connection.`,
		Example: "  leat config check\n  leat config check --config /etc/leat/leat.yaml -o json",
		Args:    noArgs(),
	}
	o := outputFlag(check)
	check.RunE = func(*cobra.Command, []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		return e.print(*o, a.ConfigReport())
	}
	return group(&cobra.Command{
		Use:     "config",
		Short:   "Work on the configuration: check",
		Long:    `The configuration is one YAML file; docs/configuration.md describes every key.`,
		Example: "  leat config check",
	}, check)
}

func healthCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask a running process whether it is ready, for container health checks",
		Long: `Asks /readyz of the process at --url (default: http.listen of the configuration) and prints each check with its reason.
Exit code 0 if everything can flow, 1 if not. With --live it asks /healthz: is the process alive and not stuck?`,
		Example: `  leat health
  leat health --live --url http://127.0.0.1:9464`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	url := c.Flags().String("url", "", "address of the process")
	live := c.Flags().Bool("live", false, "ask only whether the process is alive")
	timeout := c.Flags().Duration("timeout", 5*time.Second, "how long to wait for the answer")
	c.RunE = func(c *cobra.Command, _ []string) error {
		base := *url
		if base == "" {
			a, err := e.load()
			if err != nil {
				return err
			}
			base = "http://" + cmp.Or(a.Config().HTTP.Listen, "127.0.0.1:9464")
		}
		report, err := app.AskHealth(c.Context(), base, *live, *timeout)
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

func versionCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    `Prints the version of Leat and of Go, and the platform.`,
		Example: "  leat version\n  leat version -o json",
		Args:    noArgs(),
	}
	o := outputFlag(c)
	c.RunE = func(*cobra.Command, []string) error { return e.print(*o, app.NewVersion(buildVersion())) }
	return c
}
