package outlasttest

import (
	"fmt"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

var leaseTests = []storeTest{
	{name: "Lease_shares_fairly", run: (*storeFixture).leaseShares},
	{name: "Lease_takes_nothing_away", run: (*storeFixture).leaseKeeps},
	{name: "Lease_takes_no_more_than_its_share", run: (*storeFixture).leaseBound},
	{name: "F17_Lease_takes_over_what_expired_under_a_new_epoch", run: (*storeFixture).leaseTakeover},
	{name: "Lease_does_not_renew_an_expired_record", run: (*storeFixture).leaseLost},
	{name: "Lease_renewed_in_time_keeps_its_epochs", run: (*storeFixture).leaseRenewed},
	{name: "Lease_keeps_scopes_apart", run: (*storeFixture).leaseScopes},
	{name: "Lease_never_has_two_owners", run: (*storeFixture).leaseOneOwner},
	{name: "Lease_gives_nothing_while_the_relays_are_paused", run: (*storeFixture).leasePaused},
	{name: "Release_gives_back", run: (*storeFixture).leaseRelease},
	{name: "F15_Late_release_leaves_what_was_taken_anew", run: (*storeFixture).leaseLateRelease},
}

const testScope = "test scope"

func (f *storeFixture) leaseIn(scope, owner string, ttl time.Duration, total int) outlast.LeaseGrant {
	f.Helper()
	g, err := f.s.Leases().Lease(f.ctx, outlast.LeaseRequest{Scope: scope, Owner: owner, TTL: ttl, Total: total})
	f.must(err)
	return g
}

func (f *storeFixture) release(scope, owner string, leases ...outlast.Lease) {
	f.Helper()
	f.must(f.s.Leases().Release(f.ctx, scope, owner, leases))
}

func (f *storeFixture) leaseShares() {
	const total = 12
	for _, n := range []int{1, 2, 3, 5} {
		scope := fmt.Sprintf("scope of %d", n)
		share := (total + n - 1) / n
		held := map[string][]outlast.Lease{}
		for range 4 { // rounds; the first owner begins with everything
			for i := range n {
				owner := fmt.Sprintf("owner %d", i)
				g := f.leaseIn(scope, owner, time.Hour, total)
				want(f, "share", g.Share, (total+g.Owners-1)/g.Owners)
				want(f, "lost", g.Lost, false)
				if extra := len(g.Held) - g.Share; extra > 0 {
					f.release(scope, owner, g.Held[:extra]...)
					g.Held = g.Held[extra:]
				}
				held[owner] = g.Held
			}
		}
		taken := map[int]string{}
		for owner, leases := range held {
			if len(leases) > share {
				f.Fatalf("%s holds %d of %d slots with %d owners", owner, len(leases), total, n)
			}
			for _, l := range leases {
				if other, ok := taken[l.Slot]; ok {
					f.Fatalf("slot %d is held by %s and %s", l.Slot, owner, other)
				}
				if l.Slot < 0 || l.Slot >= total {
					f.Fatalf("slot %d of %d", l.Slot, total)
				}
				taken[l.Slot] = owner
			}
		}
		want(f, fmt.Sprintf("slots held by %d owners", n), len(taken), total)
	}
}

func (f *storeFixture) leaseKeeps() {
	a := f.leaseIn(testScope, "a", time.Hour, 4)
	want(f, "slots of the first owner", len(a.Held), 4)
	b := f.leaseIn(testScope, "b", time.Hour, 4)
	want(f, "slots of the second owner", len(b.Held), 0)
	want(f, "owners", b.Owners, 2)
	again := f.leaseIn(testScope, "a", time.Hour, 4)
	wantList(f, "leases of the first owner", again.Held, a.Held)
	want(f, "share", again.Share, 2)
	f.release(testScope, "a", a.Held[0])
	b = f.leaseIn(testScope, "b", time.Hour, 4)
	want(f, "slots of the second owner", len(b.Held), 1)
	want(f, "slot", b.Held[0].Slot, a.Held[0].Slot)
	if b.Held[0].Epoch <= a.Held[0].Epoch {
		f.Fatalf("epoch %d follows %d", b.Held[0].Epoch, a.Held[0].Epoch)
	}
}

func (f *storeFixture) leaseBound() {
	a := f.leaseIn(testScope, "a", time.Hour, 5)
	f.leaseIn(testScope, "b", time.Hour, 5)
	f.release(testScope, "a", a.Held...) // a stays alive
	want(f, "slots of b, with all of them free", len(f.leaseIn(testScope, "b", time.Hour, 5).Held), 3)
	want(f, "slots of a", len(f.leaseIn(testScope, "a", time.Hour, 5).Held), 2)
}

// leasePaused: relays keep their records and find out that their share is none; who
// shares another scope, a group called like the switch among them, notices nothing.
func (f *storeFixture) leasePaused() {
	const scope = outlast.RelayScope
	total := f.s.Slots()
	a := f.leaseIn(scope, "a", time.Hour, total)
	want(f, "slots", len(a.Held), total)
	by := outlast.Action{Who: "ann", Reason: "the broker moves"}
	f.must(f.s.Operator().SetPaused(f.ctx, scope, true, by)) // a group of that name
	want(f, "share with a group paused", f.leaseIn(scope, "a", time.Hour, total).Share, total)
	f.must(f.s.Operator().SetPaused(f.ctx, scope, false, by))

	f.must(f.s.Operator().SetPaused(f.ctx, outlast.RelaySwitch, true, by))
	st := f.status()
	want(f, "paused groups", len(st.Groups), 0)
	if p := st.RelaysPaused; p == nil || p.Who != "ann" || p.Reason != "the broker moves" || p.Since.IsZero() {
		f.Fatalf("the status tells %+v of the pause", p)
	}
	again := f.leaseIn(scope, "a", time.Hour, total)
	want(f, "share while paused", again.Share, 0)
	want(f, "lost", again.Lost, false)
	wantList(f, "leases, for their owner to give back", again.Held, a.Held)
	f.release(scope, "a", again.Held...)
	for _, owner := range []string{"a", "b"} {
		g := f.leaseIn(scope, owner, time.Hour, total)
		want(f, "slots of "+owner+" while paused", len(g.Held), 0)
		want(f, "share of "+owner, g.Share, 0)
	}
	want(f, "relays alive", len(f.status().Relays), 2)
	want(f, "share in another scope", f.leaseIn(testScope, "a", time.Hour, 4).Share, 4)

	f.must(f.s.Operator().SetPaused(f.ctx, outlast.RelaySwitch, false, by))
	if p := f.status().RelaysPaused; p != nil {
		f.Fatalf("the status tells %+v of no pause", p)
	}
	b := f.leaseIn(scope, "b", time.Hour, total)
	want(f, "share after all", b.Share, (total+1)/2)
	want(f, "slots after all", len(b.Held), (total+1)/2)
	if len(b.Held) > 0 && b.Held[0].Epoch <= leaseOf(a.Held, b.Held[0].Slot).Epoch {
		f.Fatalf("epoch %d follows %d", b.Held[0].Epoch, leaseOf(a.Held, b.Held[0].Slot).Epoch)
	}
}

func (f *storeFixture) leaseTakeover() {
	a := f.leaseIn(testScope, "a", 300*time.Millisecond, 3)
	var b outlast.LeaseGrant
	f.eventually("the dead owner's leases are taken over", func() bool {
		b = f.leaseIn(testScope, "b", time.Hour, 3)
		return len(b.Held) == 3
	})
	want(f, "owners", b.Owners, 1)
	for i, l := range b.Held {
		if old := leaseOf(a.Held, l.Slot); l.Epoch <= old.Epoch {
			f.Fatalf("slot %d: epoch %d follows %d (%d)", l.Slot, l.Epoch, old.Epoch, i)
		}
	}
}

func (f *storeFixture) leaseLost() {
	a := f.leaseIn(testScope, "a", time.Millisecond, 3)
	want(f, "lost at first", a.Lost, false)
	time.Sleep(settling) // longer than the lease: nothing but time ends it
	again := f.leaseIn(testScope, "a", time.Hour, 3)
	want(f, "lost", again.Lost, true)
	want(f, "slots taken anew", len(again.Held), 3)
	for _, l := range again.Held {
		if old := leaseOf(a.Held, l.Slot); l.Epoch <= old.Epoch {
			f.Fatalf("slot %d was renewed: epoch %d follows %d", l.Slot, l.Epoch, old.Epoch)
		}
	}
	want(f, "lost afterwards", f.leaseIn(testScope, "a", time.Hour, 3).Lost, false)
}

func (f *storeFixture) leaseRenewed() {
	a := f.leaseIn(testScope, "a", time.Hour, 5)
	for range 3 {
		again := f.leaseIn(testScope, "a", time.Hour, 5)
		want(f, "lost", again.Lost, false)
		wantList(f, "leases", again.Held, a.Held)
	}
}

func (f *storeFixture) leaseScopes() {
	want(f, "slots in one scope", len(f.leaseIn("one", "a", time.Hour, 3).Held), 3)
	g := f.leaseIn("other", "b", time.Hour, 7)
	want(f, "slots in the other scope", len(g.Held), 7)
	want(f, "owners in the other scope", g.Owners, 1)
	f.release("other", "a")
	want(f, "slots after a stranger's release", len(f.leaseIn("other", "b", time.Hour, 7).Held), 7)
}

// leaseOneOwner lets owners come, go and fall asleep at once. Each writes down when
// it surely held a slot, by its own clock and from within the lease.
func (f *storeFixture) leaseOneOwner() {
	const total, owners, rounds = 6, 4, 15
	var mu sync.Mutex
	epochs := map[outlast.Lease]string{} // who was given a slot under an epoch
	var wg sync.WaitGroup
	for o := range owners {
		wg.Go(func() {
			owner := fmt.Sprintf("owner %d", o)
			for i := range rounds {
				ttl := time.Hour
				if (i+o)%5 == 4 {
					ttl = time.Millisecond
				}
				g, err := f.s.Leases().Lease(f.ctx, outlast.LeaseRequest{Scope: testScope, Owner: owner, TTL: ttl, Total: total})
				if err != nil {
					f.Errorf("lease: %v", err)
					return
				}
				mu.Lock()
				for _, l := range g.Held {
					if other, ok := epochs[l]; ok && other != owner {
						f.Errorf("slot %d epoch %d was given to %s and %s", l.Slot, l.Epoch, other, owner)
					}
					epochs[l] = owner
				}
				mu.Unlock()
				if extra := len(g.Held) - g.Share; extra > 0 {
					if err := f.s.Leases().Release(f.ctx, testScope, owner, g.Held[:extra]); err != nil {
						f.Errorf("release: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	taken := map[int]string{}
	for o := range owners {
		owner := fmt.Sprintf("owner %d", o)
		for _, l := range f.leaseIn(testScope, owner, time.Hour, total).Held {
			if other, ok := taken[l.Slot]; ok {
				f.Fatalf("slot %d is held by %s and %s", l.Slot, other, owner)
			}
			taken[l.Slot] = owner
		}
	}
}

func (f *storeFixture) leaseLateRelease() {
	old := f.leaseIn(testScope, "a", time.Millisecond, 3)
	time.Sleep(settling) // longer than the lease: nothing but time ends it
	again := f.leaseIn(testScope, "a", time.Hour, 3)
	f.release(testScope, "a", old.Held...)
	want(f, "slots that another can take", len(f.leaseIn(testScope, "b", time.Hour, 3).Held), 0)
	wantList(f, "leases", f.leaseIn(testScope, "a", time.Hour, 3).Held, again.Held)
	f.release(testScope, "a", again.Held[0])
	want(f, "slots that another can take", len(f.leaseIn(testScope, "b", time.Hour, 3).Held), 1)
}

func (f *storeFixture) leaseRelease() {
	a := f.leaseIn(testScope, "a", time.Hour, 4)
	f.release(testScope, "b", a.Held...) // not b's to give
	wantList(f, "leases", f.leaseIn(testScope, "a", time.Hour, 4).Held, a.Held)
	f.release(testScope, "a")
	b := f.leaseIn(testScope, "b", time.Hour, 4)
	want(f, "owners after one has left", b.Owners, 1)
	want(f, "slots of the other", len(b.Held), 4)
	f.release("never used", "a")
}
