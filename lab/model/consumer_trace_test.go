package model

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
	"github.com/outlastmq/outlast/outlasttest/history"
)

// consumerRun is two real instances of a group on a store and a broker in memory.
// Adapters around both, and the recorder of histories, write down what passes as the
// model's events.
type consumerRun struct {
	t      *testing.T
	store  *memory.Store
	broker *memory.Broker
	keys   [messages]int
	sent   [messages]outlast.Message
	breaks consumerBreaks
	folder string
	lives  int

	mu      sync.Mutex // around every call that does something, so that events have its order
	follow  *follower
	wrong   error // the first event that the model could not follow
	events  int
	told    int // of events, those that the recorder has told
	rng     *rand.Rand
	mood    mood
	life    [instances]*life
	copies  [messages]int // in the queue, as far as nobody has acknowledged them
	effects []int
	dead    Set
}

// mood is how handlers and the database behave now.
type mood struct {
	long                time.Duration // of a handler, at most
	fail, down, dead    float64       // what handlers say
	commitFail, unknown float64
}

// life is one process of an instance.
type life struct {
	r    *consumerRun
	c    int // the instance's number
	gone bool
	deaf bool // its heartbeats do not reach the database
	open map[rollbacker]bool

	// What the model may do unseen:
	served    bool // it may subscribe, and be given messages
	losing    bool // it is noticing the loss of its session
	leaving   bool // it gives the queue up
	beginning Set  // it has asked the inbox
}

type rollbacker interface{ Rollback() }

// consumerBreaks are adapters, a configuration and a mapping that are wrong on purpose.
type consumerBreaks struct {
	ackFirst    bool // a message is acknowledged when its transaction begins
	commitLies  bool // a commit that failed is told as one that did not
	behindIsNew bool // the inbox does not tell that the key waits
	unordered   bool // the group's queue serves everybody at once
	retryIsDone bool // the mapping takes a retry for success
}

func newConsumerRun(t *testing.T, seed uint64, keys [messages]int, breaks consumerBreaks) *consumerRun {
	r := &consumerRun{t: t, store: memory.NewStore(), broker: memory.NewBroker(memory.Seed(seed)), keys: keys, breaks: breaks,
		folder: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1))}
	for i, k := range keys {
		r.sent[i] = traced.Message(tracedBody{Key: fmt.Sprint("k", k), N: i})
		r.sent[i].ID, r.sent[i].Source, r.sent[i].EnqueuedAt = outlast.NewID(), "shop", time.Now()
	}
	r.follow = newFollower(New(Config{Half: ConsumerHalf, Keys: keys, Named: true}), r.internal)
	return r
}

type tracedBody struct {
	Key string `json:"key" outlast:"key"`
	N   int    `json:"n"`
}

var traced = outlast.Event[tracedBody]("a.b", 1)

func (r *consumerRun) number(id string) int {
	return slices.IndexFunc(r.sent[:], func(m outlast.Message) bool { return m.ID == id })
}

// internal are the steps of the model that nobody sees.
func (r *consumerRun) internal(action string, a, b int) bool {
	if a >= instances || r.life[a] == nil {
		return false
	}
	l := r.life[a]
	switch action {
	case "subscribe", "deliver":
		return l.served
	case "notice loss":
		return l.losing
	case "leave", "close":
		return l.leaving
	case "begin":
		return l.beginning.has(b)
	}
	return action == "drop"
}

// see follows an event. It is called with mu held.
func (r *consumerRun) see(e event) {
	if r.wrong != nil {
		return
	}
	r.events++
	r.wrong = r.follow.take(e)
}

func (l *life) see(what string, i int, quiet func(s *State) bool, ways ...[]want) {
	l.r.see(event{what: fmt.Sprintf("instance %d, m%d: %s", l.c, i, what), ways: ways, quiet: quiet})
}

func (l *life) way(actions ...string) (way []want) {
	for _, a := range actions {
		way = append(way, want{action: a, a: l.c})
	}
	return way
}

// of is a way of a message.
func (l *life) of(i int, actions ...string) []want {
	way := l.way(actions...)
	for n := range way {
		way[n].b = i
	}
	return way
}

var (
	errGone   = &outlast.Error{Op: "reach the database", Code: outlast.CodeUnavailable}
	errNotSo  = &outlast.Error{Op: "commit", Code: outlast.CodeUnavailable}
	errUnsure = &outlast.Error{Op: "commit", Code: outlast.CodeUnknown}
)

// store adapters

