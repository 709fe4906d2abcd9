package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

const runbooks = "https://github.com/leat-io/leat/blob/main/docs/runbooks/"

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	text, err := os.ReadFile("prometheus/rules.yml")
	require.NoError(t, err)
	var f ruleFile
	require.NoError(t, yaml.Unmarshal(text, &f))
	for _, g := range f.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

func alerts(t *testing.T) (names []string) {
	t.Helper()
	for _, r := range readRules(t) {
		if r.Alert != "" && !slices.Contains(names, r.Alert) {
			names = append(names, r.Alert)
		}
	}
	return names
}

// tool runs a program of the Debian packages prometheus and prometheus-alertmanager. Where it is missing the test is skipped, but never in CI.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		ci, _ := strconv.ParseBool(os.Getenv("CI"))
		require.False(t, ci, "%s is not installed: apt-get install prometheus prometheus-alertmanager", name)
		t.Skipf("%s is not installed: apt-get install prometheus prometheus-alertmanager", name)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoError(t, err, "%s %s:\n%s", name, strings.Join(args, " "), out)
	return string(out)
}

// TestRules_FireWhenTheyShould runs deploy/prometheus/rules_test.yml.
func TestRules_FireWhenTheyShould(t *testing.T) {
	t.Parallel()
	require.Contains(t, tool(t, "promtool", "check", "rules", "prometheus/rules.yml"), "SUCCESS")
	require.Contains(t, tool(t, "promtool", "test", "rules", "prometheus/rules_test.yml"), "SUCCESS")
}

// TestRules_EachAlertFiresInATest: and each test also looks at a moment at which nothing must fire.
func TestRules_EachAlertFiresInATest(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("prometheus/rules_test.yml")
	require.NoError(t, err)
	for _, name := range alerts(t) {
		require.Contains(t, string(text), `alertname="`+name+`"`, "no test makes %s fire", name)
	}
	for _, group := range strings.Split(string(text), "\n  - name: ")[1:] {
		title, _, _ := strings.Cut(group, "\n")
		if !strings.Contains(title, "two stages") { // of a cluster that has never been complete
			require.Contains(t, group, "exp_samples: []", "the test %s never looks at a moment of peace", title)
		}
	}
}

func TestRules_EachAlertHasARunbookAndEachRunbookAnAlert(t *testing.T) {
	t.Parallel()
	names := alerts(t)
	require.NotEmpty(t, names)
	index, err := os.ReadFile("../docs/runbooks/README.md")
	require.NoError(t, err)
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		require.Equal(t, runbooks+r.Alert+".md", r.Annotations["runbook_url"])
		require.Contains(t, []string{"page", "ticket", "info"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		page, err := os.ReadFile("../docs/runbooks/" + r.Alert + ".md")
		require.NoError(t, err)
		for _, part := range []string{"# " + r.Alert, "**Who is hurt.**", "## Look", "## Act", "## Over"} {
			require.Contains(t, string(page), part, r.Alert)
		}
		require.Contains(t, string(index), "["+r.Alert+"]("+r.Alert+".md)")
	}
	pages, err := filepath.Glob("../docs/runbooks/*.md")
	require.NoError(t, err)
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); name != "README" {
			require.Contains(t, names, name, "%s is no alert", name)
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`\]\(([\w./-]+)(?:#[\w-]*)?\)`).FindAllSubmatch(text, -1) {
			_, err := os.Stat(filepath.Join("../docs/runbooks", string(m[1])))
			require.NoError(t, err, "%s links to %s", page, m[1])
		}
	}
}

// documented are the metrics of docs/metrics.md with their labels.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\|([^|]*)\\|([^|]*)\\|[^|]+\\|$").FindAllStringSubmatch(string(text), -1)
	metrics := map[string][]string{}
	for _, r := range rows {
		require.NotContains(t, metrics, r[1], "docs/metrics.md has %s twice", r[1])
		require.NotEmpty(t, strings.TrimSpace(r[4]), "docs/metrics.md gives %s no unit", r[1])
		metrics[r[1]] = regexp.MustCompile(`[a-z_]+`).FindAllString(r[3], -1)
	}
	require.NotEmpty(t, metrics)
	return metrics
}

var (
	metricName = regexp.MustCompile(`\bleat_[a-z_]+`)
	alertName  = regexp.MustCompile(`\bLeat[A-Z]\w+`)
)

// TestMetrics_AreAllDocumented compares docs/metrics.md with the names in the code that makes metrics.
func TestMetrics_AreAllDocumented(t *testing.T) {
	t.Parallel()
	docs := documented(t)
	literal := regexp.MustCompile(`"(leat_[a-z_]+)"`)
	known := map[string]bool{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), `"github.com/prometheus/client_golang/prometheus"`) {
			return err
		}
		for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "leat_kafka" { // the prefix of the client's own
				continue
			}
			known[m[1]] = true
		}
		return nil
	}))
	for name := range known {
		require.Contains(t, docs, name, "docs/metrics.md does not tell of %s", name)
	}
	for name := range docs {
		require.True(t, known[name] || strings.HasPrefix(name, "leat_kafka_"), "docs/metrics.md tells of %s, which nothing makes", name)
	}
}

// TestRules_AskForMetricsThatExist: a rule over a name that nothing makes never fires, and nobody notices.
func TestRules_AskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	docs := documented(t)
	for _, r := range readRules(t) {
		for _, name := range metricName.FindAllString(r.Expr, -1) {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
			_, plain := docs[name]
			_, histogram := docs[base]
			require.True(t, plain || histogram, "%s%s asks for %s, which docs/metrics.md does not know", r.Alert, r.Record, name)
		}
	}
}
