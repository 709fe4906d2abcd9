package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/topics"
)

const defaultPartitions = 8

// rigOptions say what is particular about a rig.
type rigOptions struct {
	partitions int    // of each topic; default 8
	more       bool   // a second entity, payment, whose rows go to a topic of their own
	source     string // the database that the source's is a copy of; default: an empty one with Leat's outbox
}

// rig is a fresh pipeline: its own databases, topics and groups, gone when it is closed.
type rig struct {
	b                       *bench
	o                       rigOptions
	system                  string // also in the name of each of its topics
	source, reporting       *pgxpool.Pool
	sourceURL, reportingURL string
	config                  string
	groups                  [3]string
	sourceInvoices          string // topics
	financeInvoices         string
	databases               []string
	processes               []*process
}

func (b *bench) newRig(ctx context.Context) (*rig, error) { return b.newRigOf(ctx, rigOptions{}) }

func (b *bench) newRigOf(ctx context.Context, o rigOptions) (_ *rig, err error) {
	var id [3]byte
	_, _ = rand.Read(id[:])
	name := "bench" + hex.EncodeToString(id[:])
	o.partitions = cmp.Or(o.partitions, defaultPartitions)
	r := &rig{
		b: b, o: o, system: name, groups: [3]string{"relay-" + name, "norm-" + name, "pub-" + name},
		sourceInvoices: topics.Source(name, "invoice"), financeInvoices: topics.Finance("invoice", 1),
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.sourceURL, r.source, err = r.database(ctx, name+"_source", o.source); err != nil {
		return nil, err
	}
	if r.reportingURL, r.reporting, err = r.database(ctx, name+"_reporting", ""); err != nil {
		return nil, err
	}
	if err := r.configure(); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"migrate", "up", "outbox"}, {"migrate", "up", "reporting"}} {
		if err := r.command(ctx, args...); err != nil {
			return nil, err
		}
	}
	return r, r.applyTopics(ctx)
}

// applyTopics tries again: a broker that the last measurement has left busy, or that has just started on a slow machine, may take longer
// to show its new topics than apply waits.
func (r *rig) applyTopics(ctx context.Context) (err error) {
	const tries = 4
	for range tries {
		if err = r.command(ctx, "topics", "apply"); err == nil {
			return nil
		}
	}
	return err
}

// database makes a database, as a copy of another one unless that is "".
func (r *rig) database(ctx context.Context, name, like string) (string, *pgxpool.Pool, error) {
	create := "create database " + name
	if like != "" {
		create += " template " + like + " strategy file_copy" // not through the log: a backlog is hundreds of megabytes
	}
	if err := r.b.admin(ctx, create); err != nil {
		return "", nil, err
	}
	r.databases = append(r.databases, name)
	u, err := r.b.databaseURL(name)
	if err != nil {
		return "", nil, err
	}
	pool, err := pgxpool.New(ctx, u)
	return u, pool, err
}

func (r *rig) configure() error {
	dir := filepath.Join(r.b.dir, r.system)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join("examples", "chinook", "mappings", "invoice.yaml"))
	if err != nil {
		return err
	}
	mapping := strings.ReplaceAll(string(text), "system: chinook", "system: "+r.system)
	if err := os.WriteFile(filepath.Join(dir, "invoice.yaml"), []byte(mapping), 0o600); err != nil {
		return err
	}
	entities := "invoice"
	if r.o.more {
		entities += ", payment"
	}
	r.config = filepath.Join(dir, "leat.yaml.txt")
	return os.WriteFile(r.config, fmt.Appendf(nil, `kafka: {brokers: "%s", partitions: %d}
sources: [{name: %s, url: "%s", entities: [%s]}]
relay: {group: %s, instance: "${LEAT_INSTANCE:-one}", static_member: true}
normalize: {mappings: "%s", group: %s, instance: one}
publish: {group: %s, instance: one, reporting: {url: "%s"}}
http: {listen: "off"}
log: {level: warn}
`, strings.Join(r.b.servers.brokers, ","), r.o.partitions, r.system, r.sourceURL, entities, r.groups[0], dir, r.groups[1], r.groups[2], r.reportingURL), 0o600)
}

// command runs leat until it ends.
func (r *rig) command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, r.b.leat, append(args, "--config", r.config)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("leat %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// start runs a stage of leat until it is stopped, at the latest when the rig is closed.
func (r *rig) start(args ...string) (*process, error) { return r.startAs("one", args...) }

// startAs starts a member of a group by another name.
func (r *rig) startAs(instance string, args ...string) (*process, error) {
	cmd := exec.CommandContext(context.Background(), r.b.leat, append(args, "--config", r.config)...)
	cmd.Env = append(os.Environ(), "LEAT_INSTANCE="+instance)
	p, err := startProcess(cmd, r.b.log)
	if err == nil {
		r.processes = append(r.processes, p)
	}
	return p, err
}

// failed is an error once a process of the rig has ended.
func (r *rig) failed() error {
	for _, p := range r.processes {
		if err := p.failed(); err != nil {
			return err
		}
	}
	return nil
}

// topic makes a topic that is deleted with the rig.
func (r *rig) topic(ctx context.Context, name string, partitions int) (string, error) {
	full := r.system + "." + name
	made, err := r.b.adm.CreateTopic(ctx, int32(partitions), 1, nil, full) //nolint:gosec // a few
	return full, errors.Join(err, made.Err)
}

// close ends the processes and deletes what the rig made.
func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, p := range r.processes {
		_ = p.stop() // a scenario that wants to know how it ends stops it itself
	}
	for _, pool := range []*pgxpool.Pool{r.source, r.reporting} {
		if pool != nil {
			pool.Close()
		}
	}
	for _, name := range r.databases {
		r.b.dropDatabase(name)
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