type lifeStore struct {
	outlast.Store
	l *life
}

func (s lifeStore) Inbox() outlast.InboxStore  { return lifeInbox{s.Store.Inbox(), s.l} }
func (s lifeStore) Leases() outlast.LeaseStore { return lifeLeases{s.Store.Leases(), s.l} }

// reach says whether the process reaches the database.
func (l *life) reach(heartbeat bool) error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.gone || heartbeat && l.deaf {
		return errGone
	}
	return nil
}

type lifeLeases struct {
	outlast.LeaseStore
	l *life
}

func (x lifeLeases) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	if err := x.l.reach(true); err != nil {
		return outlast.LeaseGrant{}, err
	}
	return x.LeaseStore.Lease(ctx, q)
}

func (x lifeLeases) Release(ctx context.Context, scope, owner string, leases []outlast.Lease) error {
	if err := x.l.reach(false); err != nil {
		return err
	}
	return x.LeaseStore.Release(ctx, scope, owner, leases)
}

type lifeInbox struct {
	outlast.InboxStore
	l *life
}

func (x lifeInbox) Alive(ctx context.Context, group, instance string) ([]outlast.Instance, error) {
	if err := x.l.reach(true); err != nil {
		return nil, err
	}
	return x.InboxStore.Alive(ctx, group, instance)
}

func (x lifeInbox) Leave(ctx context.Context, group, instance string) error {
	if err := x.l.reach(false); err != nil {
		return err
	}
	return x.InboxStore.Leave(ctx, group, instance)
}

func (x lifeInbox) Unsuspect(ctx context.Context, group, source, id string) (bool, error) {
	if err := x.l.reach(false); err != nil {
		return false, err
	}
	return x.InboxStore.Unsuspect(ctx, group, source, id)
}

func (x lifeInbox) Suspect(ctx context.Context, group, source, id string) (int, error) {
	if err := x.l.reach(false); err != nil {
		return 0, err
	}
	return x.InboxStore.Suspect(ctx, group, source, id)
}

// Begin may wait for another transaction: when in between it happened, the model finds.
func (x lifeInbox) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	l, i := x.l, x.l.r.number(marks[0].ID)
	if err := l.reach(false); err != nil {
		return nil, err
	}
	l.r.mu.Lock()
	l.beginning = l.beginning.with(i)
	l.r.mu.Unlock()
	tx, err := x.InboxStore.Begin(ctx, group, marks)
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.gone {
		if err == nil {
			tx.Rollback()
		}
		return nil, errGone
	}
	if err != nil {
		l.see("not begun", i, func(s *State) bool { return s.Instance[l.c].Task[i] == TaskReady })
		l.beginning = l.beginning.without(i)
		return nil, err
	}
	seen := tx.States()[0]
	task := map[outlast.Seen]Task{outlast.SeenNew: TaskRunning, outlast.SeenBehind: TaskBehind}[seen]
	if task == TaskNone {
		task = TaskSaved
	}
	l.see(fmt.Sprint("begun, it is ", seen), i, func(s *State) bool { return s.Instance[l.c].Task[i] == task })
	l.beginning = l.beginning.without(i)
	t := &lifeTx{InboxTx: tx, ending: ending{l: l, i: i}}
	l.open[tx] = true
	return t, nil
}

func (x lifeInbox) BeginRetry(ctx context.Context, group string, types []string) (outlast.RetryTx, time.Duration, error) {
	l := x.l
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.gone {
		return nil, 0, errGone
	}
	tx, next, err := x.InboxStore.BeginRetry(ctx, group, types)
	if tx == nil || err != nil {
		return nil, next, err
	}
	i := l.r.number(tx.Waiting().Message.ID)
	l.see("claimed", i, nil, l.of(i, "claim retry"))
	l.open[tx] = true
	return &lifeRetry{RetryTx: tx, ending: ending{l: l, i: i}}, next, nil
}

// ending is how a transaction of a message ends.
type ending struct {
	l     *life
	i     int
	wait  *outlast.Waiting
	dead  *outlast.DeadLetterRecord
	ended bool
}

// actions name what a commit does: those of a first try or of a retry.
type actions struct{ handle, fail, bury, postpone, undo string }

var (
	triesActions   = actions{"handle", "fail try", "bury", "postpone", "undo"}
	retriesActions = actions{"handle retry", "fail retry", "bury retry", "undo retry", "undo retry"}
)

