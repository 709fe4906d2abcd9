package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/audit"
	"github.com/leat-io/leat/operations/control"
	"github.com/leat-io/leat/processors"
)

func TestPauses_AreSetListedAndLiftedWithAnAuditEntryEach(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	ctx := t.Context()
	set := func(scope control.Scope, name string, until time.Time) error {
		_, err := control.SetPause(ctx, db, ana(), control.Pause{Scope: scope, Name: name, Until: until}, names())
		return err
	}
	require.NoError(t, set(control.Group, "reporting", time.Time{}))
	require.NoError(t, set(control.Tenant, "acme", time.Now().Add(time.Hour)))
	require.NoError(t, set(control.Source, "shop", time.Now().Add(-time.Hour)), "over at once")
	ps, err := control.Pauses(ctx, db)
	require.NoError(t, err)
	require.Len(t, ps, 2)
	require.Equal(t, control.Group, ps[0].Scope)
	require.Equal(t, "ana", ps[0].Actor)
	require.True(t, ps[0].Until.IsZero())
	require.False(t, ps[1].Until.IsZero())

	_, err = control.SetPause(ctx, db, audit.Operator{Name: "bob", Reason: "still"}, control.Pause{Scope: control.Group, Name: "reporting"}, names())
	require.NoError(t, err)
	lifted, err := control.LiftPause(ctx, db, ana(), control.Group, "reporting")
	require.NoError(t, err)
	require.Equal(t, "bob", lifted[0].Actor)
	_, err = control.LiftPause(ctx, db, ana(), control.Group, "reporting")
	require.ErrorIs(t, err, control.ErrNotPaused)
	require.EqualError(t, err, "group reporting is not paused; leat pauses shows what is")

	entries, err := audit.List(ctx, db, audit.Filter{Object: "group reporting"})
	require.NoError(t, err)
	require.Len(t, entries, 3)
	require.Equal(t, "resume", entries[0].Action)
	require.NotNil(t, entries[0].Before)
	require.Nil(t, entries[0].After)
	require.Equal(t, "bob", entries[1].Actor)
	require.NotNil(t, entries[1].Before)
	require.NotNil(t, entries[1].After)
	require.Nil(t, entries[2].Before)
}

