package devstack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	pollInterval = 20 * time.Millisecond
)

// server is a PostgreSQL server as a child process, with a superuser of its own password, reachable over TCP on
// 127.0.0.1 only (a path of a Unix socket can be too long, and is not needed).
type server struct {
	bin      binaries
	as       *account
	dir      string // data, password and log
	port     int
	settings map[string]string
	files    map[string][]byte
	password string
	process  *Process
}

func (s *server) start(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for name, content := range s.files {
		path := filepath.Join(s.data(), name)
		if err := errors.Join(os.WriteFile(path, content, 0o600), s.as.chown(path)); err != nil {
			return fmt.Errorf("writing %s of PostgreSQL: %w", name, err)
		}
	}
	logFile, err := os.OpenFile(s.logName(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of PostgreSQL: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the child has its own descriptor
	args := []string{
		"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", "",
		"-c", "listen_addresses=127.0.0.1",
		// The data of one run need not survive a power cut. It does survive a kill.
		"-c", "fsync=off",
	}
	for name, value := range s.settings {
		args = append(args, "-c", name+"="+value)
	}
	// The server ends with Stop, not with the context that was given for starting it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(s.bin.dir, "postgres"), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env(), logFile, logFile
	s.process, err = startAs(cmd, s.as, syscall.SIGINT) // SIGINT is PostgreSQL's fast shutdown
	if err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		return errors.Join(err, s.process.Stop(syscall.SIGQUIT, stopTimeout))
	}
	return nil
}

// prepare makes the data directory on the first start, and reads the password on later ones.
func (s *server) prepare(ctx context.Context) error {
	passwordFile := filepath.Join(s.dir, "password")
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		b, err := os.ReadFile(passwordFile) // our own file
		if err != nil {
			return fmt.Errorf("reading the password of PostgreSQL: %w", err)
		}
		s.password = string(b)
		return nil
	}
	s.password = rand.Text()
	err := errors.Join(
		os.MkdirAll(s.data(), 0o700),
		s.as.chown(s.data()),
		os.WriteFile(passwordFile, []byte(s.password), 0o600),
		s.as.chown(passwordFile),
	)
	if err != nil {
		return fmt.Errorf("preparing a directory for PostgreSQL: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin.dir, "initdb"), "-D", s.data(), "-U", "postgres",
		"-A", "scram-sha-256", "--pwfile="+passwordFile, "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
	cmd.Dir, cmd.Env = s.dir, s.env()
	cmd.SysProcAttr = attributes(s.as, 0)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a PostgreSQL database with %s: %w: %s", cmd.Path, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.process.Done():
			return fmt.Errorf("starting PostgreSQL %s: it ended: %w: %s", s.bin.version, s.process.err, s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("starting PostgreSQL %s: %w: %w: %s", s.bin.version, ctx.Err(), err, s.logTail())
		case <-time.After(pollInterval):
		}
	}
}

func (s *server) data() string    { return filepath.Join(s.dir, "data") }
func (s *server) logName() string { return filepath.Join(s.dir, "postgres.log") }

// env keeps libpq's variables of the caller (PGDATA, PGPORT …) away from the server.
func (s *server) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

func (s *server) url() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *server) logTail() string {
	const limit = 2000
	b, err := os.ReadFile(s.logName())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-limit):]))
}
