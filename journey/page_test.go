package journey_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

func TestPages(t *testing.T) {
	t.Run("every message is on one page", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var ids []string
			for range 25 {
				for _, r := range w.send("order.placed.v1", 1) {
					w.receive(r)
					ids = append(ids, r.ID)
				}
				time.Sleep(time.Second)
			}
			time.Sleep(time.Hour)
			slices.Reverse(ids)
			a := journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}, Limit: 10, Paged: true}
			var got []string
			for _, want := range []journey.Page{
				{First: 1, Last: 10, Total: 25, Newest: true, Earlier: ids[9]},
				{First: 11, Last: 20, Total: 25, Earlier: ids[19]},
				{First: 21, Last: 25, Total: 25, Later: ids[9]},
			} {
				found, err := a.Find(t.Context(), "o-1")
				w.must(err)
				if *found.Page != want || found.More {
					t.Errorf("the page is %+v, want %+v", *found.Page, want)
				}
				for _, s := range found.Stories {
					got = append(got, s.ID)
					if lines := strings.Join(s.Lines(), ", "); lines != "orders: sent, billing: handled" {
						t.Errorf("message %s is %s", s.ID, lines)
					}
				}
				a.Before = found.Page.Earlier
			}
			if !slices.Equal(got, ids) {
				t.Errorf("the pages hold\n%v, want\n%v", got, ids)
			}
			a.Before = ids[24]
			if found, err := a.Find(t.Context(), "o-1"); err != nil || len(found.Stories) > 0 || found.Page.First > 0 || found.Page.Later != ids[14] {
				t.Errorf("behind the last page: %+v, %v", found.Page, err)
			}
			a.Before = ""
			a.Places = append(a.Places, journey.Place{Name: "gone"})
			if found, err := a.Find(t.Context(), "o-1"); err != nil || !found.Page.AtLeast || found.Page.Total != 25 {
				t.Errorf("with a gap: %+v, %v", found.Page, err)
			}
		})
	})
	t.Run("a flow is read with the causes of a page", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			root := w.send("order.placed.v1", 1)[0]
			for range 24 {
				time.Sleep(time.Second)
				w.caused(root)
			}
			a := journey.Asker{Places: []journey.Place{{Name: "orders", Store: w.orders}, {Name: "billing", Store: w.billing}}, Limit: 10, Paged: true}
			newest, err := a.Flow(t.Context(), root.ID)
			w.must(err)
			if newest.Page.First != 1 || newest.Page.Total != 25 || len(newest.Roots) != 1 || !newest.Roots[0].Aside || len(newest.Roots[0].Caused) != 10 {
				t.Fatalf("the newest page is %+v, below %+v", newest.Page, newest.Roots)
			}
			a.Before = newest.Page.Earlier
			next, err := a.Flow(t.Context(), root.ID)
			w.must(err)
			a.Before = next.Page.Earlier
			last, err := a.Flow(t.Context(), root.ID)
			w.must(err)
			if last.Page.Last != 25 || last.Page.Earlier != "" || last.Count != 5 || last.Roots[0].ID != root.ID || last.Roots[0].Aside {
				t.Errorf("the last page is %+v, below %+v", last.Page, last.Roots)
			}
			a.Before = ""
			if flow, err := a.Flow(t.Context(), next.Roots[0].Caused[3].ID); err != nil || flow.ID != root.ID || flow.Page.First != 11 {
				t.Errorf("the flow of a message opens at %+v, %v", flow.Page, err)
			}
		})
	})
	t.Run("what only an inbox knows is found by its id", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			row := w.send("order.placed.v1", 1)[0]
			w.receive(row)
			a := journey.Asker{Places: []journey.Place{{Name: "billing", Store: w.billing}}, Limit: 10, Paged: true}
			if found, err := a.Find(t.Context(), row.ID); err != nil || len(found.Stories) != 1 || found.Page.Total != 1 {
				t.Errorf("found %+v, %v", found, err)
			}
		})
	})
}

// TestPagesBehindWhatIsCounted: a page that nobody counts up to is there all the same.
func TestPagesBehindWhatIsCounted(t *testing.T) {
	t.Parallel()
	const many = 50_015
	store := memory.NewStore()
	tx := store.Begin()
	messages := make([]outlast.Message, many)
	for i := range messages {
		messages[i] = outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "order.placed.v1", Key: "k"}, Body: []byte("{}")}
	}
	if err := outlast.NewOutbox(store).Publish(t.Context(), tx, messages...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	a := journey.Asker{Places: []journey.Place{{Name: "orders", Store: store}}, Limit: 10, Paged: true, Before: messages[25].ID}
	var seen []string
	for _, want := range []journey.Page{
		{First: 49_991, Last: 50_000, Total: 50_000, AtLeast: true},
		{Total: 50_000, AtLeast: true},
		{Total: 50_000, AtLeast: true},
	} {
		found, err := a.Find(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found.Stories {
			seen = append(seen, s.ID)
		}
		got := *found.Page
		if a.Before, got.Later, got.Earlier = got.Earlier, "", ""; got != want {
			t.Errorf("the page is %+v, want %+v", got, want)
		}
	}
	if len(seen) != 25 || seen[24] != messages[0].ID || a.Before != "" {
		t.Errorf("%d messages were seen, then %q", len(seen), a.Before)
	}
}
