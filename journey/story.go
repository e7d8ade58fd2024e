package journey

import (
	"cmp"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// State is where a message is on one of its tracks.
type State string

const (
	// Unknown: nobody who was asked knows anything.
	Unknown State = "unknown"
	// NotAsked, on the sender's track: every database that was named has answered, and
	// none of them is the sender's.
	NotAsked State = "not asked"

	Pending   State = "pending"
	Held      State = "held"
	Sent      State = "sent"
	Unheard   State = "unheard"
	Expired   State = "expired"
	Withdrawn State = "withdrawn"

	Waiting   State = "waiting"
	Dead      State = "dead"
	Discarded State = "discarded"
	Handled   State = "handled"
)

// Final reports whether nothing more happens by itself or is waited for. Sent is final
// for the sender; whether the groups have the message, their own tracks tell.
func (s State) Final() bool {
	switch s {
	case Unheard, Expired, Withdrawn, Discarded, Handled:
		return true
	}
	return false
}

// known is false when nothing is known of a track.
func (s State) known() bool { return s != Unknown && s != NotAsked }

// Track is one side of a message's life: the sender's, or that of one group.
type Track struct {
	// Group is empty on the sender's track.
	Group string    `json:"group,omitempty"`
	State State     `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Code says why it waits, Detail is the text for people.
	Code    string    `json:"code,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Attempt int       `json:"attempts,omitempty"`
	Replays int       `json:"replays,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	// AsOf is set when this is what a collector remembers of a database that does not
	// answer: it was so then, and nobody knows whether it still is.
	AsOf time.Time `json:"as_of,omitzero"`
}

// Story is all that is known of one message.
type Story struct {
	ID     string `json:"id"`
	Source string `json:"source,omitempty"`
	// Envelope is what is known of the message but its body; nil when only its id is.
	Envelope *outlast.Envelope `json:"envelope,omitempty"`
	Send     Track             `json:"send"`
	Groups   []Track           `json:"groups"`
	// Awaited are groups that hear the type of a sent message and do not have it: it is on
	// its way, or in a queue, until a verdict says more.
	Awaited  []string  `json:"awaited,omitempty"`
	Verdicts []Verdict `json:"verdicts,omitempty"`
	// Facts in order of time, by the clocks of the databases that hold them.
	Facts []outlast.Fact `json:"facts"`
	// Gaps name the databases that could not be asked: what they know is unknown.
	Gaps []string `json:"gaps,omitempty"`
	// Cut says why a part of what is known was not read; empty when all was. What is
	// missing is then unknown, and never held against the message.
	Cut string `json:"cut,omitempty"`
}

// Type is the message's type, when it is known.
func (s *Story) Type() string {
	if s.Envelope == nil {
		return ""
	}
	return s.Envelope.Type
}

// EnqueuedAt is when the message was enqueued, zero when that is not known.
func (s *Story) EnqueuedAt() (at time.Time) {
	if s.Envelope != nil && !s.Envelope.EnqueuedAt.IsZero() {
		return s.Envelope.EnqueuedAt
	}
	for i := range s.Facts { // what several inboxes say is no later than it came to the first
		if t := s.Facts[i].EnqueuedAt; !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// rank orders the facts of a track: the highest says where the message is. History has
// no rank. Of two of the same rank the later one speaks.
func rank(f *outlast.Fact) int {
	r := map[outlast.FactKind]int{
		outlast.FactCommitted: 1, outlast.FactHeld: 2, outlast.FactWithdrawn: 3, outlast.FactExpired: 4, outlast.FactUnheard: 5, outlast.FactSent: 6,
		outlast.FactDead: 1, outlast.FactWaiting: 2, outlast.FactDiscarded: 3, outlast.FactHandled: 9,
	}[f.Kind]
	if f.Now && r > 0 {
		r += 6 // a row that is there; only handled outranks it
	}
	if f.Kind == outlast.FactHandled {
		r = 100
	}
	return r
}

func stateOf(f *outlast.Fact) State {
	switch f.Kind {
	case outlast.FactCommitted:
		return Pending
	case outlast.FactHeld:
		return Held
	case outlast.FactSent:
		return Sent
	case outlast.FactUnheard:
		return Unheard
	case outlast.FactExpired:
		return Expired
	case outlast.FactWithdrawn:
		return Withdrawn
	case outlast.FactWaiting:
		return Waiting
	case outlast.FactDead:
		return Dead
	case outlast.FactDiscarded:
		return Discarded
	case outlast.FactHandled:
		return Handled
	}
	return Unknown
}

// Fold makes stories of facts, one for each message, in the order of their enqueue. It
// does not matter in which order the facts come, nor how often each does
// (TestFold/any_order_and_repetition_give_the_same).
func Fold(facts []outlast.Fact) []*Story {
	byID := map[string][]outlast.Fact{}
	for _, f := range facts {
		byID[f.ID] = append(byID[f.ID], f)
	}
	stories := make([]*Story, 0, len(byID))
	for id, list := range byID {
		stories = append(stories, fold(id, list))
	}
	slices.SortFunc(stories, func(a, b *Story) int {
		return cmp.Or(a.EnqueuedAt().Compare(b.EnqueuedAt()), cmp.Compare(a.ID, b.ID))
	})
	return stories
}

func fold(id string, facts []outlast.Fact) *Story {
	s := &Story{ID: id, Send: Track{State: Unknown}, Groups: []Track{}}
	s.Facts = distinct(facts)
	groups := map[string][]*outlast.Fact{}
	for i := range s.Facts {
		f := &s.Facts[i]
		groups[f.Group] = append(groups[f.Group], f)
		s.learn(f)
	}
	for group, list := range groups {
		if t := track(group, list); group == "" {
			s.Send = t
		} else {
			s.Groups = append(s.Groups, t)
		}
	}
	slices.SortFunc(s.Groups, func(a, b Track) int { return cmp.Compare(a.Group, b.Group) })
	return s
}

// distinct sorts the facts by time and drops repetitions.
func distinct(facts []outlast.Fact) []outlast.Fact {
	list := slices.Clone(facts)
	now := map[bool]int{true: 1}
	compare := func(a, b outlast.Fact) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(rank(&a), rank(&b)), cmp.Compare(now[a.Now], now[b.Now]), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Source, b.Source),
			cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Replays, b.Replays), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Detail, b.Detail),
			a.Until.Compare(b.Until), a.EnqueuedAt.Compare(b.EnqueuedAt), cmp.Compare(known(b.Envelope), known(a.Envelope)), a.AsOf.Compare(b.AsOf))
	}
	slices.SortStableFunc(list, compare)
	return slices.CompactFunc(list, func(a, b outlast.Fact) bool {
		a.Envelope, b.Envelope, a.AsOf, b.AsOf = nil, nil, time.Time{}, time.Time{}
		return compare(a, b) == 0
	})
}

// known measures how much an envelope tells.
func known(e *outlast.Envelope) int {
	if e == nil {
		return 0
	}
	n := 1
	for _, s := range []string{e.Type, e.Source, e.Key, e.CorrelationID, e.CausationID, e.TraceParent} {
		if s != "" {
			n++
		}
	}
	if !e.EnqueuedAt.IsZero() {
		n++
	}
	return n + len(e.Find)
}

// learn keeps the envelope that tells the most.
func (s *Story) learn(f *outlast.Fact) {
	if s.Source == "" {
		s.Source = f.Source
	}
	if known(f.Envelope) > known(s.Envelope) {
		s.Envelope = f.Envelope
	}
}

func track(group string, facts []*outlast.Fact) Track {
	t := Track{Group: group, State: Unknown}
	best := -1
	for _, f := range facts { // in order of time: the later of one rank wins
		t.Attempt, t.Replays = max(t.Attempt, f.Attempt), max(t.Replays, f.Replays)
		if r := rank(f); r > 0 && r >= best {
			best = r
			t.State, t.Since, t.Code, t.Detail, t.Until, t.AsOf = stateOf(f), f.At, f.Code, f.Detail, f.Until, f.AsOf
		}
	}
	return t
}
