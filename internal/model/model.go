// Package model explores small models of our algorithms exhaustively: every interleaving of a few writers, readers, crashes and
// rebalances, each state once. A model's decisions are those of the production code, called; only what surrounds them (a
// database, a log, processes that die) is modelled.
//
// It is a breadth-first search in one file, for tests. It is not a proof: it says nothing beyond the bounds of the model, and nothing
// about time.
package model

import (
	"errors"
	"fmt"
	"strings"
)

// Model is a state machine and what must hold of it.
type Model[S any] struct {
	Start S

	// Key encodes all of a state that matters: states of one key are taken for the same.
	Key func(S) string

	// Next returns every step that can be taken in a state. It must not change the state it is given.
	Next func(S) []Step[S]

	// Holds says what is wrong with a state; nil if nothing is.
	Holds func(S) error

	// Done says what is left to do in a state; nil if nothing is. From every state, steps of the system's own must be able to come
	// to one in which nothing is: whatever has happened, and if nothing happens any more, the system gets there. Optional.
	Done func(S) error

	// Limit is how many states there may be. More are an error: a search that was cut off has shown nothing.
	Limit int
}

// Step is a way from one state to another.
type Step[S any] struct {
	Name string
	To   S

	// Own says that the system takes the step by itself. The others are what is done to it: it cannot count on them.
	Own bool
}

// Result is the size of what was explored.
type Result struct {
	States, Transitions int
	Depth               int // of the state that is farthest from the start
}

// String is for logs.
func (r Result) String() string {
	return fmt.Sprintf("%d states, %d transitions, depth %d", r.States, r.Transitions, r.Depth)
}

// ErrLimit is returned if there are more states than the model's limit.
var ErrLimit = errors.New("more states than the limit")

// Counterexample is a shortest way to a state that must not be.
type Counterexample struct {
	Err   error
	Steps []string
}

// Error has a line for each step.
func (c *Counterexample) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v, after:", c.Err)
	for i, s := range c.Steps {
		fmt.Fprintf(&b, "\n  %2d. %s", i+1, s)
	}
	return b.String()
}

// Unwrap returns what is wrong.
func (c *Counterexample) Unwrap() error { return c.Err }

// node is a state that was reached.
type node struct {
	from  int32 // by the first and so the shortest way
	depth int32
	step  string
	left  error   // what Done says
	own   []int32 // the states from which a step of the system's own leads here
}

type search[S any] struct {
	*Model[S]
	seen   map[string]int32
	nodes  []node
	result Result
}

// Explore visits every state that can be reached. The error is a *Counterexample or ErrLimit.
func (m *Model[S]) Explore() (Result, error) {
	s := search[S]{Model: m, seen: map[string]int32{}}
	err := s.run()
	s.result.States = len(s.nodes)
	return s.result, err
}

func (s *search[S]) run() error {
	if _, err := s.visit(Step[S]{To: s.Start}, -1); err != nil {
		return err
	}
	frontier := []S{s.Start} // of one depth, whose nodes stand last
	for at := int32(0); len(frontier) > 0; {
		var next []S
		for _, state := range frontier {
			for _, step := range s.Next(state) {
				s.result.Transitions++
				isNew, err := s.visit(step, at)
				if err != nil {
					return err
				}
				if isNew {
					next = append(next, step.To)
				}
			}
			at++
		}
		frontier = next
	}
	return s.reach()
}

// visit notes where a step leads, and reports whether it had not been there.
func (s *search[S]) visit(step Step[S], from int32) (isNew bool, err error) {
	key := s.Key(step.To)
	at, known := s.seen[key]
	if !known {
		if len(s.nodes) >= s.Limit {
			return false, fmt.Errorf("%w of %d, at depth %d", ErrLimit, s.Limit, s.result.Depth)
		}
		at = int32(len(s.nodes))
		n := node{from: from, step: step.Name}
		if from >= 0 {
			n.depth = s.nodes[from].depth + 1
		}
		if s.Done != nil {
			n.left = s.Done(step.To)
		}
		s.seen[key], s.nodes = at, append(s.nodes, n)
		s.result.Depth = int(n.depth)
		if err := s.Holds(step.To); err != nil {
			return false, s.counter(at, err)
		}
	}
	if step.Own && s.Done != nil {
		s.nodes[at].own = append(s.nodes[at].own, from)
	}
	return !known, nil
}

// reach goes back from the states in which nothing is left to do.
func (s *search[S]) reach() error {
	if s.Done == nil {
		return nil
	}
	reaches := make([]bool, len(s.nodes))
	var todo []int32
	mark := func(at int32) {
		if !reaches[at] {
			reaches[at], todo = true, append(todo, at)
		}
	}
	for at := range s.nodes {
		if s.nodes[at].left == nil {
			mark(int32(at))
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range s.nodes[at].own {
			mark(from)
		}
	}
	for at := range s.nodes { // in the order of depth
		if !reaches[at] {
			return s.counter(int32(at), fmt.Errorf("stuck: %w", s.nodes[at].left))
		}
	}
	return nil
}

func (s *search[S]) counter(at int32, err error) error {
	var steps []string
	for ; s.nodes[at].from >= 0; at = s.nodes[at].from {
		steps = append([]string{s.nodes[at].step}, steps...)
	}
	return &Counterexample{err, steps}
}
