package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const databasePrefix = "leat_dev_"

// ErrInUse is returned by StartPostgres when another process uses the leat_dev_ databases of the server.
var ErrInUse = errors.New("another leat dev uses this PostgreSQL server")

// PostgresOptions says which PostgreSQL to use. The zero value starts one.
type PostgresOptions struct {
	DatabaseURL string            // a server to use instead of starting one
	Dir         string            // keeps the server's data for later starts; default: a directory removed by Stop
	Port        int               // of 127.0.0.1; 0 takes a free one
	Settings    map[string]string // of postgresql.conf
	Files       map[string][]byte // written into the data directory before the start, for the server alone: pg_hba.conf, certificates
	CacheDir    string            // for downloaded binaries; default: the user's cache directory
	Logger      *slog.Logger      // default: none
}

// Postgres is a PostgreSQL server that this process may make databases in.
type Postgres struct {
	url     string
	origin  string
	prefix  string   // of databases
	server  *server  // nil for a server that was given by its URL
	scratch *Scratch // nil with a directory of the caller's
	guard   *pgx.Conn
}

// StartPostgres uses the server of o.DatabaseURL; without one it starts the newest local PostgreSQL as a child
// process, and without a local one it downloads the server's binaries, once. As root the child runs as user postgres
// or nobody.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	log := cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	p := &Postgres{url: o.DatabaseURL, origin: "the server of the given address", prefix: databasePrefix}
	prepare := p.takeGuard
	if o.DatabaseURL == "" {
		prepare = func(ctx context.Context) error { return p.launch(ctx, o, log) }
	}
	if err := prepare(ctx); err != nil {
		return nil, errors.Join(err, p.Stop(ctx))
	}
	return p, nil
}

func (p *Postgres) launch(ctx context.Context, o PostgresOptions, log *slog.Logger) (err error) {
	as, err := serverAccount()
	if err != nil {
		return fmt.Errorf("%w: set DATABASE_URL to a server's address", err)
	}
	bin, ok := findBinaries(ctx)
	if ok {
		p.origin = fmt.Sprintf("PostgreSQL %s of %s", bin.version, bin.dir)
	} else {
		log.InfoContext(ctx, "no PostgreSQL found, downloading it", "version", downloadVersion)
		bin, err = downloadBinaries(ctx, cmp.Or(o.CacheDir, cacheDir()))
		if err != nil {
			return fmt.Errorf("no PostgreSQL %d or newer is installed, and none could be downloaded: %w; "+
				"install one, or set DATABASE_URL to a server's address", oldestMajor, err)
		}
		p.origin = fmt.Sprintf("PostgreSQL %s, downloaded", bin.version)
	}
	dir, port := o.Dir, o.Port
	if dir == "" {
		if p.scratch, err = NewScratch(); err != nil {
			return err
		}
		dir = p.scratch.Dir()
	}
	if port == 0 {
		if port, err = FreePort(); err != nil {
			return err
		}
	}
	p.server = &server{bin: bin, as: as, dir: dir, port: port, settings: o.Settings, files: o.Files}
	if err := p.server.start(ctx); err != nil {
		return err
	}
	p.url = p.server.url()
	log.InfoContext(ctx, "postgres started", "version", bin.version, "port", port, "pid", p.server.process.PID())
	return nil
}

// cacheDir is the user's; root's is under a home that the account of the server cannot enter.
func cacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil && os.Geteuid() != 0 {
		return filepath.Join(dir, "leat")
	}
	return filepath.Join(scratchBase(), "leat-cache-"+strconv.Itoa(os.Getuid()))
}

// takeGuard holds a lock for as long as this process uses a server that was given: Database drops what an earlier run
// left, which must not be the databases of a run that still goes on. Such locks belong to one database of the server;
// so the names of the databases tell which one, unless it is the usual one.
func (p *Postgres) takeGuard(ctx context.Context) (err error) {
	if p.guard, err = pgx.Connect(ctx, p.url); err != nil {
		return fmt.Errorf("connecting to %s: %w", p.origin, err)
	}
	const tryGuard = `select pg_try_advisory_lock(hashtext('leat dev')), current_database()`
	var taken bool
	var database string
	if err := p.guard.QueryRow(ctx, tryGuard).Scan(&taken, &database); err != nil {
		return fmt.Errorf("locking %s: %w", p.origin, err)
	}
	if !taken {
		return ErrInUse
	}
	if database != "postgres" {
		p.prefix += database + "_"
	}
	return nil
}

// URL is the address of the server's maintenance database, for a superuser where the server was started here.
func (p *Postgres) URL() string { return p.url }

// Origin says in words which server this is.
func (p *Postgres) Origin() string { return p.origin }

// Database makes the empty database leat_dev_<name> and returns its address. On a server given by its address it is
// leat_dev_<database of the address>_<name>, unless that one is postgres; what an earlier run left there is dropped first.
func (p *Postgres) Database(ctx context.Context, name string) (string, error) {
	full := p.prefix + name
	quoted := pgx.Identifier{full}.Sanitize()
	// The guard's connection is not used: a failed statement must not cost the lock.
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return "", fmt.Errorf("connecting to make database %s: %w", full, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{"drop database if exists " + quoted + " with (force)", "create database " + quoted} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("making database %s: %w", full, err)
		}
	}
	return withDatabase(p.url, full)
}

// withDatabase returns the address of another database of the same server, in the same form (URL or keywords).
func withDatabase(address, name string) (string, error) {
	if !strings.Contains(address, "://") {
		return address + " dbname=" + name, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("reading the address of PostgreSQL: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// PID is the server's process id, 0 for a server that was not started here.
func (p *Postgres) PID() int {
	if p.server == nil {
		return 0
	}
	return p.server.process.PID()
}

// Kill ends a server that was started here as a crash would, keeping its directory for another start.
func (p *Postgres) Kill() {
	if p.server != nil {
		p.server.process.Kill()
	}
}

// Signal sends sig to a server that was started here.
func (p *Postgres) Signal(sig syscall.Signal) error {
	if p.server == nil {
		return nil
	}
	return p.server.process.Signal(sig)
}

// Stop ends the server if it was started here: connections are cut, data is written, and its own directory is removed.
// It takes a few seconds at most. The databases on a server that was given by its address stay, to be looked at.
func (p *Postgres) Stop(ctx context.Context) error {
	var errs []error
	if p.guard != nil {
		_ = p.guard.Close(ctx) // the server may be gone already
	}
	if p.server != nil && p.server.process != nil {
		errs = append(errs, p.server.process.Stop(syscall.SIGINT, stopTimeout))
	}
	if p.scratch != nil {
		errs = append(errs, p.scratch.Remove())
	}
	return errors.Join(errs...)
}

// Program is the path of a program of the installation that the server was started from, as pg_basebackup.
func (p *Postgres) Program(name string) string {
	if p.server == nil {
		return name
	}
	dir := p.server.bin.dir
	if real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil { // the directory may hold but a few links
		dir = filepath.Dir(real)
	}
	return filepath.Join(dir, name)
}
