package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// bench is what the scenarios share: the servers, the leat binary, the report.
type bench struct {
	o       options
	log     io.Writer
	dir     string // for whatever a scenario wants to keep until the end
	leat    string // the binary
	servers servers
	adm     *kadm.Client
	report  report
	filled  map[string]string // databases with a backlog, to be copied: see backlog
}

func newBench(ctx context.Context, o options, log io.Writer) (_ *bench, err error) {
	dir, err := os.MkdirTemp("", "leat-bench")
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, log: log, dir: dir, leat: filepath.Join(dir, "leat"), filled: map[string]string{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	build := exec.CommandContext(ctx, "go", "build", "-o", b.leat, "./cmd/leat")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building leat (run bench in the top folder of the repository): %w\n%s", err, out)
	}
	if err := b.servers.start(ctx, o); err != nil {
		return nil, err
	}
	if err := b.reachKafka(ctx); err != nil {
		return nil, err
	}
	b.report.describe(o, &b.servers)
	conn, err := pgx.Connect(ctx, b.servers.postgresURL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return b, conn.QueryRow(ctx, "show server_version").Scan(&b.report.PG)
}

func (b *bench) reachKafka(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.servers.brokers...))
	if err != nil {
		return err
	}
	b.adm = kadm.NewClient(cl)
	versions, err := b.adm.ApiVersions(ctx)
	if err != nil {
		return fmt.Errorf("reaching Kafka: %w", err)
	}
	for _, v := range versions {
		b.report.Kafka = strings.TrimPrefix(v.VersionGuess(), "v")
	}
	existing, err := b.adm.ListTopics(ctx)
	if err != nil {
		return err
	}
	for _, name := range existing.Names() { // finance topics have fixed names, and each measurement begins with empty ones
		if strings.HasPrefix(name, "finance.") {
			return fmt.Errorf("this cluster has the topic %s, which a measurement would delete: use an empty cluster", name)
		}
	}
	return nil
}

func (b *bench) close() {
	if b.adm != nil {
		b.adm.Close()
	}
	for _, database := range b.filled { // on a server that was given they would stay
		b.dropDatabase(database)
	}
	if err := b.servers.close(); err != nil {
		_, _ = fmt.Fprintln(b.log, "ending the servers:", err)
	}
	_ = os.RemoveAll(b.dir)
}

// admin runs a statement in the maintenance database.
func (b *bench) admin(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, b.servers.postgresURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("running %q: %w", sql, err)
	}
	return nil
}

// dropDatabase also works when the measurement has been interrupted.
func (b *bench) dropDatabase(name string) {
	if err := b.admin(context.Background(), "drop database if exists "+name+" with (force)"); err != nil {
		_, _ = fmt.Fprintln(b.log, "dropping a database:", err)
	}
}

func (b *bench) databaseURL(name string) (string, error) {
	u, err := url.Parse(b.servers.postgresURL)
	if err != nil {
		return "", fmt.Errorf("reading the URL of Postgres: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
