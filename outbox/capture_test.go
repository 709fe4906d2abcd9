package outbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/outbox"
)

type row struct{ Tenant, Entity, Key, Operation, Payload string }

// written returns the events of the outbox and leaves it empty.
func written(t *testing.T, pool *pgxpool.Pool) []row {
	t.Helper()
	rows, err := pool.Query(t.Context(), "select tenant, entity, key, operation, convert_from(payload, 'UTF8') as payload from leat.outbox order by id")
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "delete from leat.outbox")
	require.NoError(t, err)
	return got
}

const accounts = `create schema "my shop";
create table "my shop"."Konten" (id int, company text not null, name text, password text, balance numeric(12,2), primary key (id));
insert into "my shop"."Konten" values (1, 'acme', 'cash', 'hunter2', 10.50)`

func TestInstall_WritesAnEventForEachChange(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	exec := func(sql string) {
		t.Helper()
		_, err := pool.Exec(ctx, sql)
		require.NoError(t, err)
	}
	exec(accounts)
	capture := outbox.Capture{
		Table: `"my shop"."Konten"`, Entity: "account", Key: []string{"id"}, TenantColumn: "company", Omit: []string{"password"}, Backfill: true,
	}
	n, err := outbox.Install(ctx, pool, capture)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	before := `{"id": 1, "name": "cash", "balance": 10.50, "company": "acme"}`
	require.Equal(t, []row{{"acme", "account", "1", "upsert", before}}, written(t, pool))

	exec(`update "my shop"."Konten" set password = 'secret'`)
	require.Empty(t, written(t, pool), "a change that finance must not see is no event")
	exec(`insert into "my shop"."Konten" values (2, 'acme', $$o'neill \ "x"$$, null, 3)`)
	exec(`update "my shop"."Konten" set balance = 11 where id = 1`)
	exec(`update "my shop"."Konten" set id = 3 where id = 1`)
	exec(`delete from "my shop"."Konten" where id = 2`)
	require.Equal(t, []row{
		{"acme", "account", "2", "upsert", `{"id": 2, "name": "o'neill \\ \"x\"", "balance": 3.00, "company": "acme"}`},
		{"acme", "account", "1", "upsert", `{"id": 1, "name": "cash", "balance": 11.00, "company": "acme"}`},
		{"acme", "account", "1", "delete", `{"id": 1, "name": "cash", "balance": 11.00, "company": "acme"}`},
		{"acme", "account", "3", "upsert", `{"id": 3, "name": "cash", "balance": 11.00, "company": "acme"}`},
		{"acme", "account", "2", "delete", `{"id": 2, "name": "o'neill \\ \"x\"", "balance": 3.00, "company": "acme"}`},
	}, written(t, pool))

	_, err = pool.Exec(ctx, `truncate "my shop"."Konten"`)
	require.ErrorContains(t, err, "leat outbox release")
	captures, err := outbox.Captures(ctx, pool)
	require.NoError(t, err)
	capture.Backfill = false
	require.Equal(t, []outbox.Capture{capture}, captures)

	require.NoError(t, outbox.Release(ctx, pool, `"my shop"."Konten"`))
	exec(`truncate "my shop"."Konten"`)
	require.Empty(t, written(t, pool))
	require.ErrorContains(t, outbox.Release(ctx, pool, `"my shop"."Konten"`), "not captured")
}

func TestInstall_WritesInTheApplicationsTransactionWithItsOwnRights(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	role := newRole(t, pool)
	_, err := pool.Exec(ctx, `create table orders (region text, no int, primary key (region, no)); grant all on orders to `+role)
	require.NoError(t, err)
	_, err = outbox.Install(ctx, pool, outbox.Capture{Table: "orders", Entity: "order", Key: []string{"region", "no"}, Tenant: "acme"})
	require.NoError(t, err)
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, "set local role "+role) // the application has no rights on the outbox at all
	require.NoError(t, err)
	_, err = tx.Exec(ctx, "insert into orders values ('a/b', 1), ('a', 2)")
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(ctx))
	require.Empty(t, written(t, pool), "a rollback takes the events back")
	_, err = pool.Exec(ctx, "insert into orders values ('a/b', 1), ('a', 2)")
	require.NoError(t, err)
	got := written(t, pool)
	require.Equal(t, "a~1b/1", got[0].Key)
	require.Equal(t, "a/2", got[1].Key)
}

