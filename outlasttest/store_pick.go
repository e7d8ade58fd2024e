package outlasttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

var pickTests = []storeTest{
	{name: "Pick_keeps_the_order_of_transactions", run: (*storeFixture).pickOrder},
	{name: "Pick_finds_a_late_commit_before_what_followed_it", run: (*storeFixture).pickLateCommit, concurrent: true},
	{name: "F09_Pick_finds_late_commits_of_any_schedule_in_order", run: (*storeFixture).pickSchedules, concurrent: true},
	{name: "Pick_is_not_stopped_by_a_transaction_that_stays_open", run: (*storeFixture).pickOpenTransaction, concurrent: true},
	{name: "Pick_skips_the_gap_of_a_rollback", run: (*storeFixture).pickGap},
	{name: "F31_Pick_keeps_its_bounds", run: (*storeFixture).pickBounds},
	{name: "Pick_returns_no_row_twice", run: (*storeFixture).pickOnce},
	{name: "Pick_returns_no_row_twice_while_others_are_settled", run: (*storeFixture).pickWhileSettling},
	{name: "F18_Pick_returns_rows_again_after_Drop", run: (*storeFixture).pickAfterDrop},
	{name: "Pick_keeps_to_the_leased_slots", run: (*storeFixture).pickLeased},
	{name: "SlotOf_is_where_Insert_writes", run: (*storeFixture).slotOf},
	{name: "Pick_marks_what_has_expired", run: (*storeFixture).pickExpired},
}

func (f *storeFixture) pickOrder() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	var sent []*outlast.Message
	var rows []*outlast.Row
	for i := range 40 {
		m := message("k")
		sent = append(sent, m)
		f.publish(m)
		if i%7 == 3 {
			rows = append(rows, f.pick(r, leases, 3)...)
		}
	}
	rows = append(rows, f.pickUntil(r, leases, len(sent)-len(rows))...)
	wantRows(f, rows, sent...)
}

// insertOpen writes a message and leaves the transaction open.
func (f *storeFixture) insertOpen(m *outlast.Message) ProducerTx {
	f.Helper()
	tx := f.begin()
	f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{m}))
	return tx
}

func (f *storeFixture) pickLateCommit() {
	for _, maxRows := range []int{1, 2, 100} {
		key := fmt.Sprintf("k%d", maxRows)
		leases, r := f.lease("a"), f.s.Relay().Reader()
		late, early, after := message(key), message(key), message(key)
		tx := f.insertOpen(late)
		f.publish(early)
		rows := f.pickUntil(r, leases, 1)
		wantRows(f, rows, early)
		f.must(tx.Commit())
		f.publish(after) // begins after the late one has committed
		var rest []*outlast.Row
		f.eventually("the late commit is picked", func() bool {
			rest = append(rest, f.pick(r, leases, maxRows)...)
			return len(rest) >= 2
		})
		wantRows(f, rest, late, after)
		f.settle(&outlast.Settlement{Leases: leases, Sent: append(rows, rest...)})
	}
}

// pickSchedules drives several transactions in random order and checks the
// guarantee for every pair of rows. Some picks look into the slot of the rows alone, and some into
// all others, as those after a wake-up do.
func (f *storeFixture) pickSchedules() {
	for seed := range uint64(4) {
		f.pickSchedule(rand.New(rand.NewPCG(seed, 7)), fmt.Sprintf("key-%d", seed))
	}
}

type schedule struct {
	open      []ProducerTx
	ids       map[ProducerTx][]string
	committed map[string]int // step at which the row's transaction had committed
	inserted  map[string]int // step at which its INSERT began
	picked    []string
}

