package testenv

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

const restartTimeout = 30 * time.Second

// Postgres returns the URL of a new, empty database that is dropped when the test ends. The user is a superuser.
// The server allows prepared transactions, and keeps no promise about a power cut.
func Postgres(t testing.TB) string {
	t.Helper()
	admin := os.Getenv("LEAT_TEST_POSTGRES_URL")
	if admin == "" {
		s := sharedServer(t, postgresKind)
		require.Empty(t, s.Error, "no PostgreSQL: set LEAT_TEST_POSTGRES_URL, install PostgreSQL, or start Docker")
		admin = s.Addresses[0]
	}
	return freshDatabase(t, admin)
}

func freshDatabase(t testing.TB, admin string) string {
	t.Helper()
	name := strings.ReplaceAll(Name("leat_test"), "-", "_")
	exec := func(sql string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, admin)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, sql)
		return err
	}
	require.NoError(t, exec("create database "+name))
	u, err := url.Parse(admin)
	require.NoError(t, err)
	u.Path = "/" + name
	t.Cleanup(func() {
		// Not an error of the test: the server may be one that the test has killed.
		if err := cmp.Or(forgetPrepared(u.String()), exec("drop database "+name+" with (force)")); err != nil {
			t.Logf("dropping database %s: %v", name, err)
		}
	})
	return u.String()
}

// forgetPrepared rolls back prepared transactions, which keep a database from being dropped and hold back the
// snapshots of all other tests.
func forgetPrepared(address string) error {
	const prepared = `select format('rollback prepared %L', gid) from pg_prepared_xacts where database = current_database()`
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, prepared)
	if err != nil {
		return err
	}
	rollbacks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, sql := range rollbacks {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return err
}

func postgresSettings() map[string]string {
	return map[string]string{
		"max_connections":           "300",
		"max_prepared_transactions": "50",
		"wal_level":                 "logical",
	}
}

// OwnPostgres is a server that only one test uses, so that the test may stop, kill or freeze it.
type OwnPostgres struct {
	options devstack.PostgresOptions
	server  *devstack.Postgres
}

// PostgresServer starts a server of the test's own, as a process of this machine. It ends with the test.
func PostgresServer(t testing.TB) *OwnPostgres {
	t.Helper()
	scratch, err := devstack.NewScratch()
	require.NoError(t, err)
	port, err := devstack.FreePort()
	require.NoError(t, err)
	p := &OwnPostgres{options: devstack.PostgresOptions{Dir: scratch.Dir(), Port: port, Settings: postgresSettings()}}
	p.server, err = devstack.StartPostgres(context.Background(), p.options)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.server.Kill()
		if err := scratch.Remove(); err != nil {
			t.Logf("removing the data of PostgreSQL: %v", err)
		}
	})
	return p
}

// URL is the address of the maintenance database; it stays the same over restarts.
func (p *OwnPostgres) URL() string { return p.server.URL() }

// Database returns the URL of a new, empty database of this server.
func (p *OwnPostgres) Database(t testing.TB) string {
	t.Helper()
	return freshDatabase(t, p.URL())
}

// Kill ends the server as a crash does.
func (p *OwnPostgres) Kill() { p.server.Kill() }

// Stop ends the server in good order, cutting its connections.
func (p *OwnPostgres) Stop(t testing.TB) {
	t.Helper()
	require.NoError(t, p.server.Stop(context.Background()))
}

// Start starts a server that was stopped or killed, with the same port and data.
func (p *OwnPostgres) Start(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { // a crashed server's backends hold on to its memory for a moment
		server, err := devstack.StartPostgres(context.Background(), p.options)
		if err != nil {
			return false
		}
		p.server = server
		return true
	}, restartTimeout, 100*time.Millisecond, "starting PostgreSQL again")
}

// Freeze stops the server from accepting connections without ending it; sessions that are open go on.
func (p *OwnPostgres) Freeze(t testing.TB) {
	t.Helper()
	require.NoError(t, p.server.Signal(syscall.SIGSTOP))
}

// Thaw ends a Freeze.
func (p *OwnPostgres) Thaw(t testing.TB) {
	t.Helper()
	require.NoError(t, p.server.Signal(syscall.SIGCONT))
}
