package model

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

//nolint:gochecknoglobals // a flag must be there before the tests' main parses them
var deep = flag.Bool("model.deep", false, "explore models with wider bounds, for minutes")

// deepLimit is how many states a model may have with wider bounds.
const deepLimit = 10_000_000

// Deep says that wider bounds were asked for, with -model.deep.
func Deep() bool { return *deep }

// Check explores a model in a parallel subtest. finds is a part of what must be found wrong with it, because a mistake was planted: a
// model that could not fail would show nothing. With "" nothing may be wrong.
func Check[S any](t *testing.T, name, finds string, build func(*testing.T) *Model[S]) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		m := build(t)
		if *deep {
			m.Limit = deepLimit
		}
		result, err := m.Explore()
		if finds != "" {
			t.Log(result, err)
			require.ErrorContains(t, err, finds)
			return
		}
		t.Log(result)
		require.NoError(t, err)
	})
}
