// Package app wires a Leat process: configuration to clients, clients to stages, stages to a lifecycle with metrics and
// health. cmd/leat and the integration tests call it; everything it puts together is usable without it.
//
// It decides nothing about records: that is the stages' work, and the runtime's.
package app

import (
	"cmp"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/postgres"
	"github.com/leat-io/leat/internal/safetext"
	"github.com/leat-io/leat/operations/outcomes"
)

// Options say what a process is given from outside.
type Options struct {
	Version string                   // shown in leat_build_info and in failure headers
	Getenv  func(name string) string // default os.Getenv
	Stderr  io.Writer                // the log; default os.Stderr

	Mappings fs.FS // instead of the directory normalize.mappings

	Spans  sdktrace.SpanExporter // instead of the section tracing
	Stdout io.Writer             // of tracing.exporter stdout; default os.Stdout
}

// App is one process: its configuration, its log and its metrics.
type App struct {
	cfg     *config.Config
	hider   safetext.Hider // of the configuration's secrets
	log     *slog.Logger
	reg     *prometheus.Registry
	version string
	getenv  func(string) string

	mappings fs.FS
	kafka    func() ([]kgo.Opt, error)
	outcomes *outcomes.Counter // of the runners of this process; nil if it has none
	spans    sdktrace.SpanExporter
	stdout   io.Writer
	tracing  func() (*sdktrace.TracerProvider, error) // nil if it is off
}

// New makes an App. It opens no connection.
func New(cfg *config.Config, o Options) *App {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	hider := safetext.NewHider(cfg.Secrets()...)
	stderr := safetext.NewWriter(o.Stderr)
	stderr.Hide(hider)
	a := &App{
		cfg: cfg, hider: hider, log: newLogger(cfg.Log, stderr), reg: prometheus.NewRegistry(),
		version: cmp.Or(o.Version, "unknown"), getenv: o.Getenv, mappings: o.Mappings, spans: o.Spans, stdout: o.Stdout,
	}
	a.kafka = sync.OnceValues(a.makeKafkaOptions)
	a.tracing = sync.OnceValues(a.makeTracing)
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerBuildInfo(a.reg, a.version)
	return a
}

// Load reads the configuration file and makes an App of it. The error is config.Problems unless the file cannot be read.
func Load(file string, o Options) (*App, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	cfg, err := config.Load(cmp.Or(file, o.Getenv("LEAT_CONFIG"), "leat.yaml"), o.Getenv)
	if err != nil {
		return nil, err
	}
	return New(cfg, o), nil
}

// Config is the configuration, with defaults, as JSON shows it without secrets.
func (a *App) Config() *config.Config { return a.cfg }

// Hider hides the secrets of the configuration in what is shown.
func (a *App) Hider() safetext.Hider { return a.hider }

// Metrics gathers what /metrics serves.
func (a *App) Metrics() prometheus.Gatherer { return a.reg }

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(postgres.Explaining(slog.NewTextHandler(w, o)))
	}
	return slog.New(postgres.Explaining(slog.NewJSONHandler(w, o)))
}

// registerBuildInfo adds leat_build_info, which is 1 and says in its labels what runs.
func registerBuildInfo(reg prometheus.Registerer, version string) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "leat_build_info",
		Help:        "Always 1; the labels say which version of Leat runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	g.Set(1)
	reg.MustRegister(g)
}

// quiet lets only warnings and errors through: the Kafka client tells of every transaction at level info.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }

// Explain adds the remedy to an error of a database that did not let us in.
func Explain(err error) error { return postgres.Explain(err) }
