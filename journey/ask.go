package journey

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// Place is a database to ask. Err, when Store is nil, says why it could not be opened:
// it is then drawn as unknown.
type Place struct {
	// Name is shown; it holds no secrets.
	Name  string
	Store outlast.Store
	Err   error
}

// Asker asks several databases at once. It is safe for concurrent use.
type Asker struct {
	Places []Place
	// Patience bounds the answer of each database. Default: ten seconds.
	Patience time.Duration
	// Limit is of messages. Default and greatest: 1,000.
	Limit int
	// Grace is how long what should happen may take before it is a verdict.
	Grace time.Duration
}

// PlaceState is how a database answered.
type PlaceState struct {
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	// Unknown says why it could not be asked; empty when it was.
	Unknown string `json:"unknown,omitempty"`
	// Untracked: it has no sent log, so that what was sent from it is not known.
	Untracked bool `json:"untracked,omitempty"`
}

// Found is the answer of Find.
type Found struct {
	Asked   string       `json:"asked"`
	At      time.Time    `json:"at"`
	Places  []PlaceState `json:"places"`
	Stories []*Story     `json:"messages"`
	// More says that a limit cut the answer off: there are other messages.
	More bool `json:"more,omitempty"`
}

// Gaps names the places that could not be asked.
func (f *Found) Gaps() (names []string) {
	for _, p := range f.Places {
		if p.Unknown != "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// Find returns the messages that text names: their id, their flow, a business key or an
// ordering key, wherever they are. It returns an error only when ctx ends: a database
// that does not answer is a gap in the answer.
func (a *Asker) Find(ctx context.Context, text string) (*Found, error) {
	return a.find(ctx, text, outlast.FactQuery{IDs: []string{text}, Flows: []string{text}, Keys: []string{text}})
}

// Message returns one message by its id, or nil when nobody who was asked knows it.
func (a *Asker) Message(ctx context.Context, id string) (*Found, *Story, error) {
	found, err := a.find(ctx, id, outlast.FactQuery{IDs: []string{id}})
	if err != nil {
		return nil, nil, err
	}
	for _, s := range found.Stories {
		if s.ID == id {
			return found, s, nil
		}
	}
	return found, nil, nil
}

func (a *Asker) find(ctx context.Context, text string, q outlast.FactQuery) (*Found, error) {
	r := a.round()
	r.begin(ctx, q)
	r.follow(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := &Found{Asked: text, At: time.Now().UTC(), Places: r.states, Stories: a.judged(r)}
	found.More = r.more
	if limit := a.limit(); len(found.Stories) > limit {
		found.Stories, found.More = found.Stories[:limit], true
	}
	return found, nil
}

func (a *Asker) limit() int {
	if a.Limit < 1 || a.Limit > 1000 {
		return 1000
	}
	return a.Limit
}

// round is one question put to all places, with what follows from the answers.
type round struct {
	a      *Asker
	facts  []outlast.Fact
	states []PlaceState
	asked  map[string]bool // ids
	more   bool

	hearers []outlast.Hearer
}

func (a *Asker) round() *round {
	r := &round{a: a, states: make([]PlaceState, len(a.Places)), asked: map[string]bool{}}
	for i, p := range a.Places {
		r.states[i].Name = p.Name
		if p.Store == nil {
			r.states[i].Unknown = "it cannot be asked"
			if p.Err != nil {
				r.states[i].Unknown = p.Err.Error()
			}
		}
	}
	return r
}

// each calls f for every place that can be asked, all at once. A place that has failed
// is not asked again: half an answer is none.
func (r *round) each(ctx context.Context, f func(ctx context.Context, i int, store outlast.Store) error) {
	patience := r.a.Patience
	if patience == 0 {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	errs := make([]error, len(r.a.Places))
	var all sync.WaitGroup
	for i, p := range r.a.Places {
		if r.states[i].Unknown != "" {
			continue
		}
		all.Go(func() { errs[i] = f(ctx, i, p.Store) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			r.states[i].Unknown = err.Error()
		}
	}
}

// begin asks the first question, and at the same time who hears what.
func (r *round) begin(ctx context.Context, q outlast.FactQuery) {
	aside := &round{a: r.a, states: slices.Clone(r.states)}
	lists := make([][]outlast.Hearer, len(r.a.Places))
	var both sync.WaitGroup
	both.Go(func() {
		aside.each(ctx, func(ctx context.Context, i int, store outlast.Store) (err error) {
			lists[i], err = store.Journal().Hearers(ctx)
			return err
		})
	})
	r.ask(ctx, q)
	both.Wait()
	for i := range r.states {
		if r.states[i].Unknown == "" {
			r.states[i].Unknown = aside.states[i].Unknown
		}
		r.hearers = append(r.hearers, lists[i]...)
	}
}

func (r *round) ask(ctx context.Context, q outlast.FactQuery) {
	q.Limit = 10 * r.a.limit()
	pages := make([]outlast.FactPage, len(r.a.Places))
	r.each(ctx, func(ctx context.Context, i int, store outlast.Store) (err error) {
		pages[i], err = store.Journal().Facts(ctx, q)
		return err
	})
	for i, page := range pages {
		if r.states[i].Unknown != "" {
			continue
		}
		r.states[i].Service, r.states[i].Untracked = page.Service, !page.Tracked
		r.facts = append(r.facts, page.Facts...)
		r.more = r.more || page.More
	}
	for _, id := range q.IDs {
		r.asked[id] = true
	}
}

// follow asks everybody for the messages that were found: the inbox of a receiver knows
// ids alone.
func (r *round) follow(ctx context.Context) {
	var ids []string
	for i := range r.facts {
		if id := r.facts[i].ID; !r.asked[id] && len(ids) < r.a.limit() {
			r.asked[id] = true
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		r.ask(ctx, outlast.FactQuery{IDs: ids})
	}
}

// judged folds the facts and passes judgement.
func (a *Asker) judged(r *round) []*Story {
	b := Bench{Now: time.Now(), Grace: a.Grace, Hearers: r.hearers, Sources: map[string]bool{}}
	b.Complete = true
	var gaps []string
	for _, p := range r.states {
		if p.Unknown != "" {
			b.Complete = false
			gaps = append(gaps, p.Name)
		} else if !p.Untracked && p.Service != "" {
			b.Sources[p.Service] = true
		}
	}
	stories := Fold(r.facts)
	for _, s := range stories {
		s.Gaps = slices.Clone(gaps)
		s.Judge(b)
	}
	return stories
}
