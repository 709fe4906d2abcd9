package control_test

import (
	"context"
	"database/sql"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/control"
)

func ana() audit.Operator { return audit.Operator{Name: "ana", Reason: "month end"} }

func names() control.Names {
	return control.Names{
		Stages: []string{"normalize", "publish", "relay"}, Groups: []string{"normalize", "reporting"}, Sources: []string{"shop"},
		Targets: []string{"books"},
	}
}

// database makes a control database.
func database(t *testing.T) (*pgxpool.Pool, string) {
	t.Helper()
	address := testenv.Postgres(t)
	return migrated(t, address), address
}

func migrated(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	std, err := sql.Open("pgx", address)
	require.NoError(t, err)
	defer std.Close()
	_, err = migrations.Up(t.Context(), std, migrations.Control)
	require.NoError(t, err)
	return pool(t, address)
}

func pool(t *testing.T, address string) *pgxpool.Pool {
	t.Helper()
	db, err := pgxpool.New(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db
}

// as returns a pool of a fresh role, which has the rights that grant gives it.
func as(t *testing.T, owner *pgxpool.Pool, address, grant string) *pgxpool.Pool {
	t.Helper()
	role := testenv.Name("leat-role")
	exec := func(sql string) {
		_, err := owner.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	}
	exec(`create role "` + role + `" login password 'p'`)
	t.Cleanup(func() { exec(`drop owned by "` + role + `"`); exec(`drop role "` + role + `"`) })
	exec(`select leat_control.` + grant + `('` + role + `')`)
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "p")
	return pool(t, u.String())
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 20*time.Millisecond, what)
}