func (e *ending) action(of actions) string {
	switch {
	case e.dead != nil && e.dead.Reason == outlast.DeadSpent:
		return of.fail
	case e.dead != nil:
		return of.bury
	case e.wait == nil, e.l.r.breaks.retryIsDone:
		return of.handle
	case e.wait.Reason == "behind":
		return "wait behind"
	case e.wait.Reason == "failed":
		return of.fail
	}
	return of.postpone
}

// commit ends the transaction as the database or the mood will have it.
func (e *ending) commit(tx rollbacker, commit func() error, of actions, lost string) error {
	r := e.l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(e.l.open, tx)
	if e.l.gone || e.ended {
		return errGone
	}
	e.ended = true
	dice := r.rng.Float64()
	var err error
	switch {
	case dice < r.mood.commitFail:
		tx.Rollback()
		err = errNotSo
	case dice < r.mood.commitFail+r.mood.unknown/2:
		tx.Rollback()
		err = errUnsure
	default:
		if err = commit(); err == nil && dice < r.mood.commitFail+r.mood.unknown {
			err = errUnsure
		}
	}
	action := e.action(of)
	ways := [][]want{e.l.of(e.i, action)}
	if action == "wait behind" { // decided in a transaction before, and the key is free meanwhile
		ways = append(ways, e.l.of(e.i, of.postpone))
	}
	switch {
	case err == nil:
		if e.dead != nil {
			r.dead = r.dead.with(e.i)
		}
	case outlast.CodeOf(err) == outlast.CodeUnknown:
		for n := range ways {
			if lost != "" {
				ways[n] = append(ways[n], e.l.of(e.i, lost)...)
			}
		}
		ways = append(ways, e.l.of(e.i, of.undo))
	default:
		ways = [][]want{e.l.of(e.i, of.undo)}
	}
	e.l.see(fmt.Sprintf("%s: %v", action, err), e.i, nil, ways...)
	if err == nil {
		e.l.see("and so it is", e.i, e.is)
	}
	if r.breaks.commitLies && errors.Is(err, errNotSo) {
		return nil
	}
	return err
}

// is says what the model must know of the message after the commit.
func (e *ending) is(s *State) bool {
	switch {
	case e.dead != nil:
		return s.Inbox[e.i] == Buried
	case e.wait != nil:
		return s.Inbox[e.i] == Waiting && int(s.Attempts[e.i]) == e.wait.Attempts
	}
	return s.Inbox[e.i] == Handled
}

func (e *ending) rollback(tx rollbacker, undo string) {
	e.l.r.mu.Lock()
	defer e.l.r.mu.Unlock()
	delete(e.l.open, tx)
	tx.Rollback()
	if e.ended || e.l.gone {
		return
	}
	e.ended = true
	known := func(s *State) bool { return s.Instance[e.l.c].Task[e.i] == TaskSaved }
	e.l.see("rolled back", e.i, known, e.l.of(e.i, undo))
}

type lifeTx struct {
	outlast.InboxTx
	ending
}

func (t *lifeTx) States() []outlast.Seen {
	states := t.InboxTx.States()
	if t.l.r.breaks.behindIsNew && states[0] == outlast.SeenBehind {
		states[0] = outlast.SeenNew
	}
	return states
}

func (t *lifeTx) Wait(ctx context.Context, w *outlast.Waiting) error {
	t.wait = w
	return t.InboxTx.Wait(ctx, w)
}

func (t *lifeTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	t.dead = d
	return t.InboxTx.Bury(ctx, d)
}

func (t *lifeTx) Commit(ctx context.Context) error {
	return t.commit(t.InboxTx, func() error { return t.InboxTx.Commit(ctx) }, triesActions, "answer lost")
}

func (t *lifeTx) Rollback() { t.rollback(t.InboxTx, "undo") }

type lifeRetry struct {
	outlast.RetryTx
	ending
}

func (t *lifeRetry) Wait(ctx context.Context, w *outlast.Waiting) error {
	t.wait = w
	return t.RetryTx.Wait(ctx, w)
}

func (t *lifeRetry) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	t.dead = d
	return t.RetryTx.Bury(ctx, d)
}

func (t *lifeRetry) Commit(ctx context.Context) error {
	return t.commit(t.RetryTx, func() error { return t.RetryTx.Commit(ctx) }, retriesActions, "")
}

func (t *lifeRetry) Rollback() { t.rollback(t.RetryTx, "undo retry") }

// broker adapters

type lifeBroker struct {
	outlast.Broker
	l *life
}

