package console

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/journey"
)

// collectedData is a page of what the collector keeps.
type collectedData struct {
	Why      string
	Places   []collector.Place
	Whys     []string
	Messages []collector.Message
	Hidden   int
	// Next and NextAt name the last message of this page; empty at the end.
	Next, NextAt string
}

// collected shows the collector's copy, which says itself how old it is.
func (x *Console) collected(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	if x.c.Collector == nil {
		return nil, notFound("collector")
	}
	d := &collectedData{Why: r.FormValue("why"), Whys: collector.Whys}
	q := collector.Query{Why: d.Why, Limit: pageSize}
	if d.Why != "" && !slices.Contains(collector.Whys, d.Why) {
		return nil, invalid("why", "a reason that this page names", "another text")
	}
	if id := r.FormValue("before"); id != "" {
		at, err := number(r, "at")
		if err != nil || len(id) > outlast.MaxAttribute || !utf8.ValidString(id) {
			return nil, invalid("before", "the end of a page", "another text")
		}
		q.Before = &collector.Message{Since: time.UnixMicro(at), Story: &journey.Story{ID: id}}
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	var err error
	if d.Places, err = x.c.Collector.Places(ctx); err != nil {
		return nil, err
	}
	for i := range d.Places {
		d.Places[i].Unknown = x.c.Redact(d.Places[i].Unknown)
	}
	list, err := x.c.Collector.Messages(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if seen(m.Story, who) {
			d.Messages = append(d.Messages, m)
		} else {
			d.Hidden++
		}
	}
	if len(list) == pageSize {
		last := list[len(list)-1]
		d.Next, d.NextAt = last.Story.ID, strconv.FormatInt(last.Since.UnixMicro(), 10)
	}
	return &view{Title: "Collected", Template: "collected", Data: d}, nil
}
