package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// findData is the answer to a question.
type findData struct {
	Text   string
	Found  *journey.Found
	Hidden int
}

func (x *Console) find(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := &findData{Text: strings.TrimSpace(r.FormValue("q"))}
	if len(d.Text) > outlast.MaxAttribute || !utf8.ValidString(d.Text) {
		return nil, invalid("q", fmt.Sprintf("at most %d bytes of text", outlast.MaxAttribute), fmt.Sprintf("%d bytes", len(d.Text)))
	}
	v := &view{Title: "Find", Template: "find", Data: d}
	if d.Text == "" {
		return v, nil
	}
	a, err := x.paged(r, findSize)
	if err != nil {
		return nil, err
	}
	found, err := a.Find(ctx, d.Text)
	if err != nil {
		return nil, err
	}
	x.redact(found.Places)
	all := len(found.Stories)
	found.Stories = slices.DeleteFunc(found.Stories, func(s *journey.Story) bool { return !seen(s, who) })
	d.Found, d.Hidden = found, all-len(found.Stories)
	return v, nil
}

// findSize is how many messages a page of Find shows.
const findSize = 100

// paged asks for the page that a link names.
func (x *Console) paged(r *http.Request, size int) (*journey.Asker, error) {
	a := *x.asker
	a.Paged, a.Limit, a.Before = true, size, r.FormValue("before")
	if len(a.Before) > outlast.MaxAttribute || !utf8.ValidString(a.Before) || strings.ContainsRune(a.Before, 0) {
		return nil, invalid("before", "an id of this list", "another text")
	}
	return &a, nil
}

func (x *Console) redact(states []journey.PlaceState) {
	for i := range states {
		states[i].Unknown = x.c.Redact(states[i].Unknown)
	}
}

// seen cuts a story down to what a person may see, and reports whether anything is left.
func seen(s *journey.Story, who *Identity) bool {
	typ := s.Type()
	sender := who.May(View, s.Source, typ)
	s.Groups = slices.DeleteFunc(s.Groups, func(t journey.Track) bool { return !who.May(View, t.Group, typ) })
	s.Awaited = slices.DeleteFunc(s.Awaited, func(group string) bool { return !who.May(View, group, typ) })
	mine := func(group string) bool {
		return group == "" && sender || group != "" && who.May(View, group, typ)
	}
	s.Facts = slices.DeleteFunc(s.Facts, func(f outlast.Fact) bool { return !mine(f.Group) })
	s.Verdicts = slices.DeleteFunc(s.Verdicts, func(v journey.Verdict) bool { return !mine(v.Group) })
	if !sender {
		s.Send = journey.Track{State: journey.Unknown, Detail: "not within your permissions"}
	}
	return sender || len(s.Groups) > 0
}

// messageData is one message with what may be done about it.
type messageData struct {
	ID      string
	Found   *journey.Found
	Story   *journey.Story
	At      []spot
	Headers [][2]string
}

// spot is a row that is there, with the permissions for it.
type spot struct {
	outlast.Item
	Place *place
	May   map[string]bool
	Body  *shownBody
	Edits bool            // people may edit here, with the permission to
	Shown []outlast.Shown // what the contract does not mask
}

func (x *Console) message(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d, err := x.messageOf(ctx, who, r.FormValue("id"))
	if err != nil {
		return nil, err
	}
	return &view{Title: "Message", Template: "message", Data: d}, nil
}

func (x *Console) messageOf(ctx context.Context, who *Identity, id string) (*messageData, error) {
	if id == "" || len(id) > outlast.MaxAttribute || !utf8.ValidString(id) {
		return nil, invalid("id", "the id of a message", "another text")
	}
	found, story, err := x.asker.Message(ctx, id)
	if err != nil {
		return nil, err
	}
	x.redact(found.Places)
	d := &messageData{ID: id, Found: found}
	if story == nil || !seen(story, who) {
		return d, nil
	}
	d.Story = story
	if e := story.Envelope; e != nil {
		for name, value := range e.Headers {
			d.Headers = append(d.Headers, [2]string{name, value})
		}
		slices.SortFunc(d.Headers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	}
	d.At = x.spots(ctx, who, id)
	return d, nil
}

// spots looks for the rows of a message that a person may see.
func (x *Console) spots(ctx context.Context, who *Identity, id string) (all []spot) {
	lists := make([][]spot, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) error {
		s := p.Store.Operator()
		f := outlast.Filter{IDs: []string{id}, Limit: 100}
		for _, list := range []func(context.Context, outlast.Filter) ([]outlast.Item, error){s.Outbox().List, s.Retries().List, s.Dead().List} {
			items, err := list(ctx, f)
			if err != nil {
				return err
			}
			for _, item := range items {
				service := item.Group
				if service == "" {
					service = item.Envelope.Source
				}
				lists[i] = append(lists[i], spot{Item: item, Place: p, May: x.mayOf(who, service, item.Envelope.Type)})
			}
		}
		return nil
	}, func(i int, err error) {
		x.c.Log.Warn("look for a message", "place", x.places[i].Name, "error", x.c.Redact(err.Error()))
	})
	for i, list := range lists {
		for _, s := range list {
			if s.Group == "" { // the outbox's owner, which its rows do not name
				s.May = x.mayOf(who, x.sourceOf(ctx, x.places[i]), s.Envelope.Type)
			}
			s.Edits = x.c.AllowEdit
			if !s.May[string(View)] {
				continue
			}
			s.Shown = x.shownOf(ctx, &s)
			all = append(all, s)
		}
	}
	return all
}

// shownOf reads the fields of a body that its contract does not mask.
func (x *Console) shownOf(ctx context.Context, s *spot) []outlast.Shown {
	if len(s.Envelope.Show) == 0 {
		return nil
	}
	item, err := rowsAt(s.Place.Store.Operator(), s.Where, s.Group).show(ctx, s.Envelope.ID)
	if err != nil { // it may have moved on since; the page shows the rest
		x.c.Log.Warn("read the fields that a contract shows", "place", s.Place.Name, "error", x.c.Redact(err.Error()))
		return nil
	}
	if item.Envelope.Type != s.Envelope.Type { // another message took its place
		return nil
	}
	return item.Envelope.Shown(item.Body)
}

// rows are messages of a store that lie at one place: a list of them without bodies, and
// one whole.
type rows struct {
	list func(context.Context, outlast.Filter) ([]outlast.Item, error)
	show func(ctx context.Context, id string) (*outlast.Item, error)
}

// rowsAt knows the places of [outlast.Item.Where].
func rowsAt(s outlast.OperatorStore, where, group string) rows {
	switch where {
	case "retry":
		return rows{s.Retries().List, func(ctx context.Context, id string) (*outlast.Item, error) { return s.Retries().Show(ctx, group, id) }}
	case "dead":
		return rows{s.Dead().List, func(ctx context.Context, id string) (*outlast.Item, error) { return s.Dead().Show(ctx, group, id) }}
	default: // pending and held
		return rows{s.Outbox().List, s.Outbox().Show}
	}
}

// shownBody is a body as a page shows it.
type shownBody struct {
	Text   string
	Binary bool
	Cut    bool
}

const mostBody = 256 << 10

func shown(item *outlast.Item) *shownBody {
	body := []byte(item.Body)
	if item.Body == nil {
		body = item.BodyBytes
	}
	b := &shownBody{}
	if len(body) > mostBody {
		body, b.Cut = body[:mostBody], true
	}
	if !utf8.Valid(body) && !b.Cut {
		b.Binary = true
		return b
	}
	b.Text = strings.ToValidUTF8(string(body), "�")
	return b
}
