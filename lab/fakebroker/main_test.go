package fakebroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/rabbitmq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; nothing asserts how long a step takes.
const patience = 60 * time.Second

func broker(urls string) outlast.Broker {
	return rabbitmq.Broker(urls, rabbitmq.Logger(slog.New(slog.DiscardHandler)), rabbitmq.MaxBackoff(10*time.Millisecond))
}

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sender is a running publisher and what it reported.
type sender struct {
	t failer
	outlast.Publisher
	stop func() // ends Run and waits for it

	mu      sync.Mutex
	changed chan struct{}
	got     map[*outlast.Publishing][]outlast.Result
	links   []outlast.Link
}

func send(t failer, b outlast.Broker) *sender {
	s := &sender{t: t, changed: make(chan struct{}), got: map[*outlast.Publishing][]outlast.Result{}}
	s.Publisher = b.Publisher(outlast.PublisherConfig{
		Results: func(rs []outlast.Result) {
			s.note(func() {
				for _, r := range rs {
					s.got[r.P] = append(s.got[r.P], r)
				}
			})
		},
		Link: func(l outlast.Link) { s.note(func() { s.links = append(s.links, l) }) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx) // only settings make it fail
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("the publisher does not end")
		}
	})
	return s
}

func (s *sender) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits for a condition of what was reported.
func (s *sender) until(what string, is func() bool) {
	s.t.Helper()
	limit := time.After(patience)
	for {
		s.mu.Lock()
		done, changed := is(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-limit:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited for %s in vain; %d resolved, links %v", what, len(s.got), s.links)
			return
		}
	}
}

// resolved waits until all of ps have an outcome.
func (s *sender) resolved(ps []*outlast.Publishing) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d outcomes", len(ps)), func() bool {
		for _, p := range ps {
			if len(s.got[p]) == 0 {
				return false
			}
		}
		return true
	})
}

// link waits for the state of the connection.
func (s *sender) link(state outlast.LinkState) {
	s.t.Helper()
	s.until("link "+string(state), func() bool { return len(s.links) > 0 && s.links[len(s.links)-1].State == state })
}

// outcome is what became of p; more than one result is a failure.
func (s *sender) outcome(p *outlast.Publishing) outlast.Outcome {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got[p]) != 1 {
		s.t.Fatalf("%s was resolved %d times: %v", p.Message.ID, len(s.got[p]), s.got[p])
	}
	return s.got[p][0].Outcome
}

// once fails when any of ps was resolved more than once, or is not one of outcomes.
func (s *sender) once(ps []*outlast.Publishing, outcomes ...outlast.Outcome) {
	s.t.Helper()
	for _, p := range ps {
		got := s.outcome(p)
		ok := false
		for _, o := range outcomes {
			ok = ok || got == o
		}
		if !ok {
			s.t.Fatalf("%s: %v, want one of %v", p.Message.ID, got, outcomes)
		}
	}
}

// delivers waits until a fresh message is confirmed: the publisher works again. A message
// that is not was sent on a connection whose end is yet to be told.
func (s *sender) delivers() {
	s.t.Helper()
	for {
		s.mu.Lock()
		told := len(s.links)
		s.mu.Unlock()
		p := publishings("again", 1)
		s.Send(99, p)
		s.resolved(p)
		if s.outcome(p[0]) == outlast.OutcomeConfirmed {
			return
		}
		s.until("another connection", func() bool { return len(s.links) > told && s.links[len(s.links)-1].State == outlast.LinkUp })
	}
}

func publishings(name string, n int) []*outlast.Publishing {
	ps := make([]*outlast.Publishing, 0, n)
	for i := range n {
		m := &outlast.Message{Body: []byte(`{"n":1}`)}
		m.ID, m.Type = fmt.Sprintf("%s-%d", name, i), "order.placed.v1"
		ps = append(ps, &outlast.Publishing{Message: m, Exchange: outlast.EventExchange, RoutingKey: "order.placed.v1.7"})
	}
	return ps
}
