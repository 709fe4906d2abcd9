package outbox_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/leat-io/leat/outbox"
)

func delivered(id int64, snapshot string) *outbox.Delivered {
	return &outbox.Delivered{ID: id, Snapshot: snapshot}
}

func TestMaintain_LocksNothingWhileThereIsNothingToDrop(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 1_000_010)
	report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{}) // what is left is to drop
	require.NoError(t, err)
	require.NotEmpty(t, report.Made)
	tx, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, "select leat.drop_partitions($1, pg_current_snapshot(), '90 days')", 1_000_010)
	require.NoError(t, err)
	var strong int
	require.NoError(t, tx.QueryRow(ctx, `select count(*) from pg_locks
		where pid = pg_backend_pid() and locktype = 'relation' and mode = 'AccessExclusiveLock'`).Scan(&strong))
	require.Zero(t, strong, "partitions that are too young must not be locked to find that out")
}

func TestMaintain_LocksOnlyThePartitionItDrops(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 1_000_010)
	reader, err := pool.Begin(ctx) // such as autovacuum or pg_dump, at work on another partition
	require.NoError(t, err)
	defer reader.Rollback(ctx)
	_, err = reader.Exec(ctx, "select count(*) from leat.outbox_1000001")
	require.NoError(t, err)
	report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Delivered: delivered(1_000_010, snapshot(t, pool)), Keep: time.Hour})
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_1"}, report.Dropped)
}

func TestMaintain_DropsAllThatIsDueOneAfterTheOther(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	for _, id := range []int64{10, 1_000_010} {
		place(t, pool, id)
	}
	_, err := outbox.Maintain(t.Context(), pool, outbox.Upkeep{})
	require.NoError(t, err)
	place(t, pool, 2_000_010)
	report, err := outbox.Maintain(t.Context(), pool, outbox.Upkeep{Delivered: delivered(2_000_010, snapshot(t, pool)), Keep: time.Hour})
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_1", "leat.outbox_1000001"}, report.Dropped)
}

func TestMaintain_RowsThatTellOfThePastAreKept(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	old := upsert("1", `{}`) // a backfill: written now, of long ago
	old.OccurredAt = time.Date(2009, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, outbox.Write(ctx, pool, old))
	_, err := pool.Exec(ctx, "select setval('leat.outbox_id_seq', 1500000)")
	require.NoError(t, err)
	require.NoError(t, outbox.Write(ctx, pool, old))
	report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Delivered: delivered(1_500_001, snapshot(t, pool)), Keep: time.Hour})
	require.NoError(t, err)
	require.Empty(t, report.Dropped, "the retention counts from the writing")
}

func TestMaintain_ManyAtOnce(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	place(t, pool, 10, 1_000_010)
	now := snapshot(t, pool)
	g, ctx := errgroup.WithContext(t.Context())
	for range 4 {
		g.Go(func() error {
			_, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Ahead: 5, Delivered: delivered(1_000_010, now), Keep: time.Hour})
			return err
		})
	}
	require.NoError(t, g.Wait(), "relays that look after one source at once do not disturb each other")
}

func TestMaintain_MakesPartitionsBesideAnOpenWriter(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	open, err := pool.Begin(ctx)
	require.NoError(t, err)
	defer open.Rollback(ctx)
	require.NoError(t, outbox.Write(ctx, open, upsert("slow", `{}`)))
	report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Ahead: 5})
	require.NoError(t, err)
	require.Len(t, report.Made, 4)
}

func TestMaintain_RefusesASnapshotOlderThanItsLock(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 1_000_010)
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, "select leat.drop_partitions(1000010, pg_current_snapshot(), '1 hour')")
	require.ErrorContains(t, err, "read committed", "it would not see a row that was committed while it waited for the lock")
}

func TestMaintain_EmptiesTheDefaultPartition(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 2_500_000) // the second has no partition
	keep := func(id int64) []string {
		t.Helper()
		report, err := outbox.Maintain(ctx, pool, outbox.Upkeep{Delivered: delivered(id, snapshot(t, pool)), Keep: time.Hour})
		require.NoError(t, err)
		return report.Dropped
	}
	require.Equal(t, []string{"leat.outbox_1", "leat.outbox_1000001"}, keep(2_499_999))
	require.Equal(t, []int64{2_500_000}, ids(t, pool), "not delivered yet")
	require.Equal(t, []string{"leat.outbox_default"}, keep(2_500_000))
	require.Empty(t, ids(t, pool))
	require.Empty(t, keep(2_500_000), "it is empty")
}

func TestMaintain_KeepsALateRowOfADroppedPartition(t *testing.T) {
	t.Parallel()
	pool, _ := setup(t)
	ctx := t.Context()
	place(t, pool, 10, 1_000_010)
	upkeep := outbox.Upkeep{Delivered: delivered(1_000_010, snapshot(t, pool)), Keep: time.Hour}
	report, err := outbox.Maintain(ctx, pool, upkeep)
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_1"}, report.Dropped)
	place(t, pool, 20) // its writer had drawn the id long ago
	require.Equal(t, []int64{20, 1_000_010}, ids(t, pool), "the default partition takes it")
	report, err = outbox.Maintain(ctx, pool, upkeep)
	require.NoError(t, err)
	require.Empty(t, report.Dropped, "the snapshot of the cursor has not seen its transaction")
	upkeep.Delivered.Snapshot = snapshot(t, pool)
	report, err = outbox.Maintain(ctx, pool, upkeep)
	require.NoError(t, err)
	require.Equal(t, []string{"leat.outbox_default"}, report.Dropped)
}
