package journey

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// Page says which part of all messages an answer holds. They are in the order of their
// ids, the newest first; a message keeps its place in it, whatever becomes of it, so that
// pages which follow each other by Earlier leave none out and repeat none
// (TestPages/every_message_is_on_one_page).
type Page struct {
	// First and Last number the messages of this page from the newest, which is 1. They
	// are zero on an empty page, and on one behind what was counted.
	First int `json:"first"`
	Last  int `json:"last"`
	// Total is how many messages there are. AtLeast says that there are more, or that
	// somebody who may know of more did not answer.
	Total   int  `json:"total"`
	AtLeast bool `json:"at_least,omitempty"`
	// Newest is the first page. Earlier and Later are what Asker.Before is on the next
	// page and on the one before; Earlier is empty at the end. Later is empty also when
	// the page before is the newest one; behind what was counted it leads to the last page
	// that was.
	Newest  bool   `json:"newest,omitempty"`
	Earlier string `json:"earlier,omitempty"`
	Later   string `json:"later,omitempty"`
}

// mostCounted bounds the ids that are read to say where a page lies. Pages behind it have
// no numbers.
const mostCounted = 50_000

func (a *Asker) findPage(ctx context.Context, text string, q outlast.FactQuery) (*Found, error) {
	r := a.round()
	r.begin(ctx, outlast.FactQuery{IDs: []string{text}})
	page, ids := r.page(ctx, q, "")
	r.only(ctx, ids)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stories := a.judged(r)
	slices.SortFunc(stories, func(a, b *Story) int { return strings.Compare(b.ID, a.ID) })
	return &Found{Asked: text, At: time.Now().UTC(), Places: r.states, Stories: stories, Page: page, Rest: r.rest}, nil
}

// flowPage opens where the message is that was asked for, unless it is the one that began
// the flow: that is asked for by the name of the flow.
func (a *Asker) flowPage(ctx context.Context, id string) (*Flow, error) {
	r := a.round()
	r.begin(ctx, outlast.FactQuery{IDs: []string{id}})
	flow, near := flowOf(r.facts, id), id
	if flow == id {
		near = ""
	}
	page, ids := r.page(ctx, outlast.FactQuery{Flows: []string{flow}}, near)
	r.only(ctx, ids)
	r.causes(ctx, nil)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stories := a.judged(r)
	f := &Flow{ID: flow, At: time.Now().UTC(), Places: r.states, Count: len(stories), Page: page, Rest: r.rest}
	f.Roots = tree(stories, f.gaps(), nil)
	f.Walk(func(n *Node, _ int) { n.Aside = len(n.Facts) > 0 && !slices.Contains(ids, n.ID) })
	return f, nil
}

// page returns the ids of a page of what q selects: the one before Asker.Before, or else
// the one that the message near is on.
func (r *round) page(ctx context.Context, q outlast.FactQuery, near string) (*Page, []string) {
	size := r.a.limit()
	all, more := r.ids(ctx, q, "", mostCounted)
	for i := range r.facts { // of the message that was asked for, which only an inbox may know
		if at, ok := place(all, r.facts[i].ID); !ok && (!more || at < len(all)) {
			all = slices.Insert(all, at, r.facts[i].ID)
		}
	}
	from := 0
	if r.a.Before != "" {
		at, ok := place(all, r.a.Before)
		from = at + is(ok)
	} else if at, ok := place(all, near); ok {
		from = at - at%size
	}
	p := &Page{Total: len(all), Newest: from == 0,
		AtLeast: more || slices.ContainsFunc(r.states, func(s PlaceState) bool { return s.Unknown != "" })}
	ids := all[from:min(from+size, len(all))]
	if len(ids) > 0 {
		p.First, p.Last = from+1, from+len(ids)
	} else if more { // behind what was counted
		ids, more = r.ids(ctx, q, r.a.Before, size)
	}
	if len(ids) > 0 && (more || p.Last > 0 && p.Last < len(all)) {
		p.Earlier = ids[len(ids)-1]
	}
	if from > size {
		p.Later = all[from-size-1]
	}
	return p, ids
}

// place is where id is, or would be, among ids of which the greatest is first.
func place(ids []string, id string) (int, bool) {
	return slices.BinarySearchFunc(ids, id, func(a, b string) int { return strings.Compare(b, a) })
}

// ids returns the ids of what q selects and that are before an id, the newest first and
// at most so many, and whether there are more.
func (r *round) ids(ctx context.Context, q outlast.FactQuery, before string, most int) ([]string, bool) {
	q.Limit = min(most+1, mostFacts)
	var all []string
	for {
		list, cut := r.idsOnce(ctx, q, before)
		all = append(all, list...)
		if len(all) > most {
			return all[:most], true
		}
		if !cut || len(list) == 0 {
			return all, false
		}
		before = all[len(all)-1]
	}
}

// idsOnce puts one question to everybody. When a limit cuts somebody's answer off, it
// returns the ids down to that end: below it others would be missing.
func (r *round) idsOnce(ctx context.Context, q outlast.FactQuery, before string) (all []string, cut bool) {
	lists := make([][]string, len(r.a.Places))
	r.each(ctx, func(ctx context.Context, i int, store outlast.Store) (err error) {
		lists[i], err = store.Journal().IDs(ctx, q, before)
		return err
	})
	end := ""
	for i, list := range lists {
		if r.states[i].Unknown != "" {
			continue
		}
		all = append(all, list...)
		if len(list) == q.Limit {
			end, cut = max(end, list[len(list)-1]), true
		}
	}
	for _, f := range r.remembered(ctx, q) {
		if before == "" || f.ID < before {
			all = append(all, f.ID)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(b, a) })
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(id string) bool { return id < end }), cut
}

// remembered is what the memory knows of those that do not answer.
func (r *round) remembered(ctx context.Context, q outlast.FactQuery) []outlast.Fact {
	kept := r.facts
	r.facts = nil
	r.remember(ctx, q)
	found := r.facts
	r.facts = kept
	return found
}

// only reads all that is known of these ids, and nothing else.
func (r *round) only(ctx context.Context, ids []string) {
	r.facts, r.rest, r.asked = nil, Rest{}, map[string]bool{}
	for _, id := range ids {
		r.asked[id] = true
	}
	r.whole(ctx, ids)
}
