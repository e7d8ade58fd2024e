package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/outlastmq/outlast"
)

type outboxOperator struct{ s *store }

// rows lists what f selects, pending and held, in order of seq and up to its limit.
func (x outboxOperator) rows(ctx context.Context, db runner, f outlast.Filter, heldOnly string) ([]outlast.Item, error) {
	if f.Group != "" || f.Fingerprint != "" {
		return nil, invalid("list outbox", "filter", "without group and fingerprint, which rows of an outbox do not have", target(f))
	}
	held := x.s.conditions(f, "held_at")
	if heldOnly != "" {
		held.add(heldOnly)
	}
	query := "SELECT * FROM (SELECT 1, " + cutSelect(x.s.sql.Get("list_held")) + " " + held.String() + " ORDER BY seq LIMIT ?)"
	args := append(held.args, f.Limit)
	if heldOnly == "" && f.Reason == "" {
		pending := x.s.conditions(f, "enqueued_at")
		query += " UNION ALL SELECT * FROM (SELECT 0, " + cutSelect(x.s.sql.Get("list_pending")) + " " + pending.String() + " ORDER BY seq LIMIT ?)"
		args = append(append(args, pending.args...), f.Limit)
	}
	query += " ORDER BY 2 LIMIT ?"
	args = append(args, f.Limit)
	var items []outlast.Item
	err := each(ctx, db, query, args, func(scan scanner) error {
		item, err := scanItem(scan)
		items = append(items, item)
		return err
	})
	return items, err
}

// cutSelect takes the word SELECT off, so that a column can be put in front.
func cutSelect(query string) string { return query[len("SELECT "):] }

func scanItem(scan scanner) (outlast.Item, error) {
	var held bool
	var next sql.NullInt64
	var item outlast.Item
	var m outlast.Message
	s := messageScan{m: &m}
	targets := append([]any{&held}, s.targets()...)
	if err := scan(append(targets, &item.BodySize, &item.Reason, &item.Error, &item.Attempts, &next)...); err != nil {
		return item, err
	}
	s.finish()
	item.Seq, item.Where, item.Envelope, item.FirstAt, item.NextAt = s.seq, "pending", m.Envelope, m.EnqueuedAt, instant(next)
	if held {
		item.Where = "held"
	}
	return item, nil
}

func (x outboxOperator) List(ctx context.Context, f outlast.Filter) ([]outlast.Item, error) {
	const op = "list outbox"
	if x.s.err != nil {
		return nil, x.s.err
	}
	f, err := limited(op, f)
	if err != nil {
		return nil, err
	}
	items, err := x.rows(ctx, x.s.db, f, "")
	return items, mapped(op, err)
}

func (x outboxOperator) Show(ctx context.Context, id string) (*outlast.Item, error) {
	op := showOp("message", id)
	if x.s.err != nil {
		return nil, x.s.err
	}
	items, err := x.rows(ctx, x.s.db, outlast.Filter{IDs: []string{id}, Limit: 1}, "")
	if err != nil {
		return nil, mapped(op, err)
	}
	if len(items) == 0 {
		return nil, notFound(op)
	}
	item, query := &items[0], "body_pending"
	if item.Where == "held" {
		query = "body_held"
	}
	var body []byte
	found, err := first(x.s.db.QueryRowContext(ctx, x.s.sql.Get(query), item.Seq), &body)
	if err == nil && !found {
		return nil, notFound(op) // it was sent, or moved, between the statements
	}
	setBody(item, body)
	return item, mapped(op, err)
}

func (x outboxOperator) Release(ctx context.Context, f outlast.Filter, by outlast.Action) (int, error) {
	f, err := limited("outbox release", f)
	if err != nil {
		return 0, err
	}
	return x.s.act(ctx, "outbox release", target(f), by, func(w *writeTx) (int, error) {
		items, err := x.rows(ctx, w.tx, f, "reason NOT IN ('due', 'behind')")
		if err != nil {
			return 0, err
		}
		for i := range items {
			if err := w.exec(ctx, x.s.sql.Get("operator_release"), items[i].Seq); err != nil {
				return 0, err
			}
		}
		return len(items), nil
	})
}

func (x outboxOperator) Withdraw(ctx context.Context, f outlast.Filter, by outlast.Action) (int, []string, error) {
	f, err := limited("outbox withdraw", f)
	if err != nil {
		return 0, nil, err
	}
	var uncertain []string
	n, err := x.s.act(ctx, "outbox withdraw", target(f), by, func(w *writeTx) (int, error) {
		var relayed bool
		var now int64
		if err := w.tx.QueryRowContext(ctx, x.s.sql.Get("relay_alive"), outlast.RelayScope).Scan(&relayed); err != nil {
			return 0, err
		}
		if err := w.tx.QueryRowContext(ctx, x.s.sql.Get("now")).Scan(&now); err != nil {
			return 0, err
		}
		items, err := x.rows(ctx, w.tx, f, "")
		if err != nil {
			return 0, err
		}
		for i := range items {
			if relayed && mayBeInHand(&items[i], time.UnixMicro(now)) {
				uncertain = append(uncertain, items[i].Envelope.ID)
			}
			query := "sent"
			if items[i].Where == "held" {
				query = "sent_held"
			}
			if err := w.addFact(ctx, acted(outlast.FactWithdrawn, &items[i], by)); err != nil {
				return 0, err
			}
			if err := w.exec(ctx, x.s.sql.Get(query), items[i].Seq, items[i].Envelope.ID); err != nil {
				return 0, err
			}
		}
		return len(items), nil
	})
	if err != nil {
		return 0, nil, err
	}
	return n, uncertain, nil
}

// mayBeInHand reports whether a running relay may have published the row: pending
// ones, and held ones that may have reached a queue. A due row goes back to the
// outbox first, one behind another waits for it, a refused one is not touched, and
// for an unroutable one the broker said that no queue took it.
func mayBeInHand(item *outlast.Item, now time.Time) bool {
	if item.Where == "pending" {
		return true
	}
	switch r := outlast.HeldReason(item.Reason); r {
	case outlast.HeldDue, outlast.HeldBehind, outlast.HeldRefused, outlast.HeldUnroutable:
		return false
	case outlast.HeldBackoff:
		return !item.NextAt.After(now)
	default:
		return true
	}
}
