package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
)

// failuresData are the causes of dead letters, the newest first.
type failuresData struct {
	List     []failureGroup
	Gaps     []gap
	Answered int // databases
	Next     string
}

type failureGroup struct {
	outlast.Failure
	Place *place
}

func (x *Console) failures(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	q := outlast.FailureQuery{Limit: pageSize}
	if text := r.FormValue("before"); text != "" {
		var err error
		if q.Before, q.After, err = behind(text); err != nil {
			return nil, invalid("before", "a place of this list", "another text")
		}
	}
	d := failuresData{}
	pages := make([][]outlast.Failure, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) (err error) {
		pages[i], err = p.Store.Journal().Failures(ctx, q)
		return err
	}, func(i int, err error) {
		d.Gaps = append(d.Gaps, gap{x.places[i].Name, x.c.Redact(err.Error())})
	})
	d.Answered = len(x.places) - len(d.Gaps)
	var all []failureGroup
	for i, page := range pages {
		for _, f := range page {
			all = append(all, failureGroup{f, x.places[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b failureGroup) int { return a.Compare(b.Failure) })
	if len(all) >= pageSize {
		n := pageSize
		for n < len(all) && all[n].Compare(all[n-1].Failure) == 0 { // of another database
			n++
		}
		all = all[:n]
		d.Next = placeOf(all[n-1].Failure)
	}
	for _, f := range all {
		if who.May(View, f.Group, f.Type) {
			d.List = append(d.List, f)
		}
	}
	return &view{Title: "Failures", Template: "failures", Data: d, JSON: d.forProgram()}, nil
}

// placeOf is where a list goes on behind a failure: when it was last seen, and its key.
func placeOf(f outlast.Failure) string {
	return strings.Join([]string{f.LastSeen.UTC().Format(time.RFC3339Nano), f.Fingerprint, f.Group, f.Type}, " ")
}

// behind is the reverse. A time alone is a place, too: before all that were last seen then.
func behind(text string) (at time.Time, key outlast.FailureKey, err error) {
	when, rest, more := strings.Cut(text, " ")
	if at, err = time.Parse(time.RFC3339Nano, when); err != nil || !more {
		return at, key, err
	}
	part := strings.SplitN(rest, " ", 3)
	if len(part) < 3 || !utf8.ValidString(rest) || strings.ContainsRune(rest, 0) {
		return at, key, errors.New("not a place")
	}
	return at, outlast.FailureKey{Fingerprint: part[0], Group: part[1], Type: part[2]}, nil
}

// failureData is one cause with its messages.
type failureData struct {
	listData
	Fingerprint, Group, Type string
	Trend                    *trend
	May                      map[string]bool
	MostRate, MostSelected   int
}

func (x *Console) failure(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := &failureData{Fingerprint: r.FormValue("fingerprint"), Group: r.FormValue("group"), Type: r.FormValue("type"), MostRate: x.c.MostRate, MostSelected: mostSelected}
	if d.Group == "" || d.Type == "" || d.Fingerprint == "" {
		return nil, invalid("group, type and fingerprint", "set", "nothing")
	}
	if !who.May(View, d.Group, d.Type) {
		return nil, denied(View)
	}
	d.May = x.mayOf(who, d.Group, d.Type)
	d.Where = "dead"
	d.Filter.Group, d.Filter.Fingerprint = d.Group, d.Fingerprint
	err := x.list(ctx, who, r, &d.listData, func(ctx context.Context, s outlast.OperatorStore, f outlast.Filter) ([]outlast.Item, error) {
		return s.Dead().List(ctx, f)
	})
	if err != nil {
		return nil, err
	}
	d.Trend, err = x.trend(ctx, d)
	return &view{Title: "Failure in " + d.Group, Template: "failure", Data: d}, err
}

// trend is how many died in each hour of the last day, of the first thousand.
type trend struct {
	Hours [24]int
	Most  int
	All   int
	More  bool
}

func (x *Console) trend(ctx context.Context, d *failureData) (*trend, error) {
	ctx, cancel := x.brief(ctx)
	defer cancel()
	f := d.Filter
	f.After, f.NewerThan, f.Limit = 0, 24*time.Hour, 1000
	items, err := d.Place.Store.Operator().Dead().List(ctx, f)
	if err != nil {
		return nil, err
	}
	t := &trend{All: len(items), More: len(items) == f.Limit}
	now := time.Now()
	for _, i := range items {
		hour := 23 - int(now.Sub(i.LastAt)/time.Hour)
		hour = min(max(hour, 0), 23)
		t.Hours[hour]++
		t.Most = max(t.Most, t.Hours[hour])
	}
	return t, nil
}

// Bars are the columns of the picture: x, y and height in a box of 240 by 40.
func (t *trend) Bars() (bars [][3]int) {
	for i, n := range t.Hours {
		if n > 0 {
			h := max(2, 40*n/t.Most)
			bars = append(bars, [3]int{i * 10, 40 - h, h})
		}
	}
	return bars
}
