package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leat-io/leat/internal/postgres"
)

// check is one line of /healthz or /readyz. A nil func has no opinion.
type check struct {
	name  string
	live  func() error // an error: the process is stuck and must be restarted
	ready func() error // an error: nothing can flow, and why
}

// health is the answer of /healthz and /readyz.
type health struct {
	OK     bool          `json:"ok"`
	Checks []checkResult `json:"checks"`
}

type checkResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// serveHTTP is the part that answers /metrics, /healthz and /readyz.
func (a *App) serveHTTP(ctx context.Context, checks ...check) (Part, error) {
	if a.cfg.HTTP.Listen == "off" {
		return Part{"http", func(ctx context.Context) error { <-ctx.Done(); return nil }}, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.cfg.HTTP.Listen)
	if err != nil {
		return Part{}, fmt.Errorf("listening for metrics and health on http.listen %s: %w", a.cfg.HTTP.Listen, err)
	}
	a.cfg.HTTP.Listen = l.Addr().String() // port 0 has become a port
	s := &http.Server{Handler: a.handler(checks), ReadHeaderTimeout: 5 * time.Second}
	return Part{"http", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() {
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = s.Shutdown(grace)
			_ = s.Close()
		})
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving metrics and health: %w", err)
		}
		return nil
	}}, nil
}

func (a *App) handler(checks []check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{Registry: a.reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		a.answer(w, checks, func(c check) func() error { return c.live })
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		a.answer(w, checks, func(c check) func() error { return c.ready })
	})
	return mux
}

func (a *App) answer(w http.ResponseWriter, checks []check, which func(check) func() error) {
	h := health{OK: true, Checks: []checkResult{}}
	for _, c := range checks {
		ask := which(c)
		if ask == nil {
			continue
		}
		r := checkResult{Name: c.name, OK: true}
		if err := ask(); err != nil {
			r.OK, r.Reason, h.OK = false, a.hider.Hide(postgres.Explain(err).Error()), false
		}
		h.Checks = append(h.Checks, r)
	}
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // a reader that has gone away is no error of ours
}
