package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

const runNotes = `

It serves /metrics, /healthz (restart me if not 200) and /readyz (nothing can flow if not 200, with the reasons) on http.listen,
logs to standard error, and on SIGINT or SIGTERM finishes what it has begun before it ends. Start as many processes as you
like: they share the work through Kafka's consumer groups.`

// runCommand is a command that runs a stage until it is told to stop.
func runCommand(e *env, c *cobra.Command, stage func(*app.App, context.Context) error) *cobra.Command {
	c.Use, c.Args = "run", noArgs()
	c.Long += runNotes
	listen := c.Flags().String("listen", "", "address of /metrics, /healthz and /readyz, or off, instead of http.listen")
	c.RunE = func(c *cobra.Command, _ []string) error {
		a, err := e.load()
		if err != nil {
			return err
		}
		if *listen != "" {
			a.Config().HTTP.Listen = *listen
		}
		return stage(a, c.Context())
	}
	return c
}

func relayCommand(e *env) *cobra.Command {
	run := runCommand(e, &cobra.Command{
		Short: "Bring outbox rows to Kafka, exactly once and in order",
		Long: `Reads the outbox of every source in the configuration and writes its rows to source.<system>.<entity> topics, together
with its own position, in Kafka transactions. The source's database is only read. Needs kafka.brokers and sources with url.`,
		Example: `  leat relay run
  LEAT_CONFIG=/etc/leat/leat.yaml leat relay run`,
	}, (*app.App).RunRelay)
	return group(&cobra.Command{
		Use:   "relay",
		Short: "Bring outbox rows to Kafka: run, status, adopt",
		Long: `The relay brings committed outbox rows to Kafka, exactly once and in the order of each record's row lock. Its position is a
record in the compacted topic leat.cursors, written in the same Kafka transaction as the events.`,
		Example: `  leat relay run
  leat relay status
  leat relay adopt --source chinook --from beginning --reason "restored from the backup of Monday"`,
	}, run, relayStatusCommand(e), relayAdoptCommand(e))
}

func normalizeCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:     "normalize",
		Short:   "Turn source records into the finance model: run",
		Long:    `Normalize reads source topics and writes finance topics, by mappings: YAML files, one for each source entity.`,
		Example: "  leat normalize run\n  leat mapping test mappings",
	}, runCommand(e, &cobra.Command{
		Short: "Turn source records into the finance model, exactly once",
		Long: `Reads the source topics that the mappings in normalize.mappings are for, and writes finance.<entity>.v1, each record checked
against its contract. A record that does not fit goes to the dead letters with the field and what was found. Needs
kafka.brokers and normalize.mappings.`,
		Example: "  leat normalize run",
	}, (*app.App).RunNormalize))
}

func publishCommand(e *env) *cobra.Command {
	return group(&cobra.Command{
		Use:     "publish",
		Short:   "Bring the finance model to its targets: run",
		Long:    `Publish reads finance topics and keeps a target like them. A replay changes nothing that is right already.`,
		Example: "  leat publish run",
	}, runCommand(e, &cobra.Command{
		Short: "Keep the reporting tables like the finance topics",
		Long: `Reads finance.contact.v1, finance.invoice.v1 and finance.payment.v1 and upserts the tables of schema reporting, guarded by
version and content. Needs kafka.brokers and publish.reporting.url.`,
		Example: "  leat publish run",
	}, (*app.App).RunPublish))
}

func mappingCommand(e *env) *cobra.Command {
	test := &cobra.Command{
		Use:   "test DIR",
		Short: "Run mappings on their samples, and show input, output and problems side by side",
		Long: `Loads every mapping of DIR, reports everything that is wrong with them with file, line and field, runs each on its sample
records (DIR/testdata), and compares the outputs with the golden files beside them. Needs no configuration and no
services. Exit code 1 if something does not fit.`,
		Example: `  leat mapping test examples/chinook/mappings
  leat mapping test mappings --update   # accept the outputs of now as the golden files`,
		Args: positional(cobra.ExactArgs(1)),
	}
	o := outputFlag(test)
	update := test.Flags().Bool("update", false, "write the golden files anew from the outputs")
	test.RunE = func(c *cobra.Command, args []string) error {
		report, err := app.MappingTest(c.Context(), args[0], *update)
		if err != nil {
			return err
		}
		if err := e.print(*o, report); err != nil {
			return err
		}
		return report.Err()
	}
	return group(&cobra.Command{
		Use:     "mapping",
		Short:   "Work on mappings: test",
		Long:    `Mappings say how a source entity becomes records of the finance model: YAML files, one for each source entity.`,
		Example: "  leat mapping test mappings",
	}, test)
}
