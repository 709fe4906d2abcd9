package integration_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// heartbeat waits for a row of the stage's process that was written from now on and that check accepts.
func heartbeat(t *testing.T, db *pgxpool.Pool, stage string, check func(control.Process) bool) (found control.Process) {
	t.Helper()
	var since time.Time
	require.NoError(t, db.QueryRow(t.Context(), "select now()").Scan(&since))
	eventually(t, "a heartbeat of "+stage, func() bool {
		ps, err := control.Processes(t.Context(), db)
		require.NoError(t, err)
		for _, p := range ps {
			if p.Stage == stage && p.SeenAt.After(since) && check(p) {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

func stands(p control.Process) bool { return p.PausedBy != "" && !p.Ready }

// TestPauses_TakeEffectInRunningProcessesAndOutliveThem pauses each scope in the middle of work, kills the process that stands still, and
// starts it again: nothing moves until the pause is lifted, and then every event arrives once.
func TestPauses_TakeEffectInRunningProcessesAndOutliveThem(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	db := r.addControl()
	l := newLedger()
	procs := map[string]*process{}
	for _, stage := range []string{"relay", "normalize", "publish"} {
		procs[stage] = r.start("one", stage, "run")
	}
	l.write(t, r, 4, 100, 20)
	l.settled(t, r)
	for _, tt := range []struct {
		scope, name, stage string
		moves              func() any // what the stage moves when it works
	}{
		{"source", r.system, "relay", func() any { return r.ends(topics.Source(r.system, "invoice")) }},
		{"group", r.normalizeGroup, "normalize", func() any { return r.offsets(r.normalizeGroup) }},
		{"target", "reporting", "publish", func() any { return r.booked() }},
		{"stage", "publish", "publish", func() any { return r.booked() }},
	} {
		require.Contains(t, r.run("pause", tt.scope, tt.name, "--reason", "month end", "--for", "2h"), "stands still")
		heartbeat(t, db, tt.stage, stands)
		before := tt.moves()
		l.write(t, r, 4, 100, 20)
		heartbeat(t, db, tt.stage, stands)
		procs[tt.stage].kill()
		procs[tt.stage] = r.start("one", tt.stage, "run")
		p := heartbeat(t, db, tt.stage, func(p control.Process) bool { return stands(p) && p.StartedAt.After(time.Now().Add(-patience)) })
		require.Contains(t, p.PausedBy, tt.scope+" "+tt.name)
		heartbeat(t, db, tt.stage, stands)
		require.Equal(t, before, tt.moves(), "nothing moves while %s %s is paused", tt.scope, tt.name)
		require.Contains(t, r.run("pauses"), "month end")
		r.run("resume", tt.scope, tt.name, "--reason", "done")
		l.settled(t, r)
		heartbeat(t, db, tt.stage, func(p control.Process) bool { return p.Ready && p.PausedBy == "" })
	}
	require.Contains(t, r.run("pauses"), "nothing is paused")
	out, err := r.try("pause", "group", r.normalizeGroup+"x", "--reason", "typo")
	require.Error(t, err)
	require.Contains(t, out, "known are: ")
	require.Contains(t, out, r.normalizeGroup)
	for _, p := range procs {
		p.stop()
	}
	l.check(t, r)
	ps, err := control.Processes(t.Context(), db)
	require.NoError(t, err)
	for _, p := range ps {
		require.Equal(t, "relay", p.Stage, "who ends well takes the heartbeat along; a relay that was killed is remembered by its process id")
	}
	require.Len(t, ps, 1)
}

// offsets are what a group has committed.
func (r *rig) offsets(group string) map[string]map[int32]int64 {
	r.t.Helper()
	committed, err := r.adm.FetchOffsets(r.t.Context(), group)
	require.NoError(r.t, err)
	found := map[string]map[int32]int64{}
	for topic, ps := range committed {
		found[topic] = map[int32]int64{}
		for p, o := range ps {
			found[topic][p] = o.At
		}
	}
	return found
}

// TestPausedTenant_WaitsWithExactAccounting parks everything of one tenant while another one goes on, kills normalize and publish
// meanwhile, and accounts for every event afterwards.
func TestPausedTenant_WaitsWithExactAccounting(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	db := r.addControl()
	l := newLedger()
	relay, normalize, publish := r.start("one", "relay", "run"), r.start("one", "normalize", "run"), r.start("one", "publish", "run")
	l.write(t, r, 4, 200, 20)
	l.settled(t, r)
	r.run("pause", "tenant", r.tenant, "--reason", "their ledger is closed")
	paused := func(p control.Process) bool { return p.PausedBy != "" && p.Ready }
	heartbeat(t, db, "normalize", paused)
	heartbeat(t, db, "publish", paused)
	before, written := r.booked(), l.count()
	l.write(t, r, 4, 200, 20)
	normalize.kill()
	normalize = r.start("one", "normalize", "run")
	l.write(t, r, 4, 200, 20)
	var parked []control.ParkedRecord
	eventually(t, "every event of the tenant to be parked", func() bool {
		require.NoError(t, json.Unmarshal([]byte(r.run("parked", "list", "--group", r.normalizeGroup, "--tenant", r.tenant, "-o", "json")), &parked))
		return len(parked) == l.count()-written
	})
	for _, p := range parked {
		require.Equal(t, topics.DispositionPaused, p.Disposition)
		require.Zero(t, p.Attempt)
	}
	other := outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: "globex", Entity: "invoice", Key: "900", Operation: topics.Upsert,
		Payload: invoicePayload("900", state{version: 1, cents: 5}),
	}
	r.emit(other)
	eventually(t, "another tenant's invoice in the books", func() bool { return len(r.booked()) == len(before)+1 })
	publish.kill()
	publish = r.start("one", "publish", "run")
	heartbeat(t, db, "publish", paused)
	r.run("resume", "tenant", r.tenant, "--reason", "open again")
	l.events[other.ID.String()], l.latest["900"] = "900", state{version: 1, cents: 5}
	l.settled(t, r)
	eventually(t, "nothing parked", func() bool {
		return r.run("parked", "list", "--group", r.normalizeGroup) == "nothing is parked\n"
	})
	for _, p := range []*process{relay, normalize, publish} {
		p.stop()
	}
	l.check(t, r)
	require.Empty(t, r.read(topics.DLQ(topics.Source(r.system, "invoice"), r.normalizeGroup)))
}

// TestParkedOrders_AreCarriedOutOnceIfTheProcessDiesInBetween kills the owner of the partitions after its Kafka transaction and before it
// could say so in the control database.
func TestParkedOrders_AreCarriedOutOnceIfTheProcessDiesInBetween(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	db := r.addControl()
	l := newLedger()
	relay, normalize := r.start("one", "relay", "run"), r.start("one", "normalize", "run")
	r.run("pause", "tenant", r.tenant, "--reason", "look at them first")
	heartbeat(t, db, "normalize", func(p control.Process) bool { return p.PausedBy != "" })
	l.write(t, r, 4, 60, 6)
	list := func(args ...string) (parked []control.ParkedRecord) {
		require.NoError(t, json.Unmarshal([]byte(r.run(append([]string{"parked", "list", "--group", r.normalizeGroup, "-o", "json"}, args...)...)), &parked))
		return parked
	}
	eventually(t, "all to be parked", func() bool { return len(list()) == l.count() })
	normalize.kill()
	all := list()
	dead, cancelled := all[0].Key, ""
	for _, p := range all {
		if p.Key != dead {
			cancelled = p.Key
		}
	}
	nDead, nCancelled := len(list("--key", dead)), len(list("--key", cancelled))
	settle := func(args ...string) string {
		return r.run(append([]string{"parked"}, append(args, "--group", r.normalizeGroup, "--reason", "ticket 12", "--wait", "1ms")...)...)
	}
	require.Contains(t, settle("dead-letter", "--key", dead), "0 records were moved to the dead letters")
	settle("cancel", "--key", cancelled, "--yes")

	// The rows can be read but not changed, so the process stands between Kafka's commit and its own word.
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table leat_control.parked_orders in share mode")
	require.NoError(t, err)
	normalize = r.start("one", "normalize", "run")
	dlq := topics.DLQ(topics.Source(r.system, "invoice"), r.normalizeGroup)
	eventually(t, "the dead letters", func() bool { return len(r.read(dlq)) == nDead })
	normalize.kill()
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, 2, r.openOrders(db))

	normalize = r.start("two", "normalize", "run") // another owner
	eventually(t, "the orders to be closed", func() bool { return r.openOrders(db) == 0 })
	rows, err := db.Query(t.Context(), "select action, sum(applied)::int, sum(cardinality(missing))::int from leat_control.parked_orders group by 1 order by 1")
	require.NoError(t, err)
	type sum struct {
		Action           string
		Applied, Missing int
	}
	sums, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sum])
	require.NoError(t, err)
	require.Equal(t, []sum{{"cancel", nCancelled, 0}, {"dead-letter", nDead, 0}}, sums)
	require.Len(t, r.read(dlq), nDead, "each was moved once")
	require.Len(t, list(), l.count()-nDead-nCancelled)
	require.Contains(t, r.run("audit", "--action", "parked"), "ticket 12")

	r.run("resume", "tenant", r.tenant, "--reason", "done")
	eventually(t, "nothing parked", func() bool { return len(list()) == 0 })
	relay.stop()
	normalize.stop()
	n := 0
	for _, rec := range r.read(topics.Finance("invoice", 1)) {
		if _, system, _, err := topics.SplitKey(rec.Key); err == nil && system == r.system {
			require.NotContains(t, []string{dead, cancelled}, string(rec.Key))
			n++
		}
	}
	require.Equal(t, l.count()-nDead-nCancelled, n, "the others have arrived, each once")
}

func (r *rig) openOrders(db *pgxpool.Pool) (n int) {
	r.t.Helper()
	require.NoError(r.t, db.QueryRow(r.t.Context(), "select count(*) from leat_control.parked_orders where done_at is null").Scan(&n))
	return n
}
