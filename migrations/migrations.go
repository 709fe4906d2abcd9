// Package migrations holds the SQL of Leat's three schemas and applies it with goose: the outbox in a source's database, the control
// schema, and the reporting tables.
//
// It does not open connections. It imports nothing of ours.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed outbox/*.sql control/*.sql reporting/*.sql
var files embed.FS

// Kind names one of the schemas.
type Kind string

// The kinds. Their versions are kept in a table schema_version of their own schema.
const (
	Outbox    Kind = "outbox"    // schema leat, in the database of each source system
	Control   Kind = "control"   // schema leat_control
	Reporting Kind = "reporting" // schema reporting, in the database that finance reads
)

// Kinds returns all of them, in the order in which they are migrated.
func Kinds() []Kind { return []Kind{Outbox, Control, Reporting} }

// Schema is the Postgres schema of a kind, or "" if there is no such kind.
func (k Kind) Schema() string {
	switch k {
	case Outbox:
		return "leat"
	case Control:
		return "leat_control"
	case Reporting:
		return "reporting"
	}
	return ""
}

// Migration is one migration and what is known of it.
type Migration struct {
	Version   int64         `json:"version"`
	File      string        `json:"file"`
	Applied   bool          `json:"applied"`
	AppliedAt time.Time     `json:"applied_at,omitzero"`
	Took      time.Duration `json:"took_ns,omitempty"` // only where this call has run it
}

// Up applies what is missing, each migration in a transaction of its own, and returns what it applied. Several processes may call
// it at once: an advisory lock lets one after the other. If a migration fails, those before it stay applied.
func Up(ctx context.Context, db *sql.DB, kind Kind) ([]Migration, error) {
	p, err := provider(db, kind)
	if err != nil {
		return nil, err
	}
	if err := createSchema(ctx, db, kind.Schema()); err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	return applied(results, err, kind, "applying")
}

// Down takes back the newest migration and returns it; nothing if none is applied. It destroys data.
func Down(ctx context.Context, db *sql.DB, kind Kind) ([]Migration, error) {
	p, err := provider(db, kind)
	if err != nil {
		return nil, err
	}
	if has, err := hasVersions(ctx, db, kind); err != nil || !has {
		return nil, err
	}
	if version, err := p.GetDBVersion(ctx); err != nil {
		return nil, fmt.Errorf("reading the version of schema %s: %w", kind.Schema(), err)
	} else if version == 0 {
		return nil, nil
	}
	result, err := p.Down(ctx)
	return applied([]*goose.MigrationResult{result}, err, kind, "taking back")
}

// Status returns all migrations of a kind in order. It only reads, so that a role that may not migrate can ask.
func Status(ctx context.Context, db *sql.DB, kind Kind) ([]Migration, error) {
	p, err := provider(db, kind)
	if err != nil {
		return nil, err
	}
	at, err := appliedAt(ctx, db, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the state of the %s migrations: %w", kind, err)
	}
	var out []Migration
	for _, s := range p.ListSources() {
		when, ok := at[s.Version]
		out = append(out, Migration{Version: s.Version, File: s.Path, Applied: ok, AppliedAt: when})
	}
	return out, nil
}

// hasVersions reports whether anything was ever applied; goose itself would create its table to find that out.
func hasVersions(ctx context.Context, db *sql.DB, kind Kind) (has bool, err error) {
	const find = `select exists (select from pg_tables where schemaname = $1 and tablename = 'schema_version')`
	if err := db.QueryRowContext(ctx, find, kind.Schema()).Scan(&has); err != nil {
		return false, fmt.Errorf("looking for schema %s: %w", kind.Schema(), err)
	}
	return has, nil
}

func appliedAt(ctx context.Context, db *sql.DB, kind Kind) (_ map[int64]time.Time, err error) {
	at := map[int64]time.Time{}
	if has, err := hasVersions(ctx, db, kind); err != nil || !has {
		return at, err
	}
	// goose keeps the time without its zone, which was that of the session.
	rows, err := db.QueryContext(ctx, "select version_id, tstamp::timestamptz from "+kind.Schema()+".schema_version where is_applied")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var version int64
		var when time.Time
		if err := rows.Scan(&version, &when); err != nil {
			return nil, err
		}
		at[version] = when
	}
	return at, rows.Err()
}

// createSchema makes the schema before the version table that lives in it and survives the last down migration.
func createSchema(ctx context.Context, db *sql.DB, schema string) error {
	const find = `select exists (select from pg_namespace where nspname = $1)`
	exists := func() (ok bool, err error) {
		err = db.QueryRowContext(ctx, find, schema).Scan(&ok)
		return ok, err
	}
	// Asked first: "if not exists" needs the right to create schemas even if there is nothing to create.
	if ok, err := exists(); err != nil {
		return fmt.Errorf("looking for schema %s: %w", schema, err)
	} else if ok {
		return nil
	}
	if _, err := db.ExecContext(ctx, "create schema if not exists "+schema); err != nil {
		if ok, again := exists(); again == nil && ok { // two at once: one of them fails on the catalog's unique index
			return nil
		}
		return fmt.Errorf("creating schema %s: %w", schema, err)
	}
	return nil
}

func provider(db *sql.DB, kind Kind) (*goose.Provider, error) {
	schema := kind.Schema()
	if schema == "" {
		return nil, fmt.Errorf("no migrations of kind %q: use outbox, control or reporting", kind)
	}
	sub, err := fs.Sub(files, string(kind))
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, sub,
		goose.WithTableName(schema+".schema_version"), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("reading the %s migrations: %w", kind, err)
	}
	return p, nil
}

func applied(results []*goose.MigrationResult, err error, kind Kind, doing string) ([]Migration, error) {
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		results = partial.Applied
		err = fmt.Errorf("%s %s: %w", doing, partial.Failed.Source.Path, partial.Err)
	} else if err != nil {
		return nil, fmt.Errorf("%s the %s migrations: %w", doing, kind, err)
	}
	out := make([]Migration, 0, len(results))
	for _, r := range results {
		out = append(out, Migration{Version: r.Source.Version, File: r.Source.Path, Applied: true, Took: r.Duration})
	}
	return out, err
}
