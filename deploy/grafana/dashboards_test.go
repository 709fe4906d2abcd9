package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDashboards_TheFilesAreWhatIsWrittenDown(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, d := range Dashboards() {
		want, err := d.JSON()
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join("dashboards", d.Name+".json"))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "run: go run ./deploy/grafana")
		names[d.Name+".json"] = true
	}
	files, err := os.ReadDir("dashboards")
	require.NoError(t, err)
	for _, f := range files {
		require.True(t, names[f.Name()], "%s is no dashboard", f.Name())
	}
}

// TestDashboards_AskForMetricsThatExist: integration_test asks the data of a live run; this finds a typing error in a moment.
func TestDashboards_AskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	for _, d := range Dashboards() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				require.NotEmpty(t, p.Queries, "%s: %s", d.Name, p.Title)
				for _, q := range p.Queries {
					for _, name := range regexp.MustCompile(`\bleat_[a-z_]+`).FindAllString(q.Expr, -1) {
						if !p.SQL {
							name = regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
							require.Contains(t, string(docs), "`"+name+"`", "%s: %s", d.Name, p.Title)
						}
					}
				}
			}
		}
	}
}
