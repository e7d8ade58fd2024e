package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

type leases struct{ s *store }

// Lease runs in one transaction, so that owners decide one after the other.
func (l leases) Lease(ctx context.Context, r outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	op := fmt.Sprintf("lease %s", r.Scope)
	var g outlast.LeaseGrant
	if r.Total < 1 || r.TTL <= 0 || r.Owner == "" || r.Scope == "" {
		return g, invalid(op, "request", "a scope, an owner, a total of at least 1 and a positive TTL", fmt.Sprintf("%+v", r))
	}
	w, err := l.s.begin(ctx, op)
	if err != nil {
		return g, err
	}
	defer w.rollback()
	var alive bool
	err = w.tx.QueryRowContext(ctx, l.s.sql.Get("owner_read"), r.Scope, r.Owner).Scan(&alive)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return g, mapped(op, err)
	}
	g.Lost = err == nil && !alive
	if g.Now, g.Expires, err = l.renew(ctx, w, r); err != nil {
		return g, err
	}
	var others int
	if err := w.tx.QueryRowContext(ctx, l.s.sql.Get("owner_others"), r.Scope, r.Owner).Scan(&others); err != nil {
		return g, mapped(op, err)
	}
	g.Owners = others + 1 // this one counts, however short its TTL
	var paused bool
	if err := w.tx.QueryRowContext(ctx, l.s.sql.Get("paused"), "@"+r.Scope).Scan(&paused); err != nil {
		return g, mapped(op, err)
	}
	if !paused {
		g.Share = (r.Total + g.Owners - 1) / g.Owners
	}
	if g.Held, err = l.take(ctx, w, r, g.Share); err != nil {
		return g, mapped(op, err)
	}
	if err := w.commit(ctx); err != nil {
		return outlast.LeaseGrant{}, err
	}
	return g, nil
}

// renew first frees what dead owners held, this one among them if it was too late,
// and only then gives it a new life.
func (l leases) renew(ctx context.Context, w *writeTx, r outlast.LeaseRequest) (now, expires time.Time, err error) {
	if err := w.exec(ctx, l.s.sql.Get("slot_free_dead"), r.Scope); err != nil {
		return now, expires, err
	}
	if err := w.exec(ctx, l.s.sql.Get("owner_forget"), r.Scope); err != nil {
		return now, expires, err
	}
	var at, until int64
	err = w.tx.QueryRowContext(ctx, l.s.sql.Get("owner_write"), r.Scope, r.Owner, r.TTL.Microseconds()).Scan(&at, &until)
	return time.UnixMicro(at), time.UnixMicro(until), mapped(w.op, err)
}

func (l leases) take(ctx context.Context, w *writeTx, r outlast.LeaseRequest, share int) ([]outlast.Lease, error) {
	var held []outlast.Lease
	taken := map[int]bool{}
	err := each(ctx, w.tx, l.s.sql.Get("slot_list"), []any{r.Scope}, func(scan scanner) error {
		var slot int
		var owner sql.NullString
		var epoch int64
		if err := scan(&slot, &owner, &epoch); err != nil {
			return err
		}
		taken[slot] = owner.Valid
		if owner.Valid && owner.String == r.Owner && slot < r.Total {
			held = append(held, outlast.Lease{Slot: slot, Epoch: epoch})
		}
		return nil
	})
	for slot := 0; slot < r.Total && len(held) < share && err == nil; slot++ {
		if taken[slot] {
			continue
		}
		lease := outlast.Lease{Slot: slot}
		err = w.tx.QueryRowContext(ctx, l.s.sql.Get("slot_take"), r.Scope, slot, r.Owner).Scan(&lease.Epoch)
		held = append(held, lease)
	}
	slices.SortFunc(held, func(a, b outlast.Lease) int { return a.Slot - b.Slot })
	return held, err
}

func (l leases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	op := fmt.Sprintf("release leases of %s", scope)
	w, err := l.s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer w.rollback()
	var some any
	if len(leases) > 0 {
		pairs := make([][2]int64, 0, len(leases))
		for _, l := range leases {
			pairs = append(pairs, [2]int64{int64(l.Slot), l.Epoch})
		}
		some = jsonList(pairs)
	} else if err := w.exec(ctx, l.s.sql.Get("owner_delete"), scope, owner); err != nil {
		return err
	}
	if err := w.exec(ctx, l.s.sql.Get("slot_release"), scope, owner, some); err != nil {
		return err
	}
	return w.commit(ctx)
}