func (f *storeFixture) pickSchedule(rng *rand.Rand, key string) {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	h := schedule{ids: map[ProducerTx][]string{}, committed: map[string]int{}, inserted: map[string]int{}}
	var own, others []outlast.Lease
	if namer, ok := f.s.Outbox().(outlast.SlotNamer); ok {
		slot := namer.SlotOf(message(key))
		for _, l := range leases {
			if l.Slot == slot {
				own = append(own, l)
			} else {
				others = append(others, l)
			}
		}
	}
	pick := func(n int) {
		of := leases
		switch {
		case n > 3 || own == nil:
		case rng.IntN(3) == 0:
			of = own
		case rng.IntN(2) == 0:
			want(f, "rows of other slots", len(f.pick(r, others, n)), 0)
			return
		}
		for _, row := range f.pick(r, of, n) {
			h.picked = append(h.picked, row.ID)
			f.settle(&outlast.Settlement{Leases: leases, Sent: []*outlast.Row{row}})
			r.Forget([]*outlast.Row{row})
		}
	}
	end := func(step, i int, commit bool) {
		tx := h.open[i]
		h.open = append(h.open[:i], h.open[i+1:]...)
		if !commit {
			f.must(tx.Rollback())
			return
		}
		f.must(tx.Commit())
		for _, id := range h.ids[tx] {
			h.committed[id] = step
		}
	}
	const steps = 150
	for step := range steps {
		switch n := rng.IntN(10); {
		case n < 3 && len(h.open) < 4:
			h.open = append(h.open, f.begin())
		case n < 6 && len(h.open) > 0:
			tx, m := h.open[rng.IntN(len(h.open))], message(key)
			h.ids[tx] = append(h.ids[tx], m.ID)
			h.inserted[m.ID] = step
			f.must(f.s.Outbox().Insert(f.ctx, tx, []*outlast.Message{m}))
		case n < 8 && len(h.open) > 0:
			end(step, rng.IntN(len(h.open)), rng.IntN(5) > 0)
		default:
			pick(1 + rng.IntN(3))
		}
	}
	for len(h.open) > 0 {
		end(steps, 0, true)
	}
	f.eventually("every committed row is picked", func() bool {
		pick(10)
		return len(h.picked) >= len(h.committed)
	})
	h.check(f)
}

func (h *schedule) check(f *storeFixture) {
	f.Helper()
	at := map[string]int{}
	for i, id := range h.picked {
		if _, twice := at[id]; twice {
			f.Fatalf("row %s was picked twice", id)
		}
		if _, ok := h.committed[id]; !ok {
			f.Fatalf("row %s was picked, but its transaction rolled back", id)
		}
		at[id] = i
	}
	for a, committed := range h.committed {
		for b, inserted := range h.inserted {
			if _, ok := h.committed[b]; ok && committed < inserted && at[a] > at[b] {
				f.Fatalf("row %s committed before the insert of %s began, but was picked after it", a, b)
			}
		}
	}
}

func (f *storeFixture) pickOpenTransaction() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	tx := f.insertOpen(message("k"))
	msgs := batch(10, "k")
	for _, m := range msgs {
		f.publish(m)
	}
	wantRows(f, f.pickUntil(r, leases, 10), msgs...)
	f.must(tx.Rollback())
}

func (f *storeFixture) pickGap() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	first, lost, last := message("k"), message("k"), message("k")
	f.publish(first)
	tx := f.insertOpen(lost)
	f.must(tx.Rollback())
	f.publish(last)
	wantRows(f, f.pickUntil(r, leases, 2), first, last)
}

func (f *storeFixture) pickBounds() {
	leases := f.lease("a")
	msgs := batch(10, "k")
	for _, m := range msgs {
		m.Body = bytes.Repeat([]byte{'1'}, 1000)
	}
	f.publish(msgs...)
	r := f.s.Relay().Reader()
	wantRows(f, f.pick(r, leases, 3), msgs[:3]...)
	rows, err := r.Pick(f.ctx, leases, 100, 2500)
	f.must(err)
	wantRows(f, rows, msgs[3:5]...)
	rows, err = r.Pick(f.ctx, leases, 100, 10) // always one
	f.must(err)
	wantRows(f, rows, msgs[5])
	wantRows(f, f.pickUntil(r, leases, 4), msgs[6:]...)
}

