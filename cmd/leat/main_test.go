package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/safetext"
)

// leat runs the program as a shell would.
func leat(t *testing.T, environ map[string]string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut strings.Builder
	err = run(t.Context(), args, func(name string) string { return environ[name] }, &out, &errOut)
	return out.String(), errOut.String(), err
}

func TestHelp_EveryCommandNeedsNoManual(t *testing.T) {
	t.Parallel()
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		require.NotEmpty(t, c.Short, c.CommandPath())
		require.NotEmpty(t, c.Long, c.CommandPath())
		require.Contains(t, c.Example, c.CommandPath(), "the example of %s shows the command itself", c.CommandPath())
		for line := range strings.SplitSeq(c.Long+"\n"+c.Example, "\n") {
			require.LessOrEqual(t, len([]rune(line)), 130, "%s: %s", c.CommandPath(), line)
		}
		require.NotNil(t, c.RunE, c.CommandPath())
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&env{getenv: os.Getenv, stdout: safetext.NewWriter(io.Discard), stderr: safetext.NewWriter(io.Discard)}))
}

func TestHelp_IsPrinted(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--help"}, {"relay"}, {"relay", "run", "--help"}, {"help", "topics", "plan"}} {
		out, _, err := leat(t, nil, args...)
		require.NoError(t, err)
		require.Contains(t, out, "Usage:")
		require.Contains(t, out, "Examples:")
	}
	out, _, err := leat(t, nil)
	require.NoError(t, err)
	require.Contains(t, out, "Exit codes: 0 success; 1 an error")
}

func TestUsageErrors_SayWhatIsWrongAndExitWith2(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"rely"}, "unknown command \"rely\", did you mean relay? (see `leat --help`)"},
		{[]string{"topics", "aply"}, "unknown command \"aply\", did you mean apply or acls? (see `leat topics --help`)"},
		{[]string{"topics", "zzz"}, "unknown command \"zzz\" (see `leat topics --help`)"},
		{[]string{"dev", "--onse"}, "unknown flag: --onse (see `leat dev --help`)"},
		{[]string{"dev", "-o", "xml"}, "invalid argument \"xml\" for \"-o, --output\" flag: want text or json (see `leat dev --help`)"},
		{[]string{"dev", "now"}, "unknown command \"now\" for \"leat dev\" (see `leat dev --help`)"},
		{[]string{"trace"}, "accepts 1 arg(s), received 0 (see `leat trace --help`)"},
		{[]string{"index", "rebuild", "journal"}, "--reason is needed (see `leat index rebuild --help`)"},
		{[]string{"mapping", "test"}, "accepts 1 arg(s), received 0 (see `leat mapping test --help`)"},
		{[]string{"migrate", "up", "books"}, "invalid argument \"books\" for \"leat migrate up\" (see `leat migrate up --help`)"},
		{[]string{"migrate", "down", "reporting"}, "--yes is needed (see `leat migrate down --help`)"},
		{[]string{"sample", "run", "--rate", "fast"}, "invalid argument \"fast\" for \"--rate\" flag"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			_, _, err := leat(t, nil, tt.args...)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, 2, exitCode(err))
		})
	}
}

func TestErrors_NameTheThingAndTheRemedy(t *testing.T) {
	t.Parallel()
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "leat.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	empty := write("")
	kafka := write("kafka:\n  brokers: 127.0.0.1:1\n")
	source := write("kafka:\n  brokers: 127.0.0.1:1\nsources:\n  - name: shop\n    entities: [a]\n    url: postgres://127.0.0.1:1/x\n")
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"config", "check", "-c", "none.yaml"}, "there is no file none.yaml; name it with --config or LEAT_CONFIG"},
		{[]string{"relay", "run", "-c", empty}, "leat.yaml:1: kafka.brokers: is missing; name at least one broker as host:port"},
		{[]string{"relay", "run", "-c", kafka}, "leat.yaml:1: sources: is missing; name at least one source system"},
		{[]string{"normalize", "run", "-c", empty}, "kafka.brokers: is missing"},
		{[]string{"normalize", "run", "-c", kafka}, "/mappings: name the directory of the mappings in normalize.mappings"},
		{[]string{"publish", "run", "-c", kafka}, "publish.reporting.url: is missing"},
		{[]string{"topics", "plan", "-c", kafka}, "sources: is missing"},
		{[]string{"migrate", "up", "-c", empty}, "the configuration has no database"},
		{[]string{"migrate", "up", "control", "-c", empty}, "control.url: is missing"},
		{[]string{"migrate", "up", "--source", "x", "-c", source}, `there is no source "x" in the configuration; its sources are: shop`},
		{[]string{"sample", "run", "-c", source}, "the configuration has no source chinook with a url"},
		{[]string{"mapping", "test", "none"}, "there is no directory none"},
		{[]string{"health", "--url", "http://127.0.0.1:1"}, "does the process run, and listen there?"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			_, _, err := leat(t, nil, tt.args...)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, 1, exitCode(err))
		})
	}
}

func TestConfigCheck_PrintsTheMeaningWithoutSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "leat.yaml")
	require.NoError(t, os.WriteFile(file, []byte("control:\n  url: postgres://leat:${PASSWORD}@db/books\n"), 0o600))
	environ := map[string]string{"LEAT_CONFIG": file, "PASSWORD": "hunter2"}
	out, _, err := leat(t, environ, "config", "check")
	require.NoError(t, err)
	require.Contains(t, out, "url: postgres://leat@db:5432/books")
	require.Contains(t, out, "max: 10m0s")
	require.NotContains(t, out, "hunter2")

	out, _, err = leat(t, environ, "config", "check", "-o", "json")
	require.NoError(t, err)
	var parsed struct{ HTTP struct{ Listen string } }
	require.NoError(t, json.Unmarshal([]byte(out), &parsed))
	require.Equal(t, "127.0.0.1:9464", parsed.HTTP.Listen)
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, _, err := leat(t, nil, "version")
	require.NoError(t, err)
	require.Regexp(t, `^leat \S+ go1\.\d+\S* \w+/\w+\n$`, out)
	out, _, err = leat(t, nil, "version", "-o", "json")
	require.NoError(t, err)
	require.Contains(t, out, `"platform": "`)
}

func TestMappingTest_ShowsTheSamplesOfTheExample(t *testing.T) {
	t.Parallel()
	out, _, err := leat(t, nil, "mapping", "test", "../../examples/chinook/mappings")
	require.NoError(t, err)
	require.Contains(t, out, " 0 failed\n")
}
