package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/operations/notify"
)

// notifySetup writes a configuration with a control database and two receivers, of which one takes what it is told.
func notifySetup(t *testing.T) (environ map[string]string, got chan notify.Message) {
	t.Helper()
	got = make(chan notify.Message, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m notify.Message
		if r.URL.Path != "/hunter2hunter2" || json.NewDecoder(r.Body).Decode(&m) != nil {
			http.NotFound(w, r)
			return
		}
		got <- m
		_, _ = io.WriteString(w, "thank you")
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "leat.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
control:
  url: ${DATABASE}
notify:
  receivers:
    - {name: tickets, kind: webhook, url: "${RECEIVER}/hunter2hunter2"}
    - {name: gone, kind: slack, url: "${RECEIVER}/hunter2gone"}
`), 0o600))
	return map[string]string{"LEAT_CONFIG": file, "DATABASE": testenv.Postgres(t), "RECEIVER": server.URL, "LEAT_ACTOR": "ana"}, got
}

func TestNotifyTest_ShowsWhatTheReceiverAnswers(t *testing.T) {
	t.Parallel()
	environ, got := notifySetup(t)
	out, _, err := leat(t, environ, "notify", "test", "tickets")
	require.NoError(t, err)
	require.Equal(t, "tickets has taken a test message: 200 OK\n  thank you\n", out)
	require.Equal(t, notify.Test, (<-got).Notifications[0].Kind)
	out, _, err = leat(t, environ, "notify", "test", "tickets", "-o", "json")
	require.NoError(t, err)
	require.JSONEq(t, `{"receiver": "tickets", "status": "200 OK", "body": "thank you"}`, out)
	_, _, err = leat(t, environ, "notify", "test", "gone")
	require.EqualError(t, err, "receiver gone: answers 404 Not Found 404 page not found")
	_, _, err = leat(t, environ, "notify", "test", "tikets")
	require.EqualError(t, err, `there is no receiver "tikets" under notify.receivers; they are: tickets, gone`)
	out, _, err = leat(t, environ, "config", "check")
	require.NoError(t, err)
	require.NotContains(t, out, "hunter2")
}

func TestIncidents_ErrorsNameTheRemedy(t *testing.T) {
	t.Parallel()
	environ, _ := notifySetup(t)
	_, _, err := leat(t, environ, "migrate", "up", "control")
	require.NoError(t, err)
	out, _, err := leat(t, environ, "incidents", "list")
	require.NoError(t, err)
	require.Equal(t, "no incidents\n", out)
	out, _, err = leat(t, environ, "incidents", "list", "--all", "-o", "json")
	require.NoError(t, err)
	require.Equal(t, "[]\n", out)
	out, _, err = leat(t, environ, "outcomes")
	require.NoError(t, err)
	require.Equal(t, "no outcomes in this time\n", out)
	_, _, err = leat(t, environ, "incidents", "list", "--state", "bad")
	require.Equal(t, 2, exitCode(err))
	_, _, err = leat(t, environ, "incidents", "resolve", "v1:0")
	require.ErrorContains(t, err, "--reason is needed")
	require.Equal(t, 2, exitCode(err))
	_, _, err = leat(t, environ, "incidents", "resolve", "v1:0", "--reason", "x")
	require.EqualError(t, err, "incident v1:0: there is no such incident; `leat incidents list --all` shows all of them")
	_, _, err = leat(t, environ, "incidents", "mute")
	require.Equal(t, 2, exitCode(err))
}