func TestInstall_RefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, accounts+`; create view v as select 1 as id`)
	require.NoError(t, err)
	tests := []struct {
		capture outbox.Capture
		want    string
	}{
		{outbox.Capture{}, "table is missing"},
		{outbox.Capture{Table: "x", Entity: "X", Key: []string{"id"}, Tenant: "acme"}, `entity "X" is not a valid name`},
		{outbox.Capture{Table: "x", Entity: "x", Tenant: "acme"}, "key is missing"},
		{outbox.Capture{Table: "x", Entity: "x", Key: []string{"id"}}, "either a tenant or a tenant column"},
		{outbox.Capture{Table: "x", Entity: "x", Key: []string{"id"}, Tenant: "acme", Omit: []string{"id"}}, "cannot be omitted"},
		{outbox.Capture{Table: "x", Entity: "x", Key: []string{"id"}, Tenant: "acme"}, "there is no such table"},
		{outbox.Capture{Table: "v", Entity: "x", Key: []string{"id"}, Tenant: "acme"}, "not a table"},
		{outbox.Capture{Table: "leat.outbox", Entity: "x", Key: []string{"id"}, Tenant: "acme"}, "cannot be captured"},
		{outbox.Capture{Table: `"my shop"."Konten"`, Entity: "x", Key: []string{"nr"}, Tenant: "acme"}, `there is no column "nr"`},
	}
	for _, tt := range tests {
		_, err := outbox.Install(ctx, pool, tt.capture)
		require.ErrorContains(t, err, tt.want)
	}
}

// newRole makes a database role that is dropped with the test.
func newRole(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var name string
	require.NoError(t, pool.QueryRow(t.Context(), "select 'leat_test_' || substr(md5(random()::text), 1, 8)").Scan(&name))
	_, err := pool.Exec(t.Context(), "create role "+name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), "drop owned by "+name+"; drop role "+name)
		require.NoError(t, err)
	})
	return name
}

func TestGrant_GivesNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	as := func(role, sql string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "set local role "+role); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, sql)
			return err
		})
	}
	const emit = `select leat.emit('acme', 'invoice', '1', 'upsert', '{}')`
	writer, relay, nobody := newRole(t, pool), newRole(t, pool), newRole(t, pool)
	require.NoError(t, outbox.Grant(ctx, pool, writer, outbox.Writer))
	require.NoError(t, outbox.Grant(ctx, pool, relay, outbox.Relay))
	require.NoError(t, outbox.Grant(ctx, pool, relay, outbox.Relay), "can be run again")
	require.NoError(t, as(writer, emit))
	require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local role "+writer); err != nil {
			return err
		}
		return outbox.Write(ctx, tx, upsert("2", `{}`))
	}))
	require.NoError(t, as(relay, "select * from leat.outbox, leat.identity(), leat.source, leat.partitions"))
	require.NoError(t, as(relay, "select leat.make_partitions()"))
	require.NoError(t, as(relay, "select leat.drop_partitions(0, pg_current_snapshot(), '1 day')"))

	refused := map[string][]string{
		writer: {
			"select * from leat.outbox", "update leat.outbox set key = 'x'", "delete from leat.outbox", "truncate leat.outbox",
			"insert into leat.outbox (transaction_id, event_id, tenant, entity, key, operation) values ('1', leat.uuid_v7(), 'a', 'a', 'a', 'delete')",
			"select leat.drop_partitions(0, pg_current_snapshot(), '1 day')", "select leat.identity()", "select leat.raise_epoch(9)",
			"update leat.source set epoch = 9", "drop table leat.outbox",
		},
		relay: {
			emit, "update leat.outbox set key = 'x'", "delete from leat.outbox", "truncate leat.outbox", "select leat.raise_epoch(9)",
			"drop table leat.outbox", "create table leat.x (i int)",
		},
		nobody: {emit, "select * from leat.outbox", "select leat.identity()"},
	}
	for role, statements := range refused {
		for _, sql := range statements {
			require.ErrorContains(t, as(role, sql), "42501", "%s: %s", role, sql)
		}
	}
	_, err := outbox.Grants("x", "owner")
	require.ErrorContains(t, err, "use writer or relay")
}

