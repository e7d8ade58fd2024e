package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

type operator struct{ s *store }

func (x operator) Outbox() outlast.OutboxOperator { return outboxOperator(x) }
func (x operator) Retries() outlast.RetryOperator { return waitingOperator{x.s, retryTable} }
func (x operator) Dead() outlast.DeadOperator     { return waitingOperator{x.s, deadTable} }

// Status reads at most CountLimit+1 entries of an index for each of the tables.
func (x operator) Status(ctx context.Context) (*outlast.StoreStatus, error) {
	if x.s.err != nil {
		return nil, x.s.err
	}
	st := &outlast.StoreStatus{}
	var now int64
	if err := x.s.db.QueryRowContext(ctx, x.s.sql.Get("now")).Scan(&now); err != nil {
		return nil, mapped("read status", err)
	}
	st.Now = time.UnixMicro(now)
	if _, err := first(x.s.db.QueryRowContext(ctx, x.s.sql.Get("source")), &st.Source); err != nil {
		return nil, mapped("read status", err)
	}
	for _, part := range []func(context.Context, *outlast.StoreStatus) error{x.pending, x.held, x.groups, x.overdue, x.relays, x.unattended} {
		if err := part(ctx, st); err != nil {
			return nil, mapped("read status", err)
		}
	}
	return st, nil
}

func (x operator) pending(ctx context.Context, st *outlast.StoreStatus) error {
	return each(ctx, x.s.db, x.s.sql.Get("status_pending"), []any{outlast.CountLimit + 1}, func(scan scanner) error {
		var r outlast.RouteStatus
		var oldest int64
		err := scan(&r.Type, &r.Count, &oldest)
		r.Oldest = time.Duration(oldest) * time.Microsecond
		st.Pending = append(st.Pending, r)
		return err
	})
}

func (x operator) held(ctx context.Context, st *outlast.StoreStatus) error {
	var seqs []int64
	err := each(ctx, x.s.db, x.s.sql.Get("status_held"), []any{outlast.CountLimit + 1}, func(scan scanner) error {
		var h outlast.HeldStatus
		var oldest, seq int64
		err := scan(&h.Type, &h.Reason, &h.Count, &oldest, &seq)
		h.Oldest = time.Duration(oldest) * time.Microsecond
		st.Held = append(st.Held, h)
		seqs = append(seqs, seq)
		return err
	})
	for i, seq := range seqs {
		if err == nil { // the row may have left meanwhile: then there is no text
			_, err = first(x.s.db.QueryRowContext(ctx, x.s.sql.Get("held_error"), seq), &st.Held[i].Error)
		}
	}
	return err
}

func (x operator) groups(ctx context.Context, st *outlast.StoreStatus) error {
	for name, list := range map[string]*[]outlast.GroupStatus{"status_retry": &st.Retry, "status_dead": &st.Dead} {
		err := each(ctx, x.s.db, x.s.sql.Get(name), []any{outlast.CountLimit + 1}, func(scan scanner) error {
			var g outlast.GroupStatus
			var oldest int64
			err := scan(&g.Group, &g.Type, &g.Count, &oldest)
			g.Oldest = time.Duration(oldest) * time.Microsecond
			*list = append(*list, g)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// overdue adds to the waiting messages how many of them are late, and how many a person must
// move.
func (x operator) overdue(ctx context.Context, st *outlast.StoreStatus) error {
	add := func(name string, field func(g *outlast.GroupStatus) *int, args ...any) error {
		return each(ctx, x.s.db, x.s.sql.Get(name), args, func(scan scanner) error {
			var some outlast.GroupStatus
			err := scan(&some.Group, &some.Type, field(&some))
			for i := range st.Retry {
				if g := &st.Retry[i]; g.Group == some.Group && g.Type == some.Type {
					*field(g) = *field(&some)
				}
			}
			return err
		})
	}
	err := add("status_overdue", func(g *outlast.GroupStatus) *int { return &g.Overdue }, outlast.CountLimit+1, outlast.OverdueAfter.Microseconds())
	if err != nil {
		return err
	}
	return add("status_spent", func(g *outlast.GroupStatus) *int { return &g.Spent }, outlast.CountLimit+1)
}

func (x operator) unattended(ctx context.Context, st *outlast.StoreStatus) error {
	var oldest int64
	err := x.s.db.QueryRowContext(ctx, x.s.sql.Get("status_unattended"), outlast.CountLimit+1, outlast.RelayScope).Scan(&st.Unattended.Count, &oldest)
	st.Unattended.Oldest = time.Duration(oldest) * time.Microsecond
	return err
}

func (x operator) relays(ctx context.Context, st *outlast.StoreStatus) error {
	err := each(ctx, x.s.db, x.s.sql.Get("status_relays"), []any{outlast.RelayScope}, func(scan scanner) error {
		var r outlast.RelayStatus
		err := scan(&r.Owner, &r.Slots)
		st.Relays = append(st.Relays, r)
		return err
	})
	if err != nil {
		return err
	}
	return each(ctx, x.s.db, x.s.sql.Get("status_groups"), nil, func(scan scanner) error {
		var p outlast.PausedGroup
		var since int64
		err := scan(&p.Group, &since, &p.Who, &p.Reason)
		p.Since = time.UnixMicro(since)
		st.AddPaused(p)
		return err
	})
}

func (x operator) SetPaused(ctx context.Context, group string, paused bool, by outlast.Action) error {
	what := "group resume"
	if paused {
		what = "group pause"
	}
	_, err := x.s.act(ctx, what, group, by, func(w *writeTx) (int, error) {
		return 1, w.exec(ctx, x.s.sql.Get("group_write"), group, paused, by.Who, text(by.Reason))
	})
	return err
}

// act does something and records it, in one transaction.
func (s *store) act(ctx context.Context, what, target string, by outlast.Action, do func(w *writeTx) (int, error)) (int, error) {
	w, err := s.begin(ctx, what)
	if err != nil {
		return 0, err
	}
	defer w.rollback()
	n, err := do(w)
	if err != nil {
		return 0, mapped(what, err)
	}
	if err := w.exec(ctx, s.sql.Get("action_insert"), by.Who, what, target, n, text(by.Reason)); err != nil {
		return 0, err
	}
	return n, w.commit(ctx)
}

func (x operator) Actions(ctx context.Context, q outlast.ActionQuery) ([]outlast.ActionRecord, error) {
	if x.s.err != nil {
		return nil, x.s.err
	}
	var list []outlast.ActionRecord
	err := each(ctx, x.s.db, x.s.sql.Get("actions"), []any{q.Before, q.Limited()}, func(scan scanner) error {
		var a outlast.ActionRecord
		var at int64
		err := scan(&a.Seq, &at, &a.Who, &a.What, &a.Target, &a.Count, &a.Reason)
		a.At = time.UnixMicro(at)
		list = append(list, a)
		return err
	})
	return list, mapped("read actions", err)
}

// setBody shows a body as what it is.
func setBody(item *outlast.Item, body []byte) {
	if len(body) > 0 && json.Valid(body) {
		item.Body = body
		return
	}
	item.BodyBytes = body
}

func showOp(what, id string) string { return fmt.Sprintf("show %s %q", what, id) }
