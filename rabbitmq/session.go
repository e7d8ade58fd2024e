package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

// session is one connection from its handshake to its end. It is never repaired:
// whoever needs another one makes it.
type session struct {
	b       *broker
	address address
	// certificates are findings about when those of this connection end.
	certificates []outlast.Finding
	// expires is when the first of them ends.
	expires time.Time
	conn    *amqp.Connection
	wire    *wire
	maxSize int           // negotiated frame_max
	dead    chan struct{} // closed when the connection has ended
	began   time.Time
	tasks   sync.WaitGroup // everything started for this session

	opening sync.Mutex // one channel is opened at a time
	opened  uint16     // number of the channel that the broker opened last

	mu        sync.Mutex
	lanes     map[uint16]*lane
	onBlocked func(blocked bool, reason string) // called from the reading goroutine; must not block
	blockedBy string                            // the broker's reason
	reason    error                             // why it ended

	pending map[uint16]returnedMethod // reading goroutine only
}

type returnedMethod struct {
	code                int
	text, exchange, key string
}

// dial tries all addresses in random order.
func (b *broker) dial(ctx context.Context, purpose string, log *slog.Logger) (*session, error) {
	if b.invalid != nil {
		return nil, b.invalid
	}
	var errs []error
	for _, a := range b.shuffled() {
		s, err := b.dialOne(ctx, a, purpose)
		if err == nil {
			if !a.tls && !a.loopback() {
				log.Warn("the connection to rabbitmq is not encrypted: password and messages travel readable", "address", a.String())
			}
			for _, f := range s.certificates {
				if f.Level != outlast.FindingOK {
					log.Warn(f.Text+": rotate it", "address", a.String())
				}
			}
			if a.user == "guest" && !a.external && !a.loopback() {
				log.Warn("the account guest, which everybody knows, is used beyond loopback", "address", a.String())
			}
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ended("connect to rabbitmq", ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	// One text for one state of affairs, whatever the order of the attempts.
	slices.SortFunc(errs, func(x, y error) int { return strings.Compare(x.Error(), y.Error()) })
	return nil, &outlast.Error{Op: "connect to rabbitmq", Code: outlast.CodeOf(errs[0]), Err: errors.Join(errs...)}
}

func (b *broker) dialOne(ctx context.Context, a address, purpose string) (*session, error) {
	op := "connect to " + a.String()
	limited, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	conn, tlsConfig, err := b.dialSocket(limited, a)
	if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	}
	s := &session{
		b: b, address: a, dead: make(chan struct{}), began: time.Now(), onBlocked: func(bool, string) {},
		lanes: map[uint16]*lane{}, pending: map[uint16]returnedMethod{},
	}
	if secure, ok := conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		s.certificates = tlsfile.Findings("rabbitmq "+a.String(), state, tlsConfig, time.Now())
		s.expires = tlsfile.Expires(state, tlsConfig)
	}
	s.wire = newWire(conn, s)
	stop := context.AfterFunc(limited, func() { s.wire.abort(context.Cause(limited)) })
	s.conn, err = amqp.Open(s.wire, b.amqpConfig(a, purpose))
	if !stop() && err == nil {
		err = context.Cause(limited)
	}
	if err != nil {
		// The library takes any end during the login for wrong credentials.
		if cause := s.wire.failure(); cause != nil {
			err = cause
		}
		s.wire.abort(errWireClosed)
		<-s.wire.written
		return nil, errorOf(op, err)
	}
	s.maxSize = s.conn.Config.FrameSize
	if s.maxSize <= 0 || s.maxSize > frameMax {
		s.maxSize = frameMax
	}
	closed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	s.tasks.Go(func() { s.watch(closed) })
	return s, nil
}

// dialSocket has no TCP_USER_TIMEOUT: it would also end a connection that the broker
// deliberately does not read from during an alarm. Heartbeats bound the silence of a
// dead peer, and the wire's watchdog a write that goes nowhere.
func (b *broker) dialSocket(ctx context.Context, a address) (net.Conn, *tls.Config, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	conn, err := dialer.DialContext(ctx, "tcp", a.hostPort())
	if err != nil || !a.tls {
		return conn, nil, err
	}
	config, err := b.tlsConfig(a)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("verify the broker by TLS: %w", err)
	}
	return client, config, nil
}

func (b *broker) amqpConfig(a address, purpose string) amqp.Config {
	var mechanism amqp.Authentication = &amqp.PlainAuth{Username: a.user, Password: a.password()}
	if a.external {
		mechanism = &amqp.ExternalAuth{}
	}
	return amqp.Config{
		SASL: []amqp.Authentication{mechanism}, Vhost: a.vhost, Locale: "en_US",
		FrameSize: frameMax, Heartbeat: a.heartbeat,
		Properties: amqp.Table{
			"product": "Outlast", "platform": "golang",
			"connection_name": b.name + " " + purpose,
		},
	}
}

func (s *session) watch(closed chan *amqp.Error) {
	s.tasks.Go(func() {
		<-s.wire.failed
		_ = s.conn.Close() // it cannot write, and so notices that it has ended
	})
	var reason error
	for err := range closed {
		reason = err
	}
	if cause := s.wire.failure(); cause != nil {
		reason = cause
	}
	if reason == nil {
		reason = errWireClosed
	}
	s.mu.Lock()
	s.reason = errorOf("connection to "+s.address.String(), reason)
	s.mu.Unlock()
	close(s.dead)
}

