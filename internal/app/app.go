package app

import (
	"cmp"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leat-io/leat/internal/config"
)

// Options say what a process is given from outside.
type Options struct {
	Version string                   // shown in leat_build_info and in failure headers
	Getenv  func(name string) string // default os.Getenv
	Stderr  io.Writer                // the log; default os.Stderr
}

// App is one process: its configuration, its log and its metrics.
type App struct {
	cfg     *config.Config
	log     *slog.Logger
	reg     *prometheus.Registry
	version string
	getenv  func(string) string
}

// New makes an App. It opens no connection.
func New(cfg *config.Config, o Options) *App {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	a := &App{
		cfg: cfg, log: newLogger(cfg.Log, o.Stderr), reg: prometheus.NewRegistry(),
		version: cmp.Or(o.Version, "unknown"), getenv: o.Getenv,
	}
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

// Metrics gathers what /metrics serves.
func (a *App) Metrics() prometheus.Gatherer { return a.reg }

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
