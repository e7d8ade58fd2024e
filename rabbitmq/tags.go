package rabbitmq

import "github.com/outlastmq/outlast"

// tags remembers what was published on one channel until the broker has spoken
// about it. Delivery tags count from 1. Every publishing leaves exactly once.
type tags struct {
	first   uint64 // the tag of entries[0]
	entries []tagEntry
	open    int // entries that are not settled
	looked  int // where the search for a returned message goes on
}

type tagEntry struct {
	p        *outlast.Publishing // nil when settled
	returned error
}

// add returns the tag of the next publish.
func (t *tags) add(p *outlast.Publishing) uint64 {
	if t.first == 0 {
		t.first = 1
	}
	t.entries = append(t.entries, tagEntry{p: p})
	t.open++
	return t.first + uint64(len(t.entries)) - 1
}

// settle gives the entries that a confirm or a refusal of tag is about. With multiple,
// it is about all up to tag, and zero means all. A tag that is settled already or was
// never given says nothing.
func (t *tags) settle(tag uint64, multiple bool, give func(tagEntry)) {
	last := t.first + uint64(len(t.entries)) // one past
	if multiple && tag == 0 {
		tag = last - 1
	}
	if len(t.entries) == 0 || tag < t.first || tag >= last {
		return
	}
	index := int(tag - t.first)
	if !multiple {
		t.settleAt(index, give)
	}
	for i := 0; multiple && i <= index; i++ {
		t.settleAt(i, give)
	}
	t.trim()
}

func (t *tags) settleAt(i int, give func(tagEntry)) {
	e := t.entries[i]
	if e.p == nil {
		return
	}
	t.entries[i] = tagEntry{}
	t.open--
	give(e)
}

// trim forgets the settled entries at the front.
func (t *tags) trim() {
	n := 0
	for n < len(t.entries) && t.entries[n].p == nil {
		n++
	}
	t.entries = t.entries[n:] // append moves the rest when the array's end is reached
	t.first += uint64(n)
	t.looked = max(0, t.looked-n)
}

// returned notes that the broker could not route a message. Returns come in the
// order of the publishes, so that the search goes on where the last one ended. It
// reports whether the message was found.
func (t *tags) returned(exchange, key, id string, reason error) bool {
	for n := range len(t.entries) {
		i := (t.looked + n) % len(t.entries)
		e := &t.entries[i]
		if e.p == nil || e.returned != nil || e.p.Message.ID != id || e.p.Exchange != exchange || e.p.RoutingKey != key {
			continue
		}
		e.returned = reason
		t.looked = i + 1
		return true
	}
	return false
}

// drain gives everything that is left.
func (t *tags) drain(give func(tagEntry)) {
	for i := range t.entries {
		t.settleAt(i, give)
	}
	*t = tags{}
}
