package model

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"
)

// Machine is a system of states and steps. S must be a plain value: no pointers, equal
// when its fields are.
type Machine[S comparable] interface {
	// Init is the first state.
	Init() S
	// Next yields every step that is possible in s, always in the same order.
	Next(s *S, yield func(Step, *S))
	// Check returns what is broken in s; empty when nothing is.
	Check(s *S) string
	// Done reports whether s is a state in which everything that was promised has
	// happened.
	Done(s *S) bool
}

// Step is one action with its arguments, as the machine numbers them.
type Step struct {
	Action, A, B uint8
	// Fault is set on steps that need not happen for the system to go on: faults, and what
	// comes from outside.
	Fault bool
}

// Limits bound an exploration.
type Limits struct {
	// States is where an exploration gives up with [ErrTooMany]; 0 is 50 million.
	States int
	// Live also proves that from every state a done one can be reached by steps that
	// are no faults.
	Live bool
	// Progress, when set, is called after each depth.
	Progress func(depth, states, frontier int, took time.Duration)
}

// ErrTooMany says that an exploration was stopped before its end: nothing is proved.
var ErrTooMany = errors.New("the limit of states was reached before the end")

// Result is what an exploration found.
type Result[S comparable] struct {
	States, Steps, Depth int
	// Broken is what does not hold; empty when everything does.
	Broken string
	// Path leads from the first state to the broken one, by the fewest steps.
	Path []Step
	// Last is the broken state.
	Last S
	Took time.Duration
}

// explorer knows every state by a digest, and the numbers of the states that its steps
// lead to: some 60 bytes a state, whatever its size.
type explorer[S comparable] struct {
	m      Machine[S]
	lim    Limits
	known  *known
	seeds  [2]maphash.Seed
	parent list[uint32]
	// For Live: the states that are done, or lead to one; and the steps that are no
	// faults, those of state n from first[n] on.
	good  list[bool]
	first list[uint32]
	edges list[uint32]
	steps int
}

// Explore visits every state that can be reached, nearest first, so that the schedule
// of a violation is one of the shortest.
func Explore[S comparable](m Machine[S], lim Limits) (Result[S], error) {
	if lim.States == 0 {
		lim.States = 50_000_000
	}
	e := &explorer[S]{m: m, lim: lim, known: newKnown(), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	began := time.Now()
	r, err := e.run(began)
	r.States, r.Steps, r.Took = e.parent.len(), e.steps, time.Since(began)
	return r, err
}

func (e *explorer[S]) run(began time.Time) (r Result[S], err error) {
	first := e.m.Init()
	e.add(&first, 0)
	var frontier list[S]
	frontier.add(first)
	for from := uint32(0); frontier.len() > 0; r.Depth++ { // the number of the state that is looked at
		var next list[S]
		for i := range frontier.len() {
			e.first.add(uint32(e.edges.len()))
			e.m.Next(frontier.at(i), func(by Step, s *S) {
				e.steps++
				to, fresh := e.add(s, from)
				if e.lim.Live && !by.Fault && to != from {
					e.edges.add(to)
				}
				if !fresh {
					return
				}
				next.add(*s)
				if broken := e.m.Check(s); broken != "" && r.Broken == "" {
					r.Broken, r.Last, r.Path = broken, *s, e.path(to)
				}
			})
			if r.Broken != "" {
				return r, nil
			}
			if e.parent.len() > e.lim.States {
				return r, fmt.Errorf("%w: %d states, depth %d", ErrTooMany, e.parent.len(), r.Depth)
			}
			from++
		}
		frontier = next
		if e.lim.Progress != nil {
			e.lim.Progress(r.Depth, e.parent.len(), frontier.len(), time.Since(began))
		}
	}
	if e.lim.Live {
		if stuck, found := e.stuck(); found {
			r.Broken = "stuck: without another fault nothing leads from here to an end"
			r.Path = e.path(stuck)
			r.Last = e.replay(r.Path)
		}
	}
	return r, nil
}

func (e *explorer[S]) digest(s *S) digest {
	return digest{maphash.Comparable(e.seeds[0], *s), uint32(maphash.Comparable(e.seeds[1], *s))}
}

// add numbers a state and reports whether it is new.
func (e *explorer[S]) add(s *S, from uint32) (uint32, bool) {
	n, fresh := e.known.add(e.digest(s), uint32(e.parent.len()))
	if fresh {
		e.parent.add(from)
		if e.lim.Live {
			e.good.add(e.m.Done(s))
		}
	}
	return n, fresh
}

// path finds the steps to a state again, from its parents' numbers.
func (e *explorer[S]) path(n uint32) (path []Step) {
	var numbers []uint32
	for ; n != 0; n = *e.parent.at(int(n)) {
		numbers = append(numbers, n)
	}
	s := e.m.Init()
	for _, want := range slices.Backward(numbers) {
		var step Step
		var to S
		e.m.Next(&s, func(by Step, next *S) {
			if have, _ := e.known.get(e.digest(next)); have == want {
				step, to = by, *next
			}
		})
		path, s = append(path, step), to
	}
	return path
}

// replay takes the steps of a path.
func (e *explorer[S]) replay(path []Step) S {
	s := e.m.Init()
	for _, want := range path {
		s, _ = Take(e.m, s, want)
	}
	return s
}

// Take returns the state after a step, and whether the step was possible.
func Take[S comparable](m Machine[S], s S, want Step) (next S, ok bool) {
	next = s
	m.Next(&s, func(by Step, to *S) {
		if by == want && !ok {
			next, ok = *to, true
		}
	})
	return next, ok
}

// stuck finds the nearest state from which no done one can be reached by steps that
// are no faults. It goes through the states, the farthest first, until nothing changes.
func (e *explorer[S]) stuck() (uint32, bool) {
	states := e.parent.len()
	e.first.add(uint32(e.edges.len()))
	for changed := true; changed; {
		changed = false
		for n := states - 1; n >= 0; n-- {
			if !*e.good.at(n) && e.leadsToGood(n) {
				*e.good.at(n), changed = true, true
			}
		}
	}
	for n := range states {
		if !*e.good.at(n) {
			return uint32(n), true
		}
	}
	return 0, false
}

func (e *explorer[S]) leadsToGood(n int) bool {
	for i := *e.first.at(n); i < *e.first.at(n + 1); i++ {
		if *e.good.at(int(*e.edges.at(int(i)))) {
			return true
		}
	}
	return false
}
