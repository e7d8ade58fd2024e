package model

import (
	"fmt"
	"strings"
)

// event is something that real code was seen to do. The model can do it when one of
// its ways, a sequence of actions, is possible; or when nothing need happen.
type event struct {
	what  string
	ways  [][]want
	quiet func(s *State) bool // in such states nothing happens in the model; may be nil
}

// want is an action of the model with its arguments.
type want struct {
	action string
	a, b   int
	when   func(s *State) bool // may be nil
}

// follower checks that what was seen is a run of the model: it keeps every state in
// which the model can be. Between two events the model takes any internal steps.
type follower struct {
	m        *Model
	internal func(action string, a, b int) bool
	states   map[State]bool
	seen     []string
	most     int
}

func newFollower(m *Model, internal func(action string, a, b int) bool) *follower {
	return &follower{m: m, internal: internal, states: map[State]bool{m.Init(): true}}
}

// take follows one event, or says why the model cannot.
func (f *follower) take(e event) error {
	f.seen = append(f.seen, e.what)
	all := f.closure()
	f.most = max(f.most, len(all))
	next := map[State]bool{}
	for s := range all {
		if e.quiet != nil && e.quiet(&s) {
			next[s] = true
		}
		for _, way := range e.ways {
			f.walk(s, way, next)
		}
	}
	f.states = next
	if len(next) == 0 {
		return fmt.Errorf("the model cannot: %s\nseen so far:\n  %s", e.what, strings.Join(f.seen, "\n  "))
	}
	return nil
}

// walk takes the actions of a way.
func (f *follower) walk(s State, way []want, into map[State]bool) {
	if len(way) == 0 {
		into[s] = true
		return
	}
	w := way[0]
	if w.when != nil && !w.when(&s) {
		return
	}
	if next, ok := f.m.do(s, w.action, w.a, w.b); ok && next.Broken == Whole {
		f.walk(next, way[1:], into)
	}
}

// closure adds what internal steps lead to.
func (f *follower) closure() map[State]bool {
	all := map[State]bool{}
	var work []State
	for s := range f.states {
		all[s] = true
		work = append(work, s)
	}
	for len(work) > 0 {
		s := work[len(work)-1]
		work = work[:len(work)-1]
		f.m.Next(&s, func(by Step, next *State) {
			if next.Broken == Whole && !all[*next] && f.internal(f.m.actions[by.Action].name, int(by.A), int(by.B)) {
				all[*next] = true
				work = append(work, *next)
			}
		})
	}
	return all
}

// do takes the action with that name and these arguments, when it is possible.
func (m *Model) do(s State, name string, a, b int) (State, bool) {
	for i := range m.actions {
		act := &m.actions[i]
		if act.name != name {
			continue
		}
		if act.guard != nil && !act.guard(m, &s, a, b) {
			return s, false
		}
		m.apply(act, &s, a, b)
		return s, true
	}
	panic("no action is named " + name)
}
