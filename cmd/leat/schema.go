package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/leat-io/leat/internal/app"
)

func migrateCommand(e *env) *cobra.Command {
	const kinds = `

There are three schemas: outbox (leat, in the database of each source), control (leat_control, Leat's own) and reporting
(reporting, a target). Without names, all that the configuration has an address for. --source: only the outbox of one source.`
	sub := func(use, short, long string) *cobra.Command {
		c := &cobra.Command{
			Use: use + " [outbox|control|reporting]...", Short: short, Long: long + kinds,
			Example:   "  leat migrate " + use + "\n  leat migrate " + use + " outbox --source chinook",
			ValidArgs: []string{"outbox", "control", "reporting"},
			Args:      positional(cobra.OnlyValidArgs),
		}
		o := outputFlag(c)
		source := c.Flags().String("source", "", "only the outbox of this source")
		yes := new(bool)
		if use == "down" {
			yes = c.Flags().Bool("yes", false, "really remove the newest migration and the data it holds")
		}
		c.RunE = func(c *cobra.Command, args []string) error {
			if use == "down" {
				if err := required(c, "yes"); err != nil {
					return err
				}
			}
			_ = yes
			return e.show(*o, func(a *app.App) (textWriter, error) {
				return a.Migrate(c.Context(), app.MigrateOptions{Action: use, Schemas: args, Source: *source})
			})
		}
		return c
	}
	return group(&cobra.Command{
		Use:   "migrate",
		Short: "Make, show or undo the database schemas: up, status, down",
		Long: `Migrations are part of the program. They run under a lock, so several processes may start them at once; each schema keeps
its own version in the table schema_version.` + kinds,
		Example: "  leat migrate up\n  leat migrate status -o json\n  leat migrate down reporting --yes",
	},
		sub("up", "Bring schemas to the newest version", "Applies what is missing; what is there already is left alone."),
		sub("status", "Show the version of each schema", "Changes nothing."),
		sub("down", "Undo the newest migration", "Undoes one migration of each schema named, with the data it holds."),
	)
}

func topicsCommand(e *env) *cobra.Command {
	plan := &cobra.Command{
		Use:   "plan",
		Short: "Show how the cluster's topics differ from what they should be",
		Long: `Compares the catalogue (source topics of every source, finance topics, retry and dead-letter topics of the consumer groups,
the relay's own) with the cluster, and shows what apply would do. Changes nothing. Needs kafka.brokers and sources.`,
		Example: "  leat topics plan\n  leat topics plan -o json",
		Args:    noArgs(),
	}
	planOut := outputFlag(plan)
	plan.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*planOut, func(a *app.App) (textWriter, error) { return a.TopicsPlan(c.Context()) })
	}
	apply := &cobra.Command{
		Use:   "apply",
		Short: "Make the topics what they should be",
		Long: `Makes missing topics and corrects settings. Nothing is ever deleted, and partitions are never added to a topic whose
keys are parked. What it refuses, it says. Needs kafka.brokers and sources.`,
		Example: "  leat topics apply",
		Args:    noArgs(),
	}
	applyOut := outputFlag(apply)
	apply.RunE = func(c *cobra.Command, _ []string) error {
		return e.show(*applyOut, func(a *app.App) (textWriter, error) { return a.TopicsApply(c.Context()) })
	}
	return group(&cobra.Command{
		Use:     "topics",
		Short:   "Compare the topics with the catalogue, and make them so: plan, apply, acls",
		Long:    `Every topic that Leat uses, with its partitions, retention and cleanup policy, stands in one catalogue.`,
		Example: "  leat topics plan\n  leat topics apply\n  leat topics acls",
	}, plan, apply, topicsACLsCommand(e))
}

func topicsACLsCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "acls",
		Short: "Print what each process may do in Kafka, as calls of kafka-acls.sh",
		Long: `Prints the rights that each role needs and no more, with the names of this configuration: relay, normalize, publish, index,
verify, operator (people at the command line) and admin (leat topics plan and apply). Principals are User:leat-<role>, unless
--principal names another one for --role. It changes nothing: whoever administers the cluster runs what it prints, again
after sources or groups were added. Needs sources.`,
		Example: `  leat topics acls > acls.sh
  leat topics acls --role relay --principal User:CN=relay.example.com
  leat topics acls -o json`,
		Args: noArgs(),
	}
	o := outputFlag(c)
	role := c.Flags().String("role", "", "only of this role")
	principal := c.Flags().String("principal", "", "who has the role, as Kafka names it; needs --role")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *principal != "" && *role == "" {
			return &usageError{c.CommandPath(), errors.New("--principal needs --role: each role is a principal of its own")}
		}
		return e.show(*o, func(a *app.App) (textWriter, error) { return a.TopicsACLs(*role, *principal) })
	}
	return c
}
