package console

import (
	"context"
	"net/http"
	"strconv"

	"github.com/outlastmq/outlast"
)

// listData is a page of messages that wait in one database.
type listData struct {
	Place  *place
	Filter outlast.Filter
	Where  string
	Items  []listItem
	// Next continues the list; empty at its end.
	Next   string
	Hidden int // of this page, by the person's permissions
	Now    outlast.StoreStatus
}

type listItem struct {
	outlast.Item
	Service string // whose permissions count
	May     map[string]bool
}

// mayOf is what the page offers: nothing that acts on a console that only looks.
func (x *Console) mayOf(who *Identity, service, typ string) map[string]bool {
	m := map[string]bool{}
	for _, p := range Permissions {
		m[string(p)] = who.May(p, service, typ) && (x.acts() || p == View || p == Audit)
	}
	return m
}

func number(r *http.Request, field string) (int64, error) {
	text := r.FormValue(field)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, invalid(field, "a number of this list", "another text")
	}
	return n, nil
}

// list fills a page by key: whatever the backlog, one page reads pageSize rows.
func (x *Console) list(ctx context.Context, who *Identity, r *http.Request, d *listData,
	read func(ctx context.Context, s outlast.OperatorStore, f outlast.Filter) ([]outlast.Item, error)) error {
	var err error
	if d.Place, err = x.place(r.FormValue("db")); err != nil {
		return err
	}
	if d.Filter.After, err = number(r, "after"); err != nil {
		return err
	}
	d.Filter.Type, d.Filter.Limit = r.FormValue("type"), pageSize
	ctx, cancel := x.brief(ctx)
	defer cancel()
	items, err := read(ctx, d.Place.Store.Operator(), d.Filter)
	if err != nil {
		return err
	}
	source := x.sourceOf(ctx, d.Place)
	for _, i := range items {
		service := i.Group
		if service == "" {
			service = source
		}
		if who.May(View, service, i.Envelope.Type) {
			d.Items = append(d.Items, listItem{i, service, x.mayOf(who, service, i.Envelope.Type)})
		} else {
			d.Hidden++
		}
	}
	if len(items) == pageSize {
		d.Next = strconv.FormatInt(items[len(items)-1].Seq, 10)
	}
	return nil
}

// sourceOf is the owner of a database's outbox.
func (x *Console) sourceOf(ctx context.Context, p *place) string {
	for _, s := range x.status(ctx) {
		if s.place == p && s.Status != nil {
			return s.Status.Source
		}
	}
	return ""
}

// outbox shows the outboxes: without a database what waits in each, with one its messages.
func (x *Console) outbox(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	if r.FormValue("db") == "" {
		v, err := x.health(ctx, who, r)
		if err == nil {
			v.Title, v.Template = "Outbox and relay", "outboxes"
		}
		return v, err
	}
	d := &listData{Where: "outbox"}
	d.Filter.Reason = r.FormValue("reason")
	err := x.list(ctx, who, r, d, func(ctx context.Context, s outlast.OperatorStore, f outlast.Filter) ([]outlast.Item, error) {
		return s.Outbox().List(ctx, f)
	})
	return &view{Title: "Messages in the outbox", Template: "list", Data: d}, err
}

// waiting shows the messages of a database that wait for a retry.
func (x *Console) waiting(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := &listData{Where: "waiting"}
	d.Filter.Group = r.FormValue("group")
	err := x.list(ctx, who, r, d, func(ctx context.Context, s outlast.OperatorStore, f outlast.Filter) ([]outlast.Item, error) {
		return s.Retries().List(ctx, f)
	})
	return &view{Title: "Messages that wait for a retry", Template: "list", Data: d}, err
}
