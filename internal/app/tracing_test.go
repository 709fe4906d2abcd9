package app

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/testenv"
	"github.com/leat-io/leat/outbox"
	"github.com/leat-io/leat/topics"
)

// spanLog keeps what is exported.
type spanLog struct {
	mu    sync.Mutex
	spans []sdktrace.ReadOnlySpan
}

func (l *spanLog) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans = append(l.spans, spans...)
	return nil
}

func (l *spanLog) Shutdown(context.Context) error { return nil }

// of returns the spans of a trace by the stage that made them.
func (l *spanLog) of(id trace.TraceID) map[string]sdktrace.ReadOnlySpan {
	l.mu.Lock()
	defer l.mu.Unlock()
	spans := map[string]sdktrace.ReadOnlySpan{}
	for _, s := range l.spans {
		if s.SpanContext().TraceID() == id {
			spans[strings.TrimPrefix(s.InstrumentationScope().Name, "github.com/leat-io/leat/")] = s
		}
	}
	return spans
}

// tracedPipeline is a pipeline with names of its own in front of a source with an outbox.
func tracedPipeline(t *testing.T, o Options) (a *App, system string, source *pgx.Conn) {
	t.Helper()
	system = testenv.Name("shop")
	cfg := config.Default()
	cfg.Kafka.Brokers, cfg.Kafka.Partitions = testenv.Kafka(t), 4 // as every test: they share the finance topics
	cfg.Sources = []config.Source{{
		Name: system, Entities: []string{"customer", "invoice", "payment"}, URL: config.NewDatabaseURL(testenv.Postgres(t)),
	}}
	cfg.Publish.Reporting.URL = config.NewDatabaseURL(testenv.Postgres(t))
	cfg.Relay.Group, cfg.Normalize.Group, cfg.Publish.Group = testenv.Name("relay"), testenv.Name("normalize"), testenv.Name("reporting")
	cfg.HTTP.Listen = "off"
	mappings := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(chinook.Mappings(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		text, err := fs.ReadFile(chinook.Mappings(), path)
		mappings[path] = &fstest.MapFile{Data: bytes.ReplaceAll(text, []byte("system: chinook"), []byte("system: "+system))}
		return err
	}))
	o.Stderr, o.Mappings = io.Discard, mappings
	a = New(cfg, o)
	for _, schema := range []string{"outbox", "reporting"} {
		_, err := a.Migrate(t.Context(), MigrateOptions{Action: "up", Schemas: []string{schema}})
		require.NoError(t, err)
	}
	_, err := a.TopicsApply(t.Context())
	require.NoError(t, err)
	source, err = pgx.Connect(t.Context(), cfg.Sources[0].URL.Reveal())
	require.NoError(t, err)
	t.Cleanup(func() { _ = source.Close(context.WithoutCancel(t.Context())) })
	return a, system, source
}

const paidInvoice = `{"invoice_id": 7, "customer_id": 1, "invoice_date": "2026-11-23 00:00:00", "status": "open", "currency": "USD",
	"total": "1.00", "billing_country": "Brazil",
	"lines": [{"invoice_line_id": 1, "invoice_id": 7, "track_id": 2, "unit_price": "1.00", "quantity": 1}]}`

func invoice(payload string) outbox.Event {
	return outbox.Event{
		ID: uuid.Must(uuid.NewV7()), Tenant: "acme", Entity: "invoice", Key: "7", Operation: topics.Upsert, Payload: []byte(payload),
	}
}

