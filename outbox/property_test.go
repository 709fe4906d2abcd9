package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// anyEvent is often valid, and often just not.
func anyEvent() *rapid.Generator[outbox.Event] {
	valid := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?`)
	name := rapid.OneOf(valid, valid, valid, valid, rapid.StringMatching(`[a-z0-9_-]{0,66}`), rapid.SampledFrom([]string{"A", "a\n", "á", "a b"}))
	word := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z]{1,8}`))
	text := rapid.OneOf(word, word, word, rapid.SampledFrom([]string{"a\x00", "\xff", "\u2028"}))
	return rapid.Custom(func(t *rapid.T) outbox.Event {
		return outbox.Event{
			Tenant: name.Draw(t, "tenant"), Entity: name.Draw(t, "entity"),
			Key:           rapid.OneOf(text, rapid.Just(strings.Repeat("k", outbox.MaxKey)), rapid.Just(strings.Repeat("é", 513))).Draw(t, "key"),
			Operation:     rapid.SampledFrom([]topics.Operation{topics.Upsert, topics.Upsert, topics.Delete, topics.Delete, ""}).Draw(t, "operation"),
			Payload:       rapid.OneOf(rapid.Just([]byte(`{"a":"é"}`)), rapid.Just([]byte("{\"a\":\"\xff\"}")), rapid.SliceOf(rapid.Byte())).Draw(t, "payload"),
			ContentType:   rapid.SampledFrom([]string{"", "", "application/json", "application/octet-stream", "a\x00"}).Draw(t, "content type"),
			SchemaVersion: rapid.SampledFrom([]string{"", "2", "3.1", "\xff"}).Draw(t, "schema version"),
			Headers:       rapid.MapOfN(text, text, 0, 3).Draw(t, "headers"),
			OccurredAt:    time.Unix(rapid.Int64Range(-80_000_000_000, 300_000_000_000).Draw(t, "occurred at"), 0).UTC(),
		}
	})
}

func TestWrite_WhatItAcceptsTheTableKeepsUnchanged(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(ctx)
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		event := anyEvent().Draw(t, "event")
		err := outbox.Write(ctx, tx, event)
		if err != nil {
			_, touched := errors.AsType[*pgconn.PgError](err)
			require.False(t, touched, "the database, not the validation, has refused it: %v", err)
			return
		}
		accepted++
		got := last(ctx, t, tx)
		require.NotEqual(t, uuid.Nil, got.ID)
		require.True(t, event.OccurredAt.Equal(got.OccurredAt), "%s became %s", event.OccurredAt, got.OccurredAt)
		want := event
		want.ID, want.OccurredAt = got.ID, got.OccurredAt
		if want.ContentType == "" {
			want.ContentType = "application/json"
		}
		if want.SchemaVersion == "" {
			want.SchemaVersion = "1"
		}
		if len(want.Payload) == 0 {
			want.Payload, got.Payload = nil, nil
		}
		require.Equal(t, want, got)
	})
	require.Positive(t, accepted, "the generator makes valid events, too")
	t.Log("accepted", accepted)
}

func last(ctx context.Context, t require.TestingT, tx pgx.Tx) (e outbox.Event) {
	require.NoError(t, tx.QueryRow(ctx, `
select event_id, tenant, entity, key, operation, payload, content_type, schema_version, headers, occurred_at
from leat.outbox order by id desc limit 1`).Scan(&e.ID, &e.Tenant, &e.Entity, &e.Key, &e.Operation, &e.Payload, &e.ContentType,
		&e.SchemaVersion, &e.Headers, &e.OccurredAt))
	return e
}

// execs counts what reaches the database.
type execs int

func (n *execs) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	*n++
	return pgconn.CommandTag{}, nil
}

func FuzzWrite(f *testing.F) {
	f.Add("acme", "invoice", "1", "upsert", []byte(`{"a":1}`), "traceparent", "00-x")
	f.Add("", "\x00", "\xff", "delete", []byte(nil), "ce_id", "\n")
	f.Fuzz(func(t *testing.T, tenant, entity, key, operation string, payload []byte, header, value string) {
		var n execs
		err := outbox.Write(context.Background(), &n, outbox.Event{
			Tenant: tenant, Entity: entity, Key: key, Operation: topics.Operation(operation), Payload: payload,
			Headers: map[string]string{header: value},
		})
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.EqualValues(t, 1, n)
		require.True(t, topics.ValidName(tenant) && topics.ValidName(entity))
		require.False(t, outbox.Reserved(header))
		require.True(t, len(payload) == 0 || json.Valid(payload) && utf8.Valid(payload))
		gotTenant, _, gotKey, err := topics.SplitKey(topics.Key(tenant, "shop", key))
		require.NoError(t, err, "the record's key can be told apart again")
		require.Equal(t, []string{tenant, key}, []string{gotTenant, gotKey})
	})
}
