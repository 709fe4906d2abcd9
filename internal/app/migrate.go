package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/migrations"
)

// MigrateOptions say what Migrate does.
type MigrateOptions struct {
	Action  string   // up, status or down
	Schemas []string // outbox, control, reporting; default: all that the configuration has an address for
	Source  string   // only the outbox of this source
}

// MigrateReport is what was found or done, a schema after the other.
type MigrateReport struct {
	Action  string         `json:"action"`
	Schemas []SchemaReport `json:"schemas"`
}

// SchemaReport is one schema in one database.
type SchemaReport struct {
	Kind       migrations.Kind        `json:"schema"`
	Source     string                 `json:"source,omitempty"` // of an outbox
	Database   config.DatabaseURL     `json:"database"`
	Migrations []migrations.Migration `json:"migrations"` // status: all; up and down: those of now
}

// Migrate brings schemas up, takes the newest migration of each back, or shows their state.
func (a *App) Migrate(ctx context.Context, o MigrateOptions) (MigrateReport, error) {
	report := MigrateReport{Action: o.Action, Schemas: []SchemaReport{}}
	run, ok := map[string]func(context.Context, *sql.DB, migrations.Kind) ([]migrations.Migration, error){
		"up": migrations.Up, "status": migrations.Status, "down": migrations.Down,
	}[o.Action]
	if !ok {
		return report, fmt.Errorf("unknown action %q: use up, status or down", o.Action)
	}
	targets, err := a.schemas(o)
	if err != nil {
		return report, err
	}
	var errs []error
	for _, t := range targets {
		if t.Migrations, err = migrate(ctx, t, run); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.name(), err))
		}
		report.Schemas = append(report.Schemas, t)
	}
	return report, errors.Join(errs...)
}

func migrate(ctx context.Context, t SchemaReport,
	run func(context.Context, *sql.DB, migrations.Kind) ([]migrations.Migration, error),
) (_ []migrations.Migration, err error) {
	db, err := sql.Open("pgx", t.Database.Reveal())
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", t.Database, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return run(ctx, db, t.Kind)
}

// schemas lists what o means. A schema that was named must have an address.
func (a *App) schemas(o MigrateOptions) ([]SchemaReport, error) {
	if o.Source != "" && a.cfg.Source(o.Source) == nil {
		return nil, a.unknownSource(o.Source)
	}
	named := func(k migrations.Kind) bool { return slices.Contains(o.Schemas, string(k)) }
	wanted := func(k migrations.Kind) bool {
		return named(k) || len(o.Schemas) == 0 && (o.Source == "" || k == migrations.Outbox)
	}
	var need []config.Section
	for kind, section := range map[migrations.Kind]config.Section{
		migrations.Outbox: config.NeedSources, migrations.Control: config.NeedControl, migrations.Reporting: config.NeedReporting,
	} {
		if named(kind) {
			need = append(need, section)
		}
	}
	if named(migrations.Outbox) {
		need = append(need, config.NeedSourceURL)
	}
	if err := a.cfg.Require(need...); err != nil {
		return nil, err
	}
	var out []SchemaReport
	add := func(k migrations.Kind, source string, url config.DatabaseURL) {
		if wanted(k) && !url.Empty() {
			out = append(out, SchemaReport{Kind: k, Source: source, Database: url})
		}
	}
	for _, s := range a.cfg.Sources {
		if o.Source == "" || o.Source == s.Name {
			add(migrations.Outbox, s.Name, s.URL)
		}
	}
	add(migrations.Control, "", a.cfg.Control.URL)
	add(migrations.Reporting, "", a.cfg.Publish.Reporting.URL)
	if len(out) == 0 {
		return nil, errors.New("the configuration has no database: give sources a url, or control.url, or publish.reporting.url")
	}
	return out, nil
}

func (a *App) unknownSource(name string) error {
	var names []string
	for _, s := range a.cfg.Sources {
		names = append(names, s.Name)
	}
	return fmt.Errorf("there is no source %q in the configuration; its sources are: %s", name, strings.Join(names, ", "))
}

func (s SchemaReport) name() string {
	if s.Source != "" {
		return string(s.Kind) + " of " + s.Source
	}
	return string(s.Kind)
}

// WriteText prints a line for each migration.
func (r MigrateReport) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Schemas {
		fmt.Fprintf(&b, "%s in %s\n", s.name(), s.Database)
		for _, m := range s.Migrations {
			state := "applied"
			switch {
			case r.Action == "down":
				state = "taken back"
			case !m.Applied:
				state = "pending"
			}
			fmt.Fprintf(&b, "  %-40s %s\n", m.File, state)
		}
		if len(s.Migrations) == 0 {
			b.WriteString("  nothing to do\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
