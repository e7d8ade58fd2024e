package rabbitmq

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
)

// TestF37_Tags compares the book with the plainest one: a map from tag to publishing.
// Whatever the order of publishes, confirms, refusals, returns and the channel's end,
// every publishing leaves exactly once, with what the broker said first.
func TestF37_Tags(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var book tags
		model := map[uint64]*outlast.Publishing{}
		returned := map[*outlast.Publishing]bool{}
		next, left := uint64(0), 0
		settled := map[*outlast.Publishing]int{}
		give := func(e tagEntry) {
			settled[e.p]++
			if (e.returned != nil) != returned[e.p] {
				t.Fatalf("returned is %v, want %v", e.returned, returned[e.p])
			}
		}
		settle := func(tag uint64, multiple bool) {
			book.settle(tag, multiple, give)
			for other, p := range model {
				if other == tag || multiple && (other < tag || tag == 0 && other <= next) {
					delete(model, other)
					left++
					if settled[p] != 1 {
						t.Fatalf("tag %d was given %d times", other, settled[p])
					}
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				p := &outlast.Publishing{Message: &outlast.Message{}, Exchange: "e", RoutingKey: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")}
				p.Message.ID = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id") // ids may meet
				next++
				model[next] = p
				if tag := book.add(p); tag != next {
					t.Fatalf("tag %d, want %d", tag, next)
				}
			},
			"one": func(t *rapid.T) { settle(rapid.Uint64Range(0, next+2).Draw(t, "tag"), false) },
			"multiple": func(t *rapid.T) {
				tag := rapid.Uint64Range(0, next).Draw(t, "tag")
				settle(tag, true)
			},
			"return": func(t *rapid.T) {
				tag := rapid.Uint64Range(0, next+1).Draw(t, "tag")
				p, ok := model[tag]
				if !ok || returned[p] {
					return
				}
				// Another one with the same id and place may be meant: no one can tell.
				if !book.returned(p.Exchange, p.RoutingKey, p.Message.ID, errors.New("no queue")) {
					t.Fatalf("tag %d was not found", tag)
				}
				marked := 0
				for i, e := range book.entries {
					if e.p != nil && e.returned != nil && !returned[e.p] {
						returned[e.p] = true
						marked++
						if e.p.Message.ID != p.Message.ID || e.p.RoutingKey != p.RoutingKey {
							t.Fatalf("entry %d is another message", i)
						}
					}
				}
				if marked != 1 {
					t.Fatalf("%d entries were marked", marked)
				}
			},
			"nonsense": func(t *rapid.T) {
				settle(next+rapid.Uint64Range(1, 1<<40).Draw(t, "beyond"), false)
				book.settle(next+1, true, func(tagEntry) { t.Fatal("a tag that was never given settled something") })
				if book.returned("e", "a", "nobody", errors.New("x")) {
					t.Fatal("found a message that was never sent")
				}
			},
			"": func(t *rapid.T) {
				if book.open != len(model) || len(settled) != left {
					t.Fatalf("open %d, want %d; settled %d, want %d", book.open, len(model), len(settled), left)
				}
			},
		})
		book.drain(give)
		for tag, p := range model {
			if settled[p] != 1 {
				t.Fatalf("tag %d was given %d times at the end", tag, settled[p])
			}
		}
	})
}
