package console

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/outlastmq/outlast"
)

// auditData is who did what: by the console's own log, and by the records that the
// databases keep, which the program's commands are in too.
type auditData struct {
	Log []AuditRecord
	// Next continues the log; empty at its first record. Unread says why it cannot be read.
	Next    string
	Unread  string
	Earlier bool // this is not its newest page
	Actions []actionAt
	Most    bool // the databases have recorded more
	Gaps    []gap
	May     []grantLine
}

type actionAt struct {
	outlast.ActionRecord
	Place string
}

type grantLine struct {
	Permission Permission
	Anywhere   bool
}

func (x *Console) audit(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := auditData{}
	for _, p := range Permissions {
		d.May = append(d.May, grantLine{p, who.Somewhere(p)})
	}
	v := &view{Title: "Audit", Template: "audit", Data: &d}
	// The record is of all services and types, so it is for those who may see all of them.
	if !who.May(Audit, "", "") {
		return v, nil
	}
	before, err := number(r, "before")
	if err != nil {
		return nil, err
	}
	if x.c.Audit != nil {
		if d.Log, err = x.c.Audit.newest(int(before), pageSize); err != nil {
			d.Unread = x.c.Redact(err.Error())
		}
		if len(d.Log) == pageSize && d.Log[pageSize-1].Number > 1 {
			d.Next = strconv.Itoa(d.Log[pageSize-1].Number)
		}
		d.Earlier = before > 0
	}
	lists := make([][]outlast.ActionRecord, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) (err error) {
		lists[i], err = p.Store.Operator().Actions(ctx, outlast.ActionQuery{Limit: pageSize})
		return err
	}, func(i int, err error) { d.Gaps = append(d.Gaps, gap{x.places[i].Name, x.c.Redact(err.Error())}) })
	for i, list := range lists {
		for _, a := range list {
			d.Actions = append(d.Actions, actionAt{a, x.places[i].Name})
		}
	}
	slices.SortStableFunc(d.Actions, func(a, b actionAt) int { return b.At.Compare(a.At) })
	d.Most = len(d.Actions) >= pageSize
	d.Actions = d.Actions[:min(len(d.Actions), pageSize)]
	return v, nil
}
