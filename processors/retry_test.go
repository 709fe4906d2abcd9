package processors

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRetryPolicy_DelaysStayWithinBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := RetryPolicy{
			Base: time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "base")),
		}.withDefaults()
		var last time.Duration
		for range 20 {
			d := p.delay(last)
			require.GreaterOrEqual(t, d, p.Base)
			require.LessOrEqual(t, d, min(p.Max, 3*max(last, p.Base)))
			last = d
		}
	})
}

func TestRetryPolicy_RefusesNonsense(t *testing.T) {
	t.Parallel()
	require.NoError(t, RetryPolicy{}.withDefaults().validate())
	require.ErrorContains(t, RetryPolicy{MaxAttempts: -1}.withDefaults().validate(), "attempts -1")
	require.ErrorContains(t, RetryPolicy{Base: time.Hour, Max: time.Second}.withDefaults().validate(), "1h0m0s")
}

func TestBreaker_ProbesWithGrowingPauses(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	b := newBreaker(func() time.Time { return now })
	require.Zero(t, b.wait())
	require.False(t, b.succeed(), "was closed")
	for i, want := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		require.Equal(t, time.Duration(want)*time.Millisecond, b.trip("rule", "sample", false))
		s := b.snapshot()
		require.Equal(t, BreakerOpen, s.State)
		require.Equal(t, i, s.Probes)
		require.Equal(t, time.Unix(0, 0), s.Since)
		now = s.Probe.Add(-time.Millisecond)
		require.Equal(t, time.Millisecond, b.wait())
		now = s.Probe
		require.Zero(t, b.wait())
		probing, _ := b.probing()
		require.True(t, probing)
	}
	require.True(t, b.succeed())
	require.Equal(t, BreakerClosed, b.snapshot().State)
}
