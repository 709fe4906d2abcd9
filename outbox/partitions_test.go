package outbox_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/outbox"
)

// place inserts a row with an id of the test's choice, long ago: neither its time nor its event id is of now.
func place(t *testing.T, db outbox.Execer, ids ...int64) {
	t.Helper()
	for _, id := range ids {
		_, err := db.Exec(t.Context(), `insert into leat.outbox (id, event_id, tenant, entity, key, operation, occurred_at)
			overriding system value values ($1, gen_random_uuid(), 'acme', 'invoice', $2, 'delete', now() - interval '30 days')`, id, strconv.FormatInt(id, 10))
		require.NoError(t, err)
	}
	_, err := db.Exec(t.Context(), "select setval('leat.outbox_id_seq', greatest($1, (select last_value from leat.outbox_id_seq)))", ids[len(ids)-1])
	require.NoError(t, err)
}

func snapshot(t *testing.T, pool *pgxpool.Pool) (s string) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "select pg_current_snapshot()::text").Scan(&s))
	return s
}

func ids(t *testing.T, pool *pgxpool.Pool) (n []int64) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "select array(select id from leat.outbox order by id)").Scan(&n))
	return n
}

func TestMaintain_KeepsEmptyPartitionsAhead(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	report, err := outbox.Maintain(t.Context(), pool, outbox.Upkeep{})
	require.NoError(t, err)
	require.Empty(t, report.Made, "the migration makes two")
	place(t, pool, 1_500_000)
	report, err = outbox.Maintain(t.Context(), pool, outbox.Upkeep{})
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_2000001", "leat.outbox_3000001"}, report.Made)
	place(t, pool, 9_000_000) // nobody kept the partitions for a while
	require.Equal(t, []int64{1_500_000, 9_000_000}, ids(t, pool), "the default partition takes what has no place")
	report, err = outbox.Maintain(t.Context(), pool, outbox.Upkeep{})
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_9000001", "leat.outbox_10000001"}, report.Made)
	place(t, pool, 9_500_000)
	require.NoError(t, outbox.Write(t.Context(), pool, upsert("x", `{}`)))
}

func TestMaintain_DropsOnlyWhatWasDeliveredAndIsOld(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 20, 1_000_010)
	keep := func(delivered int64, snapshot string, keep time.Duration) []string {
		t.Helper()
		report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Delivered: &outbox.Delivered{ID: delivered, Snapshot: snapshot}, Keep: keep})
		require.NoError(t, err)
		return report.Dropped
	}
	now := snapshot(t, pool)
	require.Empty(t, keep(20, now, 24*time.Hour), "the partition reaches beyond what was delivered")
	require.Empty(t, keep(1_000_010, now, 90*24*time.Hour), "the partition is not old enough")
	require.Empty(t, keep(1_000_010, now, -1), "negative is for ever")

	late, err := pool.Begin(ctx) // has a row with a low id, and has not committed
	require.NoError(t, err)
	place(t, late, 30)
	require.Empty(t, keep(1_000_010, snapshot(t, pool), 24*time.Hour), "a transaction that still runs has written there")
	before := snapshot(t, pool)
	require.NoError(t, late.Commit(ctx))
	require.Empty(t, keep(1_000_010, before, 24*time.Hour), "the late row is committed, but not delivered")
	require.Equal(t, []int64{10, 20, 30, 1_000_010}, ids(t, pool))

	require.Equal(t, []string{"leat.outbox_1"}, keep(1_000_010, snapshot(t, pool), 24*time.Hour))
	require.Equal(t, []int64{1_000_010}, ids(t, pool))
}

func TestMaintain_DoesNotHoldUpWriters(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 1_000_010)
	open, err := pool.Begin(ctx) // a writer that takes its time
	require.NoError(t, err)
	require.NoError(t, outbox.Write(ctx, open, upsert("slow", `{}`)))
	upkeep := outbox.Upkeep{Delivered: &outbox.Delivered{ID: 1_000_010, Snapshot: snapshot(t, pool)}, Keep: time.Hour}
	report, err := outbox.Maintain(ctx, pool, upkeep)
	require.NoError(t, err)
	require.Empty(t, report.Dropped, "gives up instead of waiting")
	writing, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	require.NoError(t, outbox.Write(writing, pool, upsert("quick", `{}`)))
	require.NoError(t, open.Commit(ctx))
	upkeep.Delivered.Snapshot = snapshot(t, pool)
	report, err = outbox.Maintain(ctx, pool, upkeep)
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_1"}, report.Dropped)
}
