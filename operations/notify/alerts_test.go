package notify

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/operations/incidents"
)

func TestNotifier_KeepsAlertmanagersAlertsAliveUntilTheyEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	fp := r.fail("mapping", 1, "acme")
	am := r.receiver("am")
	am.Kind = "alertmanager"
	alert := func(i int) (a struct {
		Labels           map[string]string
		StartsAt, EndsAt time.Time
	},
	) {
		r.mu.Lock()
		defer r.mu.Unlock()
		list := []any{&a}
		require.NoError(t, json.Unmarshal([]byte(r.bodies[i]), &list))
		return a
	}
	bodies := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.bodies)
	}
	_, stop := r.start(Config{Receivers: []Receiver{am}})
	r.eventually("the alert", func() bool { return bodies() > 0 })
	require.True(t, alert(0).EndsAt.After(time.Now().Add(time.Minute)))
	stop()
	before := bodies()
	r.start(Config{Receivers: []Receiver{am}}) // it posts what is open at its start, and then every minute
	r.eventually("the alert again", func() bool { return bodies() > before })
	again := alert(bodies() - 1)
	require.Equal(t, alert(0).Labels, again.Labels)
	require.Equal(t, alert(0).StartsAt, again.StartsAt)
	require.True(t, again.EndsAt.After(time.Now().Add(time.Minute)))
	r.resolve(fp)
	r.eventually("the end of the alert", func() bool { return !alert(bodies() - 1).EndsAt.After(time.Now()) })
	require.Equal(t, alert(0).Labels, alert(bodies()-1).Labels)
}

func TestNotifier_AnOpenBreakerIsAnIncident(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.policy.SystemicQuiet = time.Second
	heartbeat := func(state string) {
		_, err := r.db.Exec(t.Context(), `insert into leat_control.processes (stage, instance, group_name, started_at, ready, status)
			values ('publish', 'one', 'reporting', now(), false, jsonb_build_object('breaker', jsonb_build_object('state', $1::text,
			  'reason', 'the handler reports connection', 'sample', 'dial tcp 10.0.0.1:5432: refused', 'since', now() - interval '1 minute')))
			on conflict (stage, group_name, instance) do update set status = excluded.status, seen_at = now()`, state)
		require.NoError(t, err)
	}
	heartbeat("open")
	r.start(Config{})
	r.awaitTold("opened breaker_open")
	n := r.got[0].Notifications[0]
	require.Equal(t, incidents.Critical, n.Severity)
	require.Equal(t, "the handler reports connection: dial tcp ?: refused", n.Incident.Message)
	require.True(t, strings.HasPrefix(n.Why, "its target or a dependency is down since"))
	heartbeat("closed")
	r.awaitTold("opened breaker_open", "closed breaker_open")
}
