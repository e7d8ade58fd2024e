package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
)

var (
	ack      = []byte("+ACK")
	progress = []byte("+WPI")
)

const (
	// pullExpires is how long the server keeps a request for messages; pullGrace is
	// how much later the lack of its word about it ends the session.
	pullExpires = 5 * time.Second
	pullGrace   = 5 * time.Second
	// sharedExpires is pullExpires when a queue has more durables than Prefetch, so
	// that they have to take turns.
	sharedExpires = 500 * time.Millisecond
	drainTime     = 2 * time.Second
)

// session takes messages on one connection. Deliveries are made by one goroutine.
type session struct {
	s      *subscriber
	l      *link
	queue  string
	prefix string // of the subjects on which the server answers requests
	sub    *client.Subscription

	mu    sync.Mutex
	over  bool
	feeds []*feed
	turn  int
	last  uint64
	tag   uint64 // of the last delivery, for observers
	hand  map[*held]struct{}
}

// held is one message in hand.
type held struct {
	feed   *feed
	reply  string
	number uint64 // of the delivery, by its consumer
}

func newSession(s *subscriber, l *link, feeds []*feed) *session {
	n := &session{s: s, l: l, queue: s.queue(), feeds: feeds, prefix: l.NewRespInbox() + ".", hand: map[*held]struct{}{}}
	for i, f := range feeds {
		f.room = s.cfg.Prefetch / len(feeds)
		if i < s.cfg.Prefetch%len(feeds) || f.room == 0 {
			f.room++
		}
	}
	return n
}

// presence is a subject on which every live session of a durable answers.
func presence(stream, name string) string { return "_outlast.here." + stream + "." + name }

func (n *session) start() (err error) {
	if n.sub, err = n.l.SubscribeSync(n.prefix + "*"); err != nil {
		return err
	}
	if err = n.sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	for _, f := range n.feeds {
		if _, err = n.l.Subscribe(presence(f.stream, f.name), func(m *client.Msg) { _ = m.Respond(nil) }); err != nil {
			return err
		}
	}
	n.mu.Lock()
	n.pull()
	n.mu.Unlock()
	return n.l.FlushTimeout(apiTimeout)
}

// run delivers until ctx ends or something is wrong with the session.
func (n *session) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	var watch sync.WaitGroup
	watch.Go(func() { n.watch(ctx, cancel) })
	var err error
	for err == nil {
		var m *client.Msg
		if m, err = n.sub.NextMsgWithContext(ctx); err == nil {
			err = n.take(m)
		}
	}
	stopped := parent.Err() != nil
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	watch.Wait()
	n.finish(stopped)
	var known *outlast.Error
	if errors.As(err, &known) {
		return known
	}
	if last := n.l.LastError(); n.l.IsClosed() && last != nil {
		err = last
	}
	return n.s.b.fault("consume "+n.queue, outlast.CodeUnavailable, err)
}

// watch gives signs of life for what is in hand, asks for more where a request has
// run out, and ends the session when the server says nothing about one.
func (n *session) watch(ctx context.Context, end context.CancelCauseFunc) {
	life := n.feeds[0].ackWait
	for _, f := range n.feeds {
		life = min(life, f.ackWait)
	}
	alive := time.NewTicker(max(life/3, 100*time.Millisecond))
	defer alive.Stop()
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.l.closed:
			end(errors.New("the connection was lost"))
			return
		case <-alive.C:
			n.mu.Lock()
			for h := range n.hand {
				_ = n.l.Publish(h.reply, progress)
			}
			n.mu.Unlock()
		case <-check.C:
			if n.late() {
				end(errors.New("the server does not answer a request for messages"))
				return
			}
		}
	}
}

func (n *session) late() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pull()
	now := time.Now()
	return slices.ContainsFunc(n.feeds, func(f *feed) bool { return f.asked > 0 && now.After(f.deadline) })
}

// pull asks for as many messages as there is room for, with one request for each
// durable at a time: a delivery does not say which request it belongs to. Requests
// grow with the acknowledgements that come in while one is under way. Called with
// mu held.
func (n *session) pull() {
	if n.over {
		return
	}
	expires := pullExpires
	if len(n.feeds) > n.s.cfg.Prefetch {
		expires = sharedExpires
	}
	free := n.s.cfg.Prefetch
	for _, f := range n.feeds {
		free -= f.asked + f.inHand
	}
	first := n.turn
	for i := range n.feeds {
		at := (first + i) % len(n.feeds)
		f := n.feeds[at]
		batch := min(free, f.room-f.inHand)
		if batch < 1 || f.asked > 0 {
			continue
		}
		n.last++
		n.turn = at + 1 // so that each has its turn when there is room for one only
		free -= batch
		f.asked, f.token, f.deadline = batch, fmt.Sprintf("%x", n.last), time.Now().Add(expires+pullGrace)
		in, _ := json.Marshal(map[string]int64{"batch": int64(batch), "expires": int64(expires)})
		// An error means that the connection is over, which the reader learns too.
		_ = n.l.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+f.stream+"."+f.name, n.prefix+f.token, in)
	}
}

