package processors

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/internal/traceparent"
	"github.com/leat-io/leat/topics"
)

// traced is the span of a record whose trace is recorded, and the traceparent by which what comes of the record continues
// it. The zero value is no span: nothing is recorded, and traceparent is passed on as it came.
//
// Spans end when their transaction has committed. Those of one that aborts are dropped: a trace shows what took effect.
type traced struct {
	span   trace.Span
	parent []byte
}

// trace begins the span of an attempt, if its record belongs to a trace that is recorded.
func (w *work) trace(msg *Message) traced {
	tracer := w.s.r.cfg.Tracer
	if tracer == nil {
		return traced{}
	}
	at := slices.IndexFunc(msg.Headers, func(h topics.Header) bool { return h.Key == topics.HeaderTraceParent })
	if at < 0 {
		return traced{}
	}
	sc, ok := traceparent.Parse(msg.Headers[at].Value)
	if !ok || !sc.IsSampled() {
		return traced{}
	}
	cfg := &w.s.r.cfg
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), sc)
	_, span := tracer.Start(ctx, cfg.Name+" "+msg.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(w.began),
		trace.WithAttributes(
			attribute.String("messaging.system", "kafka"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.operation.name", cfg.Name),
			attribute.String("messaging.consumer.group.name", cfg.Group),
			attribute.String("messaging.destination.name", msg.Topic),
			attribute.String("messaging.destination.partition.id", itoa(msg.Partition)),
			attribute.Int64("messaging.kafka.offset", msg.Offset),
			attribute.String("leat.tenant", header(msg.Headers, topics.HeaderTenant)),
			attribute.String("leat.entity", entity(header(msg.Headers, topics.HeaderType))),
			attribute.String("leat.event_id", header(msg.Headers, topics.HeaderID)),
			attribute.Int("leat.attempt", msg.Attempt),
		))
	t := traced{span: span}
	if span.SpanContext().IsValid() {
		t.parent = traceparent.Append(nil, span.SpanContext())
	}
	return t
}

// entity is the second part of a ce_type.
func entity(kind string) string {
	_, rest, _ := strings.Cut(kind, ".")
	entity, _, _ := strings.Cut(rest, ".")
	return entity
}

// attempted notes how the attempt ended. Of a failure its class and code are told: its message may quote the record.
func (w *work) attempted(t traced, outcome string, f *topics.Failure) {
	if t.span == nil {
		return
	}
	t.span.SetAttributes(attribute.String("leat.outcome", outcome))
	if f != nil {
		t.span.SetAttributes(attribute.String("error.type", f.Code), attribute.String("leat.error_class", f.Class),
			attribute.String("leat.fingerprint", f.Fingerprint))
		t.span.SetStatus(codes.Error, f.Class+" "+f.Code)
	}
	w.tally.spans = append(w.tally.spans, t.span)
}

// endSpans ends the spans of a committed transaction.
func (w *work) endSpans(now time.Time) {
	for _, span := range w.tally.spans {
		span.End(trace.WithTimestamp(now))
	}
}

// continued replaces traceparent in hs, or adds it.
func (t traced) continued(hs []topics.Header) []topics.Header {
	if t.parent == nil {
		return hs
	}
	out := make([]topics.Header, 0, len(hs)+1)
	for _, h := range hs {
		if h.Key != topics.HeaderTraceParent {
			out = append(out, h)
		}
	}
	return append(out, topics.Header{Key: topics.HeaderTraceParent, Value: t.parent})
}
