package main

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// setupControl adds a control database to the configuration of setup.
func setupControl(t *testing.T, brokers ...string) (environ map[string]string, system string) {
	t.Helper()
	environ, _, system = setup(t, brokers...)
	text, err := os.ReadFile(environ["LEAT_CONFIG"])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(environ["LEAT_CONFIG"], append(text, []byte("\ncontrol:\n  url: ${DATABASE}\n")...), 0o600))
	environ["LEAT_ACTOR"] = "ana"
	return environ, system
}

func TestControl_PausesAndBreakersByHand(t *testing.T) {
	t.Parallel()
	environ, system := setupControl(t)
	_, _, err := leat(t, environ, "pauses")
	require.ErrorContains(t, err, "leat migrate up control")
	_, _, err = leat(t, environ, "migrate", "up", "control")
	require.NoError(t, err)
	for _, tt := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"pause", "source"}, "accepts 2 arg(s)", 2},
		{[]string{"pause", "source", system}, "--reason is needed", 2},
		{[]string{"pause", "source", system, "--reason", "x", "--for", "-1h"}, "--for is negative", 2},
		{[]string{"pause", "source", "shap", "--reason", "x"}, `there is no source "shap"; known are: ` + system, 1},
		{[]string{"pause", "stage", "index", "--reason", "x"}, `there is no stage "index"; known are: normalize, publish, relay`, 1},
		{[]string{"resume", "source", system, "--reason", "x"}, "source " + system + " is not paused", 1},
		{[]string{"breaker", "release", "nobody", "--reason", "x"}, "has no order about its breaker", 1},
		{[]string{"parked", "list"}, "--group is needed", 2},
		{[]string{"parked", "cancel", "--group", "g", "--reason", "x"}, "or take --all", 2},
		{[]string{"parked", "cancel", "--group", "g", "--all", "--reason", "x"}, "--yes is needed", 2},
		{[]string{"parked", "retry", "--group", "g", "--all", "--tenant", "acme", "--reason", "x"}, "or take --all", 2},
	} {
		_, _, err := leat(t, environ, tt.args...)
		require.ErrorContains(t, err, tt.want, "%v", tt.args)
		require.Equal(t, tt.code, exitCode(err), "%v", tt.args)
	}
	out, _, err := leat(t, environ, "pause", "source", system, "--reason", "database upgrade", "--for", "2h")
	require.NoError(t, err)
	require.Contains(t, out, "source "+system+" stands still within seconds, until ")
	out, _, err = leat(t, environ, "pauses", "-o", "json")
	require.NoError(t, err)
	var pauses []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &pauses))
	require.Len(t, pauses, 1)
	require.Equal(t, "ana", pauses[0]["actor"])
	require.Equal(t, "source", pauses[0]["scope"])
	out, _, err = leat(t, environ, "pauses")
	require.NoError(t, err)
	require.Regexp(t, `source `+system+` +paused +by ana at \S+ +until \S+ +database upgrade`, out)
	out, _, err = leat(t, environ, "resume", "source", system, "--reason", "done")
	require.NoError(t, err)
	require.Equal(t, "source "+system+" goes on\n", out)

	out, _, err = leat(t, environ, "breaker", "list")
	require.NoError(t, err)
	require.Equal(t, "no process with a breaker runs\n", out)
	var report struct {
		Publish struct{ Group string }
	}
	out, _, err = leat(t, environ, "config", "check", "-o", "json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	out, _, err = leat(t, environ, "breaker", "close", report.Publish.Group, "--reason", "it is up")
	require.NoError(t, err)
	require.Contains(t, out, "is closed within seconds")
	out, _, err = leat(t, environ, "breaker", "list")
	require.NoError(t, err)
	require.Contains(t, out, "to be held closed by ana: it is up; no process of it runs")
	_, _, err = leat(t, environ, "breaker", "release", report.Publish.Group, "--reason", "done")
	require.NoError(t, err)
	out, _, err = leat(t, environ, "audit", "--actor", "ana")
	require.NoError(t, err)
	require.Regexp(t, `(?s)breaker release.*breaker close.*resume.*pause`, out)
}

func TestControl_ParkedRecordsByHand(t *testing.T) {
	t.Parallel()
	brokers := testenv.Kafka(t)
	environ, system := setupControl(t, brokers...)
	_, _, err := leat(t, environ, "migrate", "up", "control")
	require.NoError(t, err)
	_, _, err = leat(t, environ, "topics", "apply")
	require.NoError(t, err)
	out, _, err := leat(t, environ, "config", "check", "-o", "json")
	require.NoError(t, err)
	var report struct {
		Normalize struct{ Group string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	group, topic := report.Normalize.Group, topics.Source(system, "customer")

	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer cl.Close()
	put := func(offset int64, tenant string, f topics.Failure, gone bool) {
		f.Topic, f.Offset, f.Group, f.Key = topic, offset, group, topics.Key(tenant, system, "1")
		rec := &kgo.Record{Topic: topics.Retry(topic, group), Key: []byte(topics.ParkedID(0, offset)), Value: []byte("secret")}
		for _, h := range f.Append(nil) {
			rec.Headers = append(rec.Headers, kgo.RecordHeader(h))
		}
		require.NoError(t, cl.ProduceSync(t.Context(), rec).FirstErr())
		if gone {
			require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: rec.Topic, Key: rec.Key}).FirstErr())
		}
	}
	put(3, "acme", topics.Failure{
		Disposition: topics.DispositionRetry, Attempt: 2, NotBefore: time.Now().Add(time.Hour), Class: "transient", Code: "deadlock",
		Message: "row 7 is locked",
	}, false)
	put(4, "acme", topics.Failure{Disposition: topics.DispositionBlockedBy}, false)
	put(5, "globex", topics.Failure{Disposition: topics.DispositionPaused}, false)
	put(6, "globex", topics.Failure{Disposition: topics.DispositionRetry, Attempt: 1}, true)

	out, _, err = leat(t, environ, "parked", "list", "--group", group)
	require.NoError(t, err)
	require.Regexp(t, topic+`/0/3 +acme/`+system+`/1 +retry +attempt 2 failed, next not before `, out)
	require.Contains(t, out, "row 7 is locked")
	require.Contains(t, out, "waits behind an earlier record of its key")
	require.Contains(t, out, "waits: its tenant is paused")
	require.NotContains(t, out, "/0/6")
	require.NotContains(t, out, "secret")
	out, _, err = leat(t, environ, "parked", "cancel", "--group", group, "--tenant", "globex", "--dry-run", "-o", "json")
	require.NoError(t, err)
	var list []struct{ Offset int64 }
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, 1)
	out, _, err = leat(t, environ, "parked", "retry", "--group", group, "--offset", topic+"/0/3", "--reason", "unlocked", "--wait", "1ms")
	require.NoError(t, err)
	require.Contains(t, out, "no process of group "+group+" runs; it is carried out when one does")
	_, _, err = leat(t, environ, "parked", "list", "--group", group+"x")
	require.ErrorContains(t, err, "is the name of the group right?")
	_, _, err = leat(t, environ, "parked", "list", "--group", group, "--topic", "x")
	require.ErrorContains(t, err, "there is no topic x."+group+".retry")
	_, _, err = leat(t, environ, "parked", "list", "--group", group, "--offset", "x")
	require.ErrorContains(t, err, "is not topic/partition/offset")
}
