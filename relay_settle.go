package outlast

import (
	"context"
	"iter"
	"slices"
	"time"
)

// relaySettle gathers decided flights and writes what became of them, in batches,
// at most two at a time. A failed settlement is repeated: that is harmless.
type relaySettle struct {
	pending  settleBatch
	underWay []*settleBatch
	began    time.Time // of the newest batch
	retryAt  time.Time
	failures int
	progress time.Time
	// apart says that a settlement failed which had rows to move: what was sent goes without
	// them, in turns, until they go. The table of the held may be all that refuses.
	apart, moves bool
}

// settleBatch is a settlement with the flights that it is about.
type settleBatch struct {
	sent    []*flight
	holds   []heldFlight
	release []*flight
}

type heldFlight struct {
	f *flight
	h Hold
}

const (
	settleRows = 1000
	// settlePause is how long a few decided rows wait for others after a settlement began:
	// each costs the database a commit, and its locks, however few rows it has.
	settlePause = 50 * time.Millisecond
)

func (b *settleBatch) size() int   { return len(b.sent) + len(b.holds) + len(b.release) }
func (b *settleBatch) empty() bool { return b.size() == 0 }

// onlySent reports whether nothing waits for the batch: what is sent makes room for others
// at once, and only its rows remain.
func (b *settleBatch) onlySent() bool { return len(b.holds)+len(b.release) == 0 }

func (b *settleBatch) flights() iter.Seq[*flight] {
	return func(yield func(*flight) bool) {
		for _, f := range b.sent {
			if !yield(f) {
				return
			}
		}
		for _, hf := range b.holds {
			if !yield(hf.f) {
				return
			}
		}
		for _, f := range b.release {
			if !yield(f) {
				return
			}
		}
	}
}

func (s *relaySettle) hold(f *flight, h Hold) {
	s.pending.holds = append(s.pending.holds, heldFlight{f, h})
}

// settleSent deletes a row: sent, expired, or unheard with leave.
func (r *relayRun) settleSent(f *flight, fate Fate) {
	f.fate = fate
	if f.state == flightSent {
		r.unsend(f)
	}
	f.state = flightSettling
	r.settle.pending.sent = append(r.settle.pending.sent, f)
}

// settleRelease moves a due row back to the outbox.
func (r *relayRun) settleRelease(f *flight) {
	f.state = flightSettling
	r.settle.pending.release = append(r.settle.pending.release, f)
}

// stepSettle writes what is decided. The first batch goes at once; while it is
// under way, and for a pause after it began, the next one fills.
func (r *relayRun) stepSettle(now time.Time) time.Time {
	s := &r.settle
	few := s.pending.size() < min(settleRows, r.conf.Buffer/4)
	if s.pending.empty() || len(s.underWay) >= 2 || (len(s.underWay) == 1 && few) {
		return time.Time{}
	}
	if now.Before(s.retryAt) {
		return s.retryAt
	}
	if at := s.began.Add(settlePause); few && s.pending.onlySent() && now.Before(at) && !r.stopping {
		return at
	}
	sent, moved := true, true
	if s.apart && len(s.pending.sent) > 0 && !s.pending.onlySent() {
		s.moves = !s.moves
		sent, moved = !s.moves, s.moves
	}
	batch := s.pending.take(settleRows, sent, moved && !s.holding(), moved)
	if batch.empty() {
		return time.Time{}
	}
	settlement := r.settlement(&batch)
	s.began = now
	s.underWay = append(s.underWay, &batch)
	r.job(time.Minute, func(ctx context.Context) func(time.Time) {
		stale, err := r.conf.Store.Relay().Settle(ctx, settlement)
		return func(now time.Time) { r.settled(now, &batch, settlement, stale, err) }
	})
	return time.Time{}
}

// holding reports whether rows are on their way to the held. Then no others follow,
// lest a later row of a key arrives and its relay dies before the earlier one does.
func (s *relaySettle) holding() bool {
	return slices.ContainsFunc(s.underWay, func(b *settleBatch) bool { return len(b.holds) > 0 })
}

// take cuts at most n flights off, of the kinds asked for.
func (b *settleBatch) take(n int, sent, holds, release bool) settleBatch {
	var t settleBatch
	if sent {
		t.sent, b.sent = cut(b.sent, n)
	}
	if holds {
		t.holds, b.holds = cut(b.holds, n-t.size())
	}
	if release {
		t.release, b.release = cut(b.release, n-t.size())
	}
	return t
}

func cut[T any](list []T, n int) (head, rest []T) {
	if len(list) <= n {
		return list, nil
	}
	return list[:n:n], list[n:]
}

