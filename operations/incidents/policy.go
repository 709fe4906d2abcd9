package incidents

import (
	"cmp"
	"fmt"
	"time"

	"github.com/leat-io/leat/topics"
)

// Policy has the rules by which incidents move. The zero value of a field means its default.
type Policy struct {
	OngoingAfter     time.Duration // how long an episode is new or regressed; default 1 h
	Quiet            time.Duration // without a failure it counts as resolved; default 24 h
	SystemicQuiet    time.Duration // the same for a target that was down; default 1 min
	EscalationFactor int           // times the usual failures of an hour; default 4
	EscalationFloor  int           // failures of an hour that are no escalation whatever is usual; default 50
	MinFailures      int           // failed attempts before anybody is told, unless a record was given up; default 5
	Wait             time.Duration // after an episode has begun before anybody is told, so that the numbers say something; default 10 s
}

// escalationBase is how far back "usual" looks, and how long an escalation lasts before it is the usual.
const escalationBase = 24 * time.Hour

// WithDefaults fills in what is zero.
func (p Policy) WithDefaults() Policy {
	p.OngoingAfter = cmp.Or(p.OngoingAfter, time.Hour)
	p.Quiet = cmp.Or(p.Quiet, 24*time.Hour)
	p.SystemicQuiet = cmp.Or(p.SystemicQuiet, time.Minute)
	p.EscalationFactor = cmp.Or(p.EscalationFactor, 4)
	p.EscalationFloor = cmp.Or(p.EscalationFloor, 50)
	p.MinFailures = cmp.Or(p.MinFailures, 5)
	p.Wait = cmp.Or(p.Wait, 10*time.Second)
	return p
}

func (p Policy) quiet(f *Facts) time.Duration {
	if f.Systemic {
		return p.SystemicQuiet
	}
	return p.Quiet
}

// Next returns where an incident stands, given its facts, at a moment. It moves by one step at most. p has its defaults.
//
// A rebuild of the facts counts from the beginning again; Seen keeps it from resolving what still fails.
func (p Policy) Next(s Standing, f *Facts, now time.Time) Standing {
	if f.Last.After(s.Seen) {
		s.Seen = f.Last
	}
	recent := now.Sub(s.Seen) < p.quiet(f)
	to := func(state State, why string, args ...any) {
		s.State, s.Since, s.Why = state, now, fmt.Sprintf(why, args...)
	}
	switch s.State {
	case "":
		s.Episode, s.Opened = 1, now
		if to(New, "first seen %s", clock(f.First)); !recent { // an index that is built late tells nobody of last month
			s.resolve(f, s.Seen.Add(p.quiet(f)))
			to(Resolved, "its last failure was %s, before anybody looked", clock(s.Seen))
		}
	case Resolved:
		if s.Seen.After(s.ResolvedAt) && recent {
			s.Episode, s.Opened, s.Escalations, s.Severity = s.Episode+1, now, 0, ""
			to(Regressed, "failed again at %s, after it was resolved at %s", clock(s.Seen), clock(s.ResolvedAt))
		}
	case Muted:
		p.unmute(&s, f, now, to)
	default:
		p.move(&s, f, now, recent, to)
	}
	s.Severity = worse(s.Severity, severity(&s, f))
	return s
}

// move moves an open incident.
func (p Policy) move(s *Standing, f *Facts, now time.Time, recent bool, to func(State, string, ...any)) {
	if !recent {
		s.resolve(f, now)
		to(Resolved, "no failure for %s", p.quiet(f))
		return
	}
	lasts := now.Sub(s.Since)
	switch s.State {
	case New, Regressed:
		if lasts >= p.OngoingAfter {
			to(Ongoing, "it has lasted for %s", p.OngoingAfter)
		}
	case Ongoing:
		if why := p.escalates(f, now); why != "" {
			s.Escalations++
			to(Escalating, "%s", why)
		}
	case Escalating:
		switch limit, _ := p.limit(f, s.Since); {
		case lasts >= escalationBase:
			to(Ongoing, "what was an escalation has become usual: it has lasted for %s", escalationBase)
		case lasts >= time.Hour && f.in(now) <= limit && f.in(now.Add(-time.Hour)) <= limit:
			to(Ongoing, "no more than %d failures an hour again", limit)
		}
	}
}

