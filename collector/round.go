package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// look is what one database said in a round.
type look struct {
	name    string
	store   outlast.Store
	service string
	tracked bool
	since   time.Time
	status  *outlast.StoreStatus
	hearers []outlast.Hearer
	whys    map[string]string // ids to keep, and why
	samples []string          // messages that may have begun a flow of the share
	cursors map[string]int64  // where the next round goes on
	more    bool
	// unclosed: it cannot tell yet which minutes are over
	unclosed bool
	err      error
}

func (l *look) keep(id, why string) {
	if graver(why, l.whys[id]) {
		l.whys[id] = why
	}
}

// Round asks every database once, and the store to keep what was said; the first one makes
// the store's tables. One round runs at a time. It may be ended
// at any moment, by a kill too: cursors move only behind what was kept, so that the next
// round reads the rest, or the same once more.
func (c *Collector) Round(ctx context.Context) (Report, error) {
	r := Report{Unknown: map[string]string{}}
	began := time.Now()
	if !c.made {
		if err := c.c.Store.Migrate(ctx); err != nil {
			return r, err
		}
		c.made = true
	}
	cursors, err := c.c.Store.cursors(ctx)
	if err != nil {
		return r, err
	}
	looks := c.look(ctx, cursors)
	due, err := c.c.Store.due(ctx, began, c.c.Look)
	if err != nil {
		return r, err
	}
	whys := map[string]string{}
	var flows []string
	for _, m := range due {
		whys[m.id] = m.why
		if m.why == WhySample {
			flows = append(flows, m.flow)
		}
	}
	for _, l := range looks {
		for id, why := range l.whys {
			if graver(why, whys[id]) {
				whys[id] = why
			}
		}
	}
	for _, id := range c.sampled(ctx, looks, flows) {
		if whys[id] == "" {
			whys[id] = WhySample
		}
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	wiped := cursors[[2]string{"", "wiped"}]
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(whys)), frame) {
		if err = c.frame(ctx, wiped, looks, ids, whys, began); err != nil {
			break
		}
		r.Asked += len(ids)
	}
	if err == nil {
		err = c.c.Store.finish(ctx, wiped, looks, began)
	}
	if errors.Is(err, errWiped) {
		r.More = true // from the beginning
		return r, nil
	}
	if err != nil {
		return r, err
	}
	for _, l := range looks {
		if l.err != nil {
			r.Unknown[l.name] = l.err.Error() // what more there is, is asked for when it answers: its cursors stay
		} else if l.more {
			r.More = true
		}
		if l.unclosed {
			r.Unclosed++
		}
	}
	r.Shed, r.Kept, err = c.keep(ctx)
	return r, err
}

// look asks every database for what waits there and what is wrong, all at once.
func (c *Collector) look(ctx context.Context, cursors map[[2]string]int64) []*look {
	looks := make([]*look, len(c.c.Places))
	var all sync.WaitGroup
	for i, p := range c.c.Places {
		l := &look{name: key(p.Name), store: p.Store, whys: map[string]string{}, cursors: map[string]int64{}}
		looks[i] = l
		if p.Store == nil {
			if l.err = p.Err; l.err == nil {
				l.err = fmt.Errorf("it cannot be asked")
			}
			continue
		}
		all.Go(func() {
			l.err = c.ask(ctx, l, func(kind string) int64 { return cursors[[2]string{l.name, kind}] })
		})
	}
	all.Wait()
	return looks
}

// brief bounds one answer of a database.
func (c *Collector) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.c.Patience)
}

func (c *Collector) ask(ctx context.Context, l *look, cursor func(kind string) int64) error {
	short, cancel := c.brief(ctx)
	defer cancel()
	var err error
	if l.status, err = l.store.Operator().Status(short); err != nil {
		return err
	}
	if l.hearers, err = l.store.Journal().Hearers(short); err != nil {
		return err
	}
	page, err := l.store.Journal().Facts(short, outlast.FactQuery{Limit: 1})
	if err != nil {
		return err
	}
	l.service, l.tracked, l.since = page.Service, page.Tracked, page.Since
	if err := c.sweep(ctx, l, cursor); err != nil {
		return err
	}
	if !l.tracked {
		return nil
	}
	if err := c.missing(ctx, l); err != nil {
		return err
	}
	return c.minutes(ctx, l, cursor("minute"))
}

