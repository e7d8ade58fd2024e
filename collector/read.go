package collector

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// Place is a database of a service as the collector knows it.
type Place struct {
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	// AnsweredAt is when it last answered; zero: never. Status and Hearers are of then.
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	// Unknown says why it does not answer, and UnknownSince since when; empty and zero
	// when it does.
	Unknown      string               `json:"unknown,omitempty"`
	UnknownSince time.Time            `json:"unknown_since,omitzero"`
	Status       *outlast.StoreStatus `json:"status,omitempty"`
	Hearers      []outlast.Hearer     `json:"hearers,omitempty"`
	tracked      bool
	since        time.Time // see outlast.FactPage
}

// Places returns the databases of the last round.
func (s *Store) Places(ctx context.Context) ([]Place, error) {
	var list []Place
	err := each(ctx, s.db, s.sql.Get("places"), nil, func(scan func(...any) error) error {
		var p Place
		var tracked int
		var answered, since int64
		var status, hearers string
		if err := scan(&p.Name, &p.Service, &tracked, &answered, &p.Unknown, &since, &status, &hearers); err != nil {
			return err
		}
		p.tracked, p.AnsweredAt, p.UnknownSince = tracked > 0, instant(answered), instant(since)
		if tracked > 1 {
			p.since = time.Unix(int64(tracked)*3600, 0)
		}
		if status != "" {
			if err := json.Unmarshal([]byte(status), &p.Status); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(hearers), &p.Hearers); err != nil {
				return err
			}
		}
		list = append(list, p)
		return nil
	})
	return list, fail("read what the collector knows of the databases", err)
}

// Place returns what is known of the database of that name, nil when nothing is.
func (s *Store) Place(ctx context.Context, name string) (*Place, error) {
	list, err := s.Places(ctx)
	if i := slices.IndexFunc(list, func(p Place) bool { return p.Name == key(name) }); i >= 0 {
		return &list[i], err
	}
	return nil, err
}

func instant(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// Held is how much is kept for one reason.
type Held struct {
	Why      string `json:"why"`
	Messages int    `json:"messages"`
	Bytes    int64  `json:"bytes"`
}

// Held counts what is kept, by reason.
func (s *Store) Held(ctx context.Context) ([]Held, error) {
	var list []Held
	err := each(ctx, s.db, s.sql.Get("held"), nil, func(scan func(...any) error) error {
		var h Held
		err := scan(&h.Why, &h.Messages, &h.Bytes)
		list = append(list, h)
		return err
	})
	slices.SortFunc(list, func(a, b Held) int { return slices.Index(Whys, a.Why) - slices.Index(Whys, b.Why) })
	return list, fail("count what was collected", err)
}

// Overdue counts the messages that are kept and were past their deadline when the
// databases were last asked for them, by the service that sent them. It is what
// [journey.Overdue] says: a database that does not answer is held nothing against.
func (s *Store) Overdue(ctx context.Context) (map[string]int, error) {
	bySource := map[string]int{}
	err := each(ctx, s.db, s.sql.Get("overdue"), nil, func(scan func(...any) error) error {
		var source string
		var n int
		err := scan(&source, &n)
		bySource[source] = n
		return err
	})
	return bySource, fail("count what is overdue", err)
}

// Query selects messages. Before continues a listing: what follows the message that the
// page before ended with. Limit: default 50, range 1 to 1,000.
type Query struct {
	Why    string // empty: any reason
	Open   bool   // only those to which something is still to happen
	Before *Message
	Limit  int
}

// Message is one that is kept here, with its story as of AskedAt.
type Message struct {
	Why     string         `json:"why"`
	Open    bool           `json:"open"`
	Since   time.Time      `json:"since"`
	AskedAt time.Time      `json:"asked_at"`
	Story   *journey.Story `json:"message"`
}

// Messages lists what is kept, the newest first. Verdicts are those of AskedAt: a
// database that did not answer then is a gap in the story.
func (s *Store) Messages(ctx context.Context, q Query) ([]Message, error) {
	if q.Limit < 1 || q.Limit > 1000 {
		q.Limit = 50
	}
	since, id, only := int64(math.MaxInt64), "", 0
	if q.Before != nil {
		since, id = q.Before.Since.UnixMicro(), q.Before.Story.ID
	}
	if q.Open {
		only = 1
	}
	places, err := s.Places(ctx)
	if err != nil {
		return nil, err
	}
	var list []Message
	var ids []string
	err = each(ctx, s.db, s.sql.Get("messages"), []any{q.Why, only, since, id, q.Limit}, func(scan func(...any) error) error {
		var m Message
		var id string
		var open int
		var since, asked int64
		err := scan(&id, &m.Why, &open, &since, &asked)
		m.Open, m.Since, m.AskedAt = open == 1, instant(since), instant(asked)
		ids, list = append(ids, id), append(list, m)
		return err
	})
	if err != nil {
		return nil, fail("list what was collected", err)
	}
	all, err := s.told(ctx, ids)
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		list[i].Story = storyOf(id, all[id], places, list[i].AskedAt)
	}
	return list, nil
}

// storyOf folds what was said of a message and judges it as of then.
func storyOf(id string, all []told, places []Place, asked time.Time) *journey.Story {
	story := &journey.Story{ID: id, Send: journey.Track{State: journey.Unknown}}
	var facts []outlast.Fact
	for _, t := range all {
		facts = append(facts, t.remembered(t.at.Before(asked))...)
	}
	if list := journey.Fold(facts); len(list) > 0 {
		story = list[0]
	}
	bench := journey.Bench{Now: asked, Complete: true, Sources: map[string]time.Time{}}
	for _, p := range places {
		bench.Hearers = append(bench.Hearers, p.Hearers...)
		switch {
		case !p.UnknownSince.IsZero() && !p.UnknownSince.After(asked):
			bench.Complete = false
			story.Gaps = append(story.Gaps, p.Name)
		case p.tracked:
			bench.Sources[p.Service] = p.since
		}
	}
	story.Judge(bench)
	return story
}

// remembered are the facts as somebody else may show them: with the time at which they
// were told, when that is not now.
func (t told) remembered(old bool) []outlast.Fact {
	facts := slices.Clone(t.facts)
	for i := range facts {
		if old {
			facts[i].AsOf = t.at
		}
	}
	return facts
}

// Remember returns what a database said of the messages that q selects when it last
// answered. It makes the store a [journey.Memory].
func (s *Store) Remember(ctx context.Context, place string, q outlast.FactQuery) (journey.Remembered, error) {
	var r journey.Remembered
	p, err := s.Place(ctx, place)
	if err != nil || p == nil {
		return r, err
	}
	r.Service, r.At = p.Service, p.AnsweredAt
	found := map[string]bool{}
	for _, list := range []struct {
		name   string
		values []string
	}{{"ids_by_id", q.IDs}, {"ids_by_flow", q.Flows}, {"ids_by_key", q.Keys}} {
		for part := range slices.Chunk(list.values, mostListed) {
			text, args := s.listed(list.name, part)
			err := each(ctx, s.db, text, args, func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				found[id] = true
				return err
			})
			if err != nil {
				return r, fail("look up what was collected", err)
			}
		}
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	all, err := s.told(ctx, ids)
	if err != nil {
		return r, err
	}
	for _, id := range ids {
		for _, t := range all[id] {
			if t.place == p.Name {
				r.Facts = append(r.Facts, t.remembered(true)...)
			}
		}
	}
	return r, nil
}
