package outcomes_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of goose
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/outcomes"
	"github.com/leat-io/leat/processors"
)

// log is a writer for several goroutines.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func TestCounter_WritesSumsAndLogsALineForEachTenant(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	db, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	defer db.Close()
	var out log
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	start := func() (*outcomes.Counter, func()) {
		c := outcomes.New(outcomes.Config{Logger: logger, Every: 5 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, db) }()
		return c, func() { cancel(); require.NoError(t, <-done) }
	}
	c, stop := start()
	c.Observe("normalize")([]processors.Outcome{
		{Tenant: "acme", Entity: "invoice", Outcome: "normalized", Count: 10}, {Tenant: "bolt", Entity: "invoice", Outcome: "dead_letter", Detail: "a\x00b", Count: 1},
	})
	require.Eventually(t, func() bool { return out.count("they are kept until it succeeds") > 0 }, time.Minute, 5*time.Millisecond,
		"there are no tables yet")
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer std.Close()
	_, err = migrations.Up(t.Context(), std, migrations.Control)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return out.count(`"msg":"business outcome"`) == 2 }, time.Minute, 5*time.Millisecond)
	c.Observe("normalize")([]processors.Outcome{{Tenant: "acme", Entity: "invoice", Outcome: "normalized", Count: 5}})
	stop() // writes what is left
	require.Equal(t, 1, out.count("they are kept"), "told once")
	require.Equal(t, 1, out.count(`"tenant":"acme","stage":"normalize","records":{"invoice normalized":10}}`))

	other, stop := start()
	other.Observe("publish")([]processors.Outcome{{Tenant: "acme", Entity: "invoice", Outcome: "applied", Count: 15}})
	stop()
	rows, err := outcomes.List(t.Context(), db, outcomes.Filter{})
	require.NoError(t, err)
	for i := range rows {
		rows[i].Last = time.Time{}
	}
	require.Equal(t, []outcomes.Row{
		{Tenant: "acme", Stage: "normalize", Entity: "invoice", Outcome: "normalized", Count: 15},
		{Tenant: "acme", Stage: "publish", Entity: "invoice", Outcome: "applied", Count: 15},
		{Tenant: "bolt", Stage: "normalize", Entity: "invoice", Outcome: "dead_letter", Detail: "a\uFFFDb", Count: 1},
	}, rows)
	rows, err = outcomes.List(t.Context(), db, outcomes.Filter{Tenant: "acme", Stage: "publish", Outcome: "applied"})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	rows, err = outcomes.List(t.Context(), db, outcomes.Filter{Since: time.Now().Add(2 * time.Hour)})
	require.NoError(t, err)
	require.Empty(t, rows)
}

// TestCounter_TenantsWithoutEndAreCountedTogether: nothing is lost of the sum, and no more is kept than for a bounded number of tenants.
func TestCounter_TenantsWithoutEndAreCountedTogether(t *testing.T) {
	t.Parallel()
	var out log
	c := outcomes.New(outcomes.Config{Logger: slog.New(slog.NewJSONHandler(&out, nil)), Every: time.Hour})
	observe := c.Observe("normalize")
	for i := range 100_000 {
		observe([]processors.Outcome{{Tenant: "t" + strconv.Itoa(i), Entity: "invoice", Outcome: "normalized", Count: 1}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, c.Run(ctx, nil)) // writes what is left
	require.LessOrEqual(t, out.count("\n"), 20_001)
	require.Equal(t, 1, out.count(`"tenant":"(others)","stage":"normalize","records":{"invoice normalized":80000}`))
}