func (f *storeFixture) pickOnce() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	for i := range 6 {
		f.publish(batch(5, fmt.Sprintf("k%d", i))...)
	}
	seen := map[string]bool{}
	var all []*outlast.Row
	f.eventually("30 rows are picked", func() bool {
		for _, row := range f.pick(r, leases, 7) {
			if seen[row.ID] {
				f.Fatalf("row %s was picked twice", row.ID)
			}
			seen[row.ID] = true
			all = append(all, row)
		}
		return len(all) == 30
	})
	f.settle(&outlast.Settlement{Leases: leases, Sent: all})
	wantRows(f, f.pick(r, leases, 100))
	r.Forget(all)
	for range 3 {
		wantRows(f, f.pick(r, leases, 100))
	}
}

func (f *storeFixture) pickWhileSettling() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	const total = 300
	for i := range 10 {
		f.publish(batch(total/10, fmt.Sprintf("k%d", i))...)
	}
	var wg sync.WaitGroup
	seen := map[string]bool{}
	f.eventually("all rows are picked", func() bool {
		rows := f.pick(r, leases, 20)
		for _, row := range rows {
			if seen[row.ID] {
				f.Fatalf("row %s was picked twice", row.ID)
			}
			seen[row.ID] = true
		}
		wg.Go(func() {
			if _, err := f.s.Relay().Settle(f.ctx, &outlast.Settlement{Leases: leases, Sent: rows}); err != nil {
				f.Errorf("settle: %v", err)
			}
			r.Forget(rows)
		})
		return len(seen) >= total
	})
	wg.Wait()
	wantRows(f, f.pick(r, leases, 100))
	wantRows(f, f.pending(leases))
}

func (f *storeFixture) pickAfterDrop() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	msgs := batch(5, "k")
	f.publish(msgs...)
	rows := f.pickUntil(r, leases, 5)
	wantRows(f, f.pick(r, leases, 100))
	f.settle(&outlast.Settlement{Leases: leases, Sent: rows[:2]})
	r.Drop(slotsOf(leases))
	wantRows(f, f.pickUntil(r, leases, 3), msgs[2:]...)
}

func (f *storeFixture) pickLeased() {
	leases, r := f.lease("a"), f.s.Relay().Reader()
	for i := range 20 {
		f.publish(message(fmt.Sprint(i)))
	}
	wantRows(f, f.pick(r, nil, 100))
	half := leases[:(len(leases)+1)/2]
	mine := map[int]bool{}
	for _, l := range half {
		mine[l.Slot] = true
	}
	for _, row := range f.pending(half) {
		if !mine[row.Slot] {
			f.Fatalf("picked a row of slot %d, which is not leased", row.Slot)
		}
	}
	want(f, "rows of all slots", len(f.pending(leases)), 20)
}

// slotOf: what SlotOf says is true, or it says nothing.
func (f *storeFixture) slotOf() {
	namer, ok := f.s.Outbox().(outlast.SlotNamer)
	if !ok {
		return
	}
	slots := map[string]int{}
	for _, key := range []string{"", "", "k", "order-17", "Schlüssel", " ", "k"} {
		m := message(key)
		slots[m.ID] = namer.SlotOf(m)
		f.publish(m)
	}
	m := message("")
	m.ID = strings.ToUpper(m.ID)
	slots[strings.ToLower(m.ID)] = namer.SlotOf(m)
	f.publish(m)
	rows := f.pending(f.lease("a"))
	want(f, "rows", len(rows), len(slots))
	for _, row := range rows {
		if slot, known := slots[strings.ToLower(row.ID)]; !known || slot != row.Slot {
			f.Fatalf("a row with the key %q is in slot %d, want %d", row.Envelope.Key, row.Slot, slot)
		}
	}
}

func (f *storeFixture) pickExpired() {
	leases := f.lease("a")
	short, long := message(""), message("")
	short.Lifetime, long.Lifetime = time.Millisecond, time.Hour
	f.publish(short, long)
	f.eventually("the short one has expired", func() bool {
		for _, row := range f.pending(leases) {
			if row.ExpiresAt.IsZero() || row.ExpiresAt.Before(row.EnqueuedAt) {
				f.Fatalf("enqueued %v, expires %v", row.EnqueuedAt, row.ExpiresAt)
			}
			if row.ID == long.ID && row.Expired {
				f.Fatalf("a message with an hour to live has expired")
			}
			if row.ID == short.ID && row.Expired {
				return true
			}
		}
		return false
	})
}
