package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

// relayRun is real relays between a store and a broker in memory, with adapters around
// both that write down what passes, late and with faults, as the model's events.
type relayRun struct {
	t      *testing.T
	store  *memory.Store
	broker *memory.Broker
	outbox *outlast.Outbox
	slot   int
	names  [messages]string // the keys of the messages
	luck   *luck
	breaks relayBreaks

	mu     sync.Mutex // around every call of the store, so that events have its order
	follow *follower
	wrong  error // the first event that the model could not follow
	events int
	owner  int   // of the lease, by the last grant; -1 is nobody
	epoch  int64 // of the last grant
	epochs [relays]int64
	given  [relays]Set // rows that a relay was given since it took the lease
}

// relayBreaks are adapters and mappings that are wrong on purpose.
type relayBreaks struct {
	reversePick bool // rows of a pick come last first
	noFence     bool // settlements are written under the epoch of the day
	backoffSent bool // the mapping takes a hold for a delete
	freeConfirm bool // a refused message is reported as confirmed
}

// luck is randomness that goroutines share.
type luck struct {
	mu    sync.Mutex
	rng   *rand.Rand
	lag   time.Duration
	lost  float64 // answers of settlements that are lost
	fails float64 // settlements that do not happen
}

func (l *luck) set(lag time.Duration, lost, fails float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag, l.lost, l.fails = lag, lost, fails
}

func (l *luck) wait() {
	l.mu.Lock()
	var d time.Duration
	if l.lag > 0 {
		d = time.Duration(l.rng.Int64N(int64(l.lag)))
	}
	l.mu.Unlock()
	time.Sleep(d)
}

func (l *luck) happens(p func(*luck) float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Float64() < p(l)
}

func newRelayRun(t *testing.T, seed uint64, keys [messages]int, breaks relayBreaks) *relayRun {
	r := &relayRun{t: t, store: memory.NewStore(), broker: memory.NewBroker(memory.Seed(seed), memory.Reorder(0.2)), breaks: breaks, owner: -1}
	r.luck = &luck{rng: rand.New(rand.NewPCG(seed, 1))}
	r.outbox = outlast.NewOutbox(r.store)
	r.nameKeys(keys)
	m := New(Config{Half: RelayHalf, Keys: keys, Named: true})
	r.follow = newFollower(m, r.internal)
	group := outlast.GroupTopology{Group: "sink", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: traceType}}}
	topo := outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}, {Name: outlast.CommandExchange}}, Groups: []outlast.GroupTopology{group}}
	if err := r.broker.Topology().Apply(t.Context(), topo); err != nil {
		t.Fatal(err)
	}
	return r
}

const traceType = "a.b.v1"

// nameKeys finds two keys of one slot: the model has one lease.
func (r *relayRun) nameKeys(keys [messages]int) {
	slots := map[int]string{}
	probe := memory.NewStore()
	reader := probe.Relay().Reader()
	all := make([]outlast.Lease, probe.Slots())
	for i := range all {
		all[i] = outlast.Lease{Slot: i, Epoch: 1}
	}
	for n := 0; ; n++ {
		name := "k" + strconv.Itoa(n)
		tx := probe.Begin()
		if err := outlast.NewOutbox(probe).Publish(r.t.Context(), tx, traceMessage(name, 0)); err != nil {
			r.t.Fatal(err)
		}
		_ = tx.Commit()
		rows, err := reader.Pick(r.t.Context(), all, 1, 1<<20)
		if err != nil || len(rows) != 1 {
			r.t.Fatal(rows, err)
		}
		first, twice := slots[rows[0].Slot]
		if !twice {
			slots[rows[0].Slot] = name
			continue
		}
		r.slot = rows[0].Slot
		for i, k := range keys {
			r.names[i] = [2]string{first, name}[k]
		}
		return
	}
}

func traceMessage(key string, i int) outlast.Message {
	return outlast.Message{Envelope: outlast.Envelope{Type: traceType, Key: key}, Body: []byte(strconv.Itoa(i))}
}

