package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/internal/devstack"
	"github.com/leat-io/leat/internal/testenv"
)

const (
	system = "shop"
	nodes  = 3 // of Kafka
	// patience bounds every wait. It is long because machines are slow and shared.
	patience = 4 * time.Minute
	// peers is the listener by which the nodes of Kafka copy from each other.
	peers = "peers"
)

func stages() []string { return []string{"relay", "normalize", "publish"} }

// world is a whole pipeline of one run: three nodes of Kafka, a source with a standby, a reporting database, two processes of each
// stage, a link between any two that talk to each other, and the load.
type world struct {
	t         *testing.T
	binary    string
	dir       string
	kafka     *testenv.OwnCluster
	admin     *kadm.Client
	source    *database
	reporting *database
	mounted   error // why the reporting database has no file system of its own that can be filled
	links     map[string]*link
	members   []*member
	clocks    map[string]*clock // by stage
	ledger    *ledger

	mu    sync.Mutex
	notes []string
}

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	scratch, err := devstack.NewScratch()
	require.NoError(t, err)
	w := &world{t: t, binary: binary, dir: scratch.Dir(), links: map[string]*link{}, clocks: map[string]*clock{}, ledger: newLedger()}
	t.Cleanup(func() {
		for _, l := range w.links {
			l.close()
		}
		if err := scratch.Remove(); err != nil {
			t.Logf("removing the data of a run: %v", err)
		}
	})
	w.startKafka()
	w.startDatabases()
	w.configure()
	for _, args := range [][]string{{"migrate", "up", "outbox"}, {"migrate", "up", "reporting"}, {"topics", "apply"}} {
		w.run(args...)
	}
	require.NoError(t, w.source.exec(t.Context(), businessTables))
	require.NoError(t, w.source.addStandby(t.Context()))
	for _, stage := range stages() {
		for _, instance := range []string{"one", "two"} {
			m, err := startMember(binary, stage, instance, w.config(stage, instance), w.clocks[stage])
			require.NoError(t, err)
			w.members = append(w.members, m)
			t.Cleanup(m.close)
		}
	}
	return w
}

func (w *world) startKafka() {
	w.t.Helper()
	w.kafka = testenv.KafkaCluster(w.t, testenv.ClusterOptions{Nodes: nodes, Between: peers, Listeners: func(node int) []testenv.Listener {
		var all []testenv.Listener
		for _, name := range append(stages(), peers) {
			all = append(all, testenv.Listener{Name: name, Protocol: "PLAINTEXT", Front: func(address string) (string, error) {
				l, err := w.link(fmt.Sprintf("%s to broker %d", name, node+1), address)
				if err != nil {
					return "", err
				}
				return l.address(), nil
			}})
		}
		return all
	}})
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Brokers()...))
	require.NoError(w.t, err)
	w.t.Cleanup(client.Close)
	w.admin = kadm.NewClient(client)
}

func (w *world) link(name, upstream string) (*link, error) {
	l, err := newLink(name, upstream)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.links[name] = l
	}
	return l, err
}

func (w *world) startDatabases() {
	w.t.Helper()
	w.source = startDatabase(w.t, system, w.dir)
	small := filepath.Join(w.dir, "small")
	require.NoError(w.t, os.Mkdir(small, 0o711))
	if w.mounted = syscall.Mount("tmpfs", small, "tmpfs", 0, "size=320m,mode=0711"); w.mounted == nil {
		w.t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	}
	w.reporting = startDatabase(w.t, "reporting", small)
	for _, name := range []string{"relay one", "relay two", "writers"} {
		w.front(w.source, name+" to source")
	}
	for _, name := range []string{"publish one", "publish two"} {
		w.front(w.reporting, name+" to reporting")
	}
	feed, err := w.link("standby to source", w.source.address())
	require.NoError(w.t, err)
	w.source.feed = feed
}

func (w *world) front(d *database, name string) {
	w.t.Helper()
	l, err := d.front(name)
	require.NoError(w.t, err)
	w.links[name] = l
}

func (w *world) writerURL() string { return w.source.url(w.links["writers to source"].address()) }

func (w *world) config(stage, instance string) string {
	return filepath.Join(w.dir, stage+"-"+instance+".yaml")
}

