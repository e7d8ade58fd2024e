// Package fault decides by a seed what goes wrong in a run, does it and undoes it, and keeps
// a timeline of what really happened.
package fault

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// Fault is one thing that goes wrong and can be put right again.
type Fault struct {
	// Name says what it does to what: "kill relay-1".
	Name string
	// Kind is the name of its kind; a plan fills it in.
	Kind string
	// Hits are what it holds while it is on: no two faults hold the same thing at once. The
	// first one is its row in the timeline.
	Hits []string
	// On makes it go wrong and Off puts it right. Off is called once after each On, and
	// again while it fails. Either may take as long as it needs.
	On, Off func(context.Context) error
	// Struck, when there is one, tells before Off whether a fault that waited for its moment
	// has had it; one that has not counts as not made.
	Struck func() bool
}

// Kind is a family of faults.
type Kind struct {
	Name string
	// Weight is how often it is drawn, beside the weights of the others. Default 1.
	Weight int
	// Shortest and Longest bound how long one is on.
	Shortest, Longest time.Duration
	// Lacks says why faults of this kind cannot be made here; empty when they can.
	Lacks string
	// Draw makes one; r is the only chance that it may use.
	Draw func(r *rand.Rand) Fault
}

// Step is a fault with its place in a plan.
type Step struct {
	At, For time.Duration
	Fault   Fault
}

// Storm says how hard it blows. The zero value of a field is its default.
type Storm struct {
	// Length is how long faults begin; none is on after it.
	Length time.Duration
	// Pause is the mean time between the beginnings of two faults. Default 2 s.
	Pause time.Duration
	// Most faults are on at once. Default 4.
	Most int
	// Rest is how long what was hit is left alone afterwards. Default 1 s.
	Rest time.Duration
}

func (s *Storm) setDefaults() {
	if s.Pause == 0 {
		s.Pause = 2 * time.Second
	}
	if s.Most == 0 {
		s.Most = 4
	}
	if s.Rest == 0 {
		s.Rest = time.Second
	}
}

// Plan draws what happens: the same seed, kinds and storm give the same plan. Every kind
// comes once, in drawn order, before the weights decide.
func Plan(seed uint64, kinds []Kind, storm Storm) []Step {
	storm.setDefaults()
	r := rand.New(rand.NewPCG(seed, 1))
	kinds = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k.Lacks != "" })
	if len(kinds) == 0 {
		return nil
	}
	first := r.Perm(len(kinds))
	var plan []Step
	for at := time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() * float64(storm.Pause))
		if at >= storm.Length {
			return plan
		}
		kind := kinds[pick(r, kinds)]
		if len(first) > 0 {
			kind = kinds[first[0]]
		}
		// Drawn in any case, so that what was busy changes nothing that comes later.
		f, lasts := kind.Draw(r), kind.Shortest+time.Duration(r.Int64N(int64(kind.Longest-kind.Shortest)+1))
		f.Kind = kind.Name
		if busy(plan, at, f.Hits, storm) {
			if len(first) > 0 {
				first = append(first[1:], first[0])
			}
			continue
		}
		if len(first) > 0 {
			first = first[1:]
		}
		plan = append(plan, Step{At: at, For: min(lasts, storm.Length-at), Fault: f})
	}
}

func pick(r *rand.Rand, kinds []Kind) int {
	sum := 0
	for _, k := range kinds {
		sum += max(k.Weight, 1)
	}
	n := r.IntN(sum)
	for i, k := range kinds {
		if n -= max(k.Weight, 1); n < 0 {
			return i
		}
	}
	panic("unreachable")
}

// busy reports whether too much goes wrong already, or one of the things hit is in use.
func busy(plan []Step, at time.Duration, hits []string, storm Storm) bool {
	on := 0
	for _, s := range plan {
		end := s.At + s.For
		if end > at {
			on++
		}
		if end+storm.Rest > at && slices.ContainsFunc(s.Fault.Hits, func(h string) bool { return slices.Contains(hits, h) }) {
			return true
		}
	}
	return on >= storm.Most
}
