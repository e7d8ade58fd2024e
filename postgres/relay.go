package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type relay struct{ *store }

func (s relay) Identify(ctx context.Context, source string) error {
	op := "identify " + source
	return s.tx(ctx, op, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql.Get("identify_put"), source); err != nil {
			return err
		}
		_, missing, err := s.rights(ctx, tx)
		if err == nil && len(missing["relay"]) > 0 {
			err = deniedRights(op, missing["relay"])
		}
		if err != nil {
			return err
		}
		var owner string
		if err := tx.QueryRow(ctx, s.sql.Get("identify_get")).Scan(&owner); err != nil {
			return err
		}
		if owner != source {
			return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("this outbox belongs to %q", owner),
				Hint: "each service has its own schema or prefix"}
		}
		return nil
	})
}

func (s relay) HeldIndex(ctx context.Context, leases []outlast.Lease) (outlast.HeldIndex, error) {
	var index outlast.HeldIndex
	slots := leasedSlots(leases)
	err := s.conn(ctx, "read the held", false, func(c *pgx.Conn) error {
		if err := s.primary(ctx, c); err != nil {
			return err
		}
		rows, err := c.Query(ctx, s.sql.Get("held_keys"), slots)
		if err != nil {
			return err
		}
		index.Keys, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k outlast.SlotKey, err error) {
			return k, row.Scan(&k.Slot, &k.Key)
		})
		if err != nil {
			return err
		}
		if rows, err = c.Query(ctx, s.sql.Get("held_routes"), slots); err != nil {
			return err
		}
		index.Routes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r outlast.HeldRouteCount, err error) {
			return r, row.Scan(&r.Route.Exchange, &r.Route.Type, &r.Reason, &r.Count)
		})
		return err
	})
	return index, err
}

func leasedSlots(leases []outlast.Lease) []int16 {
	slots := make([]int16, len(leases))
	for i, l := range leases {
		slots[i] = int16(l.Slot)
	}
	return slots
}

func (s relay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	page := outlast.HeldPage{NextDue: -1}
	used := 0
	for _, b := range []bool{q.Due, q.Key != nil, q.Route != nil} {
		if b {
			used++
		}
	}
	if used != 1 {
		return page, &outlast.Error{Op: "read the held", Code: outlast.CodeInvalid,
			Fields: []outlast.FieldError{{Field: "query", Limit: "exactly one of Due, Key and Route", Given: fmt.Sprint(used)}}}
	}
	rows, bytes := max(q.MaxRows, 1), int64(max(q.MaxBytes, 1))
	err := s.conn(ctx, "read the held", false, func(c *pgx.Conn) (err error) {
		slots := leasedSlots(q.Leases)
		if q.Due {
			return s.due(ctx, c, &page, slots, q.After, rows, bytes)
		}
		if err := s.primary(ctx, c); err != nil {
			return err
		}
		switch {
		case q.Key != nil:
			if !leased(q.Leases, q.Key.Slot) {
				return nil
			}
			page.Rows, err = readHeld(s.query(ctx, c, "held_key", q.Key.Slot, q.Key.Key, q.After, rows, bytes))
		default:
			page.Rows, err = readHeld(s.query(ctx, c, "held_route", slots, q.Route.Exchange, q.Route.Type, q.After, rows, bytes))
		}
		return err
	})
	return page, err
}

func leased(leases []outlast.Lease, slot int) bool {
	for _, l := range leases {
		if l.Slot == slot {
			return true
		}
	}
	return false
}

// due asks how much is due and when the next comes, which is all there is to do in
// an idle outbox, and then reads a page. Rows that come due in between may be in it.
func (s relay) due(ctx context.Context, c *pgx.Conn, page *outlast.HeldPage, slots []int16, after int64, limit int, bytes int64) error {
	var due int64
	var next *int64
	var standby bool
	err := c.QueryRow(ctx, s.sql.Get("held_next"), anew(c, slots, limit+1)...).Scan(&due, &next, &standby)
	if err == nil && standby {
		err = errStandby
	}
	if err != nil {
		return err
	}
	if due > 0 {
		candidates := 4*limit + 10_000
		if page.Rows, err = readHeld(s.query(ctx, c, "held_due", slots, after, candidates, limit, bytes)); err != nil {
			return err
		}
	}
	switch {
	case due > int64(len(page.Rows)) && after == 0, len(page.Rows) >= limit:
		page.NextDue = 0
	case next != nil:
		page.NextDue = max(time.Duration(*next)*time.Microsecond, 0)
	}
	return nil
}

func readHeld(rows pgx.Rows, err error) ([]*outlast.Row, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*outlast.Row, error) {
		var r rowScan
		var reason string
		var attempts int
		if err := row.Scan(append(r.dest(), &reason, &attempts)...); err != nil {
			return nil, err
		}
		out := r.row()
		out.InHeld, out.Reason, out.Attempts = true, outlast.HeldReason(reason), attempts
		return out, nil
	})
}