// configure writes a configuration for each process, as each has links of its own, and one for commands, which have none.
func (w *world) configure() {
	w.t.Helper()
	mappings := filepath.Join(w.dir, "mappings")
	require.NoError(w.t, os.Mkdir(mappings, 0o755))
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "chinook", "mappings", "invoice.yaml"))
	require.NoError(w.t, err)
	text = bytes.ReplaceAll(text, []byte("system: chinook"), []byte("system: "+system))
	require.NoError(w.t, os.WriteFile(filepath.Join(mappings, "invoice.yaml"), text, 0o600))
	for _, stage := range stages() {
		w.clocks[stage], err = newClock(w.dir, stage)
		require.NoError(w.t, err)
		for _, instance := range []string{"one", "two"} {
			source, reporting := w.source.address(), w.reporting.address()
			if l, ok := w.links[stage+" "+instance+" to source"]; ok {
				source = l.address()
			}
			if l, ok := w.links[stage+" "+instance+" to reporting"]; ok {
				reporting = l.address()
			}
			w.writeConfig(w.config(stage, instance), w.kafka.Listener(stage), w.source.url(source), w.reporting.url(reporting))
		}
	}
	// Migrations are run by an owner, here a superuser.
	source, reporting := w.source.primary.URL(), w.reporting.primary.URL()
	w.writeConfig(w.config("command", "one"), w.kafka.Brokers(), strings.Replace(source, "/postgres?", "/"+system+"?", 1),
		strings.Replace(reporting, "/postgres?", "/reporting?", 1))
}

func (w *world) writeConfig(name string, brokers []string, source, reporting string) {
	w.t.Helper()
	text := fmt.Sprintf(`kafka:
  brokers: [%s]
  partitions: 4
  replication: 3
sources:
  - name: %s
    url: %s
    entities: [invoice]
normalize:
  mappings: mappings
  instance: ${LEAT_INSTANCE:-one}
publish:
  instance: ${LEAT_INSTANCE:-one}
  reporting:
    url: %s
retry:
  attempts: 200 # no fault may look like a record that is broken
  backoff: 100ms
  max: 2s
http:
  listen: "off"
`, strings.Join(brokers, ", "), system, source, reporting)
	require.NoError(w.t, os.WriteFile(name, []byte(text), 0o600))
}

// run runs a command to its end, which must be a good one.
func (w *world) run(args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, w.binary, append(args, "--config", w.config("command", "one"))...).CombinedOutput()
	require.NoError(w.t, err, "leat %s: %s", strings.Join(args, " "), out)
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// of returns the two processes of a stage, the one meant first.
func (w *world) of(stage string, target int) []*member {
	var two []*member
	for _, m := range w.members {
		if m.stage == stage {
			two = append(two, m)
		}
	}
	if target%2 == 1 {
		slices.Reverse(two)
	}
	return two
}

// linkNames are those of all links, in an order that does not change.
func (w *world) linkNames() []string { return slices.Sorted(maps.Keys(w.links)) }

// recovered writes probe events and waits until they are in the reporting tables.
func (w *world) recovered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	want, err := w.ledger.probe(ctx, w.writerURL())
	if err != nil {
		return err
	}
	return w.arrived(ctx, want)
}

// arrived waits until the reporting tables have at least the given versions.
func (w *world) arrived(ctx context.Context, want map[record]int64) error {
	return again(ctx, func() error {
		db, err := w.reporting.connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close(ctx) }()
		for {
			got, err := states(ctx, db, bookedInvoices)
			if err != nil {
				return err
			}
			missing := 0
			for r, v := range want {
				if got[r].version < v {
					missing++
				}
			}
			if missing == 0 {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%d of %d records have not arrived: %w", missing, len(want), ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}

// settled waits until the last change of every record has arrived. No writer may be left.
func (w *world) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return again(ctx, func() error {
		db, err := w.source.connect(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close(ctx) }()
		const writing = `select count(*) from pg_stat_activity where usename = 'app' and application_name = '' and xact_start is not null`
		var n int
		if err := db.QueryRow(ctx, writing).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return errors.New("writers' transactions are left")
		}
		all, err := states(ctx, db, `select tenant, id, version, cents from business_invoice`)
		if err != nil {
			return err
		}
		want := map[record]int64{}
		for r, c := range all {
			want[r] = c.version
		}
		return w.arrived(ctx, want)
	})
}

// whole waits until every partition of Kafka has all its replicas in step: only then may the next node go down.
func (w *world) whole(ctx context.Context) error {
	return again(ctx, func() error {
		m, err := w.admin.Metadata(ctx)
		if err != nil {
			return err
		}
		if len(m.Brokers) < nodes {
			return fmt.Errorf("%d brokers", len(m.Brokers))
		}
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				if p.Err != nil || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return fmt.Errorf("%s/%d: %d of %d replicas are in step (%w)", topic.Topic, p.Partition, len(p.ISR), len(p.Replicas), p.Err)
				}
			}
		}
		return nil
	})
}

// stop ends all processes in good order and collects what they complained about.
func (w *world) stop(a *account) error {
	var g errgroup.Group
	for _, m := range w.members {
		g.Go(func() error { return m.down(syscall.SIGTERM) })
	}
	err := g.Wait()
	for _, m := range w.members {
		for _, c := range m.complaints() {
			a.unexpected("%s", c)
		}
	}
	return err
}
