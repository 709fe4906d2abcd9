package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/outbox"
)

// withOutbox calls do with a connection to the database of a source; without a name there must be only one source.
func (a *App) withOutbox(ctx context.Context, source string, do func(*config.Source, *pgx.Conn) error) (err error) {
	if err := a.cfg.Require(config.NeedSources); err != nil {
		return err
	}
	src := a.cfg.Source(source)
	switch {
	case source == "" && len(a.cfg.Sources) == 1:
		src = &a.cfg.Sources[0]
	case source == "":
		return fmt.Errorf("the configuration has %d sources: name one with --source", len(a.cfg.Sources))
	case src == nil:
		return a.unknownSource(source)
	}
	if src.URL.Empty() {
		return fmt.Errorf("source %s has no url in the configuration", src.Name)
	}
	conn, err := pgx.Connect(ctx, src.URL.Reveal())
	if err != nil {
		return fmt.Errorf("connecting to the database of source %s: %w", src.Name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return do(src, conn)
}

// Capture is a table whose changes become events.
type Capture = outbox.Capture

// CaptureReport is what Capture did.
type CaptureReport struct {
	Source     string `json:"source"`
	Table      string `json:"table"`
	Entity     string `json:"entity"`
	Backfilled int64  `json:"backfilled"`
	Declared   bool   `json:"declared"` // the configuration has the entity
}

// OutboxCapture makes triggers that write an event for each change of a table.
func (a *App) OutboxCapture(ctx context.Context, source string, c Capture) (r CaptureReport, err error) {
	err = a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) (err error) {
		r = CaptureReport{Source: src.Name, Table: c.Table, Entity: c.Entity}
		for _, e := range src.Entities {
			r.Declared = r.Declared || e == c.Entity
		}
		r.Backfilled, err = outbox.Install(ctx, conn, c)
		return err
	})
	return r, err
}

// WriteText prints what was done, and what is still to do.
func (r CaptureReport) WriteText(w io.Writer) error {
	text := fmt.Sprintf("table %s is captured as entity %s of source %s; %d rows were backfilled\n",
		r.Table, r.Entity, r.Source, r.Backfilled)
	if !r.Declared {
		text += fmt.Sprintf("entity %s is not among the entities of source %s in the configuration: "+
			"add it and run `leat topics apply`, or its rows go to the relay's dead letters\n", r.Entity, r.Source)
	}
	_, err := io.WriteString(w, text)
	return err
}

// OutboxRelease removes the triggers of a captured table.
func (a *App) OutboxRelease(ctx context.Context, source, table string) (done Done, err error) {
	err = a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) error {
		done = Done{fmt.Sprintf("table %s of source %s is no longer captured; its events stay in the outbox", table, src.Name)}
		return outbox.Release(ctx, conn, table)
	})
	return done, err
}

// Captures are the captured tables of a source.
type Captures struct {
	Source string    `json:"source"`
	Tables []Capture `json:"tables"`
}

// OutboxList lists the captured tables of a source.
func (a *App) OutboxList(ctx context.Context, source string) (c Captures, err error) {
	err = a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) (err error) {
		c.Source = src.Name
		c.Tables, err = outbox.Captures(ctx, conn)
		return err
	})
	return c, err
}

// WriteText prints a line for each table.
func (c Captures) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, t := range c.Tables {
		tenant := "tenant " + t.Tenant
		if t.TenantColumn != "" {
			tenant = "tenant in column " + t.TenantColumn
		}
		fmt.Fprintf(&b, "%s → entity %s, key %s, %s", t.Table, t.Entity, strings.Join(t.Key, "/"), tenant)
		if len(t.Omit) > 0 {
			b.WriteString(", without " + strings.Join(t.Omit, ", "))
		}
		b.WriteString("\n")
	}
	if len(c.Tables) == 0 {
		fmt.Fprintf(&b, "source %s has no captured tables\n", c.Source)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// OutboxGrant gives a database role the rights of a writer or of a relay. With dryRun it only tells the statements.
func (a *App) OutboxGrant(ctx context.Context, source, role, rights string, dryRun bool) (done Done, err error) {
	statements, err := outbox.Grants(role, outbox.Role(rights))
	if err != nil {
		return done, err
	}
	if dryRun {
		return Done{strings.Join(statements, ";\n") + ";"}, nil
	}
	err = a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) error {
		done = Done{fmt.Sprintf("role %s is a %s of the outbox of source %s", role, rights, src.Name)}
		return outbox.Grant(ctx, conn, role, outbox.Role(rights))
	})
	return done, err
}

// PartitionsReport is what the upkeep of an outbox's partitions did.
type PartitionsReport struct {
	Source string `json:"source"`
	outbox.UpkeepReport
}

// OutboxPartitions makes partitions ahead of the ids in use. Old ones are dropped by the relay, which knows what it has
// delivered.
func (a *App) OutboxPartitions(ctx context.Context, source string, ahead int) (r PartitionsReport, err error) {
	err = a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) (err error) {
		r.Source = src.Name
		r.UpkeepReport, err = outbox.Maintain(ctx, conn, outbox.Upkeep{Ahead: ahead})
		return err
	})
	return r, err
}

// WriteText names the partitions that were made.
func (r PartitionsReport) WriteText(w io.Writer) error {
	text := "nothing to do: there are enough partitions ahead\n"
	if len(r.Made) > 0 {
		text = "made " + strings.Join(r.Made, ", ") + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// Done is the report of an action that has nothing to show but that it was done.
type Done struct {
	Message string `json:"message"`
}

// WriteText prints the message.
func (d Done) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, d.Message+"\n")
	return err
}
