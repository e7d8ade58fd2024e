package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
)

type relay struct{ s *store }

func (x relay) Reader() outlast.OutboxReader { return &reader{s: x.s} }

func (x relay) Identify(ctx context.Context, source string) error {
	op := fmt.Sprintf("identify outbox as %q", source)
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer w.rollback()
	if err := w.exec(ctx, x.s.sql.Get("identify"), source); err != nil {
		return err
	}
	var owner string
	if err := w.tx.QueryRowContext(ctx, x.s.sql.Get("source")).Scan(&owner); err != nil {
		return mapped(op, err)
	}
	if owner != source {
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("it belongs to %q", owner),
			Hint: "give each service a database, or a prefix, of its own"}
	}
	return w.commit(ctx)
}

// Settle is one transaction. A row that is elsewhere by now, because an earlier
// call did its work with an unknown outcome, is found there or left alone.
func (x relay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	w, err := x.s.begin(ctx, "settle")
	if err != nil {
		return nil, err
	}
	defer w.rollback()
	fenced := map[int]bool{}
	var stale []outlast.Lease
	for _, l := range set.Leases {
		var current bool
		err := w.tx.QueryRowContext(ctx, x.s.sql.Get("slot_current"), outlast.RelayScope, l.Slot, l.Epoch).Scan(&current)
		if err != nil {
			return nil, mapped("settle", err)
		}
		fenced[l.Slot] = current
		if !current {
			stale = append(stale, l)
		}
	}
	st := &settling{w: w, fenced: fenced, stmts: map[string]*sql.Stmt{}}
	there, err := x.s.tracked(ctx, w.tx)
	if err != nil {
		return nil, mapped("settle", err)
	}
	if st.track = there && !set.Untracked; there && set.Untracked && len(set.Sent) > 0 {
		if err := w.unlog(ctx); err != nil {
			return nil, err
		}
	}
	if err := st.apply(ctx, set); err != nil {
		return nil, mapped("settle", err)
	}
	if err := w.commit(ctx); err != nil {
		return nil, err
	}
	return stale, nil
}

// settling is a settlement on its way into the tables.
type settling struct {
	w      *writeTx
	fenced map[int]bool
	track  bool
	stmts  map[string]*sql.Stmt
}

