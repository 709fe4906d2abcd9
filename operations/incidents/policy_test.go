package incidents_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/leat-io/leat/operations/incidents"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fail adds n failures at t to f, as the projection does.
func fail(f *incidents.Facts, t time.Time, n, dead int64) {
	if f.First.IsZero() || t.Before(f.First) {
		f.First = t
	}
	if t.After(f.Last) {
		f.Last = t
	}
	f.Failures, f.Dead = f.Failures+n, f.Dead+dead
	hour := t.Truncate(time.Hour)
	i := slices.IndexFunc(f.Hours, func(h incidents.Hour) bool { return h.Hour.Equal(hour) })
	if i < 0 {
		i = len(f.Hours)
		f.Hours = append(f.Hours, incidents.Hour{Hour: hour})
	}
	f.Hours[i].Failures += n
	f.Hours[i].Dead += dead
}

func TestPolicy_TheLifeOfAnIncident(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	var f incidents.Facts
	var s incidents.Standing
	now := noon
	step := func(want incidents.State, why string) {
		t.Helper()
		s = p.Next(s, &f, now)
		require.Equal(t, want, s.State, s.Why)
		require.Contains(t, s.Why, why)
	}
	fail(&f, now, 3, 0)
	step(incidents.New, "first seen 2026-11-24 12:00:00 UTC")
	require.Equal(t, incidents.Warning, s.Severity)
	now = now.Add(59 * time.Minute)
	step(incidents.New, "")
	fail(&f, now, 7, 1)
	step(incidents.New, "")
	require.Equal(t, incidents.Error, s.Severity, "a record was given up")
	now = now.Add(time.Minute)
	step(incidents.Ongoing, "it has lasted for 1h0m0s")

	fail(&f, now, 50, 0) // 10 an hour are usual, 40 would be the limit, 50 is the floor
	step(incidents.Ongoing, "")
	fail(&f, now, 1, 0)
	step(incidents.Escalating, "51 failures in this hour, where 10.0 are usual: more than 4 times as many, and more than 50")
	require.Equal(t, incidents.Critical, s.Severity)
	now = now.Add(time.Hour)
	step(incidents.Escalating, "") // the last hour was one too
	now = now.Add(time.Hour)
	step(incidents.Ongoing, "no more than 50 failures an hour again")
	require.Equal(t, incidents.Critical, s.Severity, "the severity of an episode never falls")

	now = f.Last.Add(24 * time.Hour)
	step(incidents.Resolved, "no failure for 24h0m0s")
	now = now.Add(240 * time.Hour)
	step(incidents.Resolved, "")
	fail(&f, now.Add(-time.Minute), 1, 0)
	step(incidents.Regressed, "failed again at")
	require.Equal(t, 2, s.Episode)
	require.Equal(t, incidents.Warning, s.Severity, "nothing was given up in this episode")
	now = now.Add(time.Hour)
	step(incidents.Ongoing, "")
}

func TestPolicy_AMuteEndsByItsConditionOnly(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	facts := func(until ...int64) *incidents.Facts {
		f := &incidents.Facts{}
		fail(f, noon.Add(-5*time.Hour), 50, 0)
		for _, n := range until {
			fail(f, noon, n, 0)
		}
		return f
	}
	muted := incidents.Standing{State: incidents.Muted, Since: noon.Add(-time.Hour), Episode: 1}
	for_ := muted
	for_.MutedUntil = noon.Add(time.Minute)
	escalating := muted
	escalating.MutedUntilEscalating = true

	require.Equal(t, incidents.Muted, p.Next(muted, facts(1000), noon.Add(time.Minute)).State)
	require.Equal(t, incidents.Muted, p.Next(muted, facts(), noon.AddDate(1, 0, 0)).State, "however quiet it is")
	require.Equal(t, incidents.Muted, p.Next(for_, facts(1000), noon).State)
	after := p.Next(for_, facts(1), noon.Add(time.Minute))
	require.Equal(t, incidents.Ongoing, after.State)
	require.Zero(t, after.MutedUntil)
	require.Equal(t, incidents.Muted, p.Next(escalating, facts(50), noon.Add(time.Minute)).State)
	require.Equal(t, incidents.Escalating, p.Next(escalating, facts(51), noon.Add(time.Minute)).State)
}

func TestPolicy_AnIndexThatIsBuiltLateTellsNobodyOfThePast(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	var f incidents.Facts
	fail(&f, noon.AddDate(0, -2, 0), 100, 100)
	s := p.Next(incidents.Standing{}, &f, noon)
	require.Equal(t, incidents.Resolved, s.State)
	fail(&f, noon.AddDate(0, -1, 0), 100, 100) // it reads on
	require.Equal(t, incidents.Resolved, p.Next(s, &f, noon).State)
	fail(&f, noon.Add(-time.Minute), 1, 1)
	require.Equal(t, incidents.Regressed, p.Next(s, &f, noon).State)
}

