package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/devstack"
)

const connections = 40 // of each server: few enough to use up

// database is a server of one run, with one database in it and, for the source, a standby that a commit waits for.
type database struct {
	name string
	base string // directory of the servers' directories

	mu       sync.Mutex
	primary  *devstack.Postgres
	options  devstack.PostgresOptions // of primary
	standby  *devstack.Postgres
	spare    devstack.PostgresOptions // of standby
	password string
	nodes    int
	feed     *link   // from the primary to its standby; nil without one
	clients  []*link // that lead to the primary
}

func startDatabase(t *testing.T, name, base string) *database {
	t.Helper()
	d := &database{name: name, base: base}
	var err error
	d.options, err = d.node()
	require.NoError(t, err)
	d.primary, err = devstack.StartPostgres(t.Context(), d.options)
	require.NoError(t, err)
	t.Cleanup(func() {
		d.primary.Kill()
		if d.standby != nil {
			d.standby.Kill()
		}
	})
	u, err := url.Parse(d.primary.URL())
	require.NoError(t, err)
	d.password, _ = u.User.Password()
	conn, err := pgx.Connect(t.Context(), d.primary.URL())
	require.NoError(t, err)
	defer conn.Close(context.Background())
	// Clients own everything, but are no superusers: the connections reserved for those are not theirs.
	for _, sql := range []string{
		"create database " + name, "create role app login password '" + d.password + "'", "grant postgres to app",
	} {
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return d
}

// node are the settings of one more server.
func (d *database) node() (devstack.PostgresOptions, error) {
	port, err := devstack.FreePort()
	if err != nil {
		return devstack.PostgresOptions{}, err
	}
	d.nodes++
	dir := filepath.Join(d.base, fmt.Sprintf("%s-%d", d.name, d.nodes))
	if err := os.Mkdir(dir, 0o711); err != nil {
		return devstack.PostgresOptions{}, fmt.Errorf("making a directory for PostgreSQL: %w", err)
	}
	return devstack.PostgresOptions{Dir: dir, Port: port, Settings: map[string]string{
		"max_connections": strconv.Itoa(connections), "max_prepared_transactions": "10", "shared_buffers": "32MB",
		"max_wal_size": "64MB", "min_wal_size": "32MB", "wal_keep_size": "64MB", "wal_receiver_timeout": "10s", "wal_sender_timeout": "10s",
		"wal_retrieve_retry_interval": "200ms",
	}}, nil
}

// address is where the primary listens.
func (d *database) address() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.options.Port))
}

// url is how clients reach the database by way of a link.
func (d *database) url(way string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("app", d.password), Host: way, Path: "/" + d.name, RawQuery: "sslmode=disable"}
	return u.String()
}

// front makes a link to the primary that follows it in a fail-over.
func (d *database) front(name string) (*link, error) {
	l, err := newLink(name, d.address())
	if err == nil {
		d.clients = append(d.clients, l)
	}
	return l, err
}

// connect opens a superuser's connection that no fault of the schedule concerns.
func (d *database) connect(ctx context.Context) (*pgx.Conn, error) {
	d.mu.Lock()
	cfg, err := pgx.ParseConfig(d.primary.URL())
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	cfg.Database = d.name
	cfg.RuntimeParams = map[string]string{"statement_timeout": "0", "application_name": "chaos"}
	return pgx.ConnectConfig(ctx, cfg)
}

// exec runs statements on a superuser's connection.
func (d *database) exec(ctx context.Context, statements ...string) error {
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// start starts the primary again on its data.
func (d *database) start(ctx context.Context) error {
	return again(ctx, func() error { // a crashed server's backends hold on to its memory for a moment
		p, err := devstack.StartPostgres(ctx, d.options)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.primary = p
		return nil
	})
}

// stop ends the primary: SIGINT cuts its connections, SIGQUIT is a crash of its own making, SIGKILL one of the machine's.
func (d *database) stop(sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		d.primary.Kill()
		return nil
	}
	if err := d.primary.Signal(sig); err != nil {
		return err
	}
	return d.primary.Stop(context.Background())
}

// addStandby copies the primary and makes every commit wait until the copy has it on disk.
func (d *database) addStandby(ctx context.Context) error {
	spare, err := d.node()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.feed.address())
	if err != nil {
		return err
	}
	data := filepath.Join(spare.Dir, "data")
	args := []string{"-D", data, "-h", host, "-p", port, "-U", "postgres", "--no-sync", "--checkpoint=fast", "-X", "stream"}
	cmd := exec.CommandContext(ctx, d.primary.Program("pg_basebackup"), args...)
	cmd.Env = []string{"PGPASSWORD=" + d.password, "LC_ALL=C"}
	cmd.Dir = spare.Dir
	if err := d.own(spare.Dir, cmd); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copying the primary: %w: %s", err, out)
	}
	password, err := os.ReadFile(filepath.Join(d.options.Dir, "password"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(spare.Dir, "password"), password, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o600); err != nil {
		return err
	}
	spare.Settings["primary_conninfo"] = fmt.Sprintf("host=%s port=%s user=postgres password=%s application_name=standby", host, port, d.password)
	d.spare = spare
	if d.standby, err = devstack.StartPostgres(ctx, spare); err != nil {
		return fmt.Errorf("starting the standby: %w", err)
	}
	return d.exec(ctx, "alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
}

// own lets a program run as the account of the server, and gives it a directory.
func (d *database) own(dir string, cmd *exec.Cmd) error {
	info, err := os.Stat(filepath.Join(d.options.Dir, "data"))
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}
	return os.Chown(dir, int(stat.Uid), int(stat.Gid))
}

// caughtUp waits until the standby has everything that the primary has written. What a cancelled wait made visible before the standby
// had it would otherwise be lost by a fail-over.
func (d *database) caughtUp(ctx context.Context) error {
	const behind = `select count(*) from pg_stat_replication where application_name = 'standby' and sync_state in ('sync', 'quorum')
		and flush_lsn >= $1::pg_lsn`
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var now string
	if err := conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&now); err != nil {
		return err
	}
	return again(ctx, func() error {
		var n int
		if err := conn.QueryRow(ctx, behind, now).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return errors.New("the standby has not caught up")
		}
		return nil
	})
}

// failOver ends the primary as a crash does, promotes the standby and leads every client there. What comes after it has no
// standby until addStandby.
func (d *database) failOver(ctx context.Context) error {
	d.primary.Kill()
	d.mu.Lock()
	d.primary, d.options, d.standby = d.standby, d.spare, nil
	d.mu.Unlock()
	delete(d.options.Settings, "primary_conninfo")
	if err := d.exec(ctx, "select pg_promote(true, 60)"); err != nil {
		return err
	}
	// Nobody confirms commits yet.
	if err := d.exec(ctx, "alter system set synchronous_standby_names = ''", "select pg_reload_conf()"); err != nil {
		return err
	}
	d.feed.lead(d.address())
	for _, l := range d.clients {
		l.lead(d.address())
	}
	return nil
}

// cut ends the sessions of clients, so that what was set for a role or a database takes effect.
func (d *database) cut(ctx context.Context, like string) error {
	return d.exec(ctx, fmt.Sprintf(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and application_name like '%s'`,
		strings.ReplaceAll(like, "'", "")))
}

// again tries until ok returns nil or the context ends.
func again(ctx context.Context, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
