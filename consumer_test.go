package outlast_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

type order struct {
	ID string `json:"id" outlast:"key"`
	N  int    `json:"n"`
}

type note struct {
	N int `json:"n"`
}

var (
	placed = outlast.Event[order]("order.placed", 1)
	noted  = outlast.Event[note]("note.taken", 1)
)

// rig is a consumer at work on a store and a broker in memory. Its goroutines
// belong to a synctest bubble, which fails the test when one of them is left.
type rig struct {
	t      *testing.T
	store  *memory.Store
	broker *memory.Broker
	conf   outlast.ConsumerConfig
	c      *outlast.Consumer

	mu      sync.Mutex
	effects []string // of committed transactions, in order
	handled []outlast.Handled
	started int
}

func newRig(t *testing.T, conf outlast.ConsumerConfig, handlers ...outlast.Handler) *rig {
	r := &rig{t: t, store: memory.NewStore(), broker: memory.NewBroker(), conf: conf}
	r.conf.Group, r.conf.Store, r.conf.Broker = "billing", r.store, r.broker
	r.conf.Handlers, r.conf.Hooks = handlers, []outlast.Hook{r}
	return r
}

func (r *rig) OnHandled(h outlast.Handled) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handled = append(r.handled, h)
}

// effect becomes visible when, and only if, tx commits.
func (r *rig) effect(tx outlast.Tx, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	tx.(*memory.Tx).Do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.effects = append(r.effects, text)
	})
}

func (r *rig) onOrder(fn func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error, opts ...outlast.HandleOption) {
	r.conf.Handlers = append(r.conf.Handlers, outlast.Handle(placed, r.counted(fn), opts...))
}

func (r *rig) counted(fn func(context.Context, outlast.Tx, outlast.Received[order]) error) func(context.Context, outlast.Tx, outlast.Received[order]) error {
	return func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		r.mu.Lock()
		r.started++
		r.mu.Unlock()
		return fn(ctx, tx, m)
	}
}

// start runs a consumer with the rig's configuration until the returned function
// is called, which waits for its end.
func (r *rig) start() (stop func()) {
	r.t.Helper()
	c, err := outlast.NewConsumer(r.conf)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	synctest.Wait()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run returned %v", err)
		}
	})
}

func (r *rig) send(msgs ...outlast.Message) {
	for i := range msgs {
		m := &msgs[i]
		if m.ID == "" {
			m.ID = outlast.NewID()
		}
		if m.Source == "" {
			m.Source = "orders"
		}
		if !r.broker.PublishForeign(outlast.EventExchange, m.Address(), outlast.EncodeHeaders(m), m.ContentType, m.Body) {
			r.t.Errorf("no queue takes %s", m.Address())
		}
	}
}

func (r *rig) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.effects)
}

func (r *rig) starts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

func (r *rig) results() []outlast.HandledResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []outlast.HandledResult
	for _, h := range r.handled {
		list = append(list, h.Result)
	}
	return list
}

func (r *rig) want(effects ...string) {
	r.t.Helper()
	if got := r.seen(); !slices.Equal(got, effects) {
		r.t.Errorf("effects %q, want %q", got, effects)
	}
}

// empty fails unless everything that the broker had is acknowledged.
func (r *rig) empty() {
	r.t.Helper()
	for p := range r.c.Topology().Partitions {
		d, err := r.broker.Topology().Depth(context.Background(), r.c.Topology().Queue(p))
		if err != nil || d.Messages != 0 {
			r.t.Errorf("queue %d: %+v, %v", p, d, err)
		}
	}
}

func (r *rig) dead() []outlast.Item {
	r.t.Helper()
	items, err := r.store.Operator().Dead().List(context.Background(), outlast.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return items
}

func (r *rig) waiting() []outlast.Item {
	r.t.Helper()
	items, err := r.store.Operator().Retries().List(context.Background(), outlast.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return items
}

// hands counts how many handlers run at once.
type hands struct {
	mu        sync.Mutex
	now, most int
}

func (h *hands) enter() (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	h.most = max(h.most, h.now)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.now--
	}
}

func (h *hands) peak() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.most
}

func (h *hands) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = 0
}

