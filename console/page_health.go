package console

import (
	"context"
	"net/http"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// healthData is what waits in each database, as far as a person may know.
type healthData struct {
	At     time.Time
	Places []healthPlace
	Words  []string
	Books  []booksWord
}

// booksWord says what the books of an outbox lack; Key leads to them.
type booksWord struct{ Text, Key string }

type healthPlace struct {
	Name, Key, Service, Unknown string
	*outlast.StoreStatus
	// Old is what waited when the collector last heard of a database that does not answer,
	// and OldAt when that was.
	Old           *outlast.StoreStatus
	OldAt         time.Time
	Operate       map[string]bool // groups that the person may pause and resume
	OperateRelays bool
	Groups        []string // groups that wait or have dead letters, or that hear something
}

func (x *Console) health(ctx context.Context, who *Identity, _ *http.Request) (*view, error) {
	data := healthData{At: time.Now().UTC()}
	hears, _ := x.hearers(ctx) // who does not answer now is shown by its status
	for i, p := range x.status(ctx) {
		h := healthPlace{Name: p.Name, Key: p.Key, Unknown: p.Unknown, Operate: map[string]bool{}}
		if p.Status != nil {
			h.StoreStatus = visible(p.Status, who)
			h.Service = h.StoreStatus.Source
			h.OperateRelays = x.acts() && who.May(Operate, h.Service, "")
			h.Groups = groupsOf(h.StoreStatus, hears[i], who)
			if !who.maySome(View, h.Service) && len(h.Groups)+len(h.Pending)+len(h.Held)+len(h.Retry)+len(h.Dead) == 0 {
				continue // nothing in it is for this person
			}
			for _, g := range h.Groups {
				h.Operate[g] = x.acts() && (who.May(Operate, g, "*") || who.May(Operate, g, ""))
			}
			data.Words = append(data.Words, inWords(&h, x.c.Grace)...)
			if text := x.imbalance(ctx, &h, p.place, who); text != "" {
				data.Books = append(data.Books, booksWord{text, p.Key})
			}
		} else {
			data.Words = append(data.Words, x.silent(ctx, &h, who))
		}
		data.Places = append(data.Places, h)
	}
	return &view{Title: "Health", Template: "health", Data: data, JSON: data.forProgram()}, nil
}

// imbalance says what the books of a database lack, or that they do not answer.
func (x *Console) imbalance(ctx context.Context, h *healthPlace, p *place, who *Identity) string {
	if h.Service == "" || !who.May(View, h.Service, "") {
		return ""
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	lack, err := journey.Unbalanced(ctx, p.Store, func(typ string) bool { return who.May(View, h.Service, typ) })
	switch text := lack.Text(h.Service); {
	case err != nil:
		return "The books of " + h.Service + " do not answer: whether messages are missing is not known."
	case text != "":
		return text + "."
	}
	return ""
}

// silent says that a database does not answer, with what the collector knows of it.
func (x *Console) silent(ctx context.Context, h *healthPlace, who *Identity) string {
	text := h.Name + " does not answer: what it knows is not shown."
	if x.c.Collector == nil {
		return text
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	p, err := x.c.Collector.Place(ctx, h.Name)
	switch {
	case err != nil:
		return text + " Nor does the collector."
	case p == nil || p.Status == nil:
		return text + " The collector does not know it either."
	}
	h.Old, h.OldAt = visible(p.Status, who), p.AnsweredAt
	if who.maySome(View, p.Service) {
		h.Service = p.Service
	}
	text = h.Name + " does not answer: what is shown of it is the collector's copy, " + age(time.Since(p.AnsweredAt)) + " old."
	if !p.UnknownSince.IsZero() {
		text += " The collector has not reached it since " + clock(p.UnknownSince) + "."
	}
	return text
}

// visible is the part of a status that a person may see.
func visible(s *outlast.StoreStatus, who *Identity) *outlast.StoreStatus {
	v := &outlast.StoreStatus{Now: s.Now}
	if who.maySome(View, s.Source) {
		v.Source = s.Source
	}
	for _, r := range s.Pending {
		if who.May(View, s.Source, r.Type) {
			v.Pending = append(v.Pending, r)
		}
	}
	for _, r := range s.Held {
		if who.May(View, s.Source, r.Type) {
			v.Held = append(v.Held, r)
		}
	}
	for _, r := range s.Retry {
		if who.May(View, r.Group, r.Type) {
			v.Retry = append(v.Retry, r)
		}
	}
	for _, r := range s.Dead {
		if who.May(View, r.Group, r.Type) {
			v.Dead = append(v.Dead, r)
		}
	}
	for _, g := range s.Groups {
		if who.May(View, g.Group, "") {
			v.Groups = append(v.Groups, g)
		}
	}
	if who.May(View, s.Source, "") {
		v.Relays, v.Unattended, v.RelaysPaused = s.Relays, s.Unattended, s.RelaysPaused
	}
	return v
}

func groupsOf(s *outlast.StoreStatus, hears []outlast.Hearer, who *Identity) (groups []string) {
	seen := map[string]bool{}
	add := func(g string) {
		if !seen[g] && who.May(View, g, "") {
			seen[g] = true
			groups = append(groups, g)
		}
	}
	for _, g := range s.Groups {
		add(g.Group)
	}
	for _, h := range hears {
		add(h.Group)
	}
	for _, g := range append(append([]outlast.GroupStatus{}, s.Retry...), s.Dead...) {
		add(g.Group)
	}
	return groups
}

// Paused returns since when, by whom and why a group is paused, or nil.
func (h healthPlace) Paused(group string) *outlast.PausedGroup {
	for i := range h.StoreStatus.Groups {
		if p := &h.StoreStatus.Groups[i]; p.Group == group {
			return p
		}
	}
	return nil
}

// inWords says what needs a person.
func inWords(h *healthPlace, grace time.Duration) (words []string) {
	name := h.Service
	if name == "" {
		name = h.Name
	}
	paused := h.RelaysPaused != nil
	if paused {
		words = append(words, "The relays of "+name+" are paused by "+h.RelaysPaused.Who+since(h.RelaysPaused.Since)+": nothing is sent.")
	}
	if h.Unattended.Count > 0 && !paused {
		words = append(words, plural(h.Unattended.Count, "message")+" of "+name+form(h.Unattended.Count, " waits and no relay is there to send it.", " wait and no relay is there to send them."))
	}
	for _, r := range h.Pending {
		if r.Oldest > grace && !paused {
			words = append(words, plural(r.Count, "message")+" "+r.Type+" of "+name+" to be sent, the oldest for "+age(r.Oldest)+form(r.Count, ": does the broker take it?", ": does the broker take them?"))
		}
	}
	for _, r := range h.Held {
		switch r.Reason {
		case outlast.HeldUnroutable:
			words = append(words, plural(r.Count, "message")+" "+r.Type+" of "+name+form(r.Count, ": no queue is bound for it.", ": no queue is bound for them."))
		case outlast.HeldRefused:
			words = append(words, plural(r.Count, "message")+" "+r.Type+" of "+name+form(r.Count, " cannot be sent as it is: a person must act.", " cannot be sent as they are: a person must act."))
		case outlast.HeldRoute:
			words = append(words, plural(r.Count, "message")+" "+r.Type+" of "+name+form(r.Count, ": its route takes nothing.", ": their route takes nothing."))
		}
	}
	for _, r := range h.Retry {
		if r.Spent > 0 {
			words = append(words, plural(r.Spent, "message")+" "+r.Type+" in "+r.Group+form(r.Spent, " cannot succeed and holds its key: a person must act.", " cannot succeed and hold their keys: a person must act."))
		}
		if r.Overdue > 0 {
			words = append(words, plural(r.Overdue, "retry")+" of "+r.Group+" for "+r.Type+" should have run: is the group up?")
		}
	}
	for _, r := range h.Dead {
		words = append(words, plural(r.Count, "dead letter")+" "+r.Type+" in "+r.Group+".")
	}
	for _, g := range h.StoreStatus.Groups {
		words = append(words, g.Group+" is paused by "+g.Who+since(g.Since)+".")
	}
	return words
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + clock(t)
}
