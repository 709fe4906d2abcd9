package dev_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/internal/app"
	"github.com/leat-io/leat/internal/dev"
)

func TestOnce_TheBooksAgreeWithTheShop(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	begin := time.Now()
	report, err := dev.Run(t.Context(), dev.Options{
		Once: true, Listen: "127.0.0.1:0", Verbose: testing.Verbose(), App: app.Options{Getenv: noEnv, Stderr: os.Stderr}, Stdout: &out,
	})
	require.NoError(t, err)
	require.NoError(t, report.Err())
	t.Logf("took %s", time.Since(begin))
	totals := chinook.Totals{Customers: 59, Invoices: 412, Lines: 2240, Invoiced: "2328.60", Paid: "0.00"}
	require.Equal(t, totals, report.Source)
	require.Equal(t, totals, report.Target)
	require.EqualValues(t, 471, report.OutboxRows)
	require.Equal(t, map[string]int{
		"source.chinook.customer": 59, "source.chinook.invoice": 412, "source.chinook.payment": 0,
	}, report.SourceRecords)
	require.Equal(t, map[string]int{
		"finance.contact.v1": 59, "finance.invoice.v1": 412, "finance.payment.v1": 0,
	}, report.Finance)
	require.Equal(t, dev.Counts{Relayed: 471, Normalized: 471, Applied: 471}, report.Counts)
	require.Empty(t, out.String(), "the report is the caller's to print")

	var text strings.Builder
	require.NoError(t, report.WriteText(&text))
	require.Contains(t, text.String(), "invoices            412          412\n")
	require.Contains(t, text.String(), "source and target agree")
	_, err = json.Marshal(report)
	require.NoError(t, err)
}

// noEnv keeps the servers of the developer's environment out.
func noEnv(string) string { return "" }