func orders(key string, from, to int) (msgs []outlast.Message) {
	for n := from; n <= to; n++ {
		msgs = append(msgs, placed.Message(order{ID: key, N: n}))
	}
	return msgs
}

func bubble(t *testing.T, name string, fn func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, fn)
	})
}

// record is a handler that only leaves its effect.
func (r *rig) record(_ context.Context, tx outlast.Tx, m outlast.Received[order]) error {
	r.effect(tx, "%s%d", m.Body.ID, m.Body.N)
	return nil
}

func TestConsumer(t *testing.T) {
	t.Parallel()
	bubble(t, "F60_handles_a_duplicate_once", testDuplicate)
	bubble(t, "keeps_the_order_of_a_key_through_failures", testKeyOrder)
	bubble(t, "buries_what_fails_too_often", testSpent)
	bubble(t, "obeys_verdicts", testVerdicts)
	bubble(t, "F65_counts_panics_and_overrun_deadlines", testPanicsAndDeadlines)
	bubble(t, "counts_an_attempt_whose_transaction_was_lost", testLostTransaction)
	bubble(t, "F02_asks_the_inbox_after_an_unknown_commit", testUnknownCommit)
	bubble(t, "counts_no_attempt_in_an_outage_of_the_store", testOutage)
	bubble(t, "F57_survives_the_death_of_the_broker", testBrokerDeath)
	bubble(t, "keeps_what_it_cannot_handle", testUnfit)
	bubble(t, "acknowledges_what_has_expired", testExpired)
	bubble(t, "holds_the_key_of_a_dead_letter_when_told_so", testHold)
}

func testDuplicate(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	r.onOrder(r.record)
	defer r.start()()
	m := orders("a", 1, 1)
	m[0].ID = outlast.NewID()
	for range 5 {
		r.send(m...)
	}
	synctest.Wait()
	r.want("a1")
	r.empty()
	if got := r.results(); len(got) != 5 || got[0] != outlast.HandledOK || got[4] != outlast.HandledDuplicate {
		t.Errorf("results %q", got)
	}
}

func testKeyOrder(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	failures := 3
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if m.Body.ID == "a" && m.Body.N == 2 && m.Attempt <= failures {
			r.effect(tx, "never")
			return errors.New("not yet")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 4)...)
	r.send(orders("b", 1, 3)...)
	synctest.Wait()
	if got := r.seen(); slices.Contains(got, "a3") || !slices.Contains(got, "b3") || !slices.Contains(got, "a1") {
		t.Errorf("effects %q: want a1 and all of b, and nothing behind a2", got)
	}
	r.empty()
	r.send(orders("a", 5, 5)...) // it comes while its predecessors wait
	time.Sleep(time.Minute)
	synctest.Wait()
	var a []string
	for _, e := range r.seen() {
		if e[0] != 'b' {
			a = append(a, e)
		}
	}
	if !slices.Equal(a, []string{"a1", "a2", "a3", "a4", "a5"}) {
		t.Errorf("effects of a: %q", a)
	}
}

func testSpent(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Retry: outlast.RetryPolicy{Attempts: 3}})
	var attempts []int
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if m.Body.N == 1 {
			attempts = append(attempts, m.Attempt)
			return fmt.Errorf("charge 17: no such account %q", "x")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 2)...)
	time.Sleep(time.Minute)
	synctest.Wait()
	if !slices.Equal(attempts, []int{1, 2, 3}) {
		t.Errorf("attempts %v", attempts)
	}
	r.want("a2") // dead releases its key
	dead := r.dead()
	if len(dead) != 1 || dead[0].Reason != outlast.DeadSpent || dead[0].Attempts != 3 {
		t.Fatalf("dead letters %+v", dead)
	}
	if want := outlast.Fingerprint("order.placed.v1", outlast.DeadSpent, `charge 99: no such account "y"`); dead[0].Fingerprint != want {
		t.Errorf("fingerprint %q, want that of the same failure of another message, %q", dead[0].Fingerprint, want)
	}
	if len(r.waiting()) != 0 {
		t.Errorf("waiting %+v", r.waiting())
	}
}

