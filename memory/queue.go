package memory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/outlastmq/outlast"
)

type binding struct{ exchange, key string }

// queue keeps messages in order. An ordered one serves its first consumer only.
// The broker's mu guards everything here.
type queue struct {
	name      string
	ordered   bool
	bindings  map[binding]bool
	ready     []*stored
	consumers []*session
	sick      bool
	limit     int
}

// stored is one message in one queue.
type stored struct {
	seq         int64
	headers     []outlast.WireHeader
	contentType string
	body        []byte
	redelivered bool
	// exchange and key are where it was published.
	exchange, key string
}

func newQueue(name string, ordered bool) *queue {
	return &queue{name: name, ordered: ordered, bindings: map[binding]bool{}}
}

func (q *queue) full() bool { return q.limit > 0 && len(q.ready) >= q.limit }

// route returns the queues that a message reaches, each once.
func (b *Broker) route(exchange, key string) []*queue {
	if exchange == "" { // the default exchange: the key is a queue's name
		if q := b.queues[key]; q != nil {
			return []*queue{q}
		}
		return nil
	}
	var found []*queue
	for _, q := range b.queues {
		for bind := range q.bindings {
			if bind.exchange == exchange && topicMatches(bind.key, key) {
				found = append(found, q)
				break
			}
		}
	}
	slices.SortFunc(found, func(a, b *queue) int { return cmp.Compare(a.name, b.name) })
	return found
}

func topicMatches(pattern, key string) bool {
	return wordsMatch(strings.Split(pattern, "."), strings.Split(key, "."))
}

func wordsMatch(pattern, words []string) bool {
	for len(pattern) > 0 {
		switch {
		case pattern[0] == "#":
			for i := range len(words) + 1 {
				if wordsMatch(pattern[1:], words[i:]) {
					return true
				}
			}
			return false
		case len(words) == 0 || pattern[0] != "*" && pattern[0] != words[0]:
			return false
		}
		pattern, words = pattern[1:], words[1:]
	}
	return len(words) == 0
}

func (b *Broker) enqueue(q *queue, m *stored) {
	b.seq++
	m.seq = b.seq
	q.ready = append(q.ready, m)
	q.poke()
}

func (q *queue) poke() {
	for _, s := range q.consumers {
		s.sub.poke()
	}
}

// session is one subscription of a subscriber; acknowledgements belong to it.
type session struct {
	name    string // no other session has it
	sub     *subscriber
	q       *queue
	unacked map[int64]*stored
	closed  bool
	why     string
}

func (q *queue) subscribe(sub *subscriber) *session {
	sub.b.sessions++
	s := &session{name: fmt.Sprintf("%s/%d", q.name, sub.b.sessions), sub: sub, q: q, unacked: map[int64]*stored{}}
	q.consumers = append(q.consumers, s)
	return s
}

// next takes the next message for the session, or returns nil.
func (s *session) next() *stored {
	q := s.q
	if s.closed || len(q.ready) == 0 || len(s.unacked) >= s.sub.prefetch() || q.ordered && q.consumers[0] != s {
		return nil
	}
	m := q.ready[0]
	q.ready = q.ready[1:]
	s.unacked[m.seq] = m
	return m
}

// close ends the session; what it had unacknowledged goes back to its old place.
func (s *session) close(why string) {
	if s.closed {
		return
	}
	s.closed, s.why = true, why
	q := s.q
	q.consumers = slices.DeleteFunc(q.consumers, func(c *session) bool { return c == s })
	for _, m := range s.unacked {
		m.redelivered = true
		q.ready = append(q.ready, m)
	}
	s.unacked = nil
	slices.SortFunc(q.ready, func(a, b *stored) int { return cmp.Compare(a.seq, b.seq) })
	q.poke()
	s.sub.poke()
}
