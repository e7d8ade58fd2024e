package memory

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outlastmq/outlast"
)

const (
	retryEvery   = time.Second // a subscription that failed
	declareEvery = time.Minute // the bindings, in case somebody removed one
)

type subscriber struct {
	b    *Broker
	conf outlast.SubscriberConfig
	wake chan struct{}
	last outlast.Link
}

func (s *subscriber) poke()         { poke(s.wake) }
func (s *subscriber) prefetch() int { return max(s.conf.Prefetch, 1) }

func (s *subscriber) queueName() string {
	if s.conf.Foreign != nil {
		return s.conf.Foreign.Queue
	}
	return s.conf.Group.Queue(s.conf.Partition)
}

// Run returns nil when ctx ends.
func (s *subscriber) Run(ctx context.Context) error {
	s.b.mu.Lock()
	s.b.subscribers[s] = true
	s.b.mu.Unlock()
	defer func() {
		s.b.mu.Lock()
		delete(s.b.subscribers, s)
		s.b.mu.Unlock()
	}()
	for ctx.Err() == nil {
		sess, err := s.open()
		if err != nil {
			s.setLink(outlast.LinkDown, err.Error())
			s.pause(ctx, retryEvery)
			continue
		}
		s.setLink(outlast.LinkUp, "")
		why := s.serve(ctx, sess)
		s.setLink(outlast.LinkDown, why)
	}
	return nil
}

// setLink is called by Run only.
func (s *subscriber) setLink(state outlast.LinkState, reason string) {
	if s.last.State == state && s.last.Reason == reason {
		return
	}
	s.last = outlast.Link{State: state, Since: time.Now(), Reason: reason}
	if s.conf.Link != nil {
		s.conf.Link(s.last)
	}
}

func (s *subscriber) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	case <-ctx.Done():
	}
}

func (s *subscriber) open() (*session, error) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.down {
		return nil, unavailable("subscribe", errDown)
	}
	if err := s.declare(); err != nil {
		return nil, err
	}
	q, err := s.b.queue("subscribe to queue", s.queueName())
	if err != nil {
		return nil, err
	}
	return q.subscribe(s), nil
}

// declare is called with mu held.
func (s *subscriber) declare() error {
	if !s.conf.Declare || s.conf.Foreign != nil {
		return nil
	}
	return s.b.declare(s.conf.Group, s.conf.Partition)
}

// serve delivers until the session or ctx ends, and returns why it did.
func (s *subscriber) serve(ctx context.Context, sess *session) string {
	asserted := time.Now()
	for {
		s.b.mu.Lock()
		if ctx.Err() != nil {
			sess.close("the subscriber ended")
		}
		if sess.closed {
			s.b.mu.Unlock()
			return sess.why
		}
		if time.Since(asserted) >= declareEvery {
			asserted = time.Now()
			if err := s.declare(); err != nil {
				sess.close(err.Error())
			}
		}
		m := sess.next()
		var d *outlast.Delivery
		if m != nil {
			d = s.delivery(sess, m)
		}
		s.b.mu.Unlock()
		if d == nil {
			s.pause(ctx, declareEvery)
			continue
		}
		s.conf.Deliver(d)
	}
}

func (s *subscriber) delivery(sess *session, m *stored) *outlast.Delivery {
	msg, problem := decode(m, s.conf.Foreign)
	d := outlast.NewDelivery(msg, sess.q.name, m.redelivered, func() bool {
		s.b.mu.Lock()
		defer s.b.mu.Unlock()
		if sess.closed {
			return false
		}
		delete(sess.unacked, m.seq)
		s.poke()
		return true
	})
	d.Session, d.Tag = sess.name, uint64(m.seq)
	d.Problem, d.Exchange, d.RoutingKey = problem, m.exchange, m.key
	return d
}

// encode writes a message as it travels, so that a test in memory meets what a
// network would do to it.
func encode(p *outlast.Publishing) *stored {
	m := p.Message
	return &stored{exchange: p.Exchange, key: p.RoutingKey, headers: outlast.EncodeHeaders(m), contentType: m.ContentType, body: bytes.Clone(m.Body)}
}

func decode(st *stored, foreign *outlast.ForeignQueue) (*outlast.Message, error) {
	m := &outlast.Message{Body: bytes.Clone(st.body)}
	m.ContentType = st.contentType
	err := outlast.DecodeHeaders(m, st.headers)
	if foreign != nil {
		adopt(m, st, foreign)
	}
	return m, err
}

// adopt fills in what a foreign message lacks.
func adopt(m *outlast.Message, st *stored, f *outlast.ForeignQueue) {
	if m.Source == "" {
		m.Source = f.Source
	}
	if m.Source == "" {
		m.Source = f.Queue
	}
	if m.Type == "" {
		m.Type = f.Type
	}
	if m.ID == "" {
		m.ID = header(st, f.IDHeader)
	}
	if m.ID == "" && f.DeriveID {
		m.ID = uuid.NewSHA1(uuid.NameSpaceOID, append([]byte(m.Source+"\x00"+m.Type+"\x00"), m.Body...)).String()
	}
	if m.Envelope.Key == "" {
		m.Envelope.Key = header(st, f.KeyHeader)
	}
}

func header(st *stored, name string) string {
	for _, h := range st.headers {
		if name != "" && strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}
