package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-io/leat/outbox"
)

// maintain makes partitions of the outbox ahead and drops delivered ones, now and every minute, until ctx is done. It
// uses a connection of its own, so that no upkeep holds up delivery.
func (s *source) maintain(ctx context.Context) {
	var last string
	for {
		err := s.maintainOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			s.log.WarnContext(ctx, "upkeep of the outbox failed", "error", err)
		}
		last = text
		if !sleep(ctx, time.Minute) {
			return
		}
	}
}

func (s *source) maintainOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.spec.URL)
	if err != nil {
		return fmt.Errorf("connecting to database of source %s: %w", s.spec.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for ctx.Err() == nil {
		report, err := outbox.Maintain(ctx, conn, outbox.Upkeep{Keep: s.spec.Retention, Delivered: s.delivery()})
		if err != nil {
			return err
		}
		if len(report.Made)+len(report.Dropped) > 0 {
			s.log.InfoContext(ctx, "upkeep of the outbox", "made", report.Made, "dropped", report.Dropped)
		}
		if len(report.Dropped) == 0 {
			return nil
		}
	}
	return nil
}

// delivery is the committed position, nil if there is none yet in this process. During a pass over late rows it says less than
// is delivered.
func (s *source) delivery() *outbox.Delivered {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.committed.Snapshot.xmax == 0 {
		return nil
	}
	return &outbox.Delivered{ID: s.committed.Last, Snapshot: s.committed.Snapshot.String()}
}

func (s *source) commit(p position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committed = p
}