// user is what the broker shall vouch for as the publisher of a message: the account
// of this connection, or nothing.
func (s *session) user() string {
	if a := &s.address; a.external || !a.userID || s.b.withoutUserID || s.b.userIDRefused.Load() {
		return ""
	}
	return s.address.user
}

// userIDRefused: the broker knows this connection's user by another name. Messages must
// flow, so they go without from now on.
func (s *session) userIDRefused() {
	if !s.b.userIDRefused.Swap(true) {
		s.b.logger.Warn("rabbitmq knows this user by another name: messages are published without a user-id from now on",
			"address", s.address.String(), "hint", "user_id=false in the URL, or WithoutUserID, says so from the beginning")
	}
}

// why is the reason of the end; only after dead is closed.
func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (s *session) alive() bool {
	select {
	case <-s.dead:
		return false
	default:
		return true
	}
}

// close ends the connection, politely when the broker answers in time, and waits
// until nothing of it is alive.
func (s *session) close() {
	hard := time.AfterFunc(closeLimit, func() { s.wire.abort(errWireClosed) })
	defer hard.Stop()
	_ = s.conn.CloseDeadline(time.Now().Add(closeLimit)) // whatever it says, it is closed
	<-s.wire.written
	<-s.dead
	s.tasks.Wait()
}

// call runs requests to the broker; one that is not answered ends the connection,
// since the library would wait for ever.
func (s *session) call(op string, f func() error) error {
	limit := time.AfterFunc(callLimit, func() {
		s.wire.abort(fmt.Errorf("%s: the broker did not answer within %v", op, callLimit))
	})
	defer limit.Stop()
	return f()
}

// channel opens a channel and returns its number, which the library keeps to itself.
func (s *session) channel() (*amqp.Channel, uint16, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	var ch *amqp.Channel
	err := s.call("open a channel", func() (err error) {
		ch, err = s.conn.Channel()
		return err
	})
	if err != nil {
		return nil, 0, err // the broker's answer may still come
	}
	return ch, s.opened, nil
}

// aside runs f on a channel of its own, for what may end in a channel error.
func (s *session) aside(op string, f func(*amqp.Channel) error) error {
	ch, _, err := s.channel()
	if err != nil {
		return err
	}
	defer s.call("close a channel", ch.Close)
	return s.call(op, func() error { return f(ch) })
}

// method observes what the broker sends, in its order.
func (s *session) method(channel, class, method uint16, args []byte) {
	c := cursor{b: args}
	switch uint32(class)<<16 | uint32(method) {
	case methodBlocked:
		s.blocked(true, outlast.CleanErrorText(string(c.shortstr())))
	case methodUnblocked:
		s.blocked(false, "")
	case methodChannelOpen:
		s.opened = channel // read under opening, after the answer came
	case methodChannelClose:
		code, text := int(c.short()), string(c.shortstr())
		if l := s.forget(channel); l != nil {
			l.closedByBroker(channel, code, text)
		}
	case methodReturn:
		s.pending[channel] = returnedMethod{int(c.short()), string(c.shortstr()), string(c.shortstr()), string(c.shortstr())}
	case methodAck, methodNack:
		tag, multiple := c.longlong(), c.octet()&1 != 0
		if l := s.lane(channel); l != nil && !c.failed {
			l.confirmed(channel, tag, multiple, method == methodAck&0xffff)
		}
	}
}

func (s *session) blocked(blocked bool, reason string) {
	s.mu.Lock()
	s.wire.setBlocked(blocked)
	s.blockedBy = reason
	tell := s.onBlocked
	s.mu.Unlock()
	tell(blocked, reason)
}

// header completes a return: the message's id is in its header.
func (s *session) header(channel uint16, h contentHeader) {
	r, ok := s.pending[channel]
	if !ok {
		return
	}
	delete(s.pending, channel)
	if l := s.lane(channel); l != nil {
		l.returned(channel, r, h.messageID)
	}
}

func (s *session) lane(channel uint16) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[channel]
}

func (s *session) register(channel uint16, l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[channel] = l
}

func (s *session) forget(channel uint16) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[channel]
	delete(s.lanes, channel)
	return l
}

// sharedSession is the connection that all subscribers of a broker use. It lives
// while there is one that does.
type sharedSession struct {
	b       *broker
	turn    chan struct{} // held by the one who looks or connects
	users   int
	current *session

	// failure is for all who ask soon after it, so that many subscribers of a broker
	// that is down do not each knock.
	failure error
	failed  time.Time
}

const failureShared = 250 * time.Millisecond

func (h *sharedSession) enter(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended("connect to rabbitmq", ctx)
	}
}

func (h *sharedSession) join() {
	h.turn <- struct{}{}
	h.users++
	<-h.turn
}

// leave closes the connection after its last user.
func (h *sharedSession) leave() {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	if h.users--; h.users == 0 && h.current != nil {
		h.current.close()
		h.current = nil
	}
}

// get returns the living session, or makes it.
func (h *sharedSession) get(ctx context.Context, log *slog.Logger) (*session, error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-h.turn }()
	if h.current != nil && h.current.alive() {
		return h.current, nil
	}
	if h.current != nil {
		h.current.close()
		h.current = nil
	}
	if h.failure != nil && time.Since(h.failed) < failureShared {
		return nil, h.failure
	}
	s, err := h.b.dial(ctx, "consumer", log)
	h.current, h.failure, h.failed = s, err, time.Now()
	if ctx.Err() != nil {
		h.failure = nil // it is this caller's own
	}
	return s, err
}
