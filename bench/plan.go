package main

import (
	"slices"
	"time"
)

// plan is what is still to be measured.
type plan struct {
	steps []step
	times map[string]time.Duration // how long one round of a scenario takes, as far as is known
}

type step struct {
	scenario
	round int
}

func newPlan(todo []scenario, rounds int) *plan {
	p := &plan{times: map[string]time.Duration{}}
	for round := 1; round <= rounds; round++ {
		for _, s := range todo {
			if s.rounds == 0 || round <= s.rounds {
				p.steps = append(p.steps, step{s, round})
			}
		}
	}
	for _, s := range todo {
		p.times[s.name] = s.takes
	}
	return p
}

// next takes the next step out of the plan.
func (p *plan) next() (s step, ok bool) {
	if len(p.steps) == 0 {
		return step{}, false
	}
	s, p.steps = p.steps[0], p.steps[1:]
	p.times[""] = p.times[s.name] // the one that is being measured
	return s, true
}

func (p *plan) took(name string, d time.Duration) { p.times[name] = d }

// drop takes all further rounds of a scenario out of the plan.
func (p *plan) drop(name string) {
	p.steps = slices.DeleteFunc(p.steps, func(s step) bool { return s.name == name })
}

// left estimates how long the step being measured and all after it take.
func (p *plan) left() time.Duration {
	sum := p.times[""]
	for _, s := range p.steps {
		sum += p.times[s.name]
	}
	return sum
}
