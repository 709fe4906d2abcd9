package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/config"
)

func TestHTTP_TellsTheTruth(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.HTTP.Listen = "127.0.0.1:0"
	a := New(cfg, Options{Version: "v1.2.3", Stderr: io.Discard})
	var down atomic.Bool
	p, err := a.serveHTTP(t.Context(), check{
		name: "relay",
		live: func() error { return nil },
		ready: func() error {
			if down.Load() {
				return errors.New("no connection to Kafka for 12s")
			}
			return nil
		},
	}, check{name: "silent"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()

	base := "http://" + cfg.HTTP.Listen
	r, err := AskHealth(t.Context(), base, false, 5*time.Second)
	require.NoError(t, err)
	require.NoError(t, r.Err())
	require.Len(t, r.Checks, 1)

	down.Store(true)
	r, err = AskHealth(t.Context(), base, false, 5*time.Second)
	require.NoError(t, err)
	require.ErrorContains(t, r.Err(), "/readyz is not ok")
	var text strings.Builder
	require.NoError(t, r.WriteText(&text))
	require.Equal(t, "FAIL relay no connection to Kafka for 12s\n", text.String())
	r, err = AskHealth(t.Context(), base, true, 5*time.Second)
	require.NoError(t, err)
	require.NoError(t, r.Err(), "not ready is no reason for a restart")

	resp, err := http.Get(base + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `leat_build_info{go_version="go`)
	require.Contains(t, string(body), `version="v1.2.3"} 1`)

	cancel()
	require.NoError(t, <-done)
	_, err = AskHealth(t.Context(), base, false, time.Second)
	require.ErrorContains(t, err, "does the process run")
}

func TestHTTP_AnAddressInUseIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cfg := config.Default()
	cfg.HTTP.Listen = l.Addr().String()
	_, err = New(cfg, Options{Stderr: io.Discard}).serveHTTP(t.Context())
	require.ErrorContains(t, err, "http.listen "+cfg.HTTP.Listen)
}
