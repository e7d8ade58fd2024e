package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/examples/shop"
)

const (
	demoLook    = 250 * time.Millisecond // between two looks into the tables
	demoRestart = time.Second            // from a kill to the restart
	// How long nothing may move before the demo gives up: while something waits in a
	// table, and while something is missing that waits nowhere.
	demoWaits   = 5 * time.Minute
	demoMissing = 30 * time.Second
)

// demo is one run.
type demo struct {
	p         *program
	f         *demoFlags
	dir       string
	view      *demoView
	fleet     *fleet
	cut       *cutter // in front of a broker that is not ours
	ownBroker bool
	api       string
	databases []*shop.Database
	console   string // its address
	broker    string // where the services find it
	orders    *load
	// acceptedBefore is the number of orders accepted before the outage.
	acceptedBefore int64

	mu        sync.Mutex
	longest   int       // backlog
	outageEnd time.Time // zero before
	recovered time.Duration
	recovery  bool // recovered is known
}

func newDemo(p *program, f *demoFlags, dir string) *demo {
	return &demo{p: p, f: f, dir: dir, view: newDemoView(p)}
}

// run is the demo itself: orders and faults, the rest of the work, the report.
func (d *demo) run(ctx context.Context) error {
	d.orders = newLoad(d.api, d.f.rate, !d.f.noFaults)
	watching, stopWatching := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stopWatching()
	d.view.begin = time.Now()
	d.view.event("the shop is open: %d orders a second for %s", d.f.rate, durationText(d.f.lasts))
	background.Go(func() { d.watch(watching) })

	if err := d.placeOrders(ctx); err != nil {
		return err
	}
	d.view.event("no more orders; waiting until everything is handled")
	report, err := d.settle(ctx)
	stopWatching()
	background.Wait()
	if err != nil {
		return err
	}
	if s, err := look(ctx, d.databases); err == nil {
		d.show(s)
	}
	d.view.finish()
	if err := d.fleet.stopAll(shop.Services...); err != nil {
		return err
	}
	d.complete(report)
	if err := d.report(report); err != nil || !d.f.stay {
		return err
	}
	return d.stay(ctx)
}

// stay opens the shop again, with the poison mended, until a person ends it.
func (d *demo) stay(ctx context.Context) error {
	d.fleet.env = append(d.fleet.env, demoMendedEnv+"=1")
	if err := d.startAll(ctx); err != nil {
		return err
	}
	d.view.say("\nThe shop is open again, and payments takes the cards that it refused. Its dead letters are at\n%sfailures: choose a failure and retry it,"+
		" then look for one of its orders.\nThe API of orders is at http://%s/orders. Ctrl-C ends the demo.", d.console, d.api)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // a process has ended by itself
	}
	return nil
}