// sweep reads what lies in one place after another, page by page, from where the last
// round stopped to the end, and then from the beginning: what is selected by its state
// and never by a greatest number cannot be missed.
func (c *Collector) sweep(ctx context.Context, l *look, cursor func(kind string) int64) error {
	o := l.store.Operator()
	type lister = func(context.Context, outlast.Filter) ([]outlast.Item, error)
	for _, s := range []struct {
		kind string
		why  string
		list lister
		f    outlast.Filter
	}{
		{"dead", WhyDead, o.Dead().List, outlast.Filter{}},
		{"waiting", WhyWaiting, o.Retries().List, outlast.Filter{OlderThan: c.c.Grace}},
		{"pending", WhyPending, o.Outbox().List, outlast.Filter{OlderThan: c.c.Grace}},
		{"held refused", WhyHeld, o.Outbox().List, outlast.Filter{Reason: string(outlast.HeldRefused)}},
		{"held unroutable", WhyHeld, o.Outbox().List, outlast.Filter{Reason: string(outlast.HeldUnroutable)}},
		{"held route", WhyHeld, o.Outbox().List, outlast.Filter{Reason: string(outlast.HeldRoute)}},
		{"held backoff", WhyHeld, o.Outbox().List, outlast.Filter{Reason: string(outlast.HeldBackoff)}},
	} {
		f := s.f
		for f.After = cursor(s.kind); ; {
			f.Limit = min(c.c.Look, 1000)
			short, cancel := c.brief(ctx)
			items, err := s.list(short, f)
			cancel()
			if err != nil {
				return err
			}
			for _, i := range items {
				switch i.Reason {
				case string(outlast.HeldDue), string(outlast.HeldBehind): // nothing is wrong with these
					if i.Where == "held" {
						continue
					}
				}
				why := s.why
				if i.Where == "held" {
					why = WhyHeld
				}
				l.keep(i.Envelope.ID, why)
			}
			if len(items) < f.Limit {
				f.After = 0
				break
			}
			if f.After = items[len(items)-1].Seq; len(l.whys) >= c.c.Look {
				l.more = true
				break
			}
		}
		l.cursors[s.kind] = f.After
	}
	return nil
}

// missing takes the ids that the books name.
func (c *Collector) missing(ctx context.Context, l *look) error {
	short, cancel := c.brief(ctx)
	defer cancel()
	list, err := l.store.Books().Minutes(short, outlast.MinuteQuery{State: outlast.MinuteUnbalanced, Limit: 1000})
	if err != nil {
		return err
	}
	n := 0
	for _, m := range list {
		lines, err := l.store.Books().Lines(short, m.Minute)
		if err != nil {
			return err
		}
		for _, line := range lines {
			for _, id := range line.Missing {
				if n++; n > c.c.Look {
					return nil
				}
				l.keep(id, WhyMissing)
			}
		}
	}
	return nil
}

// minutes looks through the minutes that are over for messages of the share.
func (c *Collector) minutes(ctx context.Context, l *look, cursor int64) error {
	l.cursors["minute"] = cursor
	if c.c.Share == 0 {
		return nil
	}
	short, cancel := c.brief(ctx)
	closed, err := journey.Closed(short, l.store)
	cancel()
	if err != nil || closed.IsZero() {
		l.unclosed = err == nil
		return err
	}
	minute := closed.Add(-c.c.History).Truncate(time.Minute)
	if from := time.UnixMicro(cursor).UTC(); from.After(minute) {
		minute = from
	}
	for ; !minute.Add(time.Minute).After(closed); minute = minute.Add(time.Minute) {
		short, cancel := c.brief(ctx)
		err := l.store.Books().Sent(short, minute, func(m outlast.SentMessage) error {
			if c.chosen(m.ID) {
				l.samples = append(l.samples, m.ID)
			}
			return nil
		})
		cancel()
		if err != nil {
			return err
		}
		l.cursors["minute"] = minute.Add(time.Minute).UnixMicro()
		if len(l.samples) >= c.c.Look {
			l.more = true
			return nil
		}
	}
	return nil
}

// chosen reports whether the flow that a message began is of the share.
func (c *Collector) chosen(id string) bool {
	return float64(journey.Hash(id)>>11)/(1<<53) < c.c.Share
}

// frame is how many messages are asked for at once and kept by one transaction.
const frame = 200