func testVerdicts(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	var snoozed time.Time
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		switch {
		case m.Body.ID == "dead":
			return outlast.DeadLetter(errors.New("card expired"))
		case m.Body.ID == "later" && snoozed.IsZero():
			snoozed = time.Now()
			return outlast.Snooze(time.Hour)
		case m.Body.ID == "later":
			if took := time.Since(snoozed); took < time.Hour || took > time.Hour+3*time.Second {
				t.Errorf("snoozed for %v", took)
			}
			if m.Attempt != 1 {
				t.Errorf("a snooze cost an attempt: %d", m.Attempt)
			}
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("dead", 1, 1)...)
	r.send(orders("later", 1, 1)...)
	synctest.Wait()
	if dead := r.dead(); len(dead) != 1 || dead[0].Reason != outlast.DeadVerdict || dead[0].Error != "card expired" {
		t.Errorf("dead letters %+v", dead)
	}
	r.want()
	time.Sleep(time.Hour + 5*time.Second)
	r.want("later1")
}

func testPanicsAndDeadlines(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Retry: outlast.RetryPolicy{Attempts: 2}})
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		r.effect(tx, "never")
		switch m.Body.ID {
		case "panic":
			panic("boom")
		case "slow":
			<-ctx.Done()
			return ctx.Err()
		default: // it does not look at its context, and finds nothing wrong
			time.Sleep(2 * time.Minute)
			return nil
		}
	}, outlast.Deadline(time.Minute))
	defer r.start()()
	for _, key := range []string{"panic", "slow", "deaf"} {
		r.send(orders(key, 1, 1)...)
	}
	time.Sleep(10 * time.Minute)
	r.want()
	dead := r.dead()
	if len(dead) != 3 {
		t.Fatalf("dead letters %+v", dead)
	}
	for _, d := range dead {
		if d.Attempts != 2 || d.Reason != outlast.DeadSpent {
			t.Errorf("dead letter %+v", d)
		}
	}
}

func testLostTransaction(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Retry: outlast.RetryPolicy{Attempts: 3}})
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if m.Attempt > 1 { // the next call of the inbox is Undo
			r.store.Inject(memory.FailNext(memory.RoleInbox, 1))
		}
		return errors.New("as always")
	})
	defer r.start()()
	r.send(orders("a", 1, 1)...)
	time.Sleep(time.Minute)
	synctest.Wait()
	if dead := r.dead(); len(dead) != 1 || dead[0].Attempts != 3 || r.starts() != 3 {
		t.Errorf("%d starts, dead letters %+v", r.starts(), dead)
	}
}

func testUnknownCommit(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	r.onOrder(r.record)
	defer r.start()()
	r.store.Inject(memory.CommitUnknown(1, true))
	r.send(orders("a", 1, 1)...)
	time.Sleep(time.Second)
	r.want("a1")
	if r.starts() != 1 {
		t.Errorf("a message whose commit had happened was run %d times", r.starts())
	}
	r.store.Inject(memory.CommitUnknown(2, false))
	r.send(orders("a", 2, 2)...)
	time.Sleep(time.Second)
	r.want("a1", "a2")
	if r.starts() != 4 {
		t.Errorf("%d starts, want one and three", r.starts())
	}
	r.empty()
	for _, res := range r.results() {
		if res != outlast.HandledOK {
			t.Errorf("results %q", r.results())
		}
	}
}

func testOutage(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Retry: outlast.RetryPolicy{Attempts: 2}})
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if m.Attempt > 1 {
			t.Errorf("an outage cost an attempt")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.store.Inject(memory.FailNext(memory.RoleInbox, 200), memory.FailNext(memory.RoleCommit, 3))
	r.send(orders("a", 1, 5)...)
	time.Sleep(10 * time.Second)
	r.want()
	time.Sleep(30 * time.Minute)
	r.want("a1", "a2", "a3", "a4", "a5")
	if len(r.dead()) != 0 || len(r.waiting()) != 0 {
		t.Errorf("dead %+v, waiting %+v", r.dead(), r.waiting())
	}
	r.empty()
}

