package testenv

import (
	"cmp"
	"context"
	"maps"
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
func Postgres(tb testing.TB) string {
	tb.Helper()
	admin := os.Getenv("LEAT_TEST_POSTGRES_URL")
	if admin == "" {
		s := sharedServer(tb, postgresKind)
		require.Empty(tb, s.Error, "no PostgreSQL: set LEAT_TEST_POSTGRES_URL, install PostgreSQL, or start Docker")
		admin = s.Addresses[0]
	}
	return freshDatabase(tb, admin)
}

func freshDatabase(tb testing.TB, admin string) string {
	tb.Helper()
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
	require.NoError(tb, exec("create database "+name))
	u, err := url.Parse(admin)
	require.NoError(tb, err)
	u.Path = "/" + name
	tb.Cleanup(func() {
		// Not an error of the test: the server may be one that the test has killed.
		if err := cmp.Or(forgetPrepared(u.String()), exec("drop database "+name+" with (force)")); err != nil {
			tb.Logf("dropping database %s: %v", name, err)
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
func PostgresServer(tb testing.TB) *OwnPostgres {
	tb.Helper()
	return PostgresServerWith(tb, nil, nil)
}

// PostgresServerWith is a PostgresServer with further settings, and with files in its data directory, such as pg_hba.conf.
func PostgresServerWith(tb testing.TB, settings map[string]string, files map[string][]byte) *OwnPostgres {
	tb.Helper()
	scratch, err := devstack.NewScratch()
	require.NoError(tb, err)
	port, err := devstack.FreePort()
	require.NoError(tb, err)
	all := postgresSettings()
	maps.Copy(all, settings)
	p := &OwnPostgres{options: devstack.PostgresOptions{Dir: scratch.Dir(), Port: port, Settings: all, Files: files}}
	p.server, err = devstack.StartPostgres(context.Background(), p.options)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		p.server.Kill()
		if err := scratch.Remove(); err != nil {
			tb.Logf("removing the data of PostgreSQL: %v", err)
		}
	})
	return p
}

// URL is the address of the maintenance database; it stays the same over restarts.
func (p *OwnPostgres) URL() string { return p.server.URL() }

// Database returns the URL of a new, empty database of this server.
func (p *OwnPostgres) Database(tb testing.TB) string {
	tb.Helper()
	return freshDatabase(tb, p.URL())
}

// Kill ends the server as a crash does.
func (p *OwnPostgres) Kill() { p.server.Kill() }

// Stop ends the server in good order, cutting its connections.
func (p *OwnPostgres) Stop(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.server.Stop(context.Background()))
}

// Start starts a server that was stopped or killed, with the same port and data.
func (p *OwnPostgres) Start(tb testing.TB) {
	tb.Helper()
	require.Eventually(tb, func() bool { // a crashed server's backends hold on to its memory for a moment
		server, err := devstack.StartPostgres(context.Background(), p.options)
		if err != nil {
			return false
		}
		p.server = server
		return true
	}, restartTimeout, 100*time.Millisecond, "starting PostgreSQL again")
}

// Freeze stops the server from accepting connections without ending it; sessions that are open go on.
func (p *OwnPostgres) Freeze(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.server.Signal(syscall.SIGSTOP))
}

// Thaw ends a Freeze.
func (p *OwnPostgres) Thaw(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.server.Signal(syscall.SIGCONT))
}