func TestPauses_RefuseWhatNobodyHas(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	for _, tt := range []struct {
		scope      control.Scope
		name, want string
	}{
		{control.Group, "reportin", `there is no group "reportin"; known are: normalize, reporting`},
		{control.Source, "shap", `there is no source "shap"; known are: shop`},
		{control.Target, "sheet", `there is no target "sheet"; known are: books`},
		{control.Stage, "publisher", `there is no stage "publisher"; known are: normalize, publish, relay`},
		{control.Tenant, "ACME", `tenant "ACME" is no valid name: 1 to 63 lower-case letters, digits, - and _`},
		{"system", "shop", `unknown scope "system": use stage, group, source, tenant or target`},
	} {
		_, err := control.SetPause(t.Context(), db, ana(), control.Pause{Scope: tt.scope, Name: tt.name}, names())
		require.EqualError(t, err, tt.want)
	}
	_, err := control.SetPause(t.Context(), db, audit.Operator{Name: "ana"}, control.Pause{Scope: control.Group, Name: "reporting"}, names())
	require.ErrorIs(t, err, audit.ErrNoReason)
	_, err = control.SetPause(t.Context(), db, ana(), control.Pause{Scope: control.Source, Name: "shop"}, control.Names{})
	require.EqualError(t, err, `there is no source "shop": the configuration names none, and no process of one was seen`)
	_, err = control.OrderBreaker(t.Context(), db, ana(), control.BreakerOrder{Group: "x", State: "open"}, names())
	require.ErrorContains(t, err, `there is no group "x"`)
	none, err := audit.List(t.Context(), db, audit.Filter{})
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestPauses_SayWhatIsMissing(t *testing.T) {
	t.Parallel()
	empty := pool(t, testenv.Postgres(t))
	_, err := control.Pauses(t.Context(), empty)
	require.ErrorContains(t, err, "leat migrate up control")
}

func TestDrain_EndsByItselfAndBelongsToItsAuthor(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	ctx := t.Context()
	until := time.Now().Add(time.Hour)
	require.NoError(t, control.Drain(ctx, db, ana(), "reporting", until))
	require.NoError(t, control.Drain(ctx, db, ana(), "reporting", until.Add(time.Hour)), "longer")
	err := control.Drain(ctx, db, audit.Operator{Name: "bob", Reason: "me too"}, "reporting", until)
	require.ErrorIs(t, err, control.ErrDrained)
	require.ErrorContains(t, err, "by ana until")
	require.NoError(t, control.EndDrain(ctx, db, ana(), "reporting"))
	require.NoError(t, control.EndDrain(ctx, db, ana(), "reporting"))
	require.ErrorContains(t, control.Drain(ctx, db, ana(), "reporting", time.Time{}), "needs an end")
	require.NoError(t, control.Drain(ctx, db, ana(), "reporting", time.Now().Add(-time.Second)))
	require.NoError(t, control.Drain(ctx, db, audit.Operator{Name: "bob", Reason: "me too"}, "reporting", until), "the other one is over")
	ps, err := control.Pauses(ctx, db)
	require.NoError(t, err)
	require.Len(t, ps, 1)
	require.Equal(t, control.ModeDrain, ps[0].Mode)
}

func TestBreakerOrders(t *testing.T) {
	t.Parallel()
	db, _ := database(t)
	ctx := t.Context()
	_, err := control.OrderBreaker(ctx, db, ana(), control.BreakerOrder{Group: "reporting", State: processors.BreakerOpen}, names())
	require.NoError(t, err)
	_, err = control.OrderBreaker(ctx, db, ana(), control.BreakerOrder{Group: "reporting", State: processors.BreakerClosed}, names())
	require.NoError(t, err)
	_, err = control.OrderBreaker(ctx, db, ana(), control.BreakerOrder{Group: "reporting", State: processors.BreakerHalfOpen}, names())
	require.ErrorContains(t, err, "open or closed")
	orders, err := control.BreakerOrders(ctx, db)
	require.NoError(t, err)
	require.Len(t, orders, 1)
	require.Equal(t, processors.BreakerClosed, orders[0].State)
	released, err := control.ReleaseBreaker(ctx, db, ana(), "reporting")
	require.NoError(t, err)
	require.Equal(t, processors.BreakerClosed, released.State)
	_, err = control.ReleaseBreaker(ctx, db, ana(), "reporting")
	require.ErrorIs(t, err, control.ErrNoBreakerOrder)
	entries, err := audit.List(ctx, db, audit.Filter{Action: "breaker"})
	require.NoError(t, err)
	require.Len(t, entries, 3)
	require.Equal(t, "breaker release", entries[0].Action)
	require.Equal(t, "breaker close", entries[1].Action)
}

// TestRights_AViewerOnlyReads: every table of the schema that a command shows, none of what carries payloads, and changes nothing.
func TestRights_AViewerOnlyReads(t *testing.T) {
	t.Parallel()
	owner, address := database(t)
	ctx := t.Context()
	viewer := as(t, owner, address, "grant_viewer")
	var tables []string
	require.NoError(t, owner.QueryRow(ctx, `select array_agg(c.oid::regclass::text order by 1) from pg_class c
		where relnamespace = 'leat_control'::regnamespace and relkind in ('r', 'p') and not relispartition`).Scan(&tables))
	require.Greater(t, len(tables), 20)
	var hidden []string
	for _, table := range tables {
		for _, sql := range []string{"delete from " + table, "truncate " + table, "insert into " + table + " default values"} {
			_, err := viewer.Exec(ctx, sql)
			require.ErrorContains(t, err, "permission denied", sql)
		}
		var columns []string
		require.NoError(t, owner.QueryRow(ctx, `select array_agg(quote_ident(attname) order by attname) from pg_attribute
			where attrelid = $1::regclass and attnum > 0 and not attisdropped`, table).Scan(&columns))
		for _, column := range columns {
			_, err := viewer.Exec(ctx, fmt.Sprintf("update %s set %s = default", table, column))
			require.ErrorContains(t, err, "permission denied", "update %s.%s", table, column)
			if _, err := viewer.Exec(ctx, fmt.Sprintf("select %s from %s", column, table)); err != nil {
				require.ErrorContains(t, err, "permission denied")
				hidden = append(hidden, table+"."+column)
			}
		}
	}
	require.ElementsMatch(t, []string{
		"leat_control.redrive_items.edit", "leat_control.redrive_items.edited_value",
		"leat_control.rights.object", "leat_control.rights.privileges", "leat_control.rights.role",
		"leat_control.verify_reports.document",
	}, hidden)
	for _, sql := range []string{
		"select leat_control.grant_viewer('postgres')", "select leat_control.journal_reset()", "select leat_control.journal_upkeep('7 days')",
		"create table leat_control.mine ()",
	} {
		_, err := viewer.Exec(ctx, sql)
		require.ErrorContains(t, err, "permission denied", sql)
	}
	_, err := control.SetPause(ctx, viewer, ana(), control.Pause{Scope: control.Group, Name: "reporting"}, names())
	require.ErrorContains(t, err, "grant_operator for people, grant_viewer for those who only look")
}

func TestRights_AreEnoughAndNoMore(t *testing.T) {
	t.Parallel()
	owner, address := database(t)
	ctx := t.Context()
	operator, process := as(t, owner, address, "grant_operator"), as(t, owner, address, "grant_process")

	_, err := control.SetPause(ctx, operator, ana(), control.Pause{Scope: control.Group, Name: "reporting"}, names())
	require.NoError(t, err)
	_, err = control.OrderBreaker(ctx, operator, ana(), control.BreakerOrder{Group: "reporting", State: "open"}, names())
	require.NoError(t, err)
	_, err = control.OrderParked(ctx, operator, ana(), processors.ParkedCancel, []control.ParkedRecord{{Group: "g", Topic: "t", Offset: 4}})
	require.NoError(t, err)
	agent, _ := run(t, control.AgentConfig{DB: process, Members: []control.Member{{
		Stage: "publish", Group: "g", Instance: "0", Settle: settleAll, Obey: func(control.Orders) {},
	}}})
	eventually(t, "ready", func() bool { return agent.Ready() == nil })
	eventually(t, "the heartbeat, read by an operator", func() bool {
		ps, err := control.Processes(ctx, operator)
		return err == nil && len(ps) == 1
	})
	eventually(t, "the order is carried out", func() bool {
		var open int
		return owner.QueryRow(ctx, "select count(*) from leat_control.parked_orders where done_at is null").Scan(&open) == nil && open == 0
	})
	_, err = control.LiftPause(ctx, operator, ana(), control.Group, "reporting")
	require.NoError(t, err)

	for _, sql := range []string{
		"update leat_control.parked_orders set done_at = null", "delete from leat_control.parked_orders",
		"update leat_control.audit_log set actor = 'x'", "delete from leat_control.audit_log", "delete from leat_control.processes",
		"insert into leat_control.rights values ('operator', 'all', 'leat_control.processes')", "select leat_control.grant_operator('postgres')",
		"select leat_control.grant_rights('process', 'postgres')", "create table leat_control.mine ()", "truncate leat_control.pauses",
	} {
		_, err := operator.Exec(ctx, sql)
		require.ErrorContains(t, err, "permission denied", "operator: %s", sql)
	}
	for _, sql := range []string{
		"insert into leat_control.pauses (scope, name, actor, reason) values ('group', 'x', 'x', 'x')", "delete from leat_control.pauses",
		"delete from leat_control.breaker_orders", "update leat_control.parked_orders set offsets = '{1}'", "update leat_control.parked_orders set action = 'cancel'",
		"insert into leat_control.audit_log (actor, action, object, reason) values ('x', 'x', 'x', 'x')", "select * from leat_control.audit_log",
		"select leat_control.grant_process('postgres')", "select * from leat_control.rights",
	} {
		_, err := process.Exec(ctx, sql)
		require.ErrorContains(t, err, "permission denied", "process: %s", sql)
	}
}