// unmute ends a mute whose condition has come. A mute without one ends by a person only, however long it is quiet.
func (p Policy) unmute(s *Standing, f *Facts, now time.Time, to func(State, string, ...any)) {
	why := ""
	if s.MutedUntilEscalating {
		why = p.escalates(f, now)
	}
	switch {
	case why != "":
		s.Escalations++
		to(Escalating, "%s", why)
	case !s.MutedUntil.IsZero() && !now.Before(s.MutedUntil):
		to(Ongoing, "the mute has ended")
	default:
		return
	}
	s.MutedUntil, s.MutedUntilEscalating = time.Time{}, false
}

// escalates returns the rule that holds, with its numbers, or nothing.
func (p Policy) escalates(f *Facts, now time.Time) string {
	limit, usual := p.limit(f, now)
	n := f.in(now)
	if f.Systemic || usual < 0 || n <= limit {
		return ""
	}
	return fmt.Sprintf("%d failures in this hour, where %.1f are usual: more than %d times as many, and more than %d",
		n, usual, p.EscalationFactor, p.EscalationFloor)
}

// limit is how many failures an hour may have, judged by the day before the hour of t, and how many were usual in it; -1 if it is
// too young to have had any usual.
func (p Policy) limit(f *Facts, t time.Time) (limit int64, usual float64) {
	end := t.Truncate(time.Hour)
	begin := end.Add(-escalationBase)
	if first := f.First.Truncate(time.Hour); first.After(begin) {
		begin = first
	}
	hours := end.Sub(begin).Hours()
	if hours < 1 {
		return int64(p.EscalationFloor), -1
	}
	var n int64
	for _, h := range f.Hours {
		if !h.Hour.Before(begin) && h.Hour.Before(end) {
			n += h.Failures
		}
	}
	usual = float64(n) / hours
	return max(int64(p.EscalationFloor), int64(usual*float64(p.EscalationFactor))), usual
}

// in counts the failures of the hour of t.
func (f *Facts) in(t time.Time) int64 {
	for _, h := range f.Hours {
		if h.Hour.Equal(t.Truncate(time.Hour)) {
			return h.Failures
		}
	}
	return 0
}

// resolve ends the episode: what fails after at begins another one.
func (s *Standing) resolve(f *Facts, at time.Time) {
	s.ResolvedAt, s.BaseFailures, s.BaseDead = at, f.Failures, f.Dead
}

// Tell returns why people must be told of an open incident, or nothing: a failure that a retry cures is not worth a message.
func (p Policy) Tell(s Standing, f *Facts, now time.Time) string {
	failures, dead := f.Failures-s.BaseFailures, f.Dead-s.BaseDead
	if failures < 0 || dead < 0 { // the facts were made anew and are fewer: retry topics are compacted
		failures, dead = f.Failures, f.Dead
	}
	switch {
	case s.State == Resolved || s.State == Muted || now.Sub(s.Opened) < p.Wait:
		return ""
	case f.Systemic:
		return "its target or a dependency is down since " + clock(f.First)
	case dead > 0:
		return fmt.Sprintf("%d records were given up", dead)
	case failures >= int64(p.MinFailures):
		return fmt.Sprintf("%d attempts have failed, at least %d are told", failures, p.MinFailures)
	}
	return ""
}

func severity(s *Standing, f *Facts) Severity {
	switch {
	case f.Systemic || s.State == Escalating:
		return Critical
	case f.Dead > s.BaseDead && s.State != Resolved:
		return Error
	}
	return Warning
}

func worse(a, b Severity) Severity {
	if a.Rank() > b.Rank() {
		return a
	}
	return b
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Describe is the message of a systemic incident: the rule that holds the work up and one of the errors, without values of records.
func Describe(reason, sample *string) string {
	var text string
	if reason != nil {
		text = *reason
	}
	if sample != nil && *sample != "" {
		text += ": " + topics.Parameterize(*sample)
	}
	return clean(cmp.Or(text, "the breaker is open"))
}
