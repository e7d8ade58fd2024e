package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/outlastmq/outlast"
)

// waitingOperator looks into outlast_retry and outlast_dead, which differ little.
type waitingOperator struct {
	s     *store
	table waitingTable
}

type waitingTable struct {
	where, what, list, body string
	age                     string // the column that gives a row's age
}

var (
	retryTable = waitingTable{where: "retry", what: "waiting message", list: "list_retry", body: "body_retry", age: "first_at"}
	deadTable  = waitingTable{where: "dead", what: "dead letter", list: "list_dead", body: "body_dead", age: "last_at"}
)

func (x waitingOperator) rows(ctx context.Context, db runner, f outlast.Filter) ([]outlast.Item, error) {
	if x.table == retryTable && f.Fingerprint != "" {
		return nil, invalid("list retries", "filter", "without a fingerprint, which only dead letters have", target(f))
	}
	w := x.s.conditions(f, x.table.age)
	query := x.s.sql.Get(x.table.list) + " " + w.String() + " ORDER BY seq LIMIT ?"
	var items []outlast.Item
	err := each(ctx, db, query, append(w.args, f.Limit), func(scan scanner) error {
		item, err := x.scan(scan)
		items = append(items, item)
		return err
	})
	return items, err
}

func (x waitingOperator) scan(scan scanner) (outlast.Item, error) {
	i := outlast.Item{Where: x.table.where}
	var envelope string
	var firstAt, lastAt, nextAt sql.NullInt64
	err := scan(&i.Seq, &i.Group, &envelope, &i.BodySize, &i.Reason, &i.Error, &i.Attempts, &i.Replays, &i.Fingerprint, &firstAt, &lastAt, &nextAt)
	if err != nil {
		return i, err
	}
	i.FirstAt, i.LastAt, i.NextAt = instant(firstAt), instant(lastAt), instant(nextAt)
	return i, json.Unmarshal([]byte(envelope), &i.Envelope)
}

func (x waitingOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	op := "list " + x.table.where
	if x.s.err != nil {
		return nil, x.s.err
	}
	f, err := limited(op, f)
	if err != nil {
		return nil, err
	}
	items, err := x.rows(ctx, x.s.db, f)
	return items, mapped(op, err)
}

func (x waitingOperator) Show(ctx context.Context, group, id string) (*outlast.Item, error) {
	op := showOp(x.table.what, id)
	if x.s.err != nil {
		return nil, x.s.err
	}
	items, err := x.rows(ctx, x.s.db, outlast.Filter{Group: group, IDs: []string{id}, Limit: 1})
	if err != nil {
		return nil, mapped(op, err)
	}
	if len(items) == 0 {
		return nil, notFound(op)
	}
	var body []byte
	found, err := first(x.s.db.QueryRowContext(ctx, x.s.sql.Get(x.table.body), items[0].Seq), &body)
	if err == nil && !found {
		return nil, notFound(op)
	}
	setBody(&items[0], body)
	return &items[0], mapped(op, err)
}

// change does something to the rows that f selects, and counts those it was done to.
func (x waitingOperator) change(ctx context.Context, what string, f outlast.Filter, by outlast.Action,
	one func(w *writeTx, item *outlast.Item) (bool, error)) (int, error) {
	f, err := limited(what, f)
	if err != nil {
		return 0, err
	}
	return x.s.act(ctx, what, target(f), by, func(w *writeTx) (int, error) {
		items, err := x.rows(ctx, w.tx, f)
		n := 0
		for i := range items {
			if err != nil {
				break
			}
			var done bool
			if done, err = one(w, &items[i]); done {
				n++
			}
		}
		return n, err
	})
}

func (x waitingOperator) Now(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	return x.change(ctx, "retry now", f, by, func(w *writeTx, item *outlast.Item) (bool, error) {
		return true, w.exec(ctx, x.s.sql.Get("retry_now"), item.Seq)
	})
}

// Replay leaves a conflicting copy of a message that waits itself where it is.
func (x waitingOperator) Replay(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	return x.change(ctx, "dead replay", f, by, func(w *writeTx, item *outlast.Item) (bool, error) {
		moved, err := w.count(ctx, x.s.sql.Get("replay"), item.Seq)
		if err != nil || moved == 0 {
			return false, err
		}
		if err := w.exec(ctx, x.s.sql.Get("replay_state"), item.Seq); err != nil {
			return false, err
		}
		if err := w.addFact(ctx, acted(outlast.FactReplayed, item, by)); err != nil {
			return false, err
		}
		return true, w.exec(ctx, x.s.sql.Get("dead_delete"), item.Seq)
	})
}

// acted is the fact of what a person did to a message.
func acted(kind outlast.FactKind, item *outlast.Item, by outlast.Action) outlast.Fact {
	f := outlast.Fact{Kind: kind, ID: item.Envelope.ID, Group: item.Group, Code: by.Who, Detail: by.Reason}
	if item.Group != "" {
		f.Source = item.Envelope.Source
	}
	return f
}

func (x waitingOperator) Discard(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	return x.change(ctx, "dead discard", f, by, func(w *writeTx, item *outlast.Item) (bool, error) {
		if err := w.addFact(ctx, acted(outlast.FactDiscarded, item, by)); err != nil {
			return false, err
		}
		return true, w.exec(ctx, x.s.sql.Get("dead_delete"), item.Seq)
	})
}

func (x waitingOperator) Edit(ctx context.Context, group, id string, edited *outlast.Message, by outlast.Action) error {
	const op = "dead edit"
	_, err := x.s.act(ctx, op, id+" as "+edited.ID, by, func(w *writeTx) (int, error) {
		items, err := x.rows(ctx, w.tx, outlast.Filter{Group: group, IDs: []string{id}, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(items) == 0 {
			return 0, notFound(op)
		}
		n, err := w.count(ctx, x.s.sql.Get("edit_mark"), group, edited.Source, edited.ID)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("group %q knows %s already", group, edited.ID)}
		}
		envelope, err := json.Marshal(edited.Envelope)
		if err != nil {
			return 0, &outlast.Error{Op: op, Code: outlast.CodeInvalid, Err: err}
		}
		if err := w.exec(ctx, x.s.sql.Get("edit"), items[0].Seq, edited.Source, edited.ID, text(edited.Key), edited.Type, string(envelope), []byte(edited.Body)); err != nil {
			return 0, err
		}
		by.Reason = edited.ID + ": " + by.Reason
		if err := w.addFact(ctx, acted(outlast.FactDiscarded, &items[0], by)); err != nil {
			return 0, err
		}
		return 1, w.exec(ctx, x.s.sql.Get("dead_delete"), items[0].Seq)
	})
	return err
}