func number(m *outlast.Message) int { return int(m.Body[0] - '0') }

// internal are the steps of the model that nobody sees. A row can be taken when the
// store has handed it out.
func (r *relayRun) internal(action string, a, b int) bool {
	switch action {
	case "pick", "take held":
		return r.given[a].has(b)
	case "route", "refuse", "return", "late publish", "late publish lost", "lapse", "lapse of the dead", "notice",
		"load held keys", "free key", "overdue", "hold for route", "wait for route instead":
		return true
	}
	return false
}

// see follows an event. It is called with mu held.
func (r *relayRun) see(e event) {
	if r.wrong != nil {
		return
	}
	r.events++
	r.wrong = r.follow.take(e)
}

func one(action string, a, b int) [][]want { return [][]want{{{action: action, a: a, b: b}}} }

// store adapters

type tracedStore struct {
	outlast.Store
	r  *relayRun
	id int
}

func (s tracedStore) Relay() outlast.RelayStore  { return tracedRelay{s.Store.Relay(), s.r, s.id} }
func (s tracedStore) Leases() outlast.LeaseStore { return tracedLeases{s.Store.Leases(), s.r, s.id} }

type tracedLeases struct {
	outlast.LeaseStore
	r  *relayRun
	id int
}

func (l tracedLeases) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	l.r.luck.wait()
	defer l.r.luck.wait()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	g, err := l.LeaseStore.Lease(ctx, q)
	for _, x := range g.Held {
		if err == nil && x.Slot == l.r.slot && x.Epoch != l.r.epoch {
			l.r.owner, l.r.epoch, l.r.epochs[l.id], l.r.given[l.id] = l.id, x.Epoch, x.Epoch, 0
			l.r.see(event{what: fmt.Sprintf("relay %d takes the lease", l.id), ways: one("take lease", l.id, 0)})
		}
	}
	return g, err
}

func (l tracedLeases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	l.r.luck.wait()
	defer l.r.luck.wait()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	err := l.LeaseStore.Release(ctx, scope, owner, leases)
	if err == nil && l.r.owner == l.id && (len(leases) == 0 || slices.Contains(leases, outlast.Lease{Slot: l.r.slot, Epoch: l.r.epoch})) {
		l.r.owner = -1
		l.r.see(event{
			what: fmt.Sprintf("relay %d gives the lease back", l.id),
			// At the end of its grace a relay gives up what it still waits for. And the lease
			// may have run out before.
			ways: [][]want{{{action: "release", a: l.id}}, {{action: "crash", a: l.id}, {action: "lapse of the dead"}}},
			quiet: func(s *State) bool {
				return s.Relay[l.id].Lease != LeaseCurrent && (s.Owner == 0 || s.Lapsed)
			},
		})
	}
	return err
}

type tracedRelay struct {
	outlast.RelayStore
	r  *relayRun
	id int
}

func (x tracedRelay) HeldIndex(ctx context.Context, leases []outlast.Lease) (outlast.HeldIndex, error) {
	x.r.luck.wait()
	defer x.r.luck.wait()
	return x.RelayStore.HeldIndex(ctx, leases)
}

func (x tracedRelay) Held(ctx context.Context, q outlast.HeldQuery) (outlast.HeldPage, error) {
	x.r.luck.wait()
	defer x.r.luck.wait()
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	page, err := x.RelayStore.Held(ctx, q)
	x.r.give(x.id, page.Rows)
	return page, err
}

// give notes that a relay was given rows.
func (r *relayRun) give(id int, rows []*outlast.Row) {
	for _, row := range rows {
		r.given[id] = r.given[id].with(number(&row.Message))
	}
}

func (x tracedRelay) Reader() outlast.OutboxReader {
	return tracedReader{x.RelayStore.Reader(), x.r, x.id}
}

