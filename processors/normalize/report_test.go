package normalize_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/normalize"
	"github.com/leat-io/leat/topics"
)

var update = flag.Bool("update", false, "write what the samples give to their want.json")

const chinook = "../../examples/chinook"

func TestExampleMappings_AreAsTheirSamplesWant(t *testing.T) {
	t.Parallel()
	dir := os.DirFS(chinook + "/mappings")
	set, err := normalize.Load(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"source.chinook.customer", "source.chinook.invoice", "source.chinook.payment"}, set.Inputs())
	require.Equal(t, []string{"finance.contact.v1", "finance.invoice.v1", "finance.payment.v1"}, set.Outputs())
	samples, err := normalize.Samples(dir)
	require.NoError(t, err)
	require.NotEmpty(t, samples)
	report := normalize.Test(set, samples)
	for _, c := range report.Cases {
		if *update {
			file := filepath.Join(chinook, "mappings/testdata", c.Name, "want.json")
			require.NoError(t, os.WriteFile(file, c.Outcome.Golden(), 0o644))
			continue
		}
		require.Empty(t, c.Problem, c.Name)
	}
}

func TestReport_ShowsInputOutputAndProblemSideBySide(t *testing.T) {
	t.Parallel()
	set := load(t, benchMapping)
	report := normalize.Test(set, []normalize.Sample{
		{Name: "good", Entity: "invoice", Key: "1", Payload: []byte(benchInvoice)},
		{Name: "broken", Entity: "invoice", Key: "2", Payload: []byte(`{"number":"7"}`)},
		{Name: "other", Entity: "invoice", Key: "3", Operation: topics.Delete, Want: []byte(`{"outcome":"normalized"}`)},
	})
	require.Equal(t, 2, report.Failed)
	var text bytes.Buffer
	require.NoError(t, report.WriteText(&text))
	require.Contains(t, text.String(), "ok   good: normalized")
	require.Contains(t, text.String(), "| finance.invoice.v1 sample/erp/1")
	require.Contains(t, text.String(), "field contact_id: found nothing (path customer.id), want a value (the field is required)")
	require.Contains(t, text.String(), "problem: want.json, line 1")
	require.Contains(t, text.String(), "3 cases, 2 failed")
	_, err := json.Marshal(report)
	require.NoError(t, err)
}

// TestExampleMappings_TakeTheWholeSampleData maps every customer and invoice of the sample data.
func TestExampleMappings_TakeTheWholeSampleData(t *testing.T) {
	t.Parallel()
	set, err := normalize.Load(os.DirFS(chinook + "/mappings"))
	require.NoError(t, err)
	h := normalize.New(set)
	lines := map[string][]map[string]string{}
	for _, row := range rows(t, "invoice_line.csv") {
		lines[row["invoice_id"]] = append(lines[row["invoice_id"]], row)
	}
	var batch []processors.Message
	for _, row := range rows(t, "customer.csv") {
		batch = append(batch, message("chinook", "customer", row["customer_id"], topics.Upsert, marshal(t, row)))
	}
	for _, row := range rows(t, "invoice.csv") {
		doc := map[string]any{"lines": lines[row["invoice_id"]], "status": "open", "currency": "USD"}
		for k, v := range row {
			doc[k] = v
		}
		batch = append(batch, message("chinook", "invoice", row["invoice_id"], topics.Upsert, marshal(t, doc)))
	}
	require.Len(t, batch, 59+412)
	for i, res := range h.Handle(t.Context(), batch) {
		require.NoError(t, res.Err, "%s", batch[i].Value)
		require.Equal(t, normalize.Normalized, res.Outcome)
		require.Len(t, res.Outputs, 1)
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

func rows(t *testing.T, name string) []map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(chinook, name))
	require.NoError(t, err)
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	var out []map[string]string
	for _, rec := range all[1:] {
		row := map[string]string{}
		for i, k := range all[0] {
			row[k] = rec[i]
		}
		out = append(out, row)
	}
	return out
}
