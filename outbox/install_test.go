package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/outbox"
)

func TestInstall_BackfillsWithoutOmittedColumns(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, "create table orders (no int primary key); insert into orders values (1), (2)")
	require.NoError(t, err)
	n, err := outbox.Install(ctx, pool, outbox.Capture{Table: "orders", Entity: "order", Key: []string{"no"}, Tenant: "acme", Backfill: true})
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Equal(t, row{"acme", "order", "1", "upsert", `{"no": 1}`}, written(t, pool)[0])
}

func TestInstall_SeesAChangeOfAnOmittedTenant(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, "create table orders (no int primary key, company text not null); insert into orders values (1, 'acme')")
	require.NoError(t, err)
	_, err = outbox.Install(ctx, pool, outbox.Capture{
		Table: "orders", Entity: "order", Key: []string{"no"}, TenantColumn: "company", Omit: []string{"company"},
	})
	require.NoError(t, err)
	_, err = pool.Exec(ctx, "update orders set company = 'globex'")
	require.NoError(t, err)
	require.Equal(t, []row{
		{"acme", "order", "1", "delete", `{"no": 1}`}, {"globex", "order", "1", "upsert", `{"no": 1}`},
	}, written(t, pool))
}

func TestInstall_SaysTheSameInEverySession(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, `create table shifts (began timestamptz primary key, pause interval, badge bytea);
		insert into shifts values ('2026-11-23 10:00+00', '90 minutes', '\x00ff')`)
	require.NoError(t, err)
	_, err = outbox.Install(ctx, pool, outbox.Capture{Table: "shifts", Entity: "shift", Key: []string{"began"}, Tenant: "acme"})
	require.NoError(t, err)
	_, err = pool.Exec(ctx, `set timezone = 'America/Sao_Paulo'; set intervalstyle = 'sql_standard'; set bytea_output = 'escape';
		delete from shifts; reset all`)
	require.NoError(t, err)
	require.Equal(t, []row{{
		"acme", "shift", "2026-11-23T10:00:00+00:00", "delete",
		`{"badge": "\\x00ff", "began": "2026-11-23T10:00:00+00:00", "pause": "PT1H30M"}`,
	}}, written(t, pool))
}

func TestInstall_RefusesWhatWouldFailTheApplication(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, `
		create table loose (no int unique, company text not null);
		create table twice (no int not null, company text not null);
		create table pairs (no int not null, company text not null, unique (company, no));
		create table named (no int primary key, company text not null);
		insert into named values (1, 'acme'), (2, 'Acme Inc')`)
	require.NoError(t, err)
	install := func(table, tenantColumn string) error {
		_, err := outbox.Install(ctx, pool, outbox.Capture{Table: table, Entity: "order", Key: []string{"no"}, TenantColumn: tenantColumn})
		return err
	}
	require.ErrorContains(t, install("loose", "company"), `column "no" may be null`)
	require.ErrorContains(t, install("twice", "company"), "no unique index")
	require.NoError(t, install("pairs", "company"), "unique within a tenant is enough")
	require.ErrorContains(t, install("named", "company"), `"Acme Inc"`)
}

func TestRelease_FindsTheTableUnderAnySearchPath(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	_, err := pool.Exec(ctx, "create schema shop; create table shop.orders (no int primary key)")
	require.NoError(t, err)
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, "set local search_path = shop")
	require.NoError(t, err)
	_, err = outbox.Install(ctx, tx, outbox.Capture{Table: "orders", Entity: "order", Key: []string{"no"}, Tenant: "acme"})
	require.NoError(t, err)
	captures, err := outbox.Captures(ctx, tx)
	require.NoError(t, err)
	require.Equal(t, "shop.orders", captures[0].Table)
	require.NoError(t, outbox.Release(ctx, tx, "orders"))
}
