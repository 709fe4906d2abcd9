package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Part is a long-lived thing of a process. Run returns nil after ctx has ended, and not before everything it started has.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
}

// runParts runs parts until ctx ends or one of them returns. Then it stops them one after the other, in the order
// given, waiting for each: what takes work in stops first, and what others lean on, such as the HTTP server, last.
func runParts(ctx context.Context, log *slog.Logger, parts ...Part) error {
	type running struct {
		Part
		stop context.CancelFunc
		done chan struct{}
		err  error
	}
	ended := make(chan struct{}, len(parts))
	all := make([]*running, len(parts))
	for i, p := range parts {
		r := &running{Part: p, done: make(chan struct{})}
		var partCtx context.Context
		partCtx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
		all[i] = r
		go func() {
			defer close(r.done)
			r.err = r.Run(partCtx)
			if r.err == nil && partCtx.Err() == nil {
				r.err = errors.New("stopped by itself")
			}
			ended <- struct{}{}
		}()
	}
	select {
	case <-ctx.Done():
		log.Info("stopping", "parts", len(parts))
	case <-ended:
	}
	var errs []error
	for _, r := range all {
		begin := time.Now()
		r.stop()
		<-r.done
		if r.err != nil && !errors.Is(r.err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, r.err))
			continue
		}
		log.Debug("stopped", "part", r.Name, "seconds", time.Since(begin).Seconds())
	}
	return errors.Join(errs...)
}
