package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/linklog"
	"github.com/outlastmq/outlast/internal/planted"
)

var (
	errCancelled = errors.New("the broker ended the subscription (the queue was deleted, or its leader was lost)")
	errClosed    = errors.New("the broker closed the channel")
	errForgotten = errors.New("the broker has forgotten the subscription: the queue has no consumer")
	errStarved   = errors.New("the queue has messages and this node delivers none; another one may")
)

// subscriber is one supervised subscription, each time on a channel of its own.
type subscriber struct {
	b   *broker
	c   outlast.SubscriberConfig
	log *slog.Logger

	last     outlast.Link
	told     linklog.Log
	asserted string // the last failure of a later assertion, so that it is logged once
	starved  int    // subscriptions in a row that got nothing from a queue with messages

	current atomic.Pointer[subscription] // for planted.RawTag
}

// rawTag makes the bug planted.RawTag: a delivery whose tag is acknowledged on the
// subscription of now, where it is that of another message.
func (s *subscriber) rawTag(d *outlast.Delivery) *outlast.Delivery {
	var raw *outlast.Delivery
	raw = outlast.NewDelivery(d.Message, d.Queue, d.Redelivered, func() bool {
		now := s.current.Load()
		raw.Session = now.name
		return now.ack(raw.Tag)
	})
	raw.Session, raw.Tag = d.Session, d.Tag
	return raw
}

// Run subscribes, and again after every loss, until ctx ends; it then returns nil
// with the channel closed. It returns an error only at once, for invalid settings.
func (s *subscriber) Run(ctx context.Context) error {
	if err := s.validate(); err != nil {
		return err
	}
	s.last = outlast.Link{State: outlast.LinkDown}
	s.b.consume.join()
	defer s.b.consume.leave()
	pause := backoff{limit: s.b.maxBackoff}
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
		}
		s.link(outlast.LinkDown, err.Error())
		pause.lived(time.Since(began))
		wait(ctx, pause.next(err))
	}
	s.link(outlast.LinkDown, "stopped")
	return nil
}

func (s *subscriber) validate() error {
	if s.b.invalid != nil {
		return s.b.invalid
	}
	var bad problems
	if s.c.Prefetch < 1 || s.c.Prefetch > 65535 {
		bad.add("SubscriberConfig.Prefetch", "1..65535", fmt.Sprint(s.c.Prefetch))
	}
	if s.c.Deliver == nil {
		bad.add("SubscriberConfig.Deliver", "set", "nil")
	}
	if s.c.Foreign == nil && (s.c.Partition < 0 || s.c.Partition >= max(1, s.c.Group.Partitions)) {
		bad.add("SubscriberConfig.Partition", fmt.Sprintf("0..%d", max(1, s.c.Group.Partitions)-1), fmt.Sprint(s.c.Partition))
	}
	if len(s.queue()) > 255 {
		bad.add("queue name", "at most 255 bytes", fmt.Sprintf("%d bytes", len(s.queue())))
	}
	if len(bad) == 0 {
		return nil
	}
	return &outlast.Error{Op: "subscribe", Code: outlast.CodeInvalid, Fields: bad}
}

func (s *subscriber) queue() string {
	if s.c.Foreign != nil {
		return s.c.Foreign.Queue
	}
	return s.c.Group.Queue(s.c.Partition)
}

func (s *subscriber) declares() bool { return s.c.Declare && s.c.Foreign == nil }

// link reports and logs a change.
func (s *subscriber) link(state outlast.LinkState, reason string) {
	if reason != "stopped" && s.told.Due(state) {
		if state == outlast.LinkUp {
			s.log.Info("subscribed to rabbitmq", "queue", s.queue())
		} else {
			s.log.Warn("not subscribed to rabbitmq", "queue", s.queue(), "reason", reason)
		}
	}
	if state == s.last.State && reason == s.last.Reason {
		return
	}
	now := outlast.Link{State: state, Since: time.Now(), Reason: reason}
	if state == s.last.State {
		now.Since = s.last.Since
	}
	s.last = now
	if s.c.Link != nil {
		s.c.Link(now)
	}
}

// once is one subscription: it returns why it ended.
func (s *subscriber) once(ctx context.Context) error {
	session, err := s.b.consume.get(ctx, s.log)
	if err != nil {
		return err
	}
	if s.declares() {
		if err := session.assertQueue(s.c.Group, s.c.Partition); err != nil {
			return err
		}
	}
	sub, err := s.subscribe(session)
	if err != nil {
		return errorOf("subscribe to queue "+fmt.Sprintf("%q", s.queue()), err)
	}
	defer sub.end()
	if planted.On(planted.RawTag) {
		s.current.Store(sub)
	}
	s.link(outlast.LinkUp, "")
	return s.receive(ctx, session, sub)
}

// subscription is one channel with one consumer. Deliveries can be acknowledged on
// it until it ends.
type subscription struct {
	session    *session
	name       string // of the consumer: no other subscription has it
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
	closed     chan *amqp.Error
	stale      func()
	inHand     atomic.Int64 // deliveries that are not acknowledged

	// alive is held for reading during an acknowledgement: none is on its way any
	// more when end returns, so that it can never meet another channel's tags.
	alive sync.RWMutex
	over  bool
}

