package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leat-io/leat/operations/audit"
)

// view is all orders as they were read at one time.
type view struct {
	at       time.Time // of this process's clock, monotonic
	pauses   []heldPause
	breakers []heldBreaker
}

func readView(ctx context.Context, db audit.Queryer) (v view, err error) {
	v.at = time.Now()
	if v.pauses, err = readPauses(ctx, db); err != nil {
		return v, err
	}
	v.breakers, err = readBreakerOrders(ctx, db, "")
	return v, err
}

// over reports whether an order with so much time left at the reading has ended.
func (v view) over(left *float64, now time.Time) bool {
	return left != nil && now.Sub(v.at).Seconds() >= *left
}

// orders are what holds for m now.
func (v view) orders(m *Member, now time.Time) Orders {
	var o Orders
	for _, p := range v.pauses {
		if v.over(p.left, now) {
			continue
		}
		why := p.why()
		switch {
		case p.Mode == ModeDrain:
			if p.Scope == Group && p.Name == m.Group {
				o.Leave = join(o.Leave, why)
			}
		case p.Scope == Stage && p.Name == m.Stage, p.Scope == Group && p.Name == m.Group,
			p.Scope == Target && slices.Contains(m.Targets, p.Name):
			o.Pause = join(o.Pause, why)
		case p.Scope == Tenant && len(m.Sources) == 0: // a relay looks at no tenant
			o.Tenants = with(o.Tenants, p.Name, why)
		case p.Scope == Source && slices.Contains(m.Sources, p.Name):
			o.Sources = with(o.Sources, p.Name, why)
		}
	}
	for _, b := range v.breakers {
		if b.Group == m.Group && !v.over(b.left, now) {
			o.Breaker, o.BreakerReason = string(b.State), said(b.Actor, b.Reason, b.Until)
		}
	}
	return o
}

func (p Pause) why() string {
	return p.object() + " " + said(p.Actor, p.Reason, p.Until)
}

func said(actor, reason string, until time.Time) string {
	if until.IsZero() {
		return fmt.Sprintf("by %s: %s", actor, reason)
	}
	return fmt.Sprintf("by %s until %s: %s", actor, until.UTC().Format(time.RFC3339), reason)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// describe says what o makes stand still, for the row of a process.
func describe(o Orders) string {
	parts := []string{}
	for _, text := range []string{o.Leave, o.Pause} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	for _, m := range []map[string]string{o.Sources, o.Tenants} {
		var whys []string
		for _, why := range m {
			whys = append(whys, why)
		}
		slices.Sort(whys)
		parts = append(parts, whys...)
	}
	return strings.Join(parts, "; ")
}
