package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/testenv"
)

func TestDLQ_UsageErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string
	}{
		{"list a/b", `"a/b" is not the id of a dead letter: write <topic>/<partition>/<offset>, as ` + "`leat dlq list` shows it"},
		{"list --since yesterday", `--since: "yesterday" is neither a time such as 2026-11-24T08:00:00Z nor an age such as 24h`},
		{"list --state dead", `state "dead" is unknown: use open, redriving, redriven, resolved, failed_again or discarded`},
		{"list --since 1h --until 2h", "since is not before until"},
		{"redrive --group g", "--reason is needed"},
		{"redrive --resume a --cancel b", "--resume and --cancel do not go together"},
		{"redrive t/0/1 --set-header x", `--set-header "x": want name=value`},
		{"redrive t/0/1 --edit none.json --reason x", "reading the new value: open none.json"},
		{"export --group g --reason x", "--file is needed"},
		{"discard --group g", "--reason is needed"},
		{"assign --group g --assign-to a", "--reason is needed"},
		{"reindex", "--reason is needed"},
		{"show", "accepts 1 arg(s), received 0"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			_, _, err := leat(t, nil, append([]string{"dlq"}, strings.Fields(tt.args)...)...)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, 2, exitCode(err))
		})
	}
}

// TestDLQ_WithoutLetters: an empty index is no error to look at, and every decision says that there is nothing to decide.
func TestDLQ_WithoutLetters(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "leat.yaml")
	require.NoError(t, os.WriteFile(file, []byte("kafka:\n  brokers: ["+strings.Join(testenv.Kafka(t), ",")+"]\ncontrol:\n  url: "+testenv.Postgres(t)+"\n"), 0o600))
	environ := map[string]string{"LEAT_CONFIG": file, "LEAT_ACTOR": "ana"}
	_, _, err := leat(t, environ, "migrate", "up", "control")
	require.NoError(t, err)
	out, _, err := leat(t, environ, "dlq", "list")
	require.NoError(t, err)
	require.Equal(t, "0 dead letters  \n", out)
	out, _, err = leat(t, environ, "dlq", "jobs")
	require.NoError(t, err)
	require.Equal(t, "no redrives\n", out)
	export := filepath.Join(t.TempDir(), "letters.ndjson")
	for _, args := range []string{
		"redrive --group normalize --reason x", "redrive --group normalize --dry-run", "discard --group normalize --reason x",
		"assign --group normalize --assign-to bo --reason x", "export --group normalize --reason x --file " + export,
	} {
		_, _, err = leat(t, environ, append([]string{"dlq"}, strings.Fields(args)...)...)
		require.ErrorContains(t, err, "no dead letter is selected", args)
		require.Equal(t, 1, exitCode(err))
	}
	require.NoFileExists(t, export, "an export of nothing leaves no file")
	_, _, err = leat(t, environ, "dlq", "show", "t/0/1")
	require.ErrorContains(t, err, "the index knows no dead letter t/0/1: look with `leat dlq list`; `leat index run` brings it up to date")
	_, _, err = leat(t, environ, "dlq", "show", "e-1")
	require.ErrorContains(t, err, "and no event with a dead letter either")
	_, _, err = leat(t, environ, "dlq", "redrive", "--resume", "x", "--reason", "y")
	require.ErrorContains(t, err, "there is no redrive \"x\": `leat dlq jobs` lists them")
	_, _, err = leat(t, environ, "dlq", "redrive", "--reason", "y")
	require.ErrorContains(t, err, "a redrive of every dead letter is refused")
	out, _, err = leat(t, environ, "audit")
	require.NoError(t, err)
	require.Equal(t, "no entries\n", out, "nothing was changed")
}
