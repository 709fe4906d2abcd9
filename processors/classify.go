package processors

import (
	"context"
	"errors"
)

// class is what a handler's error means for the record. Values are metric labels and header values.
type class string

const (
	done        class = "done"
	permanent   class = "permanent"   // dead letter at once
	transient   class = "transient"   // park the key, retry with back-off, then dead letter
	systemic    class = "systemic"    // abort, pause, probe; no attempt, no dead letter
	interrupted class = "interrupted" // shutdown or rebalance; not an attempt
)

// classify decides what a handler's error means. It is the only place that does.
func classify(ctx context.Context, err error) class {
	var ce *codedError
	switch {
	case err == nil:
		return done
	case ctx.Err() != nil:
		return interrupted
	case errors.As(err, &ce):
		return ce.class
	default:
		return transient
	}
}