func (b lifeBroker) Subscriber(c outlast.SubscriberConfig) outlast.Subscriber {
	deliver, link := c.Deliver, c.Link
	c.Deliver = func(d *outlast.Delivery) {
		if own := b.l.delivered(d); own != nil {
			deliver(own)
		}
	}
	c.Link = func(k outlast.Link) {
		down := k.State != outlast.LinkUp
		b.l.lose(down)
		link(k)
		if down {
			b.l.lost()
		}
	}
	return lifeSubscriber{b.Broker.Subscriber(c), b.l}
}

func (l *life) lose(down bool) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.losing = down
}

// lost: whatever there was of a session, the process has noticed that it is over.
func (l *life) lost() {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if !l.gone {
		l.r.see(event{what: fmt.Sprintf("instance %d has noticed the end of its session", l.c), quiet: func(s *State) bool { return !s.Instance[l.c].Lost }})
	}
	l.losing = false
}

// delivered wraps a delivery, so that its acknowledgement is seen.
func (l *life) delivered(d *outlast.Delivery) *outlast.Delivery {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.gone {
		return nil
	}
	i := l.r.number(d.Message.ID)
	l.see("delivered", i, func(s *State) bool { return s.place(l.c, i) >= 0 })
	own := outlast.NewDelivery(d.Message, d.Queue, d.Redelivered, func() bool {
		l.r.mu.Lock()
		defer l.r.mu.Unlock()
		return !l.gone && l.acknowledge(d, i)
	})
	own.Session, own.Tag, own.Problem = d.Session, d.Tag, d.Problem
	if l.r.breaks.ackFirst {
		l.acknowledge(d, i)
	}
	return own
}

func (l *life) acknowledge(d *outlast.Delivery, i int) bool {
	ok := d.Ack()
	if ok {
		l.r.copies[i]--
	}
	way := l.of(i, "acknowledge")
	way[0].when = func(s *State) bool {
		return ok == (s.place(l.c, i) >= 0 && !s.Instance[l.c].Void.has(i))
	}
	l.see(fmt.Sprint("acknowledged: ", ok), i, nil, way)
	return ok
}

type lifeSubscriber struct {
	outlast.Subscriber
	l *life
}

func (s lifeSubscriber) Run(ctx context.Context) error {
	l := s.l
	l.r.mu.Lock()
	l.served, l.leaving = true, false
	l.r.mu.Unlock()
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		l.r.mu.Lock()
		l.leaving = true
		l.r.mu.Unlock()
		cancel()
	})()
	err := s.Subscriber.Run(inner)
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if !l.gone {
		l.r.see(event{what: fmt.Sprintf("instance %d has closed its channel", l.c), quiet: func(s *State) bool {
			return !s.Active.has(l.c) && !s.Instance[l.c].Leaving
		}})
	}
	l.served, l.leaving = false, false
	return err
}

// ear is a process's hook: what the recorder writes down must be so in the model.
type ear struct {
	*history.Recorder
	l    *life
	file *os.File
	read *bufio.Reader
}

func (l *life) newEar(path string) *ear {
	rec, err := history.NewRecorder(path, fmt.Sprint("instance-", l.c))
	if err != nil {
		l.r.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		l.r.t.Fatal(err)
	}
	return &ear{rec, l, f, bufio.NewReader(f)}
}

func (e *ear) close() {
	if err := errors.Join(e.Close(), e.file.Close()); err != nil {
		e.l.r.t.Error(err)
	}
}

// listen reads what the recorder has just written.
func (e *ear) listen(record func()) {
	e.l.r.mu.Lock()
	defer e.l.r.mu.Unlock()
	record()
	for {
		line, err := e.read.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return
		}
		var ev history.Event
		if err := errors.Join(err, json.NewDecoder(bytes.NewReader(line)).Decode(&ev)); err != nil {
			e.l.r.t.Error(err)
			return
		}
		e.hear(ev)
	}
}

func (e *ear) hear(ev history.Event) {
	l, c, i := e.l, e.l.c, e.l.r.number(ev.M)
	if l.gone || ev.O == history.Fail || ev.O == history.Unknown {
		return
	}
	var so func(s *State) bool
	switch ev.E {
	case history.Start, history.Tried:
		so = func(s *State) bool {
			return s.Instance[c].Task[i] == TaskRunning && int(s.Lock[i]) == c+1 || s.Instance[c].Retry.has(i)
		}
	case history.Effect:
		so = func(s *State) bool { return s.Effect.has(i) }
	case history.Park:
		so = func(s *State) bool { return s.Inbox[i] != Unknown }
	case history.Dead:
		so = func(s *State) bool { return s.Dead.has(i) }
	case history.Known:
		so = func(s *State) bool { return s.Instance[c].Task[i] == TaskSaved && s.Inbox[i] != Unknown }
	default:
		return
	}
	l.r.told++
	l.see(fmt.Sprintf("recorded: %s %s %s", ev.E, ev.O, ev.Why), i, so)
}