// runUntil runs the whole pipeline in one process until check holds.
func runUntil(t *testing.T, a *App, check func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.RunAll(ctx, nil, nil) }()
	require.Eventually(t, check, 2*time.Minute, 50*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

func published(t *testing.T, a *App, system string) func() bool {
	t.Helper()
	db, err := pgx.Connect(t.Context(), a.cfg.Publish.Reporting.URL.Reveal())
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	return func() bool {
		var n int
		return db.QueryRow(t.Context(), "select count(*) from reporting.invoices where system = $1", system).Scan(&n) == nil && n == 1
	}
}

// TestTracing_OneTraceFromTheOutboxToTheTarget: each stage's span is the child of the one before it.
func TestTracing_OneTraceFromTheOutboxToTheTarget(t *testing.T) {
	t.Parallel()
	spans := &spanLog{}
	a, system, source := tracedPipeline(t, Options{Spans: spans})
	a.cfg.Tracing.SampleRatio = 1
	shop := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	ctx, begun := shop.Tracer("shop").Start(t.Context(), "book an invoice")
	good, bad := invoice(paidInvoice), invoice(`{"invoice_id": 7}`)
	require.NoError(t, outbox.Write(ctx, source, good))
	begun.End()
	ctx, broken := shop.Tracer("shop").Start(t.Context(), "book nonsense")
	require.NoError(t, outbox.Write(ctx, source, bad))
	broken.End()
	own := invoice(paidInvoice) // of a source without traces: the relay begins one
	require.NoError(t, outbox.Write(t.Context(), source, own))

	arrived := published(t, a, system)
	dlq := topics.DLQ(topics.Source(system, "invoice"), a.cfg.Normalize.Group)
	failed := func() bool { return len(testenv.ReadCommitted(t, a.cfg.Kafka.Brokers, dlq)) > 0 }
	runUntil(t, a, func() bool { return arrived() && failed() })

	got := spans.of(begun.SpanContext().TraceID())
	require.Len(t, got, 3, "relay, normalize, publish")
	require.Equal(t, begun.SpanContext().SpanID(), got["relay"].Parent().SpanID())
	require.Equal(t, got["relay"].SpanContext().SpanID(), got["normalize"].Parent().SpanID())
	require.Equal(t, got["normalize"].SpanContext().SpanID(), got["publish"].Parent().SpanID())
	for stage, want := range map[string][]attribute.KeyValue{
		"relay":     {attribute.String("leat.outcome", "relayed"), attribute.String("leat.event_id", good.ID.String())},
		"normalize": {attribute.String("leat.outcome", "normalized"), attribute.String("messaging.destination.name", topics.Source(system, "invoice"))},
		"publish":   {attribute.String("messaging.consumer.group.name", a.cfg.Publish.Group), attribute.String("leat.entity", "invoice")},
	} {
		require.Subset(t, got[stage].Attributes(), append(want, attribute.String("messaging.system", "kafka"), attribute.String("leat.tenant", "acme")), stage)
		require.Equal(t, codes.Unset, got[stage].Status().Code)
	}

	got = spans.of(broken.SpanContext().TraceID())
	require.Len(t, got, 2, "relay and normalize")
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "permanent mapping"}, got["normalize"].Status())
	require.Contains(t, got["normalize"].Attributes(), attribute.String("leat.outcome", "dead_letter"))

	begunHere := 0
	for _, s := range spans.spans {
		if !s.Parent().IsValid() {
			begunHere++
			require.Contains(t, s.Attributes(), attribute.String("leat.event_id", own.ID.String()))
			require.Len(t, spans.of(s.SpanContext().TraceID()), 3)
		}
	}
	require.Equal(t, 1, begunHere)
}

// TestTracing_OffPassesTheHeaderOn: a consumer of the finance topics may trace although Leat does not.
func TestTracing_OffPassesTheHeaderOn(t *testing.T) {
	t.Parallel()
	a, system, source := tracedPipeline(t, Options{})
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	event := invoice(paidInvoice)
	event.Headers = map[string]string{"traceparent": parent}
	require.NoError(t, outbox.Write(t.Context(), source, event))
	runUntil(t, a, published(t, a, system))
	seen := 0
	for _, rec := range testenv.ReadCommitted(t, a.cfg.Kafka.Brokers, topics.Finance("invoice", 1)) {
		for _, h := range rec.Headers {
			if h.Key == "traceparent" && strings.HasPrefix(string(rec.Key), "acme/"+system+"/") {
				seen++
				require.Equal(t, parent, string(h.Value))
			}
		}
	}
	require.Equal(t, 1, seen)
}

// TestTracing_SendsTheLastSpansWhenTheProcessEnds, with the configured headers and to the usual path.
func TestTracing_SendsTheLastSpansWhenTheProcessEnds(t *testing.T) {
	t.Parallel()
	type request struct{ path, token string }
	requests := make(chan request, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- request{r.URL.Path, r.Header.Get("Authorization")}
		w.WriteHeader(http.StatusOK)
	}))
	defer collector.Close()
	cfg := config.Default()
	cfg.Tracing.Exporter, cfg.Tracing.Endpoint, cfg.Tracing.SampleRatio = "otlp_http", collector.URL, 1
	cfg.Tracing.Headers = []config.TraceHeader{{Name: "Authorization", Value: config.NewSecret("Bearer hunter2")}}
	a := New(cfg, Options{Stderr: io.Discard})
	tracer, err := a.tracer("relay")
	require.NoError(t, err)
	_, span := tracer.Start(t.Context(), "relay source.shop.invoice")
	span.End()
	part, err := a.spanPart()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, part.Run(ctx))
	require.Equal(t, request{"/v1/traces", "Bearer hunter2"}, <-requests)
}

// TestTracing_ACollectorThatIsDownCostsSpansOnly: neither the start nor the end of a process waits for it for long.
func TestTracing_ACollectorThatIsDownCostsSpansOnly(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Tracing.Exporter, cfg.Tracing.Endpoint, cfg.Tracing.SampleRatio = "otlp_http", "http://127.0.0.1:1", 1
	var log strings.Builder
	a := New(cfg, Options{Stderr: &log})
	tracer, err := a.tracer("relay")
	require.NoError(t, err)
	_, span := tracer.Start(t.Context(), "relay source.shop.invoice")
	span.End()
	part, err := a.spanPart()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, part.Run(ctx))
	require.Contains(t, log.String(), "span")
}
