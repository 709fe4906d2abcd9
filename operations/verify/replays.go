package verify

import (
	"context"
	"encoding/json"
	"time"

	"github.com/leat-io/leat/operations/audit"
)

// Replays counts in the audit log how often a group's offsets were set by an operator: an upper bound of how often it has read a
// record again.
func Replays(db audit.Queryer, group string) func(ctx context.Context, since time.Time) (int, error) {
	return func(ctx context.Context, since time.Time) (int, error) {
		entries, err := audit.List(ctx, db, audit.Filter{Action: "offsets", Since: since, Limit: 1000})
		if err != nil {
			return 0, err
		}
		n := 0
		for _, e := range entries {
			if (e.Action == "offsets apply" || e.Action == "offsets undo") && e.Object == "group "+group && began(e) {
				n++
			}
		}
		return n, nil
	}
}

// began reports whether an entry is the first of its change: one is written before the offsets are set, and one when it is known how that
// ended.
func began(e audit.Entry) bool {
	text, ok := e.After.(json.RawMessage)
	var after struct {
		Outcome string `json:"outcome"`
	}
	return ok && json.Unmarshal(text, &after) == nil && after.Outcome == "started"
}
