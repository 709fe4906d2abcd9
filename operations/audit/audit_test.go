package audit_test

import (
	"database/sql"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/migrations"
	"github.com/leat-io/leat/operations/audit"
)

func TestRecord_StandsWithItsChangeOrNotAtAll(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testenv.Postgres(t)
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer std.Close()
	_, err = migrations.Up(ctx, std, migrations.Control)
	require.NoError(t, err)
	db, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	defer db.Close()

	for i, commit := range []bool{true, false, true} {
		tx, err := db.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, audit.Record(ctx, tx, audit.Entry{
			Actor: "ana@desk", Action: "pause", Object: "group reporting", Reason: "month end",
			Before: map[string]int{"n": i}, After: nil,
		}))
		if commit {
			require.NoError(t, tx.Commit(ctx))
		} else {
			require.NoError(t, tx.Rollback(ctx))
		}
	}
	entries, err := audit.List(ctx, db, audit.Filter{Action: "pau", Object: "reporting", Actor: "ana@desk"})
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.JSONEq(t, `{"n": 2}`, string(entries[0].Before.(json.RawMessage)), "newest first")
	require.Nil(t, entries[0].After)
	require.False(t, entries[0].At.IsZero())
	none, err := audit.List(ctx, db, audit.Filter{Until: entries[1].At})
	require.NoError(t, err)
	require.Empty(t, none)

	for _, sql := range []string{"delete from leat_control.audit_log", "update leat_control.audit_log set reason = 'x'", "truncate leat_control.audit_log"} {
		_, err = db.Exec(ctx, sql)
		require.ErrorContains(t, err, "append only")
	}
}

func TestOperator_NeedsNameAndReason(t *testing.T) {
	t.Parallel()
	require.NoError(t, audit.Operator{Name: "ana", Reason: "month end"}.Validate())
	require.ErrorIs(t, audit.Operator{Name: "ana", Reason: " "}.Validate(), audit.ErrNoReason)
	require.ErrorContains(t, audit.Operator{Reason: "x"}.Validate(), "LEAT_ACTOR")
	require.Equal(t, "ana@desk", audit.Actor(func(string) string { return "ana@desk" }))
	require.Contains(t, audit.Actor(func(string) string { return "" }), "@")
}

// TestMetrics_CountTheLog: from 0 where an alert looks at the first entry, and nothing while the database is away.
func TestMetrics_CountTheLog(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), testenv.Postgres(t)
	std, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer std.Close()
	_, err = migrations.Up(ctx, std, migrations.Control)
	require.NoError(t, err)
	db, err := pgxpool.New(ctx, url)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, audit.Record(ctx, db, audit.Entry{Actor: "ana@desk", Action: "offsets apply", Object: "group a", Reason: "test"}))
	}
	m := audit.NewMetrics(db, slog.New(slog.DiscardHandler))
	counts := map[string]float64{}
	gather := func() {
		reg := prometheus.NewRegistry()
		reg.MustRegister(m)
		families, err := reg.Gather()
		require.NoError(t, err)
		clear(counts)
		for _, f := range families {
			for _, c := range f.GetMetric() {
				counts[c.GetLabel()[0].GetValue()] = c.GetCounter().GetValue()
			}
		}
	}
	gather()
	require.InDelta(t, 2, counts["offsets apply"], 0)
	require.Contains(t, counts, "offsets undo")
	db.Close()
	gather()
	require.Empty(t, counts)
}
