package memory

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// reader remembers what it has returned. It starts each slot from its first row,
// so a row of a late commit is met where it stands.
type reader struct {
	s  *Store
	mu sync.Mutex
	// returned has, for each slot, the numbers of rows in the caller's hands.
	returned map[int]map[int64]bool
}

func (x relay) Reader() outlast.OutboxReader {
	return &reader{s: x.s, returned: map[int]map[int64]bool{}}
}

func (d *reader) Pick(ctx context.Context, ls []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	if err := d.s.enter(ctx, "pick", RoleRelay); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	at := map[int]int{} // the position in each slot
	var rows []*outlast.Row
	now, size := time.Now(), 0
	for len(rows) < maxRows {
		r := d.first(ls, at)
		if r == nil || size+len(r.msg.Body) > maxBytes && len(rows) > 0 {
			break
		}
		size += len(r.msg.Body)
		at[r.slot]++
		if d.returned[r.slot] == nil {
			d.returned[r.slot] = map[int64]bool{}
		}
		d.returned[r.slot][r.seq] = true
		rows = append(rows, r.view(now))
	}
	return rows, nil
}

// first returns the row with the lowest number over all leased slots that was not
// returned before, so that no slot starves another.
func (d *reader) first(ls []outlast.Lease, at map[int]int) *row {
	var lowest *row
	for _, l := range ls {
		if l.Slot < 0 || l.Slot >= slots {
			continue
		}
		rows, i := d.s.outbox[l.Slot], at[l.Slot]
		for i < len(rows) && d.returned[l.Slot][rows[i].seq] {
			i++
		}
		at[l.Slot] = i
		if i < len(rows) && (lowest == nil || rows[i].seq < lowest.seq) {
			lowest = rows[i]
		}
	}
	return lowest
}

func (d *reader) Forget(rows []*outlast.Row) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range rows {
		delete(d.returned[r.Slot], r.Seq)
	}
}

func (d *reader) Drop(slots []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range slots {
		delete(d.returned, i)
	}
}
