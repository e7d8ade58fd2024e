package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// subscriber is one supervised subscription: a session for each connection.
type subscriber struct {
	b   *broker
	cfg outlast.SubscriberConfig
	log *slog.Logger
	// orphans are the acknowledgement subjects of messages that an ended session left
	// in hand, in the order of their delivery.
	orphans map[durable][]string
}

// Subscriber returns a subscriber. A foreign queue is an existing durable pull
// consumer with explicit acknowledgement, named "STREAM/consumer", or by one name
// for both, written as [DurableName] says.
func (b *broker) Subscriber(cfg outlast.SubscriberConfig) outlast.Subscriber {
	return &subscriber{b: b, cfg: cfg, log: logger(cfg.Logger), orphans: map[durable][]string{}}
}

func (s *subscriber) queue() string {
	if s.cfg.Foreign != nil {
		return s.cfg.Foreign.Queue
	}
	return s.cfg.Group.Queue(s.cfg.Partition)
}

func (s *subscriber) validate() error {
	var bad []outlast.FieldError
	if s.cfg.Prefetch < 1 || s.cfg.Prefetch > 65_535 {
		bad = append(bad, outlast.FieldError{Field: "Prefetch", Limit: "1 to 65535", Given: fmt.Sprint(s.cfg.Prefetch)})
	}
	if s.cfg.Deliver == nil {
		bad = append(bad, outlast.FieldError{Field: "Deliver", Limit: "set", Given: "nil"})
	}
	if f := s.cfg.Foreign; f != nil {
		if stream, durable := foreignNames(f.Queue); !nameToken(stream) || !nameToken(durable) {
			bad = append(bad, outlast.FieldError{Field: "Foreign.Queue", Limit: `like "STREAM/consumer" or "queue"`, Given: fmt.Sprintf("%q", f.Queue)})
		}
	}
	if len(bad) > 0 {
		return &outlast.Error{Op: "subscribe to " + s.queue(), Code: outlast.CodeInvalid, Fields: bad}
	}
	return nil
}

func foreignNames(queue string) (stream, durable string) {
	if stream, durable, ok := strings.Cut(queue, "/"); ok {
		return stream, durable
	}
	return DurableName(queue), DurableName(queue)
}

// nameToken accepts what NATS takes as the name of a stream or a consumer.
func nameToken(s string) bool { return subjectTokens(s) && !strings.ContainsAny(s, ".*>/\\") }

func (s *subscriber) Run(ctx context.Context) error {
	if err := errors.Join(s.b.err, s.validate()); err != nil {
		return cmp.Or(s.b.err, err)
	}
	state := linkReporter{report: s.cfg.Link}
	pause := backoff{limit: s.b.maxBackoff}
	for {
		began, err := s.runSession(ctx, &state)
		if ctx.Err() != nil {
			state.set(outlast.LinkDown, ctx.Err())
			return nil
		}
		pause.lived(began)
		state.set(outlast.LinkDown, err)
		if state.told.Due(outlast.LinkDown) {
			s.log.Warn("not subscribed", "queue", s.queue(), "broker", s.b.address, "error", err)
		}
		if !pause.wait(ctx, err) {
			return nil
		}
	}
}

// runSession subscribes and stays until ctx or the session ends. began is when it had come
// to deliver; zero when it had not.
func (s *subscriber) runSession(ctx context.Context, state *linkReporter) (began time.Time, err error) {
	l, err := s.b.dial(ctx, "subscriber "+s.queue(), nil)
	if err != nil {
		return time.Time{}, err
	}
	defer l.end()
	level, err := s.declare(ctx, l)
	if err != nil {
		return time.Time{}, err
	}
	feeds, err := s.feeds(ctx, l)
	if err != nil {
		return time.Time{}, err
	}
	s.giveBack(ctx, l)
	if err := s.rewind(ctx, l, feeds, level); err != nil {
		return time.Time{}, err
	}
	session := newSession(s, l, feeds)
	if err := session.start(); err != nil {
		return time.Time{}, s.b.fault("subscribe to "+s.queue(), outlast.CodeUnavailable, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	asserted := make(chan struct{})
	go func() {
		defer close(asserted)
		s.keepDeclared(ctx, l, level)
	}()
	began = time.Now()
	state.expires = l.expires()
	state.set(outlast.LinkUp, nil)
	if state.told.Due(outlast.LinkUp) {
		s.log.Info("subscribed to nats", "queue", s.queue(), "broker", s.b.address)
	}
	err = session.run(ctx)
	cancel()
	<-asserted
	return began, err
}

// declare asserts the queue when asked to, and learns what the server can do.
func (s *subscriber) declare(ctx context.Context, l *link) (level int, err error) {
	if s.cfg.Foreign != nil {
		return 0, nil
	}
	if level, err = l.apiLevel(ctx); err != nil || !s.cfg.Declare {
		return level, err
	}
	_, err = l.ensureQueue(ctx, s.cfg.Group, s.cfg.Partition, level)
	return level, err
}

// keepDeclared asserts the bindings again and again. After a change it looks again
// soon: another instance may have written its own list at the same time.
func (s *subscriber) keepDeclared(ctx context.Context, l *link, level int) {
	if !s.cfg.Declare || s.cfg.Foreign != nil {
		return
	}
	next := 2 * time.Second
	for {
		t := time.NewTimer(next/2 + rand.N(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		changed, err := l.ensureQueue(ctx, s.cfg.Group, s.cfg.Partition, level)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("bindings not asserted", "queue", s.queue(), "error", err)
		}
		if next = assertEvery; changed {
			next = 2 * time.Second
		}
	}
}

func (s *subscriber) feeds(ctx context.Context, l *link) ([]*feed, error) {
	if s.cfg.Foreign != nil {
		stream, name := foreignNames(s.cfg.Foreign.Queue)
		info, err := l.consumerInfo(ctx, stream, name)
		if err != nil {
			return nil, err
		}
		return []*feed{newFeed(stream, info)}, nil
	}
	return l.feedsOf(ctx, s.queue(), slices.Sorted(maps.Keys(filtersOf(s.cfg.Group, s.cfg.Partition))))
}

// rewind makes an ordered queue start at its first unacknowledged message.
func (s *subscriber) rewind(ctx context.Context, l *link, feeds []*feed, level int) error {
	if !s.ordered() {
		return nil
	}
	for _, f := range feeds {
		if f.strict {
			continue
		}
		if level < resetLevel {
			return &outlast.Error{Op: "subscribe to " + s.queue(), Code: outlast.CodeConflict,
				Err:  fmt.Errorf("consumer %q of stream %q: max_ack_pending is not 1 and the server cannot reset a consumer", f.name, f.stream),
				Hint: "set max_ack_pending to 1, or use a server with JetStream API level 4"}
		}
		if err := l.resetConsumer(ctx, f.stream, f.name); err != nil {
			return err
		}
	}
	return nil
}

func (s *subscriber) ordered() bool { return s.cfg.Foreign == nil && s.cfg.Group.Ordered }