func (s *subscriber) subscribe(session *session) (*subscription, error) {
	ch, _, err := session.channel()
	if err != nil {
		return nil, err
	}
	sub := &subscription{session: session, name: "outlast-" + rand.Text(), ch: ch, stale: func() { s.b.staleAcks.Add(1) }}
	sub.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	err = session.call("subscribe", func() (err error) {
		if err = ch.Qos(s.c.Prefetch, 0, false); err != nil {
			return err
		}
		sub.deliveries, err = ch.Consume(s.queue(), sub.name, false, false, false, false, nil)
		return err
	})
	if err != nil {
		sub.end()
		return nil, err
	}
	return sub, nil
}

// end closes the channel, by which the broker takes back what was not acknowledged,
// in order. A basic.cancel with work in hand would let the next consumer overtake it.
func (sub *subscription) end() {
	sub.alive.Lock()
	sub.over = true
	sub.alive.Unlock()
	_ = sub.session.call("close a channel", sub.ch.Close) // already closed, or it ends with the session
}

// ack does nothing once the subscription has ended: the broker delivers again then,
// and the tag would belong to another message.
func (sub *subscription) ack(tag uint64) bool {
	sub.alive.RLock()
	defer sub.alive.RUnlock()
	if sub.over || sub.ch.Ack(tag, false) != nil {
		sub.stale()
		return false
	}
	sub.inHand.Add(-1)
	return true
}

func (s *subscriber) receive(ctx context.Context, session *session, sub *subscription) error {
	again := time.NewTimer(reassertPause())
	defer again.Stop()
	check := time.NewTicker(recheck)
	defer check.Stop()
	quiet, forgotten, starved := false, 0, 0 // since the last check, and checks in a row
	for {
		select {
		case d, ok := <-sub.deliveries:
			if !ok {
				return s.ending(session, sub)
			}
			quiet, forgotten, starved, s.starved = false, 0, 0, 0
			s.deliver(sub, d)
		case <-check.C:
			if !quiet {
				quiet = true
				continue
			}
			consumers, messages := s.look(session)
			// A queue without a leader says none as well, for a moment.
			forgotten = inARow(forgotten, consumers == 0)
			starved = inARow(starved, messages > 0 && sub.inHand.Load() == 0)
			op := fmt.Sprintf("subscription to queue %q", s.queue())
			switch {
			case forgotten == 2:
				return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: errForgotten}
			case starved >= 2<<min(s.starved, mostStarved):
				s.starved++
				err := &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: errStarved}
				session.wire.abort(err) // the next connection is to any node
				return err
			}
		case <-again.C:
			s.reassert(session)
			again.Reset(reassertPause())
		case <-ctx.Done():
			return ended("subscribe", ctx)
		}
	}
}

func (s *subscriber) deliver(sub *subscription, d amqp.Delivery) {
	m, problem := decode(&d, s.c.Foreign)
	if impostor := s.b.checkSender(m.Source, d.UserId); impostor != nil {
		problem = errors.Join(problem, impostor)
	}
	tag := d.DeliveryTag
	sub.inHand.Add(1)
	delivery := outlast.NewDelivery(m, s.queue(), d.Redelivered, func() bool { return sub.ack(tag) })
	delivery.Session, delivery.Tag = sub.name, tag
	if planted.On(planted.RawTag) {
		delivery = s.rawTag(delivery)
	}
	delivery.Problem = problem
	s.c.Deliver(delivery)
}

// ending finds out why no more deliveries come.
func (s *subscriber) ending(session *session, sub *subscription) error {
	op := fmt.Sprintf("subscription to queue %q", s.queue())
	select {
	case err, ok := <-sub.closed:
		if ok {
			return errorOf(op, err)
		}
		if !session.alive() {
			return session.why()
		}
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: errClosed}
	default:
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: errCancelled}
	}
}

// recheck is how long a subscription may get nothing until it asks the broker about its queue.
const recheck = 20 * time.Second

// mostStarved bounds the patience with a queue that has messages and delivers none: at most
// 64 checks.
const mostStarved = 5

func inARow(n int, again bool) int {
	if again {
		return n + 1
	}
	return 0
}

// look asks the broker how many consumers the queue has, and how many messages that it could
// deliver. None when the queue is not there: one that is deleted while it has no leader does
// not tell its consumers.
func (s *subscriber) look(session *session) (consumers, messages int) {
	consumers = 1
	err := session.aside(fmt.Sprintf("look at queue %q", s.queue()), func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(s.queue(), true, false, false, false, nil)
		if err == nil {
			consumers, messages = q.Consumers, q.Messages
		}
		return err
	})
	if replyCode(err) == replyNotFound {
		consumers = 0
	}
	return consumers, messages
}

// reassert heals bindings that were removed while the subscription went on.
func (s *subscriber) reassert(session *session) {
	if !s.declares() {
		return
	}
	text := ""
	if err := session.assertQueue(s.c.Group, s.c.Partition); err != nil {
		text = err.Error()
	}
	if text != s.asserted && text != "" && session.alive() {
		s.log.Warn("a queue and its bindings could not be asserted", "queue", s.queue(), "error", text)
	}
	s.asserted = text
}

func reassertPause() time.Duration {
	return reassertEvery/2 + mathrand.N(reassertEvery)
}
