package model_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/leat-io/leat/internal/model"
)

// lock is two processes that take a lock by looking first and writing then, which is wrong, or by doing both at once.
type lock struct {
	at     [2]int // 0 outside, 1 has seen it free, 2 inside, 3 has been inside
	held   bool
	killed bool
}

func locks(atomic bool) *model.Model[lock] {
	m := &model.Model[lock]{
		Key:   func(s lock) string { return fmt.Sprint(s) },
		Limit: 100,
		Holds: func(s lock) error {
			if s.at[0] == 2 && s.at[1] == 2 {
				return errors.New("both are inside")
			}
			return nil
		},
		Done: func(s lock) error {
			if s.at != [2]int{3, 3} {
				return errors.New("somebody has not been inside")
			}
			return nil
		},
	}
	m.Next = func(s lock) (steps []model.Step[lock]) {
		for i := range s.at {
			add := func(name string, at int, held bool) {
				to := s
				to.at[i], to.held = at, held
				steps = append(steps, model.Step[lock]{Name: fmt.Sprint(name, i), To: to, Own: true})
			}
			switch {
			case s.at[i] == 0 && !s.held && atomic:
				add("takes ", 2, true)
			case s.at[i] == 0 && !s.held:
				add("sees it free ", 1, false)
			case s.at[i] == 1:
				add("takes ", 2, true)
			case s.at[i] == 2:
				add("leaves ", 3, false)
			}
		}
		return steps
	}
	return m
}

func TestExplore_VisitsEachStateOnce(t *testing.T) {
	t.Parallel()
	got, err := locks(true).Explore()
	require.NoError(t, err)
	// Outside, inside and done for each of two, but not both inside.
	require.Equal(t, model.Result{States: 8, Transitions: 8, Depth: 4}, got)
}

func TestExplore_FindsAShortestWay(t *testing.T) {
	t.Parallel()
	_, err := locks(false).Explore()
	var c *model.Counterexample
	require.ErrorAs(t, err, &c)
	require.Len(t, c.Steps, 4)
	require.ErrorContains(t, err, "both are inside, after:\n   1. sees it free 0\n")
}

func TestExplore_FindsWhereNothingGoesOn(t *testing.T) {
	t.Parallel()
	m := locks(true)
	next := m.Next
	m.Next = func(s lock) []model.Step[lock] { // a process dies inside, once
		if s.killed {
			return next(s)
		}
		steps := next(s)
		for i := range s.at {
			if s.at[i] == 2 {
				to := s
				to.at[i], to.killed = 3, true
				steps = append(steps, model.Step[lock]{Name: fmt.Sprint("dies inside ", i), To: to})
			}
		}
		return steps
	}
	_, err := m.Explore()
	require.EqualError(t, err, "stuck: somebody has not been inside, after:\n   1. takes 0\n   2. dies inside 0")
}

func TestExplore_DoesNotCountOnWhatOthersDo(t *testing.T) {
	t.Parallel()
	m := locks(true)
	next := m.Next
	m.Next = func(s lock) []model.Step[lock] {
		steps := next(s)
		for i := range steps {
			steps[i].Own = steps[i].Own && steps[i].Name != "leaves 1"
		}
		return steps
	}
	_, err := m.Explore()
	require.ErrorContains(t, err, "stuck: ")
}

func TestExplore_FailsBeyondItsLimit(t *testing.T) {
	t.Parallel()
	m := locks(true)
	m.Limit = 5
	_, err := m.Explore()
	require.ErrorIs(t, err, model.ErrLimit)
}
