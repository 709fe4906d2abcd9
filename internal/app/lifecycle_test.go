package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRunParts_StopsInTheOrderGivenAndWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stopped []string
		slow := func(name string, d time.Duration) Part {
			return Part{name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(d) // a grace period, on synctest's clock
				mu.Lock()
				defer mu.Unlock()
				stopped = append(stopped, name)
				return nil
			}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := runParts(ctx, slog.New(slog.DiscardHandler), slow("relay", 3*time.Second), slow("publish", time.Second), slow("http", 0))
		require.NoError(t, err)
		require.Equal(t, []string{"relay", "publish", "http"}, stopped)
	})
}

func TestRunParts_OneThatEndsStopsTheOthers(t *testing.T) {
	t.Parallel()
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	boom := errors.New("boom")
	err := runParts(t.Context(), slog.New(slog.DiscardHandler),
		Part{"a", wait}, Part{"b", func(context.Context) error { return boom }}, Part{"c", wait})
	require.ErrorIs(t, err, boom)
	require.EqualError(t, err, "b: boom")
	err = runParts(t.Context(), slog.New(slog.DiscardHandler),
		Part{"a", wait}, Part{"b", func(context.Context) error { return nil }})
	require.EqualError(t, err, "b: stopped by itself")
}
