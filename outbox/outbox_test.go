package outbox_test

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

func setup(t *testing.T) (*pgxpool.Pool, *sql.DB) {
	t.Helper()
	url := testenv.Postgres(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	_, err = migrations.Up(t.Context(), db, migrations.Outbox)
	require.NoError(t, err)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool, db
}

func upsert(key, payload string) outbox.Event {
	return outbox.Event{Tenant: "acme", Entity: "invoice", Key: key, Operation: topics.Upsert, Payload: []byte(payload)}
}

func TestWrite_IsPartOfTheCallersTransaction(t *testing.T) {
	t.Parallel()
	pool, db := setup(t)
	ctx := t.Context()
	count := func() (n int) {
		require.NoError(t, pool.QueryRow(ctx, "select count(*) from leat.outbox").Scan(&n))
		return n
	}
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, outbox.Write(ctx, tx, upsert("1", `{}`)))
	require.Zero(t, count(), "not visible before the commit")
	require.NoError(t, tx.Rollback(ctx))
	require.Zero(t, count(), "gone with the rollback")

	tx, err = pool.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, outbox.Write(ctx, tx, upsert("1", `{}`), upsert("2", `{}`)))
	require.NoError(t, tx.Commit(ctx))
	require.Equal(t, 2, count())

	sqlTx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, outbox.WriteSQL(ctx, sqlTx, upsert("3", `{}`)))
	require.NoError(t, sqlTx.Commit())
	require.Equal(t, 3, count())
	require.NoError(t, outbox.Write(ctx, pool), "an empty call does nothing")
}

func TestWrite_StoresEveryFieldInOrder(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	full := outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: "acme", Entity: "invoice", Key: "ä/1", Operation: topics.Delete, Payload: []byte{0xff, 0},
		ContentType: "application/octet-stream", SchemaVersion: "2", Headers: map[string]string{"traceparent": "00-x"},
		OccurredAt: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC),
	}
	events := []outbox.Event{full}
	for i := range 100 {
		events = append(events, upsert(strconv.Itoa(i), `{}`))
	}
	require.NoError(t, outbox.Write(ctx, pool, events...))
	rows, err := pool.Query(ctx, "select key from leat.outbox order by id")
	require.NoError(t, err)
	for i := 0; rows.Next(); i++ {
		var key string
		require.NoError(t, rows.Scan(&key))
		require.Equal(t, events[i].Key, key)
	}
	require.NoError(t, rows.Err())
	var got outbox.Event
	require.NoError(t, pool.QueryRow(ctx, `select event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at
		from leat.outbox order by id limit 1`).Scan(&got.ID, &got.Tenant, &got.Entity, &got.Key, &got.Operation, &got.Payload, &got.ContentType,
		&got.SchemaVersion, &got.Headers, &got.OccurredAt))
	got.OccurredAt = got.OccurredAt.UTC()
	require.Equal(t, full, got)
	var version int
	require.NoError(t, pool.QueryRow(ctx, "select ascii(substr(event_id::text, 15, 1)) - 48 from leat.outbox where key = '7'").Scan(&version))
	require.Equal(t, 7, version, "ids are UUIDv7")
}

func TestWrite_RefusesBadEventsBeforeTheDatabaseIsTouched(t *testing.T) {
	t.Parallel()
	tests := []struct {
		change func(*outbox.Event)
		want   string
	}{
		{func(e *outbox.Event) { e.Tenant = "Acme Inc" }, `tenant "Acme Inc" is not a valid name`},
		{func(e *outbox.Event) { e.Entity = "" }, `entity "" is not a valid name`},
		{func(e *outbox.Event) { e.Key = "" }, "key is empty"},
		{func(e *outbox.Event) { e.Key = "a\x00b" }, "key contains a NUL byte"},
		{func(e *outbox.Event) { e.Key = "\xff" }, "key is not UTF-8"},
		{func(e *outbox.Event) { e.Key = strings.Repeat("k", 1025) }, "key has 1025 bytes, more than 1024"},
		{func(e *outbox.Event) { e.Operation = "insert" }, `operation "insert" is unknown`},
		{func(e *outbox.Event) { e.Payload = nil }, "payload is empty"},
		{func(e *outbox.Event) { e.Payload = []byte("{") }, "payload is not JSON"},
		{func(e *outbox.Event) { e.Payload = []byte("{\"a\":\"\xff\"}") }, "payload is not UTF-8"},
		{func(e *outbox.Event) { e.OccurredAt = time.Date(20026, 1, 1, 0, 0, 0, 0, time.UTC) }, "year 20026"},
		{func(e *outbox.Event) { e.Payload = make([]byte, outbox.MaxPayload+1) }, "store the document elsewhere"},
		{func(e *outbox.Event) { e.Headers = map[string]string{"CE_id": "x"} }, `header "CE_id" is reserved`},
		{func(e *outbox.Event) { e.Headers = map[string]string{"tenant": "x"} }, `header "tenant" is reserved`},
		{func(e *outbox.Event) { e.Headers = map[string]string{"a": "\xff"} }, `header "a" is not UTF-8`},
		{func(e *outbox.Event) { e.Headers = map[string]string{"a": strings.Repeat("x", 9000)} }, "more than 8192"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			bad := upsert("1", `{}`)
			tt.change(&bad)
			err := outbox.Write(context.Background(), nil, upsert("0", `{}`), bad)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "event 1 (")
		})
	}
}

func TestWrite_NamesTheRemedy(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testenv.Postgres(t))
	require.NoError(t, err)
	defer pool.Close()
	require.ErrorContains(t, outbox.Write(t.Context(), pool, upsert("1", `{}`)), "leat migrate up outbox")
}

func TestEmit_WritesFromSQL(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	var id uuid.UUID
	require.NoError(t, pool.QueryRow(ctx, `select leat.emit('acme', 'invoice', '1', 'upsert', '{"total": "1.50"}')`).Scan(&id))
	require.Equal(t, uuid.Version(7), id.Version())
	require.WithinDuration(t, time.Now(), time.Unix(id.Time().UnixTime()), time.Minute)
	var payload string
	require.NoError(t, pool.QueryRow(ctx, "select convert_from(payload, 'UTF8') from leat.outbox where event_id = $1", id).Scan(&payload))
	require.JSONEq(t, `{"total": "1.50"}`, payload)
	_, err := pool.Exec(ctx, `select leat.emit('acme', 'invoice', '1', 'upsert')`)
	require.ErrorContains(t, err, "payload")
	_, err = pool.Exec(ctx, `select leat.emit('acme', 'invoice', '1', 'delete', headers => '{"a": "1", "b": ""}')`)
	require.NoError(t, err)
	for _, headers := range []string{`{"a": 1}`, `{"a": ["x"]}`, `{"a": null}`, `{"a": {}}`, `["a"]`, `"a"`} {
		_, err := pool.Exec(ctx, `select leat.emit('acme', 'invoice', '1', 'delete', headers => $1)`, headers)
		require.ErrorContains(t, err, "headers_are_strings", headers)
	}
}
