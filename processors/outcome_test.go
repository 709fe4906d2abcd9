package processors_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-io/leat/processors"
	"github.com/leat-io/leat/topics"
)

// TestRunner_ObservesWhatWasCommitted also has a batch that is aborted: it must not count.
func TestRunner_ObservesWhatWasCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	b.produce(numbered(20, 20)...)
	wild := &kgo.Record{Topic: b.in, Key: []byte("x"), Value: []byte("1"), Headers: []kgo.RecordHeader{{Key: topics.HeaderTenant, Value: []byte("No Name")}}}
	require.NoError(t, b.cl.ProduceSync(t.Context(), wild).FirstErr())
	var mu sync.Mutex
	counts := map[processors.Outcome]int64{}
	down := true
	cfg := b.config(processors.HandlerFunc(func(_ context.Context, batch []processors.Message) []processors.Result {
		mu.Lock()
		defer mu.Unlock()
		out := make([]processors.Result, len(batch))
		for i, m := range batch {
			switch key := string(m.Key); {
			case down && i == len(batch)-1:
				out[i].Err = processors.Systemic("down", errors.New("down"))
				down = false
			case strings.HasSuffix(key, "/7"):
				out[i].Err = processors.Permanent("rule", errors.New("no"))
			case strings.HasSuffix(key, "/8") && m.Attempt == 1:
				out[i].Err = errors.New("later")
			case strings.HasSuffix(key, "/9"):
				out[i] = processors.Result{Outcome: "filtered", Detail: "tests"}
			default:
				out[i].Outcome = "applied"
			}
		}
		return out
	}))
	cfg.Observe = func(list []processors.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range list {
			n := o.Count
			o.Count = 0
			require.Equal(t, topics.EntityOf(b.in), o.Entity)
			o.Entity = "x"
			counts[o] += n
		}
	}
	run := start(t, cfg)
	want := map[processors.Outcome]int64{
		{Tenant: "acme", Entity: "x", Outcome: "applied"}:                     18, // the one that was tried again too
		{Entity: "x", Outcome: "applied"}:                                     1,
		{Tenant: "acme", Entity: "x", Outcome: "dead_letter", Detail: "rule"}: 1,
		{Tenant: "acme", Entity: "x", Outcome: "filtered", Detail: "tests"}:   1,
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		sum := int64(0)
		for _, n := range counts {
			sum += n
		}
		return sum >= 21
	}, patience, 10*time.Millisecond)
	run.stop()
	require.Equal(t, want, counts)
}
