package reporting_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/processors/publish/reporting"
)

// TestForecast_ForeseesWhatTheHandlerDoes publishes random changes, forecasts others, and then publishes those one after the other:
// each outcome must be the one foreseen, and foreseeing must have written nothing.
func TestForecast_ForeseesWhatTheHandlerDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		prefix := "r" + string(rune('a'+run%26)) + rapid.StringMatching(`[a-z]{6}`).Draw(rt, "prefix") + "-"
		draw := func(label string) (batch []processors.Message) {
			for range rapid.IntRange(0, 6).Draw(rt, label) {
				c, _ := drawChange(rt, prefix)
				if rapid.IntRange(0, 9).Draw(rt, "broken") == 0 {
					c.value = "{}"
				}
				batch = append(batch, b.message(c))
			}
			return batch
		}
		b.handler.Handle(t.Context(), draw("there"))
		coming := draw("coming")
		f, err := reporting.NewForecast(b.db, reporting.Config{})
		require.NoError(rt, err)
		before := b.query(t, "select count(*), max(published_at) from reporting.links")
		var foreseen []processors.Result
		for half := range 2 { // in two batches: it remembers what it has said
			part := coming[half*len(coming)/2 : (half+1)*len(coming)/2]
			results, err := f.Foresee(t.Context(), part)
			require.NoError(rt, err)
			foreseen = append(foreseen, results...)
		}
		require.Equal(rt, before, b.query(t, "select count(*), max(published_at) from reporting.links"))
		var done []processors.Result
		for i := range coming {
			done = append(done, b.handler.Handle(t.Context(), coming[i:i+1])...)
		}
		require.Equal(rt, said(done), said(foreseen))
	})
}
