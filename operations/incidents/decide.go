package incidents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leat-io/leat/operations/audit"
)

// Resolve returns s after a person has said that the cause is gone: what fails from at on is a regression.
func (s Standing) Resolve(f *Facts, at time.Time, why string) Standing {
	s.resolve(f, at)
	s.State, s.Since, s.Why = Resolved, at, why
	s.MutedUntil, s.MutedUntilEscalating = time.Time{}, false
	return s
}

// Mute returns s after a person has asked for silence: until a time unless it is zero, until it escalates if they say so, else for good.
func (s Standing) Mute(at, until time.Time, untilEscalating bool, why string) Standing {
	s.State, s.Since, s.Why = Muted, at, why
	s.MutedUntil, s.MutedUntilEscalating = until, untilEscalating
	return s
}

// Unmute returns s after a person has taken a mute back.
func (s Standing) Unmute(at time.Time, why string) Standing {
	s.State, s.Since, s.Why = Ongoing, at, why
	s.MutedUntil, s.MutedUntilEscalating = time.Time{}, false
	return s
}

// Silence says for how long an incident is to be silent. Zero means for good.
type Silence struct {
	Until           time.Time
	UntilEscalating bool
}

// Resolve closes an incident by hand: its cause is gone. What fails later opens it anew, as regressed.
func Resolve(ctx context.Context, db *pgxpool.Pool, op audit.Operator, p Policy, fingerprint string) (Incident, error) {
	return decide(ctx, db, op, p, "incidents resolve", fingerprint, func(i *Incident, now time.Time) error {
		if i.State == Resolved {
			return fmt.Errorf("it is resolved already, since %s: %s", clock(i.Since), i.Why)
		}
		i.Standing = i.Resolve(&i.Facts, now, by(op, "resolved"))
		return nil
	})
}

// Mute silences an incident: nobody is told of it until the mute ends.
func Mute(ctx context.Context, db *pgxpool.Pool, op audit.Operator, p Policy, fingerprint string, m Silence) (Incident, error) {
	return decide(ctx, db, op, p, "incidents mute", fingerprint, func(i *Incident, now time.Time) error {
		if !m.Until.IsZero() && !m.Until.After(now) {
			return fmt.Errorf("%s is in the past", clock(m.Until))
		}
		i.Standing = i.Mute(now, m.Until, m.UntilEscalating, by(op, "muted"))
		return nil
	})
}

// Unmute ends a mute.
func Unmute(ctx context.Context, db *pgxpool.Pool, op audit.Operator, p Policy, fingerprint string) (Incident, error) {
	return decide(ctx, db, op, p, "incidents unmute", fingerprint, func(i *Incident, now time.Time) error {
		if i.State != Muted {
			return fmt.Errorf("it is not muted, but %s", i.State)
		}
		i.Standing = i.Unmute(now, by(op, "unmuted"))
		return nil
	})
}

// Assign says who looks after an incident, and what they know. An empty owner takes it from everybody; a nil note leaves it as it is.
func Assign(ctx context.Context, db *pgxpool.Pool, op audit.Operator, p Policy, fingerprint, owner string, note *string) (Incident, error) {
	return decide(ctx, db, op, p, "incidents assign", fingerprint, func(i *Incident, _ time.Time) error {
		i.Owner = owner
		if note != nil {
			i.Note = *note
		}
		return nil
	})
}

// decide changes a standing and records it, in one transaction. The row is locked by Save's comparison of versions, not before: who
// loses the race against the rules or another person reads anew.
func decide(ctx context.Context, db *pgxpool.Pool, op audit.Operator, p Policy, action, fingerprint string,
	change func(i *Incident, now time.Time) error,
) (Incident, error) {
	if err := op.Validate(); err != nil {
		return Incident{}, err
	}
	for {
		var i Incident
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
			var now time.Time
			if i, now, err = get(ctx, tx, p, fingerprint); err != nil {
				return err
			}
			before := i.Standing
			if err := change(&i, now); err != nil {
				return fmt.Errorf("incident %s: %w", fingerprint, err)
			}
			i.told = false
			if err := Save(ctx, tx, &i); err != nil {
				return err
			}
			return audit.Record(ctx, tx, audit.Entry{
				Actor: op.Name, Action: action, Object: "incident " + fingerprint, Reason: op.Reason, Before: before, After: i.Standing,
			})
		})
		if !errors.Is(err, ErrStale) {
			return i, err
		}
	}
}

func by(op audit.Operator, what string) string { return what + " by " + op.Name + ": " + op.Reason }