func (r *relayRun) settlement(b *settleBatch) *Settlement {
	s := &Settlement{Untracked: r.conf.NoTracking}
	seen := map[int]bool{}
	lease := func(f *flight) {
		if slot := f.row.Slot; !seen[slot] {
			seen[slot] = true
			s.Leases = append(s.Leases, r.leases.slots[slot].lease)
		}
	}
	for _, f := range b.sent {
		lease(f)
		s.Sent = append(s.Sent, f.row)
		s.Fates = append(s.Fates, f.fate)
	}
	for _, hf := range b.holds {
		lease(hf.f)
		s.Hold = append(s.Hold, hf.h)
	}
	for _, f := range b.release {
		lease(f)
		s.Release = append(s.Release, f.row)
	}
	return s
}

// settled takes the outcome of a settlement.
func (r *relayRun) settled(now time.Time, b *settleBatch, done *Settlement, stale []Lease, err error) {
	s := &r.settle
	s.underWay = slices.DeleteFunc(s.underWay, func(x *settleBatch) bool { return x == b })
	r.noteStore(err)
	if err != nil {
		eachHook(&r.hooks, func(h HookSettleFailed) { h.OnSettleFailed(done, err) })
		s.failures++
		s.apart = s.apart || !b.onlySent()
		wait := doubling(20*time.Millisecond, 2*time.Second, s.failures)
		s.retryAt = now.Add(wait/2 + jitter(wait/2))
		for _, hf := range b.holds {
			if hf.f.state == flightGone {
				r.moved(now, hf)
			}
		}
		s.pending.prepend(b)
		return
	}
	s.failures, s.retryAt = 0, time.Time{}
	if !b.onlySent() {
		s.apart = false
	}
	for _, l := range stale {
		if r.leases.holds(l) {
			r.conf.Logger.Warn("a lease has passed to another relay; its rows are left to it", "slot", l.Slot, "epoch", l.Epoch)
			r.loseSlot(l.Slot)
			r.leases.next = now
		}
	}
	if len(b.sent) > 0 {
		s.progress = now
	}
	eachHook(&r.hooks, func(h HookSettled) { h.OnSettled(done, stale) })
	r.finish(now, b)
}

// finish takes settled flights out of the books.
func (r *relayRun) finish(now time.Time, b *settleBatch) {
	var left []*Row // the outbox
	done := func(f *flight) {
		if f.state != flightGone && !f.row.InHeld {
			left = append(left, f.row)
		}
		r.removeFlight(f)
	}
	leave := func(f *flight) {
		ours := f.state != flightGone
		done(f)
		if ours && f.row.InHeld {
			r.held.left(f.row.Seq)
		}
	}
	for _, f := range b.sent {
		leave(f)
	}
	for _, hf := range b.holds {
		done(hf.f)
		r.moved(now, hf)
	}
	for _, f := range b.release {
		leave(f)
	}
	if len(left) > 0 {
		r.reader.Forget(left)
	}
	if len(b.release) > 0 {
		r.picks.burst(now)
	}
}

// moved notes that a row has arrived in the held.
func (r *relayRun) moved(now time.Time, hf heldFlight) {
	if hf.h.Reason.OfRoute() {
		hf.f.route.moving--
	}
	if k := hf.f.key; k != nil && hf.h.Reason.BlocksKey() {
		k.moving--
		if r.flights.keys[k.id] == k {
			r.advance(now, k)
		}
	}
}

// prepend puts a failed batch back; flights that are gone meanwhile stay away.
func (b *settleBatch) prepend(failed *settleBatch) {
	b.sent = append(alive(failed.sent, func(f *flight) *flight { return f }), b.sent...)
	b.holds = append(alive(failed.holds, func(hf heldFlight) *flight { return hf.f }), b.holds...)
	b.release = append(alive(failed.release, func(f *flight) *flight { return f }), b.release...)
}

func alive[T any](list []T, flightOf func(T) *flight) []T {
	kept := make([]T, 0, len(list))
	for _, x := range list {
		if f := flightOf(x); f.state != flightGone {
			kept = append(kept, x)
		}
	}
	return kept
}

// dropSlot forgets what is decided about rows of a slot: its new owner decides. What
// is being written of it may be done or not; it is not ours to repeat.
func (s *relaySettle) dropSlot(r *relayRun, slot int) {
	for _, b := range append(s.underWay, &s.pending) {
		for f := range b.flights() {
			if f.row.Slot == slot {
				r.removeFlight(f)
			}
		}
	}
	for _, hf := range s.pending.holds {
		if hf.f.state == flightGone && hf.h.Reason.OfRoute() {
			hf.f.route.moving--
		}
	}
	kept := settleBatch{}
	kept.prepend(&s.pending)
	s.pending = kept
}
