package integration_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// TestObservability_EveryPanelHasDataOfALiveRun runs every process, a real Prometheus with the shipped rules that scrapes them, and asks
// what each panel of each dashboard asks. What is rare is provoked: a dead letter that retention will delete.
func TestObservability_EveryPanelHasDataOfALiveRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{ownKafka: true})
	control := r.addControl()
	r.configure("verify: {every: 1m, window: 1m, lag: 1s}\n")
	r.configure("notify:\n  receivers:\n    - {name: nobody, kind: webhook, url: \"http://127.0.0.1:1\"}\n") // who never answers
	p := startPrometheus(t, r, []string{"relay", "run"}, []string{"normalize", "run"}, []string{"publish", "run"}, []string{"index", "run"},
		[]string{"notify", "run"}, []string{"verify", "run"})

	l := newLedger()
	require.NoError(t, outbox.Write(t.Context(), r.source, outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: r.tenant, Entity: "invoice", Key: "broken", Operation: topics.Upsert, Payload: []byte(`{}`),
	}))
	expire, dlq := "86400000", topics.DLQ(topics.Source(r.system, "invoice"), r.normalizeGroup)
	altered, err := r.adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &expire}}, dlq)
	require.NoError(t, err)
	require.NoError(t, altered[0].Err)

	files, err := filepath.Glob("../deploy/grafana/dashboards/*.json")
	require.NoError(t, err)
	require.Len(t, files, 5)
	empty := map[string]func() bool{}
	for _, file := range files {
		for _, panel := range panelsOf(t, file) {
			for _, target := range panel.Targets {
				what := fmt.Sprintf("%s, %s: %s%s", filepath.Base(file), panel.Title, target.Expr, target.RawSQL)
				empty[what] = func() bool { return p.has(target.Expr) }
				if target.RawSQL != "" {
					empty[what] = func() bool { return rows(t, control, target.RawSQL) > 0 }
				}
			}
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("panels without data:\n%s", strings.Join(slices.Sorted(maps.Keys(empty)), "\n"))
		}
	}()
	filled := func(what string) bool {
		l.write(t, r, 2, 20, 10)
		maps.DeleteFunc(empty, func(_ string, filled func() bool) bool { return filled() })
		return !slices.ContainsFunc(slices.Collect(maps.Keys(empty)), func(k string) bool { return strings.Contains(k, what) })
	}
	eventually(t, "a verification, which reads what all tests have written", func() bool { return filled("leat_verify") })
	eventually(t, "data in every panel", func() bool { return filled("") })
	p.checkRules()
	p.checkDocs()
}

type panel struct {
	Title   string
	Targets []struct{ Expr, RawSQL string }
}

// panelsOf reads the panels of a dashboard, and its variables as panels, with every variable filled in.
func panelsOf(t *testing.T, file string) (panels []panel) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var d struct {
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &d))
	fill := strings.NewReplacer("$__rate_interval", "15s", "$stage", ".*", "$source", ".*", "$topic", ".*",
		"$__timeFilter(hour)", "hour > now() - interval '1 day'", "${tenant:sqlstring}", "'acme'")
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		one := panel{Title: "variable " + v.Name, Targets: make([]struct{ Expr, RawSQL string }, 1)}
		switch m := values.FindStringSubmatch(v.Query); {
		case v.Type == "datasource":
			continue
		case m != nil:
			one.Targets[0].Expr = fmt.Sprintf(`count by (%s) (%s) > 0`, m[2], m[1])
		default:
			one.Targets[0].RawSQL = v.Query
		}
		d.Panels = append(d.Panels, one)
	}
	for _, p := range d.Panels {
		for i := range p.Targets {
			p.Targets[i].Expr, p.Targets[i].RawSQL = fill.Replace(p.Targets[i].Expr), fill.Replace(p.Targets[i].RawSQL)
			require.NotContains(t, p.Targets[i].Expr+p.Targets[i].RawSQL, "$", "%s: %s", file, p.Title)
		}
		panels = append(panels, p)
	}
	return panels
}

func rows(t *testing.T, db *pgxpool.Pool, sql string) int {
	t.Helper()
	tag, err := db.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
	return int(tag.RowsAffected())
}

