package main

import (
	"context"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop"
)

// snapshot is what the tables of all services hold at one moment.
type snapshot struct {
	backlog  int           // rows in the outboxes, pending and held
	oldest   time.Duration // the age of the oldest of them
	services []serviceCount
}

// serviceCount is the progress of one service.
type serviceCount struct {
	name    string
	handled int // messages that took effect
	outbox  int
	oldest  time.Duration
	retry   int
	dead    int
}

func (s *snapshot) waiting() int {
	n := s.backlog
	for _, c := range s.services {
		n += c.retry
	}
	return n
}

func (s *snapshot) handled() int {
	n := 0
	for _, c := range s.services {
		n += c.handled
	}
	return n
}

// look reads the tables of all services at once.
func look(ctx context.Context, databases []*shop.Database) (*snapshot, error) {
	s := &snapshot{services: make([]serviceCount, len(databases))}
	errs := make([]error, len(databases))
	var wait sync.WaitGroup
	for i, db := range databases {
		wait.Go(func() { s.services[i], errs[i] = lookAt(ctx, db) })
	}
	wait.Wait()
	for i, c := range s.services {
		if errs[i] != nil {
			return nil, errs[i]
		}
		s.backlog += c.outbox
		s.oldest = max(s.oldest, c.oldest)
	}
	return s, nil
}

func lookAt(ctx context.Context, db *shop.Database) (serviceCount, error) {
	c := serviceCount{name: db.Service}
	status, err := db.Store.Operator().Status(ctx)
	if err != nil {
		return c, err
	}
	for _, r := range status.Pending {
		c.outbox += r.Count
		c.oldest = max(c.oldest, r.Oldest)
	}
	for _, h := range status.Held {
		if h.Reason != outlast.HeldDue {
			c.outbox += h.Count
			c.oldest = max(c.oldest, h.Oldest)
		}
	}
	for _, r := range status.Retry {
		c.retry += r.Count
	}
	for _, d := range status.Dead {
		c.dead += d.Count
	}
	c.handled, err = db.Effects(ctx)
	return c, err
}
