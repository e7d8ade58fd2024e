package sqlite

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

const (
	rescanBusy = 10 * time.Second // while a Pick finds rows
	rescanIdle = time.Second      // when it finds none
)

// reader picks by a cursor, since SQLite's writers follow each other, so that a row
// with a lower number cannot commit later. What is there all the same (another
// program set seq, a backup was restored beneath us) is found by a rescan: the state
// of the table decides, not the cursor.
type reader struct {
	s *store

	mu       sync.Mutex
	cursor   int64
	returned map[int64]string // seq to id, until forgotten
	picking  bool
	left     []*outlast.Row // forgotten while a Pick ran, which may still see them
	drops    int
	rescanAt time.Time
}

func (r *reader) Forget(rows []*outlast.Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.picking {
		r.left = append(r.left, rows...)
		return
	}
	r.forget(rows)
}

func (r *reader) forget(rows []*outlast.Row) {
	for _, row := range rows {
		if r.returned[row.Seq] == row.ID {
			delete(r.returned, row.Seq)
		}
	}
}

func (r *reader) Drop(slots []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, slot := range slots {
		if slot == 0 {
			r.cursor, r.returned, r.left, r.rescanAt = 0, nil, nil, time.Time{}
			r.drops++
		}
	}
}

// Pick reads without a transaction: it takes no lock and stops no writer. When the
// slot is dropped meanwhile, it returns nothing.
func (r *reader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	const op = "pick pending rows"
	if r.s.err != nil {
		return nil, r.s.err
	}
	if !leased(leases) || maxRows < 1 {
		return nil, nil
	}
	r.mu.Lock()
	r.picking = true
	cursor, drops := r.cursor, r.drops
	known := len(r.returned)
	rescan := cursor > 0 && time.Now().After(r.rescanAt)
	r.mu.Unlock()
	defer r.settle()

	b := &batch{rows: maxRows, bytes: maxBytes}
	if rescan {
		if err := r.rescan(ctx, b, cursor, known); err != nil {
			return nil, mapped(op, err)
		}
	}
	if !b.full {
		if err := b.read(ctx, r.s.db, false, r.s.sql.Get("pick"), cursor, maxRows-len(b.list)); err != nil {
			return nil, mapped(op, err)
		}
	}
	return r.remember(b, drops, rescan), nil
}

func leased(leases []outlast.Lease) bool {
	for _, l := range leases {
		if l.Slot == 0 {
			return true
		}
	}
	return false
}

// settle applies what was forgotten while the Pick ran.
func (r *reader) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.picking = false
	r.forget(r.left)
	r.left = nil
}

func (r *reader) remember(b *batch, drops int, rescanned bool) []*outlast.Row {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drops != drops {
		return nil
	}
	if r.returned == nil {
		r.returned = map[int64]string{}
	}
	for _, row := range b.list {
		r.returned[row.Seq] = row.ID
		r.cursor = max(r.cursor, row.Seq)
	}
	soon := time.Now().Add(rescanIdle)
	switch {
	case rescanned && len(b.list) > 0 || r.rescanAt.IsZero():
		r.rescanAt = time.Now().Add(rescanBusy)
	case rescanned || len(b.list) == 0 && r.rescanAt.After(soon):
		r.rescanAt = soon
	}
	return b.list
}

// rescan reads rows below the cursor that were not returned. Those that were are few:
// they are in the relay's hands.
func (r *reader) rescan(ctx context.Context, b *batch, cursor int64, known int) error {
	rows, err := r.s.db.QueryContext(ctx, r.s.sql.Get("rescan"), cursor, known+b.rows)
	if err != nil {
		return err
	}
	type name struct {
		seq int64
		id  string
	}
	var missed []name
	for rows.Next() {
		var n name
		if err := rows.Scan(&n.seq, &n.id); err != nil {
			_ = rows.Close()
			return err
		}
		if !r.has(n.seq, n.id) {
			missed = append(missed, n)
		}
	}
	if err := closeRows(rows); err != nil {
		return err
	}
	for _, n := range missed {
		if b.full || len(b.list) >= b.rows {
			return nil
		}
		if err := b.read(ctx, r.s.db, false, r.s.sql.Get("pick_one"), n.seq, n.id); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) has(seq int64, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.returned[seq] == id
}

// batch gathers rows up to a number and to a size of bodies.
type batch struct {
	rows, bytes int
	list        []*outlast.Row
	size        int
	full        bool // a row did not fit any more
}

func (b *batch) read(ctx context.Context, db runner, held bool, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		row, err := scanRow(rows, held)
		if err != nil {
			_ = rows.Close()
			return err
		}
		if len(b.list) >= b.rows || len(b.list) > 0 && b.size+len(row.Body) > b.bytes {
			b.full = true
			break
		}
		b.list = append(b.list, row)
		b.size += len(row.Body)
	}
	return closeRows(rows)
}

// closeRows returns the error that ended the rows, or that of closing them.
func closeRows(rows interface {
	Err() error
	Close() error
}) error {
	if err := rows.Err(); err != nil {
		_ = rows.Close()
		return err
	}
	return rows.Close()
}