// configure adds a section to the configuration.
func (r *rig) configure(section string) {
	r.t.Helper()
	f, err := os.OpenFile(r.config, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(r.t, err)
	_, err = f.WriteString(section)
	require.NoError(r.t, err)
	require.NoError(r.t, f.Close())
}

// prometheus is a real one that scrapes the processes of a rig.
type prometheus struct {
	t    *testing.T
	base string
}

// startPrometheus starts a process for each command, and a Prometheus that scrapes them. Without CI=true the test is skipped if there is no
// Prometheus.
func startPrometheus(t *testing.T, r *rig, commands ...[]string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		ci, _ := strconv.ParseBool(os.Getenv("CI"))
		require.False(t, ci, "prometheus is not installed: apt-get install prometheus")
		t.Skip("prometheus is not installed: apt-get install prometheus")
	}
	var targets []string
	for _, c := range commands {
		address := freeAddress(t)
		targets = append(targets, strconv.Quote(address))
		r.start("one", append(c, "--listen", address)...)
	}
	rules, err := filepath.Abs("../deploy/prometheus/rules.yml")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(fmt.Sprintf(`
global: {scrape_interval: 2s, evaluation_interval: 5s}
rule_files: [%s]
scrape_configs:
  - job_name: leat
    static_configs: [{targets: [%s]}]
`, rules, strings.Join(targets, ", "))), 0o600))
	p := &prometheus{t: t, base: "http://" + freeAddress(t)}
	cmd := exec.Command(binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+strings.TrimPrefix(p.base, "http://"))
	var log testenv.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of prometheus:\n%s", log.Tail(2000))
		}
	})
	eventually(t, "prometheus", func() bool {
		var ready any
		return p.get("/api/v1/status/runtimeinfo", &ready) == nil
	})
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (p *prometheus) get(path string, data any) error {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// has reports whether a query has a result.
func (p *prometheus) has(query string) bool {
	p.t.Helper()
	var data struct{ Result []any }
	require.NoError(p.t, p.get("/api/v1/query?query="+url.QueryEscape(query), &data), query)
	return len(data.Result) > 0
}

// checkRules demands that the shipped rules can all be evaluated over what real processes serve.
func (p *prometheus) checkRules() {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	require.NoError(p.t, p.get("/api/v1/rules", &data))
	require.NotEmpty(p.t, data.Groups)
	for _, g := range data.Groups {
		for _, rule := range g.Rules {
			require.Equal(p.t, "ok", rule.Health, "%s: %s", rule.Name, rule.LastError)
		}
	}
}

// checkDocs compares every metric that the processes serve with docs/metrics.md: its kind and its labels.
func (p *prometheus) checkDocs() {
	p.t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	require.NoError(p.t, err)
	var metadata map[string][]struct{ Type string }
	require.NoError(p.t, p.get("/api/v1/metadata?limit=10000", &metadata))
	var series []map[string]string
	require.NoError(p.t, p.get("/api/v1/series?match[]="+url.QueryEscape(`{job="leat", __name__=~"leat_.*"}`), &series))
	labels := map[string]map[string]bool{}
	for _, s := range series {
		name := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(s["__name__"], "")
		if labels[name] == nil {
			labels[name] = map[string]bool{}
		}
		for label := range s {
			labels[name][label] = true
		}
	}
	require.Greater(p.t, len(labels), 40)
	for name, has := range labels {
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\| (\\w+) \\|([^|]*)\\|").FindSubmatch(text)
		require.NotNil(p.t, row, "docs/metrics.md does not tell of %s", name)
		require.Equal(p.t, metadata[name][0].Type, string(row[1]), name)
		want := regexp.MustCompile(`\w+`).FindAllString(string(row[2]), -1)
		for label := range has {
			if !slices.Contains([]string{"__name__", "instance", "job", "le"}, label) {
				require.Contains(p.t, want, label, "%s has a label that docs/metrics.md does not tell of", name)
			}
		}
		for _, label := range want {
			require.True(p.t, has[label], "docs/metrics.md gives %s the label %s, which it does not have", name, label)
		}
	}
}