// sampled returns the ids of the messages of the flows that are of the share.
func (c *Collector) sampled(ctx context.Context, looks []*look, flows []string) []string {
	var suspects []string
	for _, l := range looks {
		suspects = append(suspects, l.samples...)
	}
	for ids := range slices.Chunk(suspects, frame) {
		for _, answer := range c.facts(ctx, looks, outlast.FactQuery{IDs: ids}) {
			for _, f := range answer {
				if e := f.Envelope; e != nil && (e.CorrelationID == "" || e.CorrelationID == f.ID) && c.chosen(f.ID) {
					flows = append(flows, f.ID)
				}
			}
		}
	}
	slices.Sort(flows)
	var ids []string
	for part := range slices.Chunk(slices.Compact(flows), frame) {
		for _, answer := range c.facts(ctx, looks, outlast.FactQuery{IDs: part, Flows: part, Limit: 10_000}) {
			for _, f := range answer {
				ids = append(ids, f.ID)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// facts puts one question to every database that has answered so far, all at once. One
// that fails has given no answer in this round.
func (c *Collector) facts(ctx context.Context, looks []*look, q outlast.FactQuery) [][]outlast.Fact {
	answers := make([][]outlast.Fact, len(looks))
	var all sync.WaitGroup
	for i, l := range looks {
		if l.err != nil {
			continue
		}
		all.Go(func() {
			if answers[i], l.err = c.whole(ctx, l.store, q); l.err != nil {
				answers[i] = nil
			}
		})
	}
	all.Wait()
	return answers
}

// whole halves the question while the answer is more than a database tells at once.
func (c *Collector) whole(ctx context.Context, store outlast.Store, q outlast.FactQuery) ([]outlast.Fact, error) {
	short, cancel := c.brief(ctx)
	page, err := store.Journal().Facts(short, q)
	cancel()
	if err != nil || !page.More || len(q.IDs) < 2 {
		return page.Facts, err
	}
	half := len(q.IDs) / 2
	first, second := q, q
	first.IDs, second.IDs = q.IDs[:half], q.IDs[half:]
	if q.Flows != nil { // the same ids
		first.Flows, second.Flows = first.IDs, second.IDs
	}
	a, err := c.whole(ctx, store, first)
	if err != nil {
		return nil, err
	}
	b, err := c.whole(ctx, store, second)
	return append(a, b...), err
}

// frame asks every database for some messages and keeps what it says.
func (c *Collector) frame(ctx context.Context, wiped int64, looks []*look, ids []string, whys map[string]string, at time.Time) error {
	answers := c.facts(ctx, looks, outlast.FactQuery{IDs: ids, Limit: 10_000})
	old, err := c.c.Store.told(ctx, ids)
	if err != nil {
		return err
	}
	byID := map[string]*kept{}
	for _, id := range ids {
		k := &kept{id: id, why: whys[id], asked: at, told: map[string]told{}}
		for _, t := range old[id] {
			k.told[t.place] = t
		}
		byID[id] = k
	}
	for i, l := range looks {
		if l.err != nil {
			continue // what it said before stays
		}
		for _, k := range byID {
			k.told[l.name] = told{place: l.name, at: at, fresh: true}
		}
		for _, f := range answers[i] {
			k := byID[f.ID]
			if k == nil {
				continue
			}
			if f.Envelope != nil {
				e := *f.Envelope
				e.Headers = nil
				f.Envelope = &e
			}
			t := k.told[l.name]
			t.facts = append(t.facts, f)
			k.told[l.name] = t
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // answers that were cut off are none
	}
	bench := journey.Bench{Now: at, Complete: true}
	for _, l := range looks {
		bench.Hearers = append(bench.Hearers, l.hearers...)
		bench.Complete = bench.Complete && l.err == nil
	}
	return c.c.Store.keep(ctx, wiped, slices.Collect(maps.Values(byID)), c.settleAfter(), bench)
}

// settleAfter is how old a flow of the share must be before nothing more is expected of it.
func (c *Collector) settleAfter() time.Duration { return max(10*c.c.Every, 5*time.Minute) }

// keep bounds what is kept: first what is over and too old, then, when there is still too
// much, the share of flows, what is over, and at last what is open.
func (c *Collector) keep(ctx context.Context) (shed, left int, err error) {
	s := c.c.Store
	if err := s.dropOld(ctx, time.Now().Add(-c.c.Age), c.c.Look); err != nil {
		return 0, 0, err
	}
	held, err := s.Held(ctx)
	if err != nil {
		return 0, 0, err
	}
	var bytes int64
	for _, h := range held {
		left += h.Messages
		bytes += h.Bytes
	}
	for _, turn := range []struct {
		name         string
		sample, open int
	}{{"sample", 1, 0}, {"sample", 1, 1}, {"over", 0, 0}, {"open", 0, 1}} {
		for left > c.c.Rows || bytes > c.c.Bytes {
			n, freed, err := s.shedSome(ctx, turn.sample, turn.open, left-c.c.Rows, bytes-c.c.Bytes)
			if err != nil {
				return shed, left, err
			}
			if n == 0 {
				break
			}
			shed, left, bytes = shed+n, left-n, bytes-freed
			c.mu.Lock()
			c.shed[turn.name] += int64(n)
			c.mu.Unlock()
		}
	}
	return shed, left, nil
}

func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "null" // only our own types come here, which all have a form in JSON
	}
	return string(text)
}