type tracedReader struct {
	outlast.OutboxReader
	r  *relayRun
	id int
}

func (x tracedReader) Pick(ctx context.Context, leases []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	x.r.luck.wait()
	defer x.r.luck.wait()
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	rows, err := x.OutboxReader.Pick(ctx, leases, maxRows, maxBytes)
	if x.r.breaks.reversePick {
		slices.Reverse(rows)
	}
	x.r.give(x.id, rows)
	return rows, err
}

var errNotNow = &outlast.Error{Op: "settle", Code: outlast.CodeUnavailable}

func (x tracedRelay) Settle(ctx context.Context, s *outlast.Settlement) ([]outlast.Lease, error) {
	r := x.r
	r.luck.wait()
	defer r.luck.wait()
	if r.luck.happens(func(l *luck) float64 { return l.fails }) {
		return nil, errNotNow
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	done := *s
	if r.breaks.noFence {
		done.Leases = slices.Clone(s.Leases)
		for i := range done.Leases {
			if done.Leases[i].Slot == r.slot {
				done.Leases[i].Epoch = r.epoch
			}
		}
	}
	stale, err := x.RelayStore.Settle(ctx, &done)
	if err != nil {
		return nil, err
	}
	lost := r.luck.happens(func(l *luck) float64 { return l.lost })
	for _, l := range s.Leases {
		if l.Slot == r.slot {
			r.settled(x.id, s, l, slices.Contains(stale, l), lost)
		}
	}
	if lost {
		return nil, &outlast.Error{Op: "settle", Code: outlast.CodeUnknown}
	}
	return stale, nil
}

// settled sees what a settlement has done.
func (r *relayRun) settled(id int, s *outlast.Settlement, l outlast.Lease, stale, lost bool) {
	action := "settle"
	if lost {
		action = "settle, unknown"
	}
	who := fmt.Sprintf("relay %d, epoch %d: %s", id, l.Epoch, action)
	if stale {
		r.see(event{what: who + ": stale", quiet: func(s *State) bool {
			return l.Epoch != r.epochs[id] || s.Relay[id].Lease != LeaseCurrent
		}})
		return
	}
	note := func(row *outlast.Row, hand Hand) {
		i := number(&row.Message)
		is := func(s *State) bool { return s.Relay[id].Hand[i] == hand && l.Epoch == r.epochs[id] }
		r.see(event{what: fmt.Sprintf("%s m%d, hand %d", who, i, hand), ways: [][]want{{{action, id, i, is}}}, quiet: func(s *State) bool {
			// One that was put away for its route comes back behind its key, where the model
			// has left it.
			return hand == HandBehind && s.Place[i].held() && s.Relay[id].Hand[i] == HandNone
		}})
	}
	for _, row := range s.Sent {
		note(row, HandConfirmed)
	}
	for _, h := range s.Hold {
		switch {
		case h.Reason == outlast.HeldBackoff && r.breaks.backoffSent:
			note(h.Row, HandConfirmed)
		case h.Reason == outlast.HeldBackoff:
			note(h.Row, HandFailed)
		case h.Reason == outlast.HeldBehind:
			note(h.Row, HandBehind)
		}
		// One that waits for its route stays where it is, as far as the model knows.
	}
}

// broker adapters

type tracedBroker struct {
	outlast.Broker
	r  *relayRun
	id int
}

func (b tracedBroker) Publisher(c outlast.PublisherConfig) outlast.Publisher {
	tell := c.Results
	c.Results = func(rs []outlast.Result) {
		for i := range rs {
			if rs[i].Outcome == outlast.OutcomeNacked && b.r.breaks.freeConfirm {
				rs[i].Outcome, rs[i].Err = outlast.OutcomeConfirmed, nil
			}
		}
		tell(rs)
	}
	return tracedPublisher{b.Broker.Publisher(c), b.r, b.id}
}

// relayEar is a relay's hook: it sees results when the relay acts on them.
type relayEar struct {
	r  *relayRun
	id int
}

func (h relayEar) OnPublished(row *outlast.Row, o outlast.Outcome, _ error, _ time.Duration) {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	h.r.result(h.id, number(&row.Message), o)
}

// result sees what a relay hears. What it does not want to know any more is quiet.
func (r *relayRun) result(id, i int, o outlast.Outcome) {
	e := event{what: fmt.Sprintf("relay %d hears of m%d: %s", id, i, o)}
	switch o {
	case outlast.OutcomeConfirmed:
		e.ways = one("confirmed", id, i)
	case outlast.OutcomeUnroutable:
		e.ways = one("returned", id, i)
	case outlast.OutcomeNacked:
		e.ways = append(one("nacked", id, i), one("fail", id, i)...)
	default: // unknown: it will send it again
		e.quiet = func(*State) bool { return true }
		r.see(e)
		return
	}
	e.quiet = func(s *State) bool { h := s.Relay[id].Hand[i]; return h != HandSent && h != HandQueued }
	r.see(e)
}

type tracedPublisher struct {
	outlast.Publisher
	r  *relayRun
	id int
}

func (p tracedPublisher) Send(lane int, ps []*outlast.Publishing) {
	p.r.mu.Lock()
	for _, one := range ps {
		i := number(one.Message)
		p.r.see(event{what: fmt.Sprintf("relay %d publishes m%d", p.id, i), ways: [][]want{{{action: "publish", a: p.id, b: i}}}})
	}
	p.r.mu.Unlock()
	p.Publisher.Send(lane, ps)
}

// start runs relay id and returns a function that ends it, at once when it is killed.
func (r *relayRun) start(id, life int, grace time.Duration) (end func()) {
	relay, err := outlast.NewRelay(outlast.RelayConfig{
		Source: "shop", Store: tracedStore{r.store, r, id}, Broker: tracedBroker{r.broker, r, id}, Owner: fmt.Sprintf("%d.%d", id, life),
		LeaseTTL: 2 * time.Second, Interval: time.Second, ConfirmDeadline: time.Second, Grace: grace, Lanes: 1,
		Hooks: []outlast.Hook{relayEar{r, id}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- relay.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.see(event{what: fmt.Sprintf("relay %d has ended", id), ways: one("crash", id, 0),
			quiet: func(s *State) bool { return s.Relay[id] == Relay{} }})
	}
}

// produce inserts message i and returns how its transaction ends.
func (r *relayRun) produce(i int) (end func(ok bool)) {
	tx := r.store.Begin()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.outbox.Publish(r.t.Context(), tx, traceMessage(r.names[i], i)); err != nil {
		r.t.Error(err)
	}
	r.see(event{what: fmt.Sprintf("m%d is inserted", i), ways: one("insert", i, 0)})
	return func(ok bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		action := "commit"
		if ok {
			_ = tx.Commit()
		} else {
			_ = tx.Rollback()
			action = "roll back"
		}
		r.see(event{what: fmt.Sprintf("m%d: %s", i, action), ways: one(action, i, 0)})
	}
}

// bound removes the queue's binding or makes it.
func (r *relayRun) bound(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	action, err := "bind", r.broker.Bind("sink.0", outlast.EventExchange, traceType+".*")
	if !yes {
		action, err = "unbind", r.broker.Unbind("sink.0", outlast.EventExchange, traceType+".*")
	}
	if err != nil {
		r.t.Error(err)
	}
	r.see(event{what: action, ways: one(action, 0, 0)})
}

// TestRelayIsARunOfTheModel runs real relays under random schedules and faults; what
// they are seen to do must be a run of the model.
func TestRelayIsARunOfTheModel(t *testing.T) {
	t.Parallel()
	seeds := uint64(40)
	switch {
	case long():
		seeds = 2000
	case raceEnabled:
		seeds = 12
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, err := relaySchedule(t, seed, relayBreaks{})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d events, at most %d states at once", r.events, r.follow.most)
			})
		})
	}
}

