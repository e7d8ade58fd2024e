package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// TestF13_AnEpochHasOneOwner lets owners come, renew, stall past their end and leave,
// all at once: no two may ever hold a slot under the same epoch, nothing may
// deadlock, and the last one left gets every slot.
func TestF13_AnEpochHasOneOwner(t *testing.T) {
	t.Parallel()
	_, store := open(t)
	ctx := t.Context()
	request := func(owner string) outlast.LeaseRequest {
		return outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: owner, TTL: 100 * time.Millisecond, Total: store.Slots()}
	}
	var mu sync.Mutex
	owners := map[outlast.Lease]string{}
	takeovers := 0
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			name := fmt.Sprintf("owner-%d", i)
			for range 40 {
				grant, err := store.Leases().Lease(ctx, request(name))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, l := range grant.Held {
					if other := owners[l]; other != "" && other != name {
						t.Errorf("slot %d under epoch %d was %s's and is %s's", l.Slot, l.Epoch, other, name)
					}
					owners[l] = name
					if l.Epoch > 1 {
						takeovers++
					}
				}
				mu.Unlock()
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
				if rand.IntN(8) == 0 {
					if err := store.Leases().Release(ctx, outlast.RelayScope, name, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if takeovers == 0 {
		t.Error("no slot changed hands: nothing was tested")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		grant, err := store.Leases().Lease(ctx, request("last"))
		must(t, err)
		if len(grant.Held) == store.Slots() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last owner holds %d slots", len(grant.Held))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
