package otel

import (
	"context"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
)

// actionNames are what the stores record, shown as 0 before somebody does it.
var actionNames = []string{
	"pause", "resume", "outbox release", "outbox withdraw", "retry now", "dead replay", "dead discard", "dead edit",
	"books resend", "books sign-off", "books unhear",
}

// done is the result of an action that found something to do.
const done = "done"

// Bounds of one reading of the record of actions.
const (
	actionPage     = 100
	maxActionPages = 10
)

// actions counts what people did since the first reading of this process, by the record that the
// database keeps of it. Transactions may commit in another order than that of their
// numbers: what is new is told by what the last reading saw, not by the greatest number.
type actions struct {
	t      *Telemetry
	begun  bool
	denied bool
	floor  int64          // up to it everything was there before, or is counted
	seen   map[int64]bool // above the floor
}

// read counts what is new since the last reading. A login that may not read the record is
// told so once and asks no more: its server would log each refusal.
func (a *actions) read(ctx context.Context) error {
	if a.denied {
		return nil
	}
	list, floor, err := a.newest(ctx)
	if a.denied = outlast.CodeOf(err) == outlast.CodeDenied; a.denied {
		return nil
	} else if err != nil {
		return err
	}
	if !a.begun {
		for _, name := range actionNames {
			a.add(name, done, 0)
		}
	}
	seen := make(map[int64]bool, len(list))
	for _, r := range list {
		seen[r.Seq] = true
		if !a.begun || a.seen[r.Seq] || r.Seq <= a.floor {
			continue
		}
		result := done
		if r.Count == 0 {
			result = "nothing"
		}
		a.add(strings.TrimPrefix(r.What, "group "), result, 1) // not every store says that it is a group's
	}
	a.begun, a.seen, a.floor = true, seen, max(a.floor, floor)
	return nil
}

// newest returns the newest actions, on to the first page that has one of the last
// reading; and the number below which there are others.
func (a *actions) newest(ctx context.Context) (list []outlast.ActionRecord, floor int64, err error) {
	q := outlast.ActionQuery{Limit: actionPage}
	for range maxActionPages {
		page, err := a.t.conf.Store.Operator().Actions(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, page...)
		if len(page) < actionPage {
			return list, 0, nil
		}
		q.Before = page[len(page)-1].Seq
		if !a.begun || slices.ContainsFunc(page, func(r outlast.ActionRecord) bool { return a.seen[r.Seq] }) {
			break
		}
	}
	return list, q.Before - 1, nil
}

func (a *actions) add(action, result string, n int64) {
	a.t.meters.actions.Add(background, n, a.t.meters.acted.get(actionKey{action, result}).add...)
}
