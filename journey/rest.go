package journey

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// mostFacts is how many facts a place tells at most in one answer: see outlast.FactQuery.
const mostFacts = 10_000

// Rest is what a limit left out of an answer.
type Rest struct {
	// More says that there are other messages than those shown.
	More bool `json:"more,omitempty"`
	// Omitted counts those that were found and are not shown. AtLeast says that a
	// database had more to tell, so that there may be others still.
	Omitted int  `json:"omitted,omitempty"`
	AtLeast bool `json:"at_least,omitempty"`
}

// RestText says in words what is not shown; empty when everything is.
func (r Rest) RestText() string {
	switch {
	case !r.More:
		return ""
	case r.Omitted == 0:
		return "there may be more messages, which are not shown"
	case r.AtLeast:
		return fmt.Sprintf("at least %d more not shown; these are the newest", r.Omitted)
	}
	return fmt.Sprintf("%d more not shown; these are the newest", r.Omitted)
}

// choose keeps the facts of the newest messages, as many as the limit allows. Of equally
// old ones the greater id is kept, so that the same question has the same answer. The
// message whose id was asked for is always kept.
func (r *round) choose(asked string) (omitted map[string]bool) {
	limit := r.a.limit()
	stories := Fold(r.facts)
	if len(stories) <= limit {
		return nil
	}
	slices.SortFunc(stories, func(a, b *Story) int {
		return cmp.Or(is(b.ID == asked)-is(a.ID == asked), b.begun().Compare(a.begun()), cmp.Compare(b.ID, a.ID))
	})
	omitted = map[string]bool{}
	for _, s := range stories[limit:] {
		omitted[s.ID] = true
	}
	r.facts = slices.DeleteFunc(r.facts, func(f outlast.Fact) bool { return omitted[f.ID] })
	r.rest.More, r.rest.Omitted = true, r.rest.Omitted+len(omitted)
	return omitted
}

func is(b bool) int {
	if b {
		return 1
	}
	return 0
}

// begun is when a message was enqueued, or else when it was first heard of.
func (s *Story) begun() time.Time {
	if at := s.EnqueuedAt(); !at.IsZero() || len(s.Facts) == 0 {
		return at
	}
	return s.Facts[0].At
}
