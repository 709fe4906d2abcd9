package app

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/examples/chinook"
	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/internal/testenv"
)

// TestRunAll_IsAliveButNotReadyWithoutItsServers: a restart would not help, and no traffic must be expected.
func TestRunAll_IsAliveButNotReadyWithoutItsServers(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	cfg.Sources = []config.Source{{Name: "shop", Entities: []string{"a"}, URL: config.NewDatabaseURL("postgres://u@127.0.0.1:1/x")}}
	cfg.Publish.Reporting.URL = config.NewDatabaseURL("postgres://u:hunter2@127.0.0.1:1/x")
	cfg.HTTP.Listen = "127.0.0.1:0"
	var log strings.Builder
	a := New(cfg, Options{Stderr: &log, Mappings: chinook.Mappings()})
	ctx, cancel := context.WithCancel(t.Context())
	base := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- a.RunAll(ctx, nil, []Part{{"watch", func(ctx context.Context) error {
			base <- "http://" + cfg.HTTP.Listen
			<-ctx.Done()
			return nil
		}}})
	}()
	url := <-base
	require.Eventually(t, func() bool {
		ready, err := AskHealth(ctx, url, false, 5*time.Second)
		if err != nil || ready.OK || len(ready.Checks) != 3 {
			return false
		}
		for _, c := range ready.Checks {
			if c.OK || c.Reason == "" {
				return false
			}
		}
		return true
	}, 30*time.Second, 50*time.Millisecond)
	live, err := AskHealth(ctx, url, true, 5*time.Second)
	require.NoError(t, err)
	require.True(t, live.OK)
	cancel()
	require.NoError(t, <-done, "told to stop while nothing could be reached")
	require.NotContains(t, log.String(), "hunter2")
}

func TestRelayStatus_BeforeAndAfterAnAdoption(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	system := testenv.Name("upkeep")
	cfg.Kafka.Brokers, cfg.Kafka.Partitions = testenv.Kafka(t), 4 // as every test: they share the finance topics
	cfg.Sources = []config.Source{{Name: system, Entities: []string{"a"}, URL: config.NewDatabaseURL(testenv.Postgres(t))}}
	a := New(cfg, Options{Stderr: io.Discard})
	_, err := a.Migrate(t.Context(), MigrateOptions{Action: "up"})
	require.NoError(t, err)
	_, err = a.TopicsApply(t.Context())
	require.NoError(t, err)
	var status RelayStatus
	// A cluster that never had a consumer group needs a moment to have a coordinator for one.
	require.Eventually(t, func() bool {
		status, err = a.RelayStatus(t.Context(), system)
		return err == nil && status.Err() == nil
	}, time.Minute, 100*time.Millisecond)
	require.Nil(t, status[0].Position, "nothing has been relayed")
	var text strings.Builder
	require.NoError(t, status.WriteText(&text))
	require.Contains(t, text.String(), "nothing has been relayed yet")
	require.Contains(t, text.String(), "no relay runs")
	adopted, err := a.RelayAdopt(t.Context(), Adoption{Source: system, From: "end", Reason: "test"})
	require.NoError(t, err)
	require.NoError(t, adopted.WriteText(&text))
	require.Contains(t, text.String(), "source "+system+" goes on after id 0; its position was none\n")
	status, err = a.RelayStatus(t.Context(), system)
	require.NoError(t, err)
	require.NotNil(t, status[0].Position)
}

func TestRelaySources_KeepDeliveredRowsAsLongAsConfigured(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Kafka.Brokers = []string{"localhost:9092"}
	cfg.Sources = []config.Source{{
		Name: "shop", Entities: []string{"a"}, URL: config.NewDatabaseURL("postgres://localhost/shop"), OutboxRetention: 90 * 24 * time.Hour,
	}}
	sources, err := New(cfg, Options{Stderr: io.Discard}).relaySources()
	require.NoError(t, err)
	require.Equal(t, 90*24*time.Hour, sources[0].Retention)
}
