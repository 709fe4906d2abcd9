package incidents_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/incidents"
	"github.com/leat-io/leat/topics"
)

func TestDecide_StandsWithItsAuditEntry(t *testing.T) {
	t.Parallel()
	db, ctx, p := control(t), t.Context(), incidents.Policy{}
	letter := failed{topic: "t.g.dlq", key: "acme/shop/1", tenant: "acme", code: "c", message: "m", at: time.Now(), disposition: topics.DispositionPermanent}
	apply(t, db, letter.record())
	fp, op := fingerprintOf(letter), audit.Operator{Name: "ana", Reason: "mapping corrected"}

	_, err := incidents.Resolve(ctx, db, audit.Operator{Name: "ana"}, p, fp)
	require.ErrorIs(t, err, audit.ErrNoReason)
	_, err = incidents.Unmute(ctx, db, op, p, fp)
	require.EqualError(t, err, "incident "+fp+": it is not muted, but new")
	_, err = incidents.Mute(ctx, db, op, p, fp, incidents.Silence{Until: time.Now().Add(-time.Hour)})
	require.ErrorContains(t, err, "is in the past")
	i, err := incidents.Mute(ctx, db, op, p, fp, incidents.Silence{UntilEscalating: true})
	require.NoError(t, err)
	require.Equal(t, incidents.Muted, i.State)
	i, err = incidents.Unmute(ctx, db, op, p, fp)
	require.NoError(t, err)
	require.Equal(t, incidents.Ongoing, i.State)
	note := "asked the source team"
	_, err = incidents.Assign(ctx, db, op, p, fp, "bo", &note)
	require.NoError(t, err)
	i, err = incidents.Resolve(ctx, db, op, p, fp)
	require.NoError(t, err)
	require.Equal(t, incidents.Resolved, i.State)
	require.Equal(t, "resolved by ana: mapping corrected", i.Why)
	_, err = incidents.Resolve(ctx, db, op, p, fp)
	require.ErrorContains(t, err, "it is resolved already")

	d, err := incidents.Show(ctx, db, p, fp)
	require.NoError(t, err)
	require.Equal(t, []string{"bo", note}, []string{d.Owner, d.Note})
	entries, err := audit.List(ctx, db, audit.Filter{Action: "incidents"})
	require.NoError(t, err)
	require.Len(t, entries, 4, "refused changes leave no entry")
	require.Equal(t, "incidents resolve", entries[0].Action)

	letter.at = time.Now().Add(time.Second)
	apply(t, db, letter.record())
	d, err = incidents.Show(ctx, db, p, fp)
	require.NoError(t, err)
	require.Equal(t, incidents.Regressed, d.State)
}

func TestSave_RefusesWhatWasReadBeforeAnothersChange(t *testing.T) {
	t.Parallel()
	db, ctx, p := control(t), t.Context(), incidents.Policy{}
	letter := failed{topic: "t.g.dlq", key: "k", code: "c", message: "m", at: time.Now(), disposition: topics.DispositionPermanent}
	apply(t, db, letter.record())
	save := func(c incidents.Candidate) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return incidents.Save(ctx, tx, &c.Incident) })
	}
	for range 2 { // first without a standing, then with one
		list, err := incidents.Candidates(ctx, db, p)
		require.NoError(t, err)
		require.Len(t, list, 1)
		c := list[0]
		c.Standing = incidents.Policy{}.WithDefaults().Next(c.Standing, &c.Facts, c.Now)
		require.NoError(t, save(c))
		require.ErrorIs(t, save(c), incidents.ErrStale)
	}
}
