// Package outbox is what a source system imports: it writes events into the table leat.outbox in the caller's own transaction,
// so that a change and its event are committed together or not at all.
//
// It does not deliver anything (outbox/relay does) and opens no connection of its own.
package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/internal/traceparent"
	"github.com/leat-io/leat/topics"
)

// Event is one change of a business record.
type Event struct {
	// ID identifies the event everywhere; a zero ID becomes a new UUIDv7. It is never reused for another event.
	ID uuid.UUID
	// Tenant is the company whose record it is, Entity its kind ("invoice"): names as of topics.ValidName.
	Tenant, Entity string
	// Key is the id of the record in the source system, 1 to 1,024 bytes. Events of one key are delivered in the order in
	// which their transactions locked the record.
	Key string
	// Operation is topics.Upsert or topics.Delete. An upsert carries the whole record, not a difference.
	Operation topics.Operation
	// Payload is required for an upsert, optional for a delete. At most MaxPayload bytes.
	Payload []byte
	// ContentType is application/json if empty; JSON payloads are checked to be JSON.
	ContentType string
	// SchemaVersion is the source's own version of the payload's shape; "1" if empty.
	SchemaVersion string
	// Headers become headers of the Kafka record. traceparent is carried along all stages; without it, Write takes the trace
	// of its context, if there is one (OpenTelemetry).
	Headers map[string]string
	// OccurredAt is when the change took place, by the source's clock; now if zero.
	OccurredAt time.Time
}

// Execer is a pgx transaction: *pgxpool.Tx, pgx.Tx. Writing on a connection without a transaction gives the event a transaction of its own.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// SQLExecer is a database/sql transaction: *sql.Tx with a driver that takes PostgreSQL's $1 parameters and text arrays (pgx/v5/stdlib).
type SQLExecer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// insertEvents writes all events of a call in one statement and one round trip. unnest keeps the order of the arrays, so that the
// ids grow in the order of the events. Nulls stand for the defaults of the table.
const insertEvents = `
insert into leat.outbox (event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at)
select e.event_id, e.tenant, e.entity, e.key, e.operation, e.payload, e.content_type, e.schema_version, e.headers::jsonb,
       coalesce(e.occurred_at, clock_timestamp())
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::text[], $9::text[], $10::timestamptz[])
     with ordinality
  as e(event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at, n)
order by e.n`

// Write inserts events through a pgx transaction. It takes effect when the caller commits. Lock the business record first: an
// UPDATE of it does.
//
// The events are validated before the database is touched; every problem is reported, with the index of its event and the field.
// An empty call does nothing.
func Write(ctx context.Context, tx Execer, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	args, err := arguments(ctx, events)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, insertEvents, args...); err != nil {
		return explain(err)
	}
	return nil
}

// WriteSQL is Write for database/sql.
func WriteSQL(ctx context.Context, tx SQLExecer, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	args, err := arguments(ctx, events)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, insertEvents, args...); err != nil {
		return explain(err)
	}
	return nil
}

func arguments(ctx context.Context, events []Event) ([]any, error) {
	parent := traceParent(ctx)
	n := len(events)
	ids, tenants, entities, keys, operations := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	payloads, types, versions, headers, times := make([][]byte, n), make([]string, n), make([]string, n), make([]string, n), make([]*time.Time, n)
	var errs []error
	for i := range events {
		e := &events[i]
		if err := e.validate(); err != nil {
			errs = append(errs, fmt.Errorf("event %d (%s %q): %w", i, e.Entity, e.Key, err))
			continue
		}
		id := e.ID
		if id == uuid.Nil {
			var err error
			if id, err = uuid.NewV7(); err != nil {
				return nil, fmt.Errorf("making an event id: %w", err)
			}
		}
		ids[i], tenants[i], entities[i], keys[i], operations[i] = id, e.Tenant, e.Entity, e.Key, string(e.Operation)
		payloads[i], types[i], versions[i], headers[i] = e.Payload, e.contentType(), e.schemaVersion(), "{}"
		if hs := e.traced(parent); len(hs) > 0 {
			b, err := json.Marshal(hs)
			if err != nil {
				return nil, fmt.Errorf("encoding the headers of event %d: %w", i, err)
			}
			headers[i] = string(b)
		}
		if !e.OccurredAt.IsZero() {
			times[i] = &e.OccurredAt
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return []any{ids, tenants, entities, keys, operations, payloads, types, versions, headers, times}, nil
}

// traceParent is the trace that ctx is in, as W3C Trace Context writes it; empty if it is in none.
func traceParent(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return ""
	}
	return string(traceparent.Append(nil, sc))
}

// traced are e's headers, with parent unless the event says itself which trace it belongs to.
func (e *Event) traced(parent string) map[string]string {
	if _, has := e.Headers[topics.HeaderTraceParent]; has || parent == "" {
		return e.Headers
	}
	hs := make(map[string]string, len(e.Headers)+1)
	maps.Copy(hs, e.Headers)
	hs[topics.HeaderTraceParent] = parent
	return hs
}

// explain adds the remedy to the errors that a new user meets first.
func explain(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "42P01", "3F000": // undefined_table, invalid_schema_name
			return fmt.Errorf("writing to leat.outbox: %w (is this the right database? leat migrate up outbox creates the table)", err)
		case "42501": // insufficient_privilege
			return fmt.Errorf("writing to leat.outbox: %w (leat outbox grant gives a role the right to write)", err)
		}
	}
	return fmt.Errorf("writing to leat.outbox: %w", err)
}
