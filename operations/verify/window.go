package verify

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Window says which rows of the outbox are verified. Its zero value is the whole outbox; what is given narrows it together.
type Window struct {
	FromID int64     `json:"from_id,omitempty"` // first outbox id; 0: open
	ToID   int64     `json:"to_id,omitempty"`   // last outbox id, included; 0: open
	Since  time.Time `json:"since,omitzero"`    // occurred_at from here; zero: open
	Until  time.Time `json:"until,omitzero"`    // occurred_at before this; zero: open
}

// Validate reports every problem of w.
func (w Window) Validate() error {
	var errs []error
	if w.FromID < 0 || w.ToID < 0 {
		errs = append(errs, errors.New("ids of the outbox are positive"))
	}
	if w.ToID > 0 && w.ToID < w.FromID {
		errs = append(errs, fmt.Errorf("the window ends with id %d, before it begins with id %d", w.ToID, w.FromID))
	}
	if !w.Since.IsZero() && !w.Until.IsZero() && !w.Until.After(w.Since) {
		errs = append(errs, fmt.Errorf("the window ends at %s, not after its beginning %s", w.Until.Format(time.RFC3339), w.Since.Format(time.RFC3339)))
	}
	return errors.Join(errs...)
}

// bounds are the window's as numbers: ids, and microseconds since 1970.
type bounds struct {
	fromID, toID int64 // both included
	since, until int64 // until excluded
}

func (w Window) bounds() bounds {
	b := bounds{fromID: max(w.FromID, 1), toID: math.MaxInt64, since: math.MinInt64, until: math.MaxInt64}
	if w.ToID > 0 {
		b.toID = w.ToID
	}
	if !w.Since.IsZero() {
		b.since = w.Since.UnixMicro()
	}
	if !w.Until.IsZero() {
		b.until = w.Until.UnixMicro()
	}
	return b
}

func (b bounds) contain(id, micros int64) bool {
	return id >= b.fromID && id <= b.toID && micros >= b.since && micros < b.until
}

// params are b as text parameters of a query: ids and timestamps.
func (b bounds) params() [][]byte {
	at := func(micros int64) []byte {
		switch micros {
		case math.MinInt64:
			return []byte("-infinity")
		case math.MaxInt64:
			return []byte("infinity")
		}
		return []byte(time.UnixMicro(micros).UTC().Format("2006-01-02 15:04:05.999999Z07:00"))
	}
	return [][]byte{fmt.Append(nil, b.fromID), fmt.Append(nil, b.toID), at(b.since), at(b.until)}
}