// TestGrant_OwnersFunctionsAreNotMisled: a role that puts functions, operators and tables of the same names before the real ones does
// not make functions that run with their owner's rights use them.
func TestGrant_OwnersFunctionsAreNotMisled(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	relay := newRole(t, pool)
	require.NoError(t, outbox.Grant(ctx, pool, relay, outbox.Relay))
	exec := func(sql string) {
		t.Helper()
		_, err := pool.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	exec("create table invoices (id int primary key, tenant text not null); create schema evil authorization " + relay +
		"; grant insert, select on invoices to " + relay)
	_, err := outbox.Install(ctx, pool, outbox.Capture{Table: "public.invoices", Entity: "invoice", Key: []string{"id"}, TenantColumn: "tenant"})
	require.NoError(t, err)
	conn, err := pool.Acquire(ctx)
	require.NoError(t, err)
	defer conn.Release()
	const misled = ` language plpgsql as $$ begin raise exception 'misled: %', current_user; end $$`
	for _, sql := range []string{
		"set role " + relay,
		"create function evil.hashtextextended(text, bigint) returns bigint" + misled,
		"create function evil.pg_try_advisory_xact_lock(bigint) returns boolean" + misled,
		"create function evil.to_jsonb(anyelement) returns jsonb" + misled,
		"create function evil.clock_timestamp() returns timestamptz" + misled,
		"create function evil.pg_control_system(out system_identifier bigint) returns bigint" + misled,
		"create function evil.pg_current_wal_lsn() returns pg_lsn" + misled,
		"create function evil.convert_to(text, name) returns bytea" + misled,
		"create function evil.gen_random_uuid() returns uuid" + misled,
		"create function evil.larger(bigint, bigint) returns boolean" + misled,
		"create operator evil.<= (leftarg = bigint, rightarg = bigint, function = evil.larger)",
		"create temporary table outbox_default (id bigint)", "create temporary table pg_inherits (inhrelid oid, inhparent oid)",
		"set search_path = evil, pg_temp, pg_catalog",
		"select leat.identity()", "select leat.make_partitions(3)", "select leat.drop_partitions(0, pg_current_snapshot(), '1 day')",
		"insert into public.invoices values (1, 'acme')",
	} {
		_, err := conn.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	_, err = conn.Exec(ctx, "select clock_timestamp()")
	require.ErrorContains(t, err, "misled", "the trap is one")
	_, err = conn.Exec(ctx, "reset role; reset search_path")
	require.NoError(t, err)
	var captured int
	require.NoError(t, pool.QueryRow(ctx, "select count(*) from leat.outbox").Scan(&captured))
	require.Equal(t, 1, captured)
}

// TestEmit_CallersAreNotMisled: who writes an event, or raises the epoch, may have more rights than a role that can create functions in a
// schema of the search path. Its functions and operators fit the arguments better than the real ones, and are not used.
func TestEmit_CallersAreNotMisled(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	conn, err := pool.Acquire(ctx)
	require.NoError(t, err)
	defer conn.Release()
	const misled = ` language plpgsql as $$ begin raise exception 'misled: %', current_user; end $$`
	role := newRole(t, pool)
	for _, sql := range []string{
		"create schema evil authorization " + role,
		"set role " + role,
		"create function evil.convert_to(text, text) returns bytea" + misled,
		"create function evil.less(bigint, bigint) returns boolean" + misled,
		"create operator evil.< (leftarg = bigint, rightarg = bigint, function = evil.less)",
		"create function evil.now() returns timestamptz" + misled,
		"reset role",
	} {
		_, err := conn.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	for _, path := range []string{"evil", "evil, pg_catalog"} {
		_, err := conn.Exec(ctx, "set search_path = "+path)
		require.NoError(t, err)
		_, err = conn.Exec(ctx, "select convert_to('{}', 'UTF8')")
		require.ErrorContains(t, err, "misled", "the trap is one")
		_, err = conn.Exec(ctx, "select leat.emit('acme', 'invoice', '1', 'upsert', '{}'), leat.raise_epoch(7)")
		require.NoError(t, err)
	}
}
