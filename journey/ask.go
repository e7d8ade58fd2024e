package journey

import (
	"context"
	"slices"
	"strings"
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
	// Limit is of messages: the newest are shown, each with all that is known of it.
	// Default and greatest: 1,000.
	Limit int
	// Paged has Find and Flow answer a page of Limit messages: the newest, or those before
	// the id Before. What a page does not show is on another one: see Page.
	Paged  bool
	Before string
	// Grace is how long what should happen may take before it is a verdict.
	Grace time.Duration
	// Memory, when set, is asked about databases that do not answer. What it says is
	// marked, fills no gap, and is held against no message.
	Memory Memory
}

// Memory is what somebody remembers of databases: [collector.Store] is one.
//
// [collector.Store]: https://pkg.go.dev/github.com/outlastmq/outlast/collector#Store
type Memory interface {
	// Remember returns what the database of that name said of the messages that q selects
	// when it last answered; nothing when it is not known.
	Remember(ctx context.Context, place string, q outlast.FactQuery) (Remembered, error)
}

// Remembered is what a Memory says of one database.
type Remembered struct {
	Service string
	// At is when the database last answered; zero: nothing is remembered of it.
	At time.Time
	// Facts have their AsOf set.
	Facts []outlast.Fact
}

// PlaceState is how a database answered.
type PlaceState struct {
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	// Unknown says why it could not be asked; empty when it was.
	Unknown string `json:"unknown,omitempty"`
	// AsOf is set when it was not asked and a memory was: when it last answered that.
	AsOf time.Time `json:"as_of,omitzero"`
	// Untracked: it has no sent log, so that what was sent from it is not known.
	Untracked bool `json:"untracked,omitempty"`
}

// Found is the answer of Find.
type Found struct {
	Asked   string       `json:"asked"`
	At      time.Time    `json:"at"`
	Places  []PlaceState `json:"places"`
	Stories []*Story     `json:"messages"`
	// Page is set when the question was for a page.
	Page *Page `json:"page,omitempty"`
	Rest
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
	q := outlast.FactQuery{IDs: []string{text}, Flows: []string{text}, Keys: []string{text}}
	if a.Paged {
		return a.findPage(ctx, text, q)
	}
	return a.find(ctx, text, q)
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
	r.choose(text)
	r.follow(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &Found{Asked: text, At: time.Now().UTC(), Places: r.states, Stories: a.judged(r), Rest: r.rest}, nil
}

func (a *Asker) patience() time.Duration {
	if a.Patience == 0 {
		return 10 * time.Second
	}
	return a.Patience
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
	asked  map[string]bool   // ids of which everybody has told all
	cut    map[string]string // ids of which somebody has more to tell than is read, and who
	since  []time.Time       // from when on the sent log of each place is whole
	rest   Rest

	hearers []outlast.Hearer
}

func (a *Asker) round() *round {
	r := &round{a: a, states: make([]PlaceState, len(a.Places)), since: make([]time.Time, len(a.Places)), asked: map[string]bool{}, cut: map[string]string{}}
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
	ctx, cancel := context.WithTimeout(ctx, r.a.patience())
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

// ask puts a question that may have more answers than the limit.
func (r *round) ask(ctx context.Context, q outlast.FactQuery) {
	q.Limit = 10 * r.a.limit()
	if len(r.put(ctx, q)) > 0 {
		r.rest.More, r.rest.AtLeast = true, true
		return // follow asks for the ids once more: their facts may be among those cut off
	}
	for _, id := range q.IDs {
		r.asked[id] = true
	}
}

// put asks everybody, adds what they know, and names those whose answer a limit cut off.
func (r *round) put(ctx context.Context, q outlast.FactQuery) (cut []string) {
	pages := make([]outlast.FactPage, len(r.a.Places))
	r.each(ctx, func(ctx context.Context, i int, store outlast.Store) (err error) {
		pages[i], err = store.Journal().Facts(ctx, q)
		return err
	})
	for i, page := range pages {
		if r.states[i].Unknown != "" {
			continue
		}
		r.states[i].Service, r.states[i].Untracked, r.since[i] = page.Service, !page.Tracked, page.Since
		r.facts = append(r.facts, page.Facts...)
		if page.More {
			cut = append(cut, r.states[i].Name)
		}
	}
	r.remember(ctx, q)
	return cut
}

// remember asks the memory for those that do not answer.
func (r *round) remember(ctx context.Context, q outlast.FactQuery) {
	if r.a.Memory == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.a.patience())
	defer cancel()
	for i := range r.states {
		s := &r.states[i]
		if s.Unknown == "" {
			continue
		}
		m, err := r.a.Memory.Remember(ctx, s.Name, q)
		if err != nil || m.At.IsZero() {
			continue // it is unknown, as without a memory
		}
		s.Service, s.AsOf = m.Service, m.At
		r.facts = append(r.facts, m.Facts...)
	}
}

// follow asks everybody for the messages that are shown: the inbox of a receiver knows
// ids alone, and what a limit cut off may be about any of them.
func (r *round) follow(ctx context.Context) {
	var ids []string
	for i := range r.facts {
		if id := r.facts[i].ID; !r.asked[id] {
			r.asked[id] = true
			ids = append(ids, id)
		}
	}
	r.whole(ctx, ids)
}

// mostHalves bounds how often the ids of one question are divided.
const mostHalves = 64

// whole asks for all that is known of these ids. When that is more than one answer
// holds, it asks for half of them at a time; what even then is not whole is marked.
func (r *round) whole(ctx context.Context, ids []string) {
	lists := [][]string{ids}
	for halves := 0; len(lists) > 0; {
		list := lists[0]
		lists = lists[1:]
		if len(list) == 0 {
			continue
		}
		cut := r.put(ctx, outlast.FactQuery{IDs: list, Limit: mostFacts})
		switch {
		case len(cut) == 0:
		case len(list) > 1 && halves < mostHalves:
			halves++
			lists = append(lists, list[:len(list)/2], list[len(list)/2:])
		default:
			for _, id := range list {
				r.cut[id] = strings.Join(cut, ", ")
			}
		}
	}
}

// judged folds the facts and passes judgement.
func (a *Asker) judged(r *round) []*Story {
	b := Bench{Now: time.Now(), Grace: a.Grace, Hearers: r.hearers, Sources: map[string]time.Time{}}
	b.Complete = true
	var gaps []string
	for i, p := range r.states {
		if p.Unknown != "" {
			b.Complete = false
			gaps = append(gaps, p.Name)
		} else if !p.Untracked && p.Service != "" {
			b.Sources[p.Service] = r.since[i]
		}
	}
	stories := Fold(r.facts)
	for _, s := range stories {
		s.Gaps = slices.Clone(gaps)
		if names := r.cut[s.ID]; names != "" {
			s.Cut = names + " knows more of it than one answer holds"
		}
		s.Judge(b)
		if s.Send.State == Unknown && s.Source != "" && len(gaps) == 0 && s.Cut == "" && !r.owned(s.Source) {
			s.Send.State = NotAsked
		}
	}
	return stories
}

// owned reports whether the outbox of a service is in a database that was asked.
func (r *round) owned(service string) bool {
	return slices.ContainsFunc(r.states, func(p PlaceState) bool { return p.Service == service })
}