// TestBrokenRelayIsNoRunOfTheModel shows that the test before can fail.
func TestBrokenRelayIsNoRunOfTheModel(t *testing.T) {
	t.Parallel()
	// A run depends on how goroutines take turns too. The rarest break shows in one of 70 runs:
	// in 200 it is missed once in twenty times, in 2,000 never.
	const runs = 2000
	for name, breaks := range map[string]relayBreaks{
		"rows_of_a_pick_come_last_first":  {reversePick: true},
		"settlements_are_not_fenced":      {noFence: true},
		"a_refusal_is_told_as_confirm":    {freeConfirm: true},
		"the_mapping_takes_hold_for_sent": {backoffSent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(runs) {
				var found error
				synctest.Test(t, func(t *testing.T) { _, found = relaySchedule(t, seed, breaks) })
				if found != nil {
					t.Logf("seed %d: %.2000v", seed, found)
					return
				}
			}
			t.Error("every run of it is a run of the model")
		})
	}
}

// relaySchedule is one run: three transactions, two relays that come and go, and
// faults, drawn from the seed; then everything heals.
func relaySchedule(t *testing.T, seed uint64, breaks relayBreaks) (*relayRun, error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRelayRun(t, seed, [][messages]int{aab, aba, aaa}[rng.IntN(3)], breaks)
	var ends [relays]func()
	lives := 0
	begin := func(id int) {
		lives++
		ends[id] = r.start(id, lives, []time.Duration{outlast.NoGrace, 5 * time.Second}[rng.IntN(2)])
	}
	for id := range ends {
		begin(id)
	}
	var open []func(bool)
	commits, next, unbound := 0, 0, false
	for range 60 {
		switch rng.IntN(16) {
		case 0, 1, 2:
			if next < messages {
				open = append(open, r.produce(next))
				next++
			}
		case 3, 4, 5:
			if len(open) > 0 {
				n := rng.IntN(len(open))
				open[n](rng.IntN(8) > 0)
				open = slices.Delete(open, n, n+1)
				commits++
			}
		case 6:
			r.broker.Inject(memory.Nack(rng.Float64()))
		case 7:
			r.broker.Inject(memory.DropConfirm(rng.Float64()))
		case 8:
			r.broker.Inject(memory.Nack(0), memory.DropConfirm(0))
		case 9, 10:
			r.luck.set(time.Duration(rng.IntN(4000))*time.Millisecond, rng.Float64()/2, rng.Float64()/2)
		case 11:
			r.luck.set(0, 0, 0)
		case 12:
			r.broker.Die()
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			r.broker.Revive()
		case 13:
			if id := rng.IntN(relays); ends[id] != nil {
				ends[id]()
				begin(id)
			}
		case 14:
			r.bound(unbound)
			unbound = !unbound
		}
		time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
	}
	for _, end := range open {
		end(true)
	}
	for ; next < messages; next++ {
		r.produce(next)(true)
	}
	if unbound {
		r.bound(true)
	}
	r.broker.Inject(memory.Nack(0), memory.DropConfirm(0))
	r.luck.set(0, 0, 0)
	time.Sleep(2 * time.Minute)
	for _, end := range ends {
		end()
	}
	return r, r.finish()
}

// finish also compares the end with the model's.
func (r *relayRun) finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong != nil {
		return r.wrong
	}
	var queued Set
	ds, err := r.broker.Topology().Peek(r.t.Context(), "sink.0", 1000)
	if err != nil {
		return err
	}
	for _, d := range ds {
		queued = queued.with(number(d.Message))
	}
	for s := range r.follow.closure() {
		if s.Routed == queued && r.follow.m.Done(&s) {
			return nil
		}
	}
	return fmt.Errorf("the model cannot end with %03b in the queue and nothing in the outbox\nseen:\n  %s", queued, strings.Join(r.follow.seen, "\n  "))
}