func testBrokerDeath(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Workers: 2, Prefetch: 10})
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		time.Sleep(time.Second)
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 6)...)
	time.Sleep(1500 * time.Millisecond)
	r.broker.Die()
	time.Sleep(5 * time.Second)
	r.want("a1", "a2") // what was started ended; what was not, waits for its redelivery
	r.broker.Revive()
	time.Sleep(time.Minute)
	r.want("a1", "a2", "a3", "a4", "a5", "a6")
	if r.starts() != 6 {
		t.Errorf("%d starts", r.starts())
	}
	r.empty()
}

func testUnfit(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	r.onOrder(r.record)
	r.conf.Handlers = append(r.conf.Handlers, outlast.Handle(noted, func(context.Context, outlast.Tx, outlast.Received[note]) error { return nil }))
	stop := r.start()
	id := outlast.NewID()
	first, second := orders("a", 1, 1), orders("a", 2, 2)
	first[0].ID, second[0].ID = id, id
	r.send(first...)
	synctest.Wait()
	r.send(second...)
	r.send(second...) // the same conflict again is one dead letter
	bare := []outlast.WireHeader{{Name: "ce-type", Value: "order.placed.v1"}}
	for range 2 {
		r.broker.PublishForeign(outlast.EventExchange, "order.placed.v1.0", bare, "", []byte(`{}`))
	}
	bad := []outlast.WireHeader{{Name: "ce-id", Value: outlast.NewID()}, {Name: "ce-type", Value: "order placed"}}
	r.broker.PublishForeign(outlast.EventExchange, "order.placed.v1.0", bad, "", []byte(`{}`))
	typeless := []outlast.WireHeader{{Name: "ce-id", Value: outlast.NewID()}}
	r.broker.PublishForeign(outlast.EventExchange, "order.placed.v1.0", typeless, "", []byte(`{}`))
	r.send(noted.Message(note{7}))
	time.Sleep(time.Second)
	r.want("a1")
	r.empty()
	count := map[string]int{}
	for _, d := range r.dead() {
		count[d.Reason]++
	}
	if count[outlast.DeadConflict] != 1 || count[outlast.DeadNoID] != 1 || count[outlast.DeadInvalid] != 2 || len(count) != 3 {
		t.Errorf("dead letters %v", count)
	}
	stop()

	// A build that does not know a type keeps its messages for one that does.
	all := r.conf.Handlers
	r.conf.Handlers = all[:1]
	stop = r.start()
	r.send(noted.Message(note{8}))
	time.Sleep(time.Hour)
	if w := r.waiting(); len(w) != 1 || w[0].Reason != "unknown type" || w[0].Attempts != 0 {
		t.Errorf("waiting %+v", w)
	}
	stop()
	r.conf.Handlers = all
	stop = r.start()
	time.Sleep(5 * time.Second)
	if w := r.waiting(); len(w) != 0 {
		t.Errorf("waiting %+v", w)
	}
	stop()
}

func testExpired(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{})
	r.onOrder(r.record)
	defer r.start()()
	m := orders("a", 1, 1)
	m[0].ExpiresAt = time.Now().Add(-time.Second)
	r.send(m...)
	synctest.Wait()
	r.want()
	r.empty()
	if got := r.results(); !slices.Equal(got, []outlast.HandledResult{outlast.HandledExpired}) {
		t.Errorf("results %q", got)
	}
}

func testHold(t *testing.T) {
	r := newRig(t, outlast.ConsumerConfig{Retry: outlast.RetryPolicy{Attempts: 1}, OnDead: outlast.DeadHoldsKey})
	var mended atomic.Bool
	r.onOrder(func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
		if !mended.Load() {
			return errors.New("broken")
		}
		return r.record(ctx, tx, m)
	})
	defer r.start()()
	r.send(orders("a", 1, 2)...)
	time.Sleep(24 * time.Hour)
	r.want()
	mended.Store(true)
	if n, err := r.store.Operator().Retries().Now(context.Background(), outlast.Filter{Reason: "spent"}, outlast.Action{Who: "test"}); n != 1 || err != nil {
		t.Fatalf("retry now: %d, %v", n, err)
	}
	time.Sleep(5 * time.Second)
	r.want("a1", "a2")
}
