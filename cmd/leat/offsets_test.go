package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/topics"
)

// TestOffsets_ByHand goes through every verb as an operator would, on a group that has read five of ten records.
func TestOffsets_ByHand(t *testing.T) {
	t.Parallel()
	brokers := testenv.Kafka(t)
	environ, system := setupControl(t, brokers...)
	topic := topics.Source(system, "customer")
	ok := func(args ...string) string {
		t.Helper()
		out, _, err := leat(t, environ, args...)
		require.NoError(t, err, args)
		return out
	}
	var config struct{ Normalize struct{ Group string } }
	require.NoError(t, json.Unmarshal([]byte(ok("config", "check", "-o", "json")), &config))
	group := config.Normalize.Group
	plan := []string{"offsets", "plan", "--group", group, "--topic", topic, "--reason", "ticket 12"}
	ok("topics", "apply")
	_, _, err := leat(t, environ, "offsets", "show")
	require.ErrorContains(t, err, "run `leat migrate up control`")
	ok("migrate", "up", "control")
	for _, tt := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"offsets", "plan", "--to-earliest"}, "--group, --reason is needed", 2},
		{plan, "a target is needed", 2},
		{append(plan, "--to-earliest", "--to-offset", "0"), "--to-earliest and --to-offset exclude each other", 2},
		{append(plan, "--by-duration", "1h"), "want PnDTnHnMnS", 2},
		{append(plan, "--to-earliest", "--parked", "drop"), "--parked drop: want keep, drain or cancel", 2},
		{append(plan, "--to-earliest"), "has committed nothing: it has never run, or Kafka has forgotten its offsets", 1},
		{append(plan, "--from-file", "nowhere.csv"), "reading --from-file: ", 1},
		{[]string{"offsets", "apply"}, "accepts 1 arg(s)", 2},
		{[]string{"offsets", "apply", "nix"}, "plan nix: there is no such plan", 1},
		{[]string{"offsets", "undo", "nix"}, "--reason is needed", 2},
		{[]string{"offsets", "list", "--group", "nobody"}, "there is no group nobody: is the name right?", 1},
		{[]string{"offsets", "export", "--before"}, "--before goes with --plan", 2},
	} {
		_, _, err := leat(t, environ, tt.args...)
		require.ErrorContains(t, err, tt.want, "%v", tt.args)
		require.Equal(t, tt.code, exitCode(err), "%v", tt.args)
	}
	require.Regexp(t, "group "+group+": unknown to Kafka, 0 members\n  NOTE +has committed nothing", ok("offsets", "list"))
	readFive(t, brokers, group, topic)

	out := ok(append(plan, "--to-earliest")...)
	id := strings.TrimSuffix(strings.TrimPrefix(strings.Fields(out)[1], "plan "), ":")
	require.Regexp(t, topic+`/0 +5 +0 +0 +10 +10 +re-read 5 `, out)
	require.Contains(t, out, "leat offsets apply "+id)
	require.Contains(t, ok("offsets", "show"), id)
	require.Equal(t, out, ok("offsets", "show", id))
	out = ok("offsets", "apply", id)
	require.Regexp(t, topic+`/0 +5 +0 `, out)
	require.Contains(t, out, "start the processes of the group again")
	require.Contains(t, ok("offsets", "undo", id, "--reason", "the wrong topic"), "is undone")
	require.Contains(t, ok("offsets", "show", id), "undone by ana at ")

	csv := ok("offsets", "export", "--group", group)
	require.Equal(t, topic+",0,5\n", csv)
	require.Equal(t, csv, ok("offsets", "export", "--plan", id, "--before"))
	require.Contains(t, ok("offsets", "export", "--plan", id), topic+",0,0\n")
	file := filepath.Join(t.TempDir(), "offsets.csv")
	require.NoError(t, os.WriteFile(file, []byte(csv), 0o600))
	require.Regexp(t, topic+`/0 +5 +5 .* stays`, ok("offsets", "plan", "--group", group, "--from-file", file, "--reason", "x"))
	require.Contains(t, ok("audit", "--action", "offsets"), "the wrong topic")
	var listed []struct {
		Group      string
		Partitions []struct {
			Lag int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(ok("offsets", "list", "--group", group, "-o", "json")), &listed))
	require.Equal(t, 5, listed[0].Partitions[0].Lag)
}

// readFive writes ten records to partition 0 and commits that five were read.
func readFive(t *testing.T, brokers []string, group, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer cl.Close()
	for range 10 {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("{}")}).FirstErr())
	}
	var five kadm.Offsets
	five.AddOffset(topic, 0, 5, -1)
	require.NoError(t, kadm.NewClient(cl).CommitAllOffsets(t.Context(), group, five))
}
