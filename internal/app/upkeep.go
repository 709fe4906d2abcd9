package app

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/internal/config"
	"github.com/leat-io/leat/outbox"
)

const (
	upkeepEvery = time.Minute
	dropEvery   = 10 // upkeeps: it asks Kafka and the database how far the relay has come
)

// upkeep is the part that keeps the partitions of every outbox: it makes them ahead of the ids in use, and drops old ones.
// Every relay process does it; what one has done, the next finds done.
func (a *App) upkeep(ctx context.Context) error {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		for _, s := range a.cfg.Sources {
			if err := a.keep(ctx, s.Name, round%dropEvery == 1); err != nil && ctx.Err() == nil {
				a.log.Warn("outbox partitions could not be kept", "source", s.Name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *App) keep(ctx context.Context, source string, drop bool) error {
	return a.withOutbox(ctx, source, func(src *config.Source, conn *pgx.Conn) error {
		u := outbox.Upkeep{Keep: src.OutboxRetention}
		if drop {
			delivered, err := a.delivered(ctx, source)
			if err != nil {
				return err
			}
			u.Delivered = delivered
		}
		report, err := outbox.Maintain(ctx, conn, u)
		if len(report.Made)+len(report.Dropped) > 0 {
			a.log.Info("outbox partitions kept", "source", source, "made", report.Made, "dropped", report.Dropped)
		}
		return err
	})
}

// delivered is how far the relay has come, or nil. While anything about the position is in doubt, nothing is dropped.
func (a *App) delivered(ctx context.Context, source string) (*outbox.Delivered, error) {
	status, err := a.RelayStatus(ctx, source)
	if err != nil {
		return nil, err
	}
	if err := status.Err(); err != nil {
		return nil, err
	}
	p := status[0].Position
	if p == nil {
		return nil, nil
	}
	return &outbox.Delivered{ID: p.LastID, Snapshot: p.Snapshot}, nil
}