// take handles one message of the server's: a delivery or a word about a request.
func (n *session) take(m *client.Msg) error {
	if status := m.Header.Get("Status"); status != "" && m.Reply == "" {
		return n.status(strings.TrimPrefix(m.Subject, n.prefix), status, m.Header.Get("Description"))
	}
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	n.mu.Lock()
	i := slices.IndexFunc(n.feeds, func(f *feed) bool { return f.durable == durable{meta.Stream, meta.Consumer} })
	if i < 0 || n.feeds[i].asked == 0 {
		n.mu.Unlock()
		return nil // not asked for; the server gives it to somebody else after its wait
	}
	f := n.feeds[i]
	if err := n.inOrder(f, meta); err != nil {
		n.mu.Unlock()
		return err
	}
	f.asked--
	f.inHand++
	h := &held{feed: f, reply: m.Reply, number: meta.Sequence.Consumer}
	n.hand[h] = struct{}{}
	n.tag++
	tag := n.tag
	n.pull()
	n.mu.Unlock()
	again := meta.NumDelivered > 1 || meta.Sequence.Stream <= f.delivered
	msg, problem := decode(m.Header, m.Data, n.s.cfg.Foreign)
	d := outlast.NewDelivery(msg, n.queue, again, func() bool { return n.ack(h) })
	d.Session, d.Tag, d.RoutingKey = n.prefix, tag, m.Subject
	d.Problem = problem
	n.s.cfg.Deliver(d)
	return nil
}

// inOrder refuses to go on after a gap: somebody else was given a message of this
// ordered queue, so the session starts again at the first unacknowledged one.
func (n *session) inOrder(f *feed, meta *client.MsgMetadata) error {
	if !n.s.ordered() || f.strict {
		return nil
	}
	f.next++
	if meta.Sequence.Consumer != f.next || meta.Sequence.Stream <= f.last {
		return &outlast.Error{Op: "consume " + n.queue, Code: outlast.CodeUnavailable,
			Err:  fmt.Errorf("delivery %d of consumer %q where %d was due", meta.Sequence.Consumer, f.name, f.next),
			Hint: "another instance takes messages from this ordered queue; starting again at the first unacknowledged one"}
	}
	f.last = meta.Sequence.Stream
	return nil
}

// status handles the server's word about a request.
func (n *session) status(token, status, text string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.feeds, func(f *feed) bool { return f.asked > 0 && f.token == token })
	if i < 0 || status == "100" {
		return nil // of a request that is used up
	}
	if status == "408" || status == "404" {
		n.feeds[i].asked = 0
		n.pull()
		return nil
	}
	if status == "503" {
		text = "no consumer is there to answer"
	}
	return &outlast.Error{Op: "consume " + n.queue, Code: outlast.CodeUnavailable, Err: fmt.Errorf("%s (status %s)", text, status)}
}

func (n *session) ack(h *held) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over {
		return false
	}
	delete(n.hand, h)
	h.feed.inHand--
	_ = n.l.Publish(h.reply, ack) // lost with the connection: the inbox knows the duplicate
	n.pull()
	return true
}

// finish ends the session: acknowledgements do nothing from here on, and what is
// in hand goes back. The server is told at once when the subscriber is being
// stopped, otherwise by the next session: a server that is on its way down would
// hear it and forget it. An ordered queue starts over anyway.
func (n *session) finish(stopped bool) {
	n.mu.Lock()
	n.over = true
	left := map[durable][]held{}
	for h := range n.hand {
		if !n.s.ordered() || h.feed.strict {
			left[h.feed.durable] = append(left[h.feed.durable], *h)
		}
	}
	n.mu.Unlock()
	if !n.l.IsClosed() {
		n.undelivered(left)
	}
	for d, hs := range left {
		slices.SortFunc(hs, func(a, b held) int { return cmp.Compare(a.number, b.number) })
		var replies []string
		for _, h := range hs {
			replies = append(replies, h.reply)
		}
		n.s.orphans[d] = replies
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if stopped && !n.l.IsClosed() {
		n.s.giveBack(ctx, n.l)
	}
	_ = n.l.FlushTimeout(drainTime) // acknowledgements
}

// undelivered stops the subscription and adds what the server had sent already.
func (n *session) undelivered(left map[durable][]held) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if n.sub.Drain() != nil {
		return
	}
	for {
		m, err := n.sub.NextMsgWithContext(ctx)
		if err != nil {
			return
		}
		meta, err := m.Metadata()
		if err != nil || n.s.ordered() {
			continue // a word about a request; or the next session starts over
		}
		d := durable{meta.Stream, meta.Consumer}
		left[d] = append(left[d], held{reply: m.Reply, number: meta.Sequence.Consumer})
	}
}
