package relay

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/internal/traceparent"
	"github.com/leat-io/leat/topics"
)

// trace begins the span of a row: in the trace that its writer began, if that is recorded, or in one of its own if the sampler wants
// one. The record then continues the span. A traceparent that is not sampled, or none, is passed on as it is.
//
// Spans end when their transaction has committed. Those of a batch that fails are dropped: it is read again.
func (e *encoder) trace(b *batch, r *row, rec *kgo.Record, v [][]byte) {
	at := slices.IndexFunc(rec.Headers, func(h kgo.RecordHeader) bool { return h.Key == topics.HeaderTraceParent })
	var parent trace.SpanContext
	if at >= 0 {
		var ok bool
		if parent, ok = traceparent.Parse(rec.Headers[at].Value); !ok || !parent.IsSampled() {
			return
		}
	}
	ctx, span := e.tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), parent), "relay "+rec.Topic, trace.WithSpanKind(trace.SpanKindProducer))
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsSampled() {
		return
	}
	span.SetAttributes(
		attribute.String("messaging.system", "kafka"),
		attribute.String("messaging.operation.type", "send"),
		attribute.String("messaging.operation.name", "relay"),
		attribute.String("leat.source", e.system),
		attribute.String("leat.tenant", string(v[colTenant])),
		attribute.String("leat.entity", string(v[colEntity])),
		attribute.String("leat.event_id", string(r.event)),
		attribute.Int64("leat.outbox_id", r.id),
	)
	b.spans = append(b.spans, rowSpan{span, len(b.rows) - 1})
	header := kgo.RecordHeader{Key: topics.HeaderTraceParent, Value: traceparent.Append(nil, sc)}
	if at < 0 {
		rec.Headers = append(rec.Headers, header)
	} else {
		rec.Headers[at] = header
	}
}

// acknowledged tells the spans of b where their records stand, and returns them: they end when b is committed.
func (b *batch) acknowledged() []trace.Span {
	all := make([]trace.Span, 0, len(b.spans))
	for _, span := range b.spans {
		r, rec := &b.rows[span.row], &b.recs[span.row]
		outcome := "relayed"
		if r.refused != nil {
			outcome = "dead_letter"
			span.SetAttributes(attribute.String("error.type", r.refused.code), attribute.String("leat.error_class", "permanent"))
			span.SetStatus(codes.Error, "permanent "+r.refused.code)
		}
		span.SetAttributes(
			attribute.String("leat.outcome", outcome),
			attribute.String("messaging.destination.name", rec.Topic),
			attribute.String("messaging.destination.partition.id", strconv.Itoa(int(rec.Partition))),
			attribute.Int64("messaging.kafka.offset", rec.Offset),
		)
		all = append(all, span.Span)
	}
	return all
}
