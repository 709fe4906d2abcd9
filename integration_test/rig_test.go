// Package integration_test runs whole pipelines: the leat binary as separate processes, real Kafka and Postgres, faults, and an
// exact account of every event afterwards.
package integration_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
)

// patience bounds every wait. It is long because machines are slow and shared; no test takes that long by itself.
const patience = 2 * time.Minute

// rig is one pipeline with names of its own: a source database, a reporting database, a configuration file, and the processes started
// with it.
type rig struct {
	t                       *testing.T
	brokers                 []string
	tenant, system          string
	sourceURL, reportingURL string
	source, reporting       *pgxpool.Pool
	config                  string
	adm                     *kadm.Client
	normalizeGroup          string
	publishGroup            string
}

type rigOptions struct {
	brokers      []string
	ownKafka     bool   // a broker that no other test uses: finance topics and the relay's dead letters are shared with them else
	reportingURL string // default: a fresh database
	static       bool   // members of groups are static ones
}

// newRig migrates fresh databases, writes the configuration and creates the topics, all by the leat command as a user would.
func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, brokers: o.brokers, tenant: "acme", system: testenv.Name("shop"), sourceURL: testenv.Postgres(t)}
	switch {
	case o.ownKafka:
		r.brokers = testenv.KafkaServer(t).Brokers()
	case r.brokers == nil:
		r.brokers = testenv.Kafka(t)
	}
	if r.reportingURL = o.reportingURL; r.reportingURL == "" {
		r.reportingURL = testenv.Postgres(t)
	}
	r.normalizeGroup, r.publishGroup = testenv.Name("normalize"), testenv.Name("reporting")
	r.writeConfig(o)
	r.source, r.reporting = pool(t, r.sourceURL), pool(t, r.reportingURL)
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	r.adm = kadm.NewClient(client)
	r.run("migrate", "up", "outbox")
	r.run("migrate", "up", "reporting")
	r.run("topics", "apply")
	return r
}

func pool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	p, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func (r *rig) writeConfig(o rigOptions) {
	r.t.Helper()
	dir := r.t.TempDir()
	mappings := filepath.Join(dir, "mappings")
	require.NoError(r.t, os.Mkdir(mappings, 0o755))
	for _, entity := range []string{"customer", "invoice", "payment"} {
		text, err := os.ReadFile(filepath.Join("..", "examples", "chinook", "mappings", entity+".yaml"))
		require.NoError(r.t, err)
		text = bytes.ReplaceAll(text, []byte("system: chinook"), []byte("system: "+r.system))
		require.NoError(r.t, os.WriteFile(filepath.Join(mappings, entity+".yaml"), text, 0o600))
	}
	r.config = filepath.Join(dir, "leat.yaml")
	text := fmt.Sprintf(`kafka:
  brokers: [%s]
  partitions: 4 # as every test: they share the finance topics
sources:
  - name: %s
    url: %s
    entities: [customer, invoice, payment]
relay:
  group: relay-%s
normalize:
  mappings: %s
  group: %s
  instance: ${LEAT_INSTANCE:-one}
  static_member: %t
publish:
  group: %s
  instance: ${LEAT_INSTANCE:-one}
  static_member: %[7]t
  reporting:
    url: %[9]s
retry:
  attempts: 5
  backoff: 100ms
  max: 1s
http:
  listen: "off"
`, strings.Join(r.brokers, ", "), r.system, r.sourceURL, r.system, mappings, r.normalizeGroup, o.static, r.publishGroup, r.reportingURL)
	require.NoError(r.t, os.WriteFile(r.config, []byte(text), 0o600))
}

// extendConfig adds sections to the configuration.
func (r *rig) extendConfig(sections string) {
	r.t.Helper()
	text, err := os.ReadFile(r.config)
	require.NoError(r.t, err)
	require.NoError(r.t, os.WriteFile(r.config, append(text, sections...), 0o600))
}

// addControl gives the rig a control database.
func (r *rig) addControl() *pgxpool.Pool {
	r.t.Helper()
	url := testenv.Postgres(r.t)
	r.extendConfig("control:\n  url: " + url + "\n")
	r.run("migrate", "up", "control")
	return pool(r.t, url)
}

// run runs a command to its end, which must be a good one, and returns its output.
func (r *rig) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	require.NoError(r.t, err, "leat %s: %s", strings.Join(args, " "), out)
	return out
}

func (r *rig) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(r.t), append(args, "--config", r.config)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// process is a long-lived leat process.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *testenv.Log
	done chan struct{}
}

// start starts a long-lived command. instance names it within its consumer group.
func (r *rig) start(instance string, args ...string) *process {
	r.t.Helper()
	p := &process{t: r.t, log: &testenv.Log{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary(r.t), append(args, "--config", r.config)...)
	p.cmd.Env = append(os.Environ(), "LEAT_INSTANCE="+instance)
	p.launch()
	return p
}

// launch starts the command. It ends with the test, and shows its log if that has failed.
func (p *process) launch() {
	p.t.Helper()
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	p.t.Cleanup(func() {
		p.kill()
		if p.t.Failed() {
			p.t.Logf("log of %v:\n%s", p.cmd.Args, p.log.Tail(6000))
		}
	})
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end and demands that it ends well.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the process did not end after SIGTERM")
	}
	require.Equal(p.t, 0, p.cmd.ProcessState.ExitCode(), "exit code after SIGTERM; log:\n%s", p.log.Tail(3000))
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// binary builds leat once for all tests of the package.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	require.NoError(t, err)
	return path
}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leat-integration")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "leat")
	cmd := exec.Command("go", "build", "-race", "-o", path, "./cmd/leat")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building leat: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	// These tests wait for other processes more than they work: more of them at once than there are processors.
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	code := m.Run()
	if path, err := built(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		require.False(t, time.Now().After(deadline), "waited %s in vain for: %s", patience, what)
		<-tick.C
	}
}
