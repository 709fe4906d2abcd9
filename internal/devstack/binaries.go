package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	embedded "github.com/fergusstrange/embedded-postgres"
)

const (
	oldestMajor     = 14
	downloadVersion = "17.11.0"
)

// binaries is a PostgreSQL installation: the directory of initdb and postgres.
type binaries struct {
	dir     string
	version string // as in 17.11
	major   int
}

// findBinaries returns the newest local installation that is new enough; ok is false when there is none.
func findBinaries(ctx context.Context) (found binaries, ok bool) {
	for _, dir := range candidateDirs() {
		b, err := inspect(ctx, dir)
		if err == nil && b.major >= oldestMajor && b.major > found.major {
			found, ok = b, true
		}
	}
	return found, ok
}

func candidateDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // Red Hat with PGDG's packages
		"/usr/libexec/postgresql*",                           // Alpine
		"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew
		"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	} {
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	return dirs
}

func inspect(ctx context.Context, dir string) (binaries, error) {
	if dir == "" {
		return binaries{}, errors.New("no directory")
	}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return binaries{}, err
	}
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
	m := regexp.MustCompile(`\(PostgreSQL\) ((\d+)[\w.]*)`).FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("reading the version of PostgreSQL from %q", out)
	}
	major, err := strconv.Atoi(string(m[2]))
	if err != nil {
		return binaries{}, fmt.Errorf("reading the version of PostgreSQL from %q: %w", out, err)
	}
	return binaries{dir: dir, version: string(m[1]), major: major}, nil
}

// downloadBinaries returns the binaries of embedded-postgres, fetched on first use. Only they are used, not its way of
// running them: it leaves a server behind when this process is killed, and cannot run as root.
func downloadBinaries(ctx context.Context, cache string) (binaries, error) {
	home := filepath.Join(cache, "postgresql-"+downloadVersion)
	bin := filepath.Join(home, "bin")
	if err := makeOwn(cache); err != nil {
		return binaries{}, fmt.Errorf("making the cache of PostgreSQL: %w", err)
	}
	unlock, err := LockFile(home + lockSuffix)
	if err != nil {
		return binaries{}, err
	}
	defer unlock()
	if b, err := inspect(ctx, bin); err == nil {
		return b, nil
	}
	// Unpacked beside its place, so that an interrupted download is never taken for a whole one.
	parts := home + ".part"
	defer func() { _ = os.RemoveAll(parts) }()
	if err := os.RemoveAll(parts); err != nil {
		return binaries{}, fmt.Errorf("removing an unfinished download: %w", err)
	}
	unpackErr := unpack(parts, cache)
	if _, err := inspect(ctx, filepath.Join(parts, "dist", "bin")); err != nil {
		return binaries{}, errors.Join(unpackErr, err)
	}
	if err := errors.Join(os.RemoveAll(home), os.Rename(filepath.Join(parts, "dist"), home)); err != nil {
		return binaries{}, fmt.Errorf("keeping PostgreSQL: %w", err)
	}
	return inspect(ctx, bin)
}

// unpack fetches and unpacks the binaries to parts/dist by starting a server once. Its error does not mean that the
// binaries are missing: as root the start fails, but after they have been unpacked.
func unpack(parts, cache string) error {
	port, err := FreePort()
	if err != nil {
		return err
	}
	var output bytes.Buffer
	server := embedded.NewDatabase(embedded.DefaultConfig().
		Version(downloadVersion).
		Port(uint32(port)). // a port fits
		CachePath(cache).
		BinariesPath(filepath.Join(parts, "dist")).
		RuntimePath(filepath.Join(parts, "run")).
		DataPath(filepath.Join(parts, "data")).
		Logger(&output))
	if err := server.Start(); err != nil {
		return fmt.Errorf("fetching PostgreSQL %s: %w %s", downloadVersion, err, strings.TrimSpace(output.String()))
	}
	return server.Stop()
}
