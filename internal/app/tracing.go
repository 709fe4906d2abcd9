package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tracer returns what makes the spans of a stage, nil if tracing is off.
func (a *App) tracer(stage string) (trace.Tracer, error) {
	provider, err := a.tracing()
	if provider == nil || err != nil {
		return nil, err
	}
	return provider.Tracer("github.com/leat-io/leat/"+stage, trace.WithInstrumentationVersion(a.version)), nil
}

// makeTracing returns nil if tracing is off. It connects to nothing: a collector that is down costs spans, nothing else.
func (a *App) makeTracing() (*sdktrace.TracerProvider, error) {
	c := a.cfg.Tracing
	var exporter sdktrace.SpanExporter
	var err error
	switch {
	case a.spans != nil:
		exporter = a.spans
	case c.Exporter == "otlp_http":
		exporter, err = a.otlpExporter()
	case c.Exporter == "stdout":
		exporter, err = stdouttrace.New(stdouttrace.WithWriter(a.stdout))
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("setting up tracing.exporter %s: %w", c.Exporter, err)
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(loggedExporter{exporter, a.log}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SampleRatio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", c.ServiceName),
			attribute.String("service.version", a.version),
			attribute.String("service.instance.id", defaultInstance()),
		)),
	), nil
}

func (a *App) otlpExporter() (sdktrace.SpanExporter, error) {
	c := a.cfg.Tracing
	endpoint, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("reading tracing.endpoint: %w", err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces" // where collectors listen
	}
	headers := map[string]string{}
	for _, h := range c.Headers {
		if !h.Value.Empty() {
			headers[h.Name] = h.Value.Reveal()
		}
	}
	return otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(endpoint.String()), otlptracehttp.WithHeaders(headers))
}

// loggedExporter tells the log what OpenTelemetry would tell its global error handler.
type loggedExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdktrace.SpanExporter.
func (e loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.WarnContext(ctx, "exporting spans; they are lost", "spans", len(spans), "error", err)
	}
	return nil
}

// flushGrace bounds how long a process that ends waits for the collector.
const flushGrace = 5 * time.Second

// spanPart sends what is left of the spans when it is stopped, which is after everything that makes some.
func (a *App) spanPart() (Part, error) {
	provider, err := a.tracing()
	return Part{"tracing", func(ctx context.Context) error {
		<-ctx.Done()
		if provider == nil {
			return nil
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushGrace)
		defer cancel()
		if err := provider.Shutdown(grace); err != nil {
			a.log.WarnContext(ctx, "sending the last spans", "error", err)
		}
		return nil
	}}, err
}
