package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// failuresData are the causes of dead letters, the newest first.
type failuresData struct {
	List []failureGroup
	Gaps []gap
	Next string
}

type failureGroup struct {
	outlast.Failure
	Place *place
}

func (x *Console) failures(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	q := outlast.FailureQuery{Limit: pageSize}
	if text := r.FormValue("before"); text != "" {
		var err error
		if q.Before, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return nil, invalid("before", "a time of this list", "another text")
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
	var all []failureGroup
	for i, page := range pages {
		for _, f := range page {
			all = append(all, failureGroup{f, x.places[i]})
		}
	}
	slices.SortStableFunc(all, func(a, b failureGroup) int { return b.LastSeen.Compare(a.LastSeen) })
	if len(all) >= pageSize {
		all = all[:pageSize]
		d.Next = all[pageSize-1].LastSeen.Format(time.RFC3339Nano)
	}
	for _, f := range all {
		if who.May(View, f.Group, f.Type) {
			d.List = append(d.List, f)
		}
	}
	return &view{Title: "Failures", Template: "failures", Data: d, JSON: d.forProgram()}, nil
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
