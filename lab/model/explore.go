package model

import (
	"errors"
	"fmt"
	"hash/maphash"
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
	// Fault is set on steps that need not happen for the system to go on.
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

type digest [2]uint64

// explorer knows every state by a digest of 128 bits, so that a state costs some 40
// bytes whatever its size. With ten million states the probability that two of them
// are taken for one is below 1e-24.
type explorer[S comparable] struct {
	m      Machine[S]
	lim    Limits
	seeds  [2]maphash.Seed
	known  map[digest]uint32
	parent []uint32
	by     []Step
	done   []bool
	edges  [][2]uint32 // steps that are no faults
	steps  int
}

// Explore visits every state that can be reached, nearest first, so that the schedule
// of a violation is one of the shortest.
func Explore[S comparable](m Machine[S], lim Limits) (Result[S], error) {
	if lim.States == 0 {
		lim.States = 50_000_000
	}
	e := &explorer[S]{m: m, lim: lim, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, known: map[digest]uint32{}}
	began := time.Now()
	r, err := e.run(began)
	r.States, r.Steps, r.Took = len(e.parent), e.steps, time.Since(began)
	return r, err
}

func (e *explorer[S]) run(began time.Time) (r Result[S], err error) {
	first := e.m.Init()
	e.add(&first, 0, Step{})
	frontier := []S{first}
	at := uint32(0) // the number of frontier[0]
	for ; len(frontier) > 0; r.Depth++ {
		var next []S
		for i := range frontier {
			from := at + uint32(i)
			e.m.Next(&frontier[i], func(by Step, s *S) {
				e.steps++
				to, fresh := e.add(s, from, by)
				if e.lim.Live && !by.Fault {
					e.edges = append(e.edges, [2]uint32{from, to})
				}
				if !fresh {
					return
				}
				next = append(next, *s)
				if broken := e.m.Check(s); broken != "" && r.Broken == "" {
					r.Broken, r.Last, r.Path = broken, *s, e.path(to)
				}
			})
			if r.Broken != "" {
				return r, nil
			}
			if len(e.parent) > e.lim.States {
				return r, fmt.Errorf("%w: %d states, depth %d", ErrTooMany, len(e.parent), r.Depth)
			}
		}
		at += uint32(len(frontier))
		frontier = next
		if e.lim.Progress != nil {
			e.lim.Progress(r.Depth, len(e.parent), len(frontier), time.Since(began))
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

// add numbers a state and reports whether it is new.
func (e *explorer[S]) add(s *S, from uint32, by Step) (uint32, bool) {
	d := digest{maphash.Comparable(e.seeds[0], *s), maphash.Comparable(e.seeds[1], *s)}
	if n, ok := e.known[d]; ok {
		return n, false
	}
	n := uint32(len(e.parent))
	e.known[d] = n
	e.parent = append(e.parent, from)
	e.by = append(e.by, by)
	e.done = append(e.done, e.lim.Live && e.m.Done(s))
	return n, true
}

func (e *explorer[S]) path(n uint32) []Step {
	var back []Step
	for ; n != 0; n = e.parent[n] {
		back = append(back, e.by[n])
	}
	path := make([]Step, 0, len(back))
	for i := len(back) - 1; i >= 0; i-- {
		path = append(path, back[i])
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
// are no faults: it walks those steps backwards from the done ones.
func (e *explorer[S]) stuck() (uint32, bool) {
	n := len(e.parent)
	first := make([]uint32, n+1) // of the edges by their end
	for _, edge := range e.edges {
		first[edge[1]+1]++
	}
	for i := range n {
		first[i+1] += first[i]
	}
	into := make([]uint32, len(e.edges))
	fill := append([]uint32(nil), first...)
	for _, edge := range e.edges {
		into[fill[edge[1]]] = edge[0]
		fill[edge[1]]++
	}
	var work []uint32
	for i, done := range e.done {
		if done {
			work = append(work, uint32(i))
		}
	}
	for len(work) > 0 {
		to := work[len(work)-1]
		work = work[:len(work)-1]
		for _, from := range into[first[to]:first[to+1]] {
			if !e.done[from] {
				e.done[from] = true
				work = append(work, from)
			}
		}
	}
	for i, good := range e.done {
		if !good {
			return uint32(i), true
		}
	}
	return 0, false
}
