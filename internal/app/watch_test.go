package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestScreen_FitsTheTerminal(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("a line that is rather long\n", 10)
	got := screen(text, nil, 2*time.Second, 12, 6)
	require.True(t, strings.HasPrefix(got, toTop))
	require.True(t, strings.HasSuffix(got, clearBelow))
	lines := strings.Split(strings.NewReplacer(toTop, "", clearLine, "", clearBelow, "").Replace(got), "\r\n")
	require.Len(t, lines, 6, "never more than the terminal has: it would scroll")
	for _, l := range lines {
		require.LessOrEqual(t, len([]rune(l)), 12)
	}
	require.Equal(t, "a line that…", lines[0])
	require.Equal(t, "… and 7 lin…", lines[3])

	got = screen("all is well\n", errors.New("no route"), time.Second, 80, 24)
	require.Contains(t, got, "all is well")
	require.Contains(t, got, "the last look was in vain: no route")
}

func TestAgo(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "0 s", -3: "0 s", 0.25: "0.2 s", 45: "45 s", 600: "10 min", 9000: "2 h", 400000: "5 d"} {
		require.Equal(t, want, ago(seconds))
	}
}
