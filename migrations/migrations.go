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
	p, err := provider(ctx, db, kind)
	if err != nil {
		return nil, err
	}
	results, err := p.Up(ctx)
	return applied(results, err, kind, "applying")
}

// Down takes back the newest migration and returns it; nothing if none is applied. It destroys data.
func Down(ctx context.Context, db *sql.DB, kind Kind) ([]Migration, error) {
	p, err := provider(ctx, db, kind)
	if err != nil {
		return nil, err
	}
	if version, err := p.GetDBVersion(ctx); err != nil || version == 0 {
		return nil, err
	}
	result, err := p.Down(ctx)
	return applied([]*goose.MigrationResult{result}, err, kind, "taking back")
}

// Status returns all migrations of a kind in order.
func Status(ctx context.Context, db *sql.DB, kind Kind) ([]Migration, error) {
	p, err := provider(ctx, db, kind)
	if err != nil {
		return nil, err
	}
	states, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the state of the %s migrations: %w", kind, err)
	}
	out := make([]Migration, 0, len(states))
	for _, s := range states {
		out = append(out, Migration{
			Version: s.Source.Version, File: s.Source.Path, Applied: s.State == goose.StateApplied, AppliedAt: s.AppliedAt,
		})
	}
	return out, nil
}

func provider(ctx context.Context, db *sql.DB, kind Kind) (*goose.Provider, error) {
	schema := kind.Schema()
	if schema == "" {
		return nil, fmt.Errorf("no migrations of kind %q: use outbox, control or reporting", kind)
	}
	sub, err := fs.Sub(files, string(kind))
	if err != nil {
		return nil, err
	}
	// The version table lives in the schema itself and survives its last down migration: it is made first.
	if _, err := db.ExecContext(ctx, "create schema if not exists "+schema); err != nil {
		return nil, fmt.Errorf("creating schema %s: %w", schema, err)
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