func TestPolicy_ARebuildResolvesNothing(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	var f incidents.Facts
	fail(&f, noon, 100, 100)
	s := p.Next(incidents.Standing{}, &f, noon)
	var again incidents.Facts
	fail(&again, noon.AddDate(0, -1, 0), 1, 1)
	require.Equal(t, incidents.New, p.Next(s, &again, noon.Add(time.Minute)).State)
}

func TestPolicy_TellsPatternsAndNotSingleFailures(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	var f incidents.Facts
	fail(&f, noon, 4, 0)
	s := p.Next(incidents.Standing{}, &f, noon)
	later := noon.Add(p.Wait)
	require.Empty(t, p.Tell(s, &f, later), "a few attempts that a retry may cure")
	fail(&f, noon, 1, 0)
	require.Equal(t, "5 attempts have failed, at least 5 are told", p.Tell(s, &f, later))
	require.Empty(t, p.Tell(s, &f, later.Add(-1)), "numbers need a moment")
	fail(&f, noon, 2, 2)
	require.Equal(t, "2 records were given up", p.Tell(s, &f, later))
	s.BaseFailures, s.BaseDead = 7, 2
	require.Empty(t, p.Tell(s, &f, later), "they belong to the episode before")
	s.State = incidents.Muted
	s.BaseDead = 0
	require.Empty(t, p.Tell(s, &f, later))
	require.Equal(t, "its target or a dependency is down since 2026-11-24 12:00:00 UTC",
		p.Tell(incidents.Standing{State: incidents.New}, &incidents.Facts{Systemic: true, First: noon}, later))
}

func TestPolicy_ASystemicIncidentEndsSoonAndNeverEscalates(t *testing.T) {
	t.Parallel()
	p := incidents.Policy{}.WithDefaults()
	f := incidents.Facts{Systemic: true}
	fail(&f, noon, 1, 0)
	s := p.Next(incidents.Standing{}, &f, noon)
	require.Equal(t, incidents.Critical, s.Severity)
	require.Equal(t, incidents.New, p.Next(s, &f, noon.Add(59*time.Second)).State)
	require.Equal(t, incidents.Resolved, p.Next(s, &f, noon.Add(time.Minute)).State)
}

// TestPolicy_AnyLife drives incidents through random lives and checks what must hold whatever happens.
func TestPolicy_AnyLife(t *testing.T) {
	t.Parallel()
	allowed := map[incidents.State][]incidents.State{
		"":                   {incidents.New, incidents.Resolved},
		incidents.New:        {incidents.Ongoing, incidents.Resolved},
		incidents.Ongoing:    {incidents.Escalating, incidents.Resolved},
		incidents.Escalating: {incidents.Ongoing, incidents.Resolved},
		incidents.Regressed:  {incidents.Ongoing, incidents.Resolved},
		incidents.Resolved:   {incidents.Regressed},
		incidents.Muted:      {incidents.Ongoing, incidents.Escalating},
	}
	rapid.Check(t, func(t *rapid.T) {
		p := incidents.Policy{}.WithDefaults()
		var f incidents.Facts
		var s incidents.Standing
		now := noon
		fail(&f, now, 1, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 36*60).Draw(t, "minutes")) * time.Minute)
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1, 2:
				fail(&f, now, rapid.Int64Range(1, 400).Draw(t, "failures"), rapid.Int64Range(0, 1).Draw(t, "dead"))
			case 3:
				if s.State != "" && s.State != incidents.Muted {
					s = s.Mute(now, now.Add(time.Hour), rapid.Bool().Draw(t, "until escalating"), "quiet")
				}
			case 4:
				if s.State != "" && s.State != incidents.Resolved {
					s = s.Resolve(&f, now, "fixed")
				}
			}
			before := s
			s = p.Next(s, &f, now)
			if s.State != before.State {
				require.Contains(t, allowed[before.State], s.State)
				require.Equal(t, now, s.Since)
				require.NotEmpty(t, s.Why)
			}
			switch {
			case s.State == incidents.Regressed && before.State != s.State:
				require.Equal(t, before.Episode+1, s.Episode)
			case before.State != "":
				require.Equal(t, before.Episode, s.Episode)
				require.GreaterOrEqual(t, s.Severity.Rank(), before.Severity.Rank())
			}
			quiet := now.Sub(f.Last) >= p.Quiet
			if quiet {
				require.Contains(t, []incidents.State{incidents.Resolved, incidents.Muted, incidents.Ongoing}, s.State)
			}
			if s.State == incidents.Resolved {
				require.True(t, quiet || !f.Last.After(s.ResolvedAt), "what fails after its end is not resolved")
			}
			// It comes to rest: looking again at the same moment moves it twice more at most.
			again := p.Next(p.Next(p.Next(s, &f, now), &f, now), &f, now)
			require.Equal(t, again, p.Next(again, &f, now))
		}
	})
}
