package yamlbound_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/yamlbound"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"too long":          {strings.Repeat("x", yamlbound.MaxBytes+1), "1048577 bytes"},
		"too many lines":    {strings.Repeat("k: 1\n", 10_000), "lines and entries"},
		"too many entries":  {"a: [" + strings.Repeat("x,", 20_000) + "x]", "lines and entries"},
		"too many in a map": {"a: {" + strings.Repeat("x: 1, ", 20_000) + "}", "lines and entries"},
		"lists in one line": {strings.Repeat("- ", 20_000) + "x", "lines and entries"},
		"deep lists":        {strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), "nested deeper"},
		"deep maps":         {strings.Repeat("{a: ", 5_000), "nested deeper"},
		"a text":            {"a: " + strings.Repeat("lorem ipsum ", 5_000), ""},
		"empty":             {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := yamlbound.Check([]byte(c.text)); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestCheck_AllowsWhatIsWritten(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/chinook/mappings/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range append(files, "../../docker-compose.yml") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, yamlbound.Check(text), file)
	}
}
