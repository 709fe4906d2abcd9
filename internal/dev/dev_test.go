package dev_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
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

func TestRun_LivesAndShowsIt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{enough: func(seen string) bool {
		return strings.Contains(seen, "dead letter: chinook-music/chinook/") && strings.Contains(seen, "published")
	}, then: cancel}
	report, err := dev.Run(ctx, dev.Options{
		Rate: 100, Listen: "127.0.0.1:0", Duration: 2 * time.Minute, App: app.Options{Getenv: noEnv}, Stdout: out,
	})
	require.NoError(t, err)
	require.Nil(t, report)
	seen := out.String()
	require.Contains(t, seen, "psql 'postgres://")
	require.Contains(t, seen, "kafka-console-consumer.sh --bootstrap-server 127.0.0.1:")
	require.Regexp(t, `Metrics   http://127\.0\.0\.1:[1-9]`, seen)
	require.Contains(t, seen, "First invoices in the reporting tables")
	require.Regexp(t, `outbox \d+ · relayed \d+ · normalized \d+ · published \d+`, seen)
	require.NotContains(t, seen, "\x1b", "no terminal, no escape sequences")
}

// lines collects output until there is enough of it.
type lines struct {
	mu     sync.Mutex
	text   strings.Builder
	enough func(seen string) bool
	then   func()
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.enough(l.text.String()) {
		l.then()
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
