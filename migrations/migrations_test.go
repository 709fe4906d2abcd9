package migrations_test

import (
	"context"
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
)

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", testenv.Postgres(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestMigrations_GoUpDownUp(t *testing.T) {
	t.Parallel()
	for _, kind := range migrations.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			db, ctx := open(t), t.Context()
			up, err := migrations.Up(ctx, db, kind)
			require.NoError(t, err)
			require.NotEmpty(t, up)
			again, err := migrations.Up(ctx, db, kind)
			require.NoError(t, err)
			require.Empty(t, again)
			for range up {
				down, err := migrations.Down(ctx, db, kind)
				require.NoError(t, err)
				require.Len(t, down, 1)
			}
			down, err := migrations.Down(ctx, db, kind)
			require.NoError(t, err)
			require.Empty(t, down)
			up, err = migrations.Up(ctx, db, kind)
			require.NoError(t, err)
			status, err := migrations.Status(ctx, db, kind)
			require.NoError(t, err)
			require.Len(t, status, len(up))
			for _, m := range status {
				require.True(t, m.Applied)
				require.False(t, m.AppliedAt.IsZero())
			}
		})
	}
}

func TestMigrations_ManyAtOnceApplyEachOnce(t *testing.T) {
	t.Parallel()
	db := open(t)
	g, ctx := errgroup.WithContext(context.WithoutCancel(t.Context()))
	counts := make([]int, 4)
	for i := range counts {
		g.Go(func() error {
			up, err := migrations.Up(ctx, db, migrations.Outbox)
			counts[i] = len(up)
			return err
		})
	}
	require.NoError(t, g.Wait())
	status, err := migrations.Status(t.Context(), db, migrations.Outbox)
	require.NoError(t, err)
	require.Equal(t, len(status), counts[0]+counts[1]+counts[2]+counts[3])
}

func TestMigrations_UnknownKind(t *testing.T) {
	t.Parallel()
	_, err := migrations.Up(t.Context(), open(t), "books")
	require.EqualError(t, err, `no migrations of kind "books": use outbox, control or reporting`)
}

func TestStatus_OnlyReads(t *testing.T) {
	t.Parallel()
	db, ctx := open(t), t.Context()
	for _, kind := range migrations.Kinds() {
		pending, err := migrations.Status(ctx, db, kind)
		require.NoError(t, err)
		require.NotEmpty(t, pending)
		require.False(t, pending[0].Applied)
		down, err := migrations.Down(ctx, db, kind)
		require.NoError(t, err)
		require.Empty(t, down)
	}
	var made int
	require.NoError(t, db.QueryRowContext(ctx, "select count(*) from pg_namespace where nspname in ('leat', 'leat_control', 'reporting')").Scan(&made))
	require.Zero(t, made)
}

// TestSchemas_GiveNothingToPublic: what the schemas hold is for those who were granted it, and functions look names up where no role can put
// any: in pg_catalog first; those that run with their owner's rights among temporary tables last.
func TestSchemas_GiveNothingToPublic(t *testing.T) {
	t.Parallel()
	const public = `
		select 'schema ' || nspname from pg_namespace, aclexplode(nspacl) a where nspname = $1 and a.grantee = 0
		union all
		select 'relation ' || relname from pg_class, aclexplode(relacl) a where relnamespace = $1::regnamespace and a.grantee = 0
		union all
		select 'owner''s function ' || proname from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
		where pronamespace = $1::regnamespace and prosecdef and a.grantee = 0
		union all
		select 'search path of ' || proname from pg_proc where pronamespace = $1::regnamespace
		and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig) or not prosecdef and 'search_path=pg_catalog' = any (proconfig), false)`
	for _, kind := range migrations.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			db, ctx := open(t), t.Context()
			_, err := migrations.Up(ctx, db, kind)
			require.NoError(t, err)
			rows, err := db.QueryContext(ctx, public, kind.Schema())
			require.NoError(t, err)
			defer rows.Close()
			var found []string
			for rows.Next() {
				var what string
				require.NoError(t, rows.Scan(&what))
				found = append(found, what)
			}
			require.NoError(t, rows.Err())
			require.Empty(t, found)
		})
	}
}

func TestControl_TheAuditLogOnlyGrows(t *testing.T) {
	t.Parallel()
	db, ctx := open(t), t.Context()
	_, err := migrations.Up(ctx, db, migrations.Control)
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, `insert into leat_control.audit_log (actor, action, object, reason, before, after)
		values ('ana', 'relay adopt', 'shop', 'restored from backup', '{"id": 9}', '{"id": 7}')`)
	require.NoError(t, err)
	for _, sql := range []string{
		"update leat_control.audit_log set actor = 'bob'", "delete from leat_control.audit_log", "truncate leat_control.audit_log",
	} {
		_, err := db.ExecContext(ctx, sql)
		require.ErrorContains(t, err, "append only", sql)
	}
}
