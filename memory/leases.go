package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// scope is a set of leases with the records of their owners.
type scope struct {
	owners map[string]time.Time // when the record expires
	slots  []lease
}

type lease struct {
	owner string
	epoch int64
}

type leases struct{ s *Store }

func (l leases) Lease(ctx context.Context, r outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	op := fmt.Sprintf("lease %s", r.Scope)
	var g outlast.LeaseGrant
	if r.Total < 1 || r.TTL <= 0 || r.Owner == "" {
		return g, invalid(op, "request", "a total of at least 1, a positive TTL and an owner", fmt.Sprintf("%+v", r))
	}
	if err := l.s.enter(ctx, op, RoleLeases); err != nil {
		return g, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	sc := l.s.scopes[r.Scope]
	if sc == nil {
		sc = &scope{owners: map[string]time.Time{}}
		l.s.scopes[r.Scope] = sc
	}
	for len(sc.slots) < r.Total {
		sc.slots = append(sc.slots, lease{})
	}
	now := time.Now()
	_, known := sc.owners[r.Owner]
	g.Lost = known && !sc.isAlive(r.Owner, now)
	sc.expire(now)
	sc.owners[r.Owner] = now.Add(r.TTL)
	g.Owners = len(sc.owners)
	if _, paused := l.s.paused["@"+r.Scope]; !paused {
		g.Share = (r.Total + g.Owners - 1) / g.Owners
	}
	g.Held = sc.take(r, g.Share)
	g.Now, g.Expires = now, now.Add(r.TTL)
	return g, nil
}

func (sc *scope) isAlive(owner string, now time.Time) bool {
	until, ok := sc.owners[owner]
	return ok && until.After(now)
}

// expire frees what dead owners held. Their records go with it.
func (sc *scope) expire(now time.Time) {
	for owner, until := range sc.owners {
		if until.After(now) {
			continue
		}
		delete(sc.owners, owner)
		for i := range sc.slots {
			if sc.slots[i].owner == owner {
				sc.slots[i].owner = ""
			}
		}
	}
}

func (sc *scope) take(r outlast.LeaseRequest, share int) []outlast.Lease {
	var held []outlast.Lease
	for i, l := range sc.slots[:r.Total] {
		if l.owner == r.Owner {
			held = append(held, outlast.Lease{Slot: i, Epoch: l.epoch})
		}
	}
	for i := range sc.slots[:r.Total] {
		l := &sc.slots[i]
		if l.owner != "" || len(held) >= share {
			continue
		}
		l.owner = r.Owner
		l.epoch++
		held = append(held, outlast.Lease{Slot: i, Epoch: l.epoch})
	}
	slices.SortFunc(held, func(a, b outlast.Lease) int { return a.Slot - b.Slot })
	return held
}

func (l leases) Release(ctx context.Context, name, owner string, leases []outlast.Lease) error {
	if err := l.s.enter(ctx, fmt.Sprintf("release leases of %s", name), RoleLeases); err != nil {
		return err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	sc := l.s.scopes[name]
	if sc == nil {
		return nil
	}
	for i := range sc.slots {
		if sc.slots[i].owner == owner && (len(leases) == 0 || slices.Contains(leases, outlast.Lease{Slot: i, Epoch: sc.slots[i].epoch})) {
			sc.slots[i].owner = ""
		}
	}
	if len(leases) == 0 {
		delete(sc.owners, owner)
	}
	return nil
}