// placeOrders places orders for the set time, and makes trouble meanwhile.
func (d *demo) placeOrders(ctx context.Context) error {
	begin := time.Now()
	placing, stop := context.WithDeadline(ctx, begin.Add(d.f.lasts))
	defer stop()
	var placed sync.WaitGroup
	placed.Go(func() { d.orders.run(placing) })
	var err error
	if !d.f.noFaults {
		err = d.trouble(ctx, begin)
	}
	if err != nil {
		stop()
	}
	placed.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// trouble is the list of faults, at fixed parts of the time.
func (d *demo) trouble(ctx context.Context, begin time.Time) error {
	calm := d.f.lasts - d.f.outage
	breakBroker := begin.Add(calm / 5)
	afterwards := breakBroker.Add(d.f.outage)
	steps := []struct {
		at time.Time
		do func(context.Context) error
	}{
		{breakBroker, d.loseBroker},
		{afterwards, d.returnBroker},
		{afterwards.Add(calm * 3 / 10), func(ctx context.Context) error {
			return d.killAndRestart(ctx, "payments", "the consumer of payments, with messages in hand,")
		}},
		{afterwards.Add(calm * 55 / 100), func(ctx context.Context) error {
			return d.killAndRestart(ctx, roleRelay, "the relay of orders")
		}},
	}
	for _, s := range steps {
		if !pause(ctx, time.Until(s.at)) {
			return ctx.Err()
		}
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) loseBroker(context.Context) error {
	outage := durationText(d.f.outage)
	d.acceptedBefore = d.orders.accepted.Load()
	if d.cut != nil {
		d.cut.cut()
		d.view.event("the way to the broker is cut for %s; orders go on being accepted", outage)
		return nil
	}
	if err := d.fleet.kill(roleBroker); err != nil {
		return err
	}
	d.view.event("broker killed with SIGKILL and left down for %s; orders go on being accepted", outage)
	return nil
}

func (d *demo) returnBroker(ctx context.Context) error {
	if d.cut != nil {
		if err := d.cut.restore(); err != nil {
			return err
		}
	} else if _, err := d.fleet.start(ctx, roleBroker); err != nil {
		return err
	}
	d.mu.Lock()
	d.outageEnd = time.Now()
	d.mu.Unlock()
	d.view.event("the broker is back; %s accepted without it; the backlog drains", plural(int(d.orders.accepted.Load()-d.acceptedBefore), "order"))
	return nil
}

func (d *demo) killAndRestart(ctx context.Context, role, name string) error {
	if err := d.fleet.kill(role); err != nil {
		return err
	}
	d.view.event("%s was killed with SIGKILL", name)
	if !pause(ctx, demoRestart) {
		return ctx.Err()
	}
	if _, err := d.fleet.start(ctx, role); err != nil {
		return err
	}
	d.view.event("%s is running again", role)
	return nil
}

// watch looks into the tables until ctx ends, and shows what it sees.
func (d *demo) watch(ctx context.Context) {
	var shown time.Time
	for ctx.Err() == nil {
		at := time.Now()
		s, err := look(ctx, d.databases)
		if err == nil {
			d.note(at, s)
			if at.Sub(shown) >= time.Second {
				shown = at
				d.show(s)
			}
		}
		pause(ctx, demoLook)
	}
}

func (d *demo) show(s *snapshot) {
	d.view.show(s, int(d.orders.accepted.Load()), int(d.orders.refused.Load()))
}

// note keeps the longest backlog, and when the outage was made good: when nothing
// that was committed before its end is in an outbox any more.
func (d *demo) note(at time.Time, s *snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.longest = max(d.longest, s.backlog)
	if d.outageEnd.IsZero() || d.recovery || at.Before(d.outageEnd) {
		return
	}
	if since := at.Sub(d.outageEnd); s.backlog == 0 || s.oldest < since {
		d.recovery, d.recovered = true, since
		d.view.event("everything of the outage has left the outboxes, %s after the broker's return", durationText(since))
	}
}

// settle waits until every committed message is handled or dead. When nothing moves
// any more, the report says what is missing. An audit reads one database after the
// other, so that two must agree: what was committed between its first and its last look
// would count as never committed.
func (d *demo) settle(ctx context.Context) (*shop.Report, error) {
	var (
		last    *shop.Report
		before  int
		moved   = time.Now()
		patient = demoWaits
	)
	for ctx.Err() == nil {
		s, err := look(ctx, d.databases)
		spent := time.Since(moved) >= patient
		switch {
		case err != nil && spent:
			return nil, err
		case err != nil: // a database may be away for a while
		case s.waiting() > 0 && spent:
			return nil, &outlast.Error{Op: "demo", Code: outlast.CodeUnavailable,
				Err: fmt.Errorf("%s still wait in the tables, and nothing has moved for %s", plural(s.waiting(), "message"), patient)}
		case s.waiting() == 0:
			report, err := d.audit(ctx)
			if err != nil || spent || atRest(last, report) {
				return report, err
			}
			last = report
		}
		if err == nil {
			patient = demoWaits
			if s.waiting() == 0 {
				patient = demoMissing
			}
			if now := s.waiting() + s.handled(); now != before {
				before, moved = now, time.Now()
			}
		}
		pause(ctx, demoLook)
	}
	return nil, ctx.Err()
}

// atRest reports whether nothing was under way between two audits.
func atRest(last, now *shop.Report) bool {
	return last != nil && now.Lost == 0 && now.Ghosts == 0 && last.Committed == now.Committed && last.Handled == now.Handled
}

func (d *demo) audit(ctx context.Context) (*shop.Report, error) {
	d.mu.Lock()
	outageEnd := d.outageEnd
	d.mu.Unlock()
	return shop.Audit(ctx, d.databases, outageEnd)
}

// complete adds what only the running demo could see in the tables.
func (d *demo) complete(r *shop.Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.LongestBacklog = d.longest
	if d.recovery {
		r.RecoverySeconds = d.recovered.Round(10 * time.Millisecond).Seconds()
	}
}

// verdict is an error when a promise was broken.
func (d *demo) verdict(r *shop.Report) error {
	if r.Broken() {
		return &outlast.Error{Op: "demo", Code: outlast.CodeInternal,
			Err: fmt.Errorf("%d lost, %d doubled, %d out of order, %d never committed", r.Lost, r.Doubled, r.OutOfOrder, r.Ghosts)}
	}
	if r.Dead != r.Poison {
		return &outlast.Error{Op: "demo", Code: outlast.CodeInternal, Err: fmt.Errorf("%d dead letters of %d poison orders", r.Dead, r.Poison)}
	}
	return nil
}
