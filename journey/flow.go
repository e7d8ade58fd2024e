package journey

import (
	"context"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// Flow is a business flow: the messages of one correlation id as a tree of causes.
type Flow struct {
	ID     string       `json:"flow"`
	At     time.Time    `json:"at"`
	Places []PlaceState `json:"places"`
	Roots  []*Node      `json:"roots"`
	// Count is of the messages that are shown.
	Count int `json:"count"`
	// Page is set when the question was for a page.
	Page *Page `json:"page,omitempty"`
	Rest
}

// Node is a message with those that its handling wrote. A message that others name as
// their cause, and that nobody who was asked knows, is there as unknown.
type Node struct {
	*Story
	// Aside: it is not of the page, and is shown because it is the cause of one that is.
	Aside  bool    `json:"aside,omitempty"`
	Caused []*Node `json:"caused,omitempty"`
}

// Flow returns the flow that id names, or that the message id belongs to. Causes order
// it first, time second: clocks of several databases do not agree.
func (a *Asker) Flow(ctx context.Context, id string) (*Flow, error) {
	if a.Paged {
		return a.flowPage(ctx, id)
	}
	r := a.round()
	r.begin(ctx, outlast.FactQuery{IDs: []string{id}, Flows: []string{id}})
	flow := flowOf(r.facts, id)
	if flow != id {
		r.ask(ctx, outlast.FactQuery{Flows: []string{flow}})
	}
	omitted := r.choose(id)
	r.follow(ctx)
	r.causes(ctx, omitted)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stories := a.judged(r)
	f := &Flow{ID: flow, At: time.Now().UTC(), Places: r.states, Count: len(stories), Rest: r.rest}
	f.Roots = tree(stories, f.gaps(), omitted)
	return f, nil
}

func (f *Flow) gaps() (names []string) {
	for _, p := range f.Places {
		if p.Unknown != "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// flowOf is the flow of the message id, or id itself when it is one.
func flowOf(facts []outlast.Fact, id string) string {
	for _, f := range facts {
		if e := f.Envelope; e != nil && f.ID == id && e.CorrelationID != "" {
			return e.CorrelationID
		}
	}
	return id
}

// causes asks for messages that are named as causes and were not found: the inbox of
// their receiver may know them when the database of their sender is down. Those that
// the limit left out stay out.
func (r *round) causes(ctx context.Context, omitted map[string]bool) {
	var ids []string
	for _, f := range r.facts {
		if f.Envelope == nil {
			continue
		}
		if id := f.Envelope.CausationID; id != "" && !r.asked[id] && !omitted[id] {
			r.asked[id] = true
			ids = append(ids, id)
		}
	}
	r.whole(ctx, ids)
}

// tree hangs every message under its cause. A cause that nobody knows gets a place of
// its own, and so has one that the limit left out; a circle of causes, which only a
// foreign writer can make, is cut.
func tree(stories []*Story, gaps []string, omitted map[string]bool) []*Node {
	nodes := map[string]*Node{}
	var order []*Node
	add := func(s *Story) *Node {
		n := &Node{Story: s}
		nodes[s.ID] = n
		order = append(order, n)
		return n
	}
	for _, s := range stories {
		add(s)
	}
	parent := map[string]string{}
	for _, n := range slices.Clone(order) {
		cause := ""
		if n.Envelope != nil {
			cause = n.Envelope.CausationID
		}
		if cause == "" || cause == n.ID {
			continue
		}
		if nodes[cause] == nil {
			s := &Story{ID: cause, Send: Track{State: Unknown}, Groups: []Track{}, Facts: []outlast.Fact{}, Gaps: gaps}
			if omitted[cause] {
				s.Cut = "it is older than what the limit shows"
			}
			add(s)
		}
		if !leads(parent, cause, n.ID) {
			parent[n.ID] = cause
		}
	}
	var roots []*Node
	for _, n := range order {
		if p := nodes[parent[n.ID]]; p != nil {
			p.Caused = append(p.Caused, n)
		} else {
			roots = append(roots, n)
		}
	}
	return roots
}

// leads reports whether to is above from.
func leads(parent map[string]string, from, to string) bool {
	for id := from; id != ""; id = parent[id] {
		if id == to {
			return true
		}
	}
	return false
}

// Walk calls f for every node in the order in which a person reads the tree.
func (f *Flow) Walk(visit func(n *Node, depth int)) {
	var walk func(list []*Node, depth int)
	walk = func(list []*Node, depth int) {
		for _, n := range list {
			visit(n, depth)
			walk(n.Caused, depth+1)
		}
	}
	walk(f.Roots, 0)
}
