package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/topics"
)

const partitions = 8

// bench is what the scenarios share: the leat binary, the servers, the report.
type bench struct {
	o      options
	log    io.Writer
	dir    string
	leat   string
	adm    *kadm.Client
	report report
}

func newBench(ctx context.Context, o options, log io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "leat-bench")
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, log: log, dir: dir, leat: filepath.Join(dir, "leat")}
	build := exec.CommandContext(ctx, "go", "build", "-o", b.leat, "./cmd/leat")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building leat (run bench in the top folder of the repository): %w\n%s", err, out)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers()...))
	if err != nil {
		return nil, err
	}
	b.adm = kadm.NewClient(cl)
	versions, err := b.adm.ApiVersions(ctx)
	if err != nil {
		return nil, fmt.Errorf("reaching Kafka: %w", err)
	}
	for _, v := range versions {
		b.report.Kafka = strings.TrimPrefix(v.VersionGuess(), "v")
	}
	existing, err := b.adm.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range existing.Names() { // finance topics have fixed names, and each measurement begins with empty ones
		if strings.HasPrefix(name, "finance.") {
			return nil, fmt.Errorf("this cluster has the topic %s, which a measurement would delete: use an empty cluster", name)
		}
	}
	conn, err := pgx.Connect(ctx, o.postgres)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	return b, conn.QueryRow(ctx, "show server_version").Scan(&b.report.PG)
}

func (b *bench) brokers() []string { return strings.Split(b.o.kafka, ",") }

func (b *bench) close() {
	b.adm.Close()
	_ = os.RemoveAll(b.dir)
}

// rig is a fresh pipeline: its own databases, topics and groups, gone when it is closed.
type rig struct {
	b               *bench
	system          string
	source          *pgxpool.Pool
	reporting       *pgxpool.Pool
	config          string
	groups          [3]string
	closing         []func()
	financeInvoices string
}

func (b *bench) newRig(ctx context.Context) (*rig, error) {
	var id [3]byte
	_, _ = rand.Read(id[:])
	name := "bench" + hex.EncodeToString(id[:])
	r := &rig{b: b, system: name, groups: [3]string{"relay-" + name, "norm-" + name, "pub-" + name}, financeInvoices: topics.Finance("invoice", 1)}
	var urls []string
	for _, kind := range []string{"source", "reporting"} {
		u, pool, err := r.database(ctx, name+"_"+kind)
		if err != nil {
			return nil, err
		}
		urls = append(urls, u)
		if kind == "source" {
			r.source = pool
		} else {
			r.reporting = pool
		}
	}
	if err := r.configure(urls[0], urls[1]); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"migrate", "up", "outbox"}, {"migrate", "up", "reporting"}, {"topics", "apply"}} {
		if err := r.command(ctx, args...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rig) database(ctx context.Context, name string) (string, *pgxpool.Pool, error) {
	conn, err := pgx.Connect(ctx, r.b.o.postgres)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return "", nil, err
	}
	u, err := url.Parse(r.b.o.postgres)
	if err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	pool, err := pgxpool.New(ctx, u.String())
	r.closing = append(r.closing, func() {
		pool.Close()
		if conn, err := pgx.Connect(context.Background(), r.b.o.postgres); err == nil {
			_, _ = conn.Exec(context.Background(), "drop database "+name+" with (force)")
			_ = conn.Close(context.Background())
		}
	})
	return u.String(), pool, err
}

func (r *rig) configure(source, reporting string) error {
	mappings := filepath.Join(r.b.dir, r.system)
	if err := os.Mkdir(mappings, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join("examples", "chinook", "mappings", "invoice.yaml"))
	if err != nil {
		return err
	}
	mapping := strings.ReplaceAll(string(text), "system: chinook", "system: "+r.system)
	if err := os.WriteFile(filepath.Join(mappings, "invoice.yaml"), []byte(mapping), 0o600); err != nil {
		return err
	}
	r.config = filepath.Join(mappings, "leat.yaml.txt")
	return os.WriteFile(r.config, fmt.Appendf(nil, `kafka: {brokers: "%s", partitions: %d}
sources: [{name: %s, url: "%s", entities: [invoice]}]
relay: {group: %s}
normalize: {mappings: "%s", group: %s, instance: one}
publish: {group: %s, instance: one, reporting: {url: "%s"}}
http: {listen: "off"}
log: {level: warn}
`, r.b.o.kafka, partitions, r.system, source, r.groups[0], mappings, r.groups[1], r.groups[2], reporting), 0o600)
}

func (r *rig) command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, r.b.leat, append(args, "--config", r.config)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("leat %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// process is a running stage.
type process struct{ cmd *exec.Cmd }

func (r *rig) start(ctx context.Context, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, r.b.leat, append(args, "--config", r.config)...)
	cmd.Stderr = r.b.log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return &process{cmd}, cmd.Start()
}

// usage ends the process and adds what it took: CPU seconds for 100,000 records, and the largest resident memory.
func (p *process) usage(r *report, scenario string, records int) error {
	resident, err := peakResident(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		return err
	}
	u := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	r.add(scenario, "Leat's processor time for 100,000 records", "s", cpu*100_000/float64(records))
	r.add(scenario, "Leat's largest resident memory", "MB", resident)
	return nil
}

// peakResident is the high-water mark of resident memory, in MB. getrusage would also count what this process held when it
// forked.
func peakResident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("no VmHWM in the process's status: this needs Linux")
}

// close deletes what the rig made.
func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, f := range r.closing {
		f()
	}
	all, err := r.b.adm.ListTopics(ctx)
	if err != nil {
		return
	}
	var own []string
	for _, name := range all.Names() {
		if strings.Contains(name, r.system) || strings.HasPrefix(name, "finance.") {
			own = append(own, name)
		}
	}
	_, _ = r.b.adm.DeleteTopics(ctx, own...)
	_, _ = r.b.adm.DeleteGroups(ctx, r.groups[:]...)
}