// run executes a named statement, prepared once per settlement, and reports whether
// it found its row.
func (st *settling) run(ctx context.Context, name string, args ...any) (bool, error) {
	stmt := st.stmts[name]
	if stmt == nil {
		var err error
		if stmt, err = st.w.tx.PrepareContext(ctx, st.w.s.sql.Get(name)); err != nil {
			return false, err
		}
		st.stmts[name] = stmt // the end of the transaction closes it
	}
	res, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (st *settling) apply(ctx context.Context, set *outlast.Settlement) error {
	for i, r := range set.Sent {
		fate := outlast.FateSent
		if i < len(set.Fates) {
			fate = set.Fates[i]
		}
		if err := st.sent(ctx, r, fate); err != nil {
			return err
		}
	}
	for i := range set.Hold {
		if err := st.hold(ctx, &set.Hold[i]); err != nil {
			return err
		}
	}
	for _, r := range set.Release {
		if err := st.release(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (st *settling) sent(ctx context.Context, r *outlast.Row, fate outlast.Fate) error {
	if !st.fenced[r.Slot] {
		return nil
	}
	if err := st.log(ctx, r, fate); err != nil {
		return err
	}
	first, second := "sent", "sent_held"
	if r.InHeld {
		first, second = second, first
	}
	found, err := st.run(ctx, first, r.Seq, r.ID)
	if err == nil && !found {
		_, err = st.run(ctx, second, r.Seq, r.ID)
	}
	return err
}

func (st *settling) hold(ctx context.Context, h *outlast.Hold) error {
	r := h.Row
	if !st.fenced[r.Slot] {
		return nil
	}
	if err := st.failed(ctx, h); err != nil {
		return err
	}
	var wait any // NULL: no time ends it
	if h.Wait >= 0 {
		wait = h.Wait.Microseconds()
	}
	route := r.Route()
	args := []any{r.Seq, r.ID, string(h.Reason), route.Exchange, route.Type, wait, h.Attempts, text(h.Error)}
	if !r.InHeld {
		moved, err := st.run(ctx, "hold", args...)
		if err != nil {
			return err
		}
		if moved {
			_, err = st.run(ctx, "sent", r.Seq, r.ID)
			return err
		}
	}
	_, err := st.run(ctx, "hold_again", args...)
	return err
}

func (st *settling) release(ctx context.Context, r *outlast.Row) error {
	if !st.fenced[r.Slot] {
		return nil
	}
	moved, err := st.run(ctx, "release", r.Seq, r.ID)
	if err == nil && moved {
		_, err = st.run(ctx, "sent_held", r.Seq, r.ID)
	}
	return err
}

func (x relay) HeldIndex(ctx context.Context, leases []outlast.Lease) (outlast.HeldIndex, error) {
	const op = "read held index"
	var index outlast.HeldIndex
	if x.s.err != nil {
		return index, x.s.err
	}
	if !leased(leases) {
		return index, nil
	}
	err := each(ctx, x.s.db, x.s.sql.Get("held_keys"), nil, func(scan scanner) error {
		var k outlast.SlotKey
		if err := scan(&k.Key); err != nil {
			return err
		}
		index.Keys = append(index.Keys, k)
		return nil
	})
	if err != nil {
		return index, mapped(op, err)
	}
	err = each(ctx, x.s.db, x.s.sql.Get("held_routes"), nil, func(scan scanner) error {
		var c outlast.HeldRouteCount
		if err := scan(&c.Route.Exchange, &c.Route.Type, &c.Reason, &c.Count); err != nil {
			return err
		}
		index.Routes = append(index.Routes, c)
		return nil
	})
	return index, mapped(op, err)
}

type scanner func(targets ...any) error

// each calls f for every row of a query.
func each(ctx context.Context, db runner, query string, args []any, f func(scan scanner) error) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			_ = rows.Close()
			return err
		}
	}
	return closeRows(rows)
}

func (x relay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	page := outlast.HeldPage{NextDue: -1}
	if x.s.err != nil {
		return page, x.s.err
	}
	if !leased(q.Leases) || q.MaxRows < 1 {
		return page, nil
	}
	b := &batch{rows: q.MaxRows, bytes: q.MaxBytes}
	var err error
	switch {
	case q.Due:
		return x.due(ctx, q, b)
	case q.Key != nil:
		err = b.read(ctx, x.s.db, true, x.s.sql.Get("held_of_key"), q.Key.Key, q.After, q.MaxRows)
	case q.Route != nil:
		err = b.read(ctx, x.s.db, true, x.s.sql.Get("held_of_route"), q.Route.Exchange, q.Route.Type, q.After, q.MaxRows)
	default:
		return page, invalid("read held rows", "query", "one of due, key and route", "none")
	}
	page.Rows = b.list
	return page, mapped("read held rows", err)
}

// due judges everything by one instant, so that no row is between the statements.
func (x relay) due(ctx context.Context, q outlast.HeldQuery, b *batch) (outlast.HeldPage, error) {
	const op = "read due rows"
	page := outlast.HeldPage{NextDue: -1}
	var now int64
	if err := x.s.db.QueryRowContext(ctx, x.s.sql.Get("now")).Scan(&now); err != nil {
		return page, mapped(op, err)
	}
	// One row more than wanted shows whether more are due.
	if err := b.read(ctx, x.s.db, true, x.s.sql.Get("held_due"), now, q.After, q.MaxRows+1); err != nil {
		return page, mapped(op, err)
	}
	page.Rows = b.list
	if b.full {
		page.NextDue = 0
		return page, nil
	}
	var next sql.NullInt64
	if err := x.s.db.QueryRowContext(ctx, x.s.sql.Get("held_next"), now).Scan(&next); err != nil {
		return page, mapped(op, err)
	}
	if next.Valid {
		page.NextDue = time.Duration(next.Int64-now) * time.Microsecond
	}
	return page, nil
}

// SettledBefore holds the write lock while it reads: no transaction is then under
// way whose rows cannot be seen yet. It never lags, but waits for a writer's end.
func (x relay) SettledBefore(ctx context.Context) (time.Time, error) {
	const op = "read settled-before"
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return time.Time{}, err
	}
	defer w.rollback()
	var t sql.NullInt64
	if err := w.tx.QueryRowContext(ctx, x.s.sql.Get("settled_before")).Scan(&t); err != nil {
		return time.Time{}, mapped(op, err)
	}
	return instant(t), nil
}
