package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type leases struct{ *store }

// leaseView is what lease_look sees.
type leaseView struct {
	slots               []int
	epochs              []int64
	owners, total, free int
	now                 time.Time
	expires             *time.Time // nil: there is no living record
	paused              bool
}

func (v *leaseView) share(total int) int {
	if v.paused {
		return 0
	}
	n := max(v.owners, 1)
	return (total + n - 1) / n
}

func (s leases) Lease(ctx context.Context, r outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	if r.Scope == "" || r.Owner == "" || r.Total < 1 || r.TTL <= 0 {
		return outlast.LeaseGrant{}, &outlast.Error{Op: "lease", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{
			Field: "request", Limit: "a scope, an owner, a positive total and a positive ttl",
			Given: fmt.Sprintf("scope %q, owner %q, total %d, ttl %s", clip(r.Scope), clip(r.Owner), r.Total, r.TTL)}}}
	}
	var grant outlast.LeaseGrant
	view, err := s.renew(ctx, r)
	if err != nil {
		return grant, err
	}
	share := view.share(r.Total)
	if view.expires == nil || view.total < r.Total || view.free > 0 && len(view.slots) < share {
		if view, grant.Lost, err = s.change(ctx, r); err != nil {
			return outlast.LeaseGrant{}, err
		}
	}
	for i, slot := range view.slots {
		grant.Held = append(grant.Held, outlast.Lease{Slot: slot, Epoch: view.epochs[i]})
	}
	grant.Share, grant.Owners = view.share(r.Total), view.owners
	grant.Now, grant.Expires = view.now, *view.expires
	return grant, nil
}

// renew is all there is to do as long as nobody comes or goes: one statement.
func (s leases) renew(ctx context.Context, r outlast.LeaseRequest) (view leaseView, err error) {
	err = s.conn(ctx, "renew leases", true, func(c *pgx.Conn) error {
		return view.scan(c.QueryRow(ctx, s.sql.Get("lease_renew_look"), r.Scope, r.Owner, r.Total, micros(r.TTL)))
	})
	return view, err
}

func (v *leaseView) scan(row pgx.Row) error {
	return row.Scan(&v.slots, &v.epochs, &v.owners, &v.total, &v.free, &v.now, &v.expires, &v.paused)
}

// change joins, when the owner has no living record, and takes what is free.
func (s leases) change(ctx context.Context, r outlast.LeaseRequest) (view leaseView, lost bool, err error) {
	err = s.tx(ctx, "take leases", func(tx pgx.Tx) error {
		exec := func(name string, args ...any) (int64, error) {
			tag, err := tx.Exec(ctx, s.sql.Get(name), args...)
			return tag.RowsAffected(), err
		}
		if _, err := exec("lease_serialise", s.conf.schema+"."+s.conf.prefix+r.Scope); err != nil {
			return err
		}
		if lost, err = s.join(ctx, tx, r); err != nil {
			return err
		}
		if _, err := exec("lease_slots", r.Scope, r.Total); err != nil {
			return err
		}
		if _, err := exec("lease_reap", r.Scope, r.Owner); err != nil {
			return err
		}
		if _, err := exec("lease_clean", r.Scope); err != nil {
			return err
		}
		if err := view.scan(tx.QueryRow(ctx, s.sql.Get("lease_look"), r.Scope, r.Owner, r.Total)); err != nil {
			return err
		}
		want := view.share(r.Total) - len(view.slots)
		if want <= 0 || view.free == 0 {
			return nil
		}
		if _, err := exec("lease_take", r.Scope, r.Owner, r.Total, want); err != nil {
			return err
		}
		return view.scan(tx.QueryRow(ctx, s.sql.Get("lease_look"), r.Scope, r.Owner, r.Total))
	})
	return view, lost, err
}

// join makes sure that the owner lives: it renews once more, or starts anew.
func (s leases) join(ctx context.Context, tx pgx.Tx, r outlast.LeaseRequest) (lost bool, err error) {
	ttl := micros(r.TTL)
	tag, err := tx.Exec(ctx, s.sql.Get("lease_renew"), r.Scope, r.Owner, ttl)
	if err != nil || tag.RowsAffected() == 1 {
		return false, err
	}
	if err := tx.QueryRow(ctx, s.sql.Get("lease_known"), r.Scope, r.Owner).Scan(&lost); err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, s.sql.Get("lease_abandon"), r.Scope, r.Owner); err != nil {
		return lost, err
	}
	_, err = tx.Exec(ctx, s.sql.Get("lease_join"), r.Scope, r.Owner, ttl)
	return lost, err
}

func (s leases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	return s.tx(ctx, "release leases", func(tx pgx.Tx) error {
		var slots []int32
		var epochs []int64
		for _, l := range leases {
			slots, epochs = append(slots, int32(l.Slot)), append(epochs, l.Epoch)
		}
		if _, err := tx.Exec(ctx, s.sql.Get("lease_release"), scope, owner, slots, epochs); err != nil {
			return err
		}
		if slots != nil {
			return nil
		}
		_, err := tx.Exec(ctx, s.sql.Get("lease_leave"), scope, owner)
		return err
	})
}
