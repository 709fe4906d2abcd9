package normalize_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors/normalize"
)

// TestDocs_ExamplesWork loads and runs the examples of docs/mapping.md that are marked for it.
func TestDocs_ExamplesWork(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/mapping.md")
	require.NoError(t, err)
	var files []string
	var samples []normalize.Sample
	for _, m := range regexp.MustCompile("(?s)<!-- test: (load|sample) -->\n```\\w+\n(.*?)```").FindAllSubmatch(page, -1) {
		if string(m[1]) == "load" {
			files = append(files, string(m[2]))
			continue
		}
		s := normalize.Sample{Name: "page", System: "erp"}
		require.NoError(t, json.Unmarshal(m[2], &s))
		samples = append(samples, s)
	}
	require.Len(t, files, 2)
	require.Len(t, samples, 1)
	report := normalize.Test(load(t, files...), samples)
	require.Empty(t, report.Cases[0].Problem)
	require.Contains(t, string(report.Cases[0].Outcome.Outputs[0].Value), `"issue_date":"2026-11-22"`)
	require.Contains(t, string(report.Cases[0].Outcome.Outputs[0].Value), `"total":{"amount":"23.50","currency":"BRL"}`)
}
