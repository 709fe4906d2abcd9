package traceparent_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/internal/traceparent"
)

// theirs is OpenTelemetry's own reading.
func theirs(v string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": v})
	return trace.SpanContextFromContext(ctx)
}

func TestParse_AgreesWithOpenTelemetry(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(
			rapid.StringMatching(`(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-(00|01)`),
			rapid.StringMatching(`(00|02)-[0-9a-fA-F]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{2}(-.)?`),
			rapid.StringMatching(`00-0{32}-[0-9a-f]{16}-01|00-[0-9a-f]{32}-0{16}-01|.{0,60}`),
		).Draw(t, "v")
		sc, ok := traceparent.Parse([]byte(v))
		want := theirs(v)
		require.Equal(t, want.IsValid(), ok, "%q", v)
		if ok {
			require.Equal(t, want.TraceID(), sc.TraceID())
			require.Equal(t, want.SpanID(), sc.SpanID())
			require.Equal(t, want.IsSampled(), sc.IsSampled())
			require.True(t, sc.Equal(theirs(string(traceparent.Append(nil, sc)))))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	f.Add([]byte("00-x"))
	f.Fuzz(func(t *testing.T, v []byte) {
		if sc, ok := traceparent.Parse(v); ok {
			again, ok := traceparent.Parse(traceparent.Append(nil, sc))
			require.True(t, ok)
			require.True(t, sc.Equal(again))
		}
	})
}

func TestParse_AllocatesNothing(t *testing.T) {
	v := []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	require.Zero(t, testing.AllocsPerRun(100, func() { traceparent.Parse(v) }))
}
