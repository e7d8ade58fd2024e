package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// booksData are the minutes of each outbox.
type booksData struct {
	Places []bookPlace
	State  string
}

type bookPlace struct {
	*place
	Service string
	Minutes []outlast.BookMinute
	Next    string
	Unknown string
}

// booksSize is how many minutes of each outbox a page shows.
const booksSize = 60

func (x *Console) books(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := booksData{State: r.FormValue("state")}
	q := outlast.MinuteQuery{State: outlast.MinuteState(d.State), Limit: booksSize}
	if text := r.FormValue("before"); text != "" {
		var err error
		if q.Before, err = minuteOf(text); err != nil {
			return nil, err
		}
	}
	pages := make([]bookPlace, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) (err error) {
		if db := r.FormValue("db"); db != "" && db != p.Key {
			return nil
		}
		pages[i].Minutes, err = p.Store.Books().Minutes(ctx, q)
		return err
	}, func(i int, err error) { pages[i].Unknown = x.c.Redact(err.Error()) })
	for i, b := range pages {
		b.place, b.Service = x.places[i], x.sourceOf(ctx, x.places[i])
		if len(b.Minutes) == q.Limit {
			b.Next = b.Minutes[len(b.Minutes)-1].Minute.UTC().Format(time.RFC3339)
		}
		if (len(b.Minutes) > 0 || b.Unknown != "") && who.May(View, b.Service, "") {
			d.Places = append(d.Places, b)
		}
	}
	return &view{Title: "Books", Template: "books", Data: d}, nil
}

func minuteOf(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, invalid("minute", "a time like 2026-01-02T15:04:00Z", "another text")
	}
	return t.UTC().Truncate(time.Minute), nil
}

// minuteData is one minute of the books.
type minuteData struct {
	Place   *place
	Service string
	Minute  time.Time
	Lines   []bookLine
	Hidden  int
	Missing int
	// State of the minute, with who signed it off and why; nil when nobody looked at it.
	State *outlast.BookMinute
	// Act: the person may send again what is missing, and sign off.
	Act bool
}

// Open: the minute can still be signed off.
func (d minuteData) Open() bool {
	return d.State != nil && (d.State.State == outlast.MinuteUnbalanced || d.State.State == outlast.MinuteOpen)
}

type bookLine struct {
	outlast.BookLine
	Shown []string
}

const mostShown = 100

func (x *Console) minute(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	p, err := x.place(r.FormValue("db"))
	if err != nil {
		return nil, err
	}
	minute, err := minuteOf(r.FormValue("at"))
	if err != nil {
		return nil, err
	}
	d := minuteData{Place: p, Minute: minute, Service: x.sourceOf(ctx, p)}
	if !who.maySome(View, d.Service) {
		return nil, denied(View)
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	lines, err := p.Store.Books().Lines(ctx, minute)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		if !who.May(View, d.Service, l.Type) {
			d.Hidden++
			continue
		}
		d.Missing += len(l.Missing)
		d.Lines = append(d.Lines, bookLine{l, l.Missing[:min(len(l.Missing), mostShown)]})
	}
	state, err := p.Store.Books().Minutes(ctx, outlast.MinuteQuery{Before: minute.Add(time.Minute), Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(state) > 0 && state[0].Minute.Equal(minute) {
		d.State = &state[0]
		if !who.May(View, d.Service, "") { // who signed it off, and why, is of all types
			d.State.Who, d.State.Reason = "", ""
		}
	}
	d.Act = x.acts() && who.May(Audit, d.Service, "")
	return &view{Title: "Minute " + minute.Format("2006-01-02 15:04"), Template: "minute", Data: d}, nil
}

// minuteDeed is something done about the minute that a form names.
func (x *Console) minuteDeed(ctx context.Context, r *http.Request, what, notice string) (*deed, time.Time, error) {
	p, err := x.place(r.PostFormValue("db"))
	if err != nil {
		return nil, time.Time{}, err
	}
	minute, err := minuteOf(r.PostFormValue("at"))
	if err != nil {
		return nil, minute, err
	}
	at := minute.Format(time.RFC3339)
	return &deed{permission: Audit, what: what, place: p, service: x.sourceOf(ctx, p), target: at, notice: notice,
		back: "minute?db=" + url.QueryEscape(p.Key) + "&at=" + url.QueryEscape(at)}, minute, nil
}

// signOff takes a minute as it is.
func (x *Console) signOff(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, minute, err := x.minuteDeed(ctx, r, "sign off", "sign-off")
	if err != nil {
		return nil, err
	}
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		n, err := d.place.Store.Books().SignOff(ctx, []time.Time{minute}, by)
		if n == 0 && err == nil {
			d.notice = "signed"
		}
		return plural(n, "minute") + " signed off", err
	}
	return d, nil
}

// resend sends what is missing of a minute once more.
func (x *Console) resend(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, minute, err := x.minuteDeed(ctx, r, "resend missing", "resend")
	if err != nil {
		return nil, err
	}
	p := d.place
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		ids, err := (&journey.Books{Store: p.Store}).Missing(ctx, minute)
		if err != nil || len(ids) == 0 {
			d.notice = "nothing"
			return "nothing is missing", err
		}
		done, err := p.Store.Books().Resend(ctx, ids, by)
		return fmt.Sprintf("%s sent again; without a body %d, too old %d, unknown %d",
			plural(len(done.Sent), "message"), len(done.Bodiless), len(done.TooOld), len(done.Unknown)), err
	}
	return d, nil
}