func (e *ear) OnDelivered(group string, d *outlast.Delivery) {
	e.listen(func() { e.Recorder.OnDelivered(group, d) })
}

func (e *ear) OnTrying(group string, m *outlast.Message, attempt int) {
	e.listen(func() { e.Recorder.OnTrying(group, m, attempt) })
}

func (e *ear) OnTried(group string, m *outlast.Message, attempt int, end outlast.TryEnd, err error) {
	e.listen(func() { e.Recorder.OnTried(group, m, attempt, end, err) })
}

func (e *ear) OnRecorded(rec outlast.Recorded) { e.listen(func() { e.Recorder.OnRecorded(rec) }) }

func (e *ear) OnAcked(group string, d *outlast.Delivery, ok bool) {
	e.listen(func() { e.Recorder.OnAcked(group, d, ok) })
}

// start runs an instance. End lets it leave in good order; kill cuts it off first.
func (r *consumerRun) start(c int, grace time.Duration) (end, kill func()) {
	r.lives++
	l := &life{r: r, c: c, open: map[rollbacker]bool{}}
	e := l.newEar(filepath.Join(r.folder, fmt.Sprintf("%d.jsonl", r.lives)))
	consumer, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "sink", Store: lifeStore{r.store, l}, Broker: lifeBroker{r.broker, l}, Instance: fmt.Sprintf("%d.%d", c, r.lives),
		Handlers: []outlast.Handler{outlast.Handle(traced, r.handle)}, Hooks: []outlast.Hook{e}, Grace: grace,
		Workers: 3, Prefetch: 2, Retry: outlast.RetryPolicy{Attempts: 2, Longest: 5 * time.Second}, Unordered: r.breaks.unordered,
		HeartbeatInterval: time.Second, LeaseTTL: 2 * time.Second,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.life[c] = l
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- consumer.Run(ctx) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		e.close()
		r.mu.Lock()
		defer r.mu.Unlock()
		if !l.gone {
			r.see(event{what: fmt.Sprintf("instance %d has ended", c), quiet: func(s *State) bool { return !isAwake(nil, s, c, 0) }})
		}
		r.life[c] = nil
	}
	kill = func() {
		r.mu.Lock()
		l.gone, l.served, l.losing, l.leaving, l.beginning = true, false, false, false, 0
		for tx := range l.open {
			tx.Rollback()
		}
		r.see(event{what: fmt.Sprintf("instance %d is killed", c), ways: one("die", c, 0),
			quiet: func(s *State) bool { return !isAwake(nil, s, c, 0) }})
		r.mu.Unlock()
		end()
	}
	return end, kill
}

// handle is the handler, in its mood.
func (r *consumerRun) handle(ctx context.Context, tx outlast.Tx, m outlast.Received[tracedBody]) error {
	r.mu.Lock()
	mood, dice := r.mood, r.rng.Float64()
	var long time.Duration
	if mood.long > 0 {
		long = time.Duration(r.rng.Int64N(int64(mood.long)))
	}
	r.mu.Unlock()
	select {
	case <-time.After(long):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := errors.New("by chance")
	switch {
	case dice < mood.fail:
		return err
	case dice < mood.fail+mood.down:
		return outlast.Unavailable(err)
	case dice < mood.fail+mood.down+mood.dead:
		return outlast.DeadLetter(err)
	}
	tx.(*memory.Tx).Do(func() { r.effects = append(r.effects, m.Body.N) }) // while a commit has mu
	return nil
}

// send puts a copy of message i into the queue, if the model's has room for it.
func (r *consumerRun) send(i int, action string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := 0
	for _, n := range r.copies {
		all += n
	}
	if r.copies[i] >= 2 || all >= queueRoom {
		return false
	}
	m := r.sent[i]
	if !r.broker.PublishForeign(outlast.EventExchange, m.Address(), outlast.EncodeHeaders(&m), m.ContentType, m.Body) {
		r.t.Error("no queue takes it")
	}
	r.copies[i]++
	r.see(event{what: fmt.Sprintf("m%d arrives", i), ways: one(action, i, 0)})
	return true
}

// die breaks every session.
func (r *consumerRun) die() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broker.Die()
	for c := range instances {
		r.see(event{what: fmt.Sprintf("the session of instance %d ends, if it has one", c), ways: one("session lost", c, 0),
			quiet: func(s *State) bool { return !s.Active.has(c) }})
	}
}

