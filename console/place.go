package console

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// place is a database with a short name for links.
type place struct {
	journey.Place
	Key string
}

func placesOf(list []journey.Place) (places []*place) {
	for _, p := range list {
		h := fnv.New32a()
		_, _ = h.Write([]byte(p.Name))
		places = append(places, &place{p, fmt.Sprintf("%08x", h.Sum32())})
	}
	return places
}

// place returns the database with that key.
func (x *Console) place(key string) (*place, error) {
	for _, p := range x.places {
		if p.Key != key {
			continue
		}
		if p.Store == nil {
			return nil, &outlast.Error{Op: "ask " + p.Name, Code: outlast.CodeUnavailable, Err: p.Err}
		}
		return p, nil
	}
	return nil, notFound("database")
}

// placeStatus is what waits in a database, or why that is unknown.
type placeStatus struct {
	*place
	Status  *outlast.StoreStatus
	Unknown string
}

// fresh is how long the counts of the databases are shown again.
const fresh = 2 * time.Second

// status returns what waits everywhere, at most two seconds old: however many people
// look, the databases count once.
func (x *Console) status(ctx context.Context) []placeStatus {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.read) < fresh {
		return x.statuses
	}
	list := make([]placeStatus, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) (err error) {
		list[i].Status, err = p.Store.Operator().Status(ctx)
		return err
	}, func(i int, err error) {
		list[i].Unknown = x.c.Redact(err.Error())
	})
	for i, p := range x.places {
		list[i].place = p
	}
	if ctx.Err() == nil {
		x.statuses, x.read = list, time.Now()
	}
	return list
}

// each asks every database at once, each for no longer than Patience, and reports those
// that did not answer.
func (x *Console) each(ctx context.Context, ask func(ctx context.Context, i int, p *place) error, failed func(i int, err error)) {
	ctx, cancel := context.WithTimeout(ctx, x.c.Patience)
	defer cancel()
	errs := make([]error, len(x.places))
	var all sync.WaitGroup
	for i, p := range x.places {
		if p.Store == nil {
			if errs[i] = p.Err; p.Err == nil {
				errs[i] = fmt.Errorf("it cannot be asked")
			}
			continue
		}
		all.Go(func() { errs[i] = ask(ctx, i, p) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			failed(i, err)
		}
	}
}

// brief bounds one answer of a database.
func (x *Console) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, x.c.Patience)
}

// gap is a database that did not answer.
type gap struct{ Name, Why string }
