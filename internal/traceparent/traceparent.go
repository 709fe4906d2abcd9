// Package traceparent reads and writes the header that carries a trace from record to record: traceparent of W3C Trace Context.
//
// It makes no spans and knows no exporter: who makes spans is given a tracer. tracestate is not carried on: nothing of ours
// would read it.
package traceparent

import (
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"
)

// length of "00-<32 hex digits>-<16 hex digits>-<2 hex digits>".
const length = 2 + 1 + 32 + 1 + 16 + 1 + 2

// Parse reads a traceparent of any version. It reports false for what is none; it allocates nothing.
func Parse(v []byte) (trace.SpanContext, bool) {
	if len(v) < length || v[2] != '-' || v[35] != '-' || v[52] != '-' ||
		v[0] == '0' && v[1] == '0' && len(v) != length || v[0] == 'f' && v[1] == 'f' || len(v) > length && v[length] != '-' {
		return trace.SpanContext{}, false
	}
	var version, flags [1]byte
	var c trace.SpanContextConfig
	for _, part := range []struct{ dst, src []byte }{
		{version[:], v[:2]}, {c.TraceID[:], v[3:35]}, {c.SpanID[:], v[36:52]}, {flags[:], v[53:55]},
	} {
		if _, err := hex.Decode(part.dst, part.src); err != nil || hasUpper(part.src) {
			return trace.SpanContext{}, false
		}
	}
	c.TraceFlags, c.Remote = trace.TraceFlags(flags[0])&trace.FlagsSampled, true
	sc := trace.NewSpanContext(c)
	return sc, sc.IsValid()
}

func hasUpper(v []byte) bool {
	for _, b := range v {
		if b >= 'A' && b <= 'F' {
			return true
		}
	}
	return false
}

// Append appends sc as a traceparent to dst.
func Append(dst []byte, sc trace.SpanContext) []byte {
	id, span := sc.TraceID(), sc.SpanID()
	dst = hex.AppendEncode(append(dst, "00-"...), id[:])
	dst = hex.AppendEncode(append(dst, '-'), span[:])
	return hex.AppendEncode(append(dst, '-'), []byte{byte(sc.TraceFlags() & trace.FlagsSampled)})
}
