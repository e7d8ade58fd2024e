package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestUnsuspectWaitsForNoHandler: whoever has the message in hand locks its count for as
// long as the handler runs. Others leave the count then, and are not held up.
func TestUnsuspectWaitsForNoHandler(t *testing.T) {
	t.Parallel()
	db := openURL(t, servers.Database(t))
	store := postgres.Store(db)
	must(t, store.Migrations().Up(t.Context(), 0))
	inbox, id := store.Inbox(), outlast.NewID()
	takeBack := func(want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // of a handler that never ends
		defer cancel()
		if done, err := inbox.Unsuspect(ctx, "billing", "orders", id); err != nil || done != want {
			t.Errorf("taken back: %v, %v; want %v", done, err, want)
		}
	}
	for range 2 {
		_, err := inbox.Suspect(t.Context(), "billing", "orders", id)
		must(t, err)
	}
	tx, err := inbox.Begin(t.Context(), "billing", []outlast.Mark{{Source: "orders", ID: id, Redelivered: true}})
	must(t, err)
	takeBack(false)
	tx.Rollback()
	takeBack(true)
	n, err := inbox.Suspect(t.Context(), "billing", "orders", id)
	must(t, err)
	if n != 2 {
		t.Errorf("counted %d times after two, one back and one more", n)
	}
}

// TestUnsuspectTakesEachCountOnce: processes that count and take back at the same time do
// not overlook each other.
func TestUnsuspectTakesEachCountOnce(t *testing.T) {
	t.Parallel()
	db := openURL(t, servers.Database(t))
	store := postgres.Store(db)
	must(t, store.Migrations().Up(t.Context(), 0))
	inbox, id := store.Inbox(), outlast.NewID()
	var processes sync.WaitGroup
	for range 8 {
		processes.Go(func() {
			for range 50 {
				_, err := inbox.Suspect(t.Context(), "billing", "orders", id)
				for done := false; !done && err == nil; {
					done, err = inbox.Unsuspect(t.Context(), "billing", "orders", id)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	processes.Wait()
	n, err := inbox.Suspect(t.Context(), "billing", "orders", id)
	must(t, err)
	if n != 1 {
		t.Errorf("%d counts are left of 400 that were taken back", n-1)
	}
}