func (r *consumerRun) set(m mood) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mood = m
}

func (r *consumerRun) deafen(c int, deaf bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life[c].deaf = deaf
}

// consumerSchedule is one run: messages and copies of them arrive, two instances come,
// go and die, and faults are drawn from the seed; then everything heals.
func consumerSchedule(t *testing.T, seed uint64, breaks consumerBreaks) (*consumerRun, error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newConsumerRun(t, seed, [][messages]int{aab, aba, aaa}[rng.IntN(3)], breaks)
	var ends, kills [instances]func()
	begin := func(c int) {
		ends[c], kills[c] = r.start(c, []time.Duration{outlast.NoGrace, 5 * time.Second}[rng.IntN(2)])
	}
	for c := range ends {
		begin(c)
	}
	time.Sleep(10 * time.Second)
	next := 0
	for range 60 {
		c := rng.IntN(instances)
		switch rng.IntN(14) {
		case 0, 1, 2:
			if next < messages && r.send(next, "arrive") {
				next++
			}
		case 3, 4:
			if next > 0 {
				r.send(rng.IntN(next), "arrive again")
			}
		case 5, 6:
			r.set(mood{time.Duration(1 + rng.IntN(6000)*int(time.Millisecond)), rng.Float64() / 2, rng.Float64() / 4, rng.Float64() / 8, rng.Float64() / 4, rng.Float64() / 3})
		case 7:
			r.set(mood{long: time.Second})
		case 8:
			r.die()
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			r.broker.Revive()
		case 9:
			ends[c]()
			begin(c)
		case 10:
			kills[c]()
			begin(c)
		case 11:
			r.deafen(c, true)
		case 12:
			r.deafen(c, false)
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
	}
	r.set(mood{})
	for c := range ends {
		r.deafen(c, false)
	}
	for next < messages {
		time.Sleep(time.Minute)
		if r.send(next, "arrive") {
			next++
		}
	}
	time.Sleep(30 * time.Minute)
	for _, end := range ends {
		end()
	}
	return r, r.finish()
}

// finish also compares the end with the model's.
func (r *consumerRun) finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong != nil {
		return r.wrong
	}
	var effect Set
	for _, i := range r.effects {
		effect = effect.with(i)
	}
	for s := range r.follow.closure() {
		if s.Effect == effect && r.follow.m.Done(&s) && s.Dead.includes(r.dead) {
			return nil
		}
	}
	return fmt.Errorf("the model cannot end with the effects of %v, %03b dead and nothing in the queue\nseen:\n  %s", r.effects, r.dead, strings.Join(r.follow.seen, "\n  "))
}

// TestConsumerIsARunOfTheModel runs real consumers under random schedules and faults;
// what they are seen to do, and what the recorder of histories tells, must be a run of
// the model.
func TestConsumerIsARunOfTheModel(t *testing.T) {
	t.Parallel()
	seeds := uint64(40)
	switch {
	case long():
		seeds = 1000
	case raceEnabled:
		seeds = 12
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, err := consumerSchedule(t, seed, consumerBreaks{})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d events, %d of them told by the recorder, at most %d states at once, effects %v, dead %03b", r.events, r.told, r.follow.most, r.effects, r.dead)
			})
		})
	}
}

// TestBrokenConsumerIsNoRunOfTheModel shows that the test before can fail.
func TestBrokenConsumerIsNoRunOfTheModel(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]consumerBreaks{
		"acknowledges_before_the_commit":         {ackFirst: true},
		"a_failed_commit_is_told_as_done":        {commitLies: true},
		"the_inbox_does_not_tell_that_keys_wait": {behindIsNew: true},
		"the_queue_serves_everybody":             {unordered: true},
		"the_mapping_takes_a_retry_for_success":  {retryIsDone: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(200) {
				var found error
				synctest.Test(t, func(t *testing.T) { _, found = consumerSchedule(t, seed, breaks) })
				if found != nil {
					t.Logf("seed %d: %.2000v", seed, found)
					return
				}
			}
			t.Error("every run of it is a run of the model")
		})
	}
}
