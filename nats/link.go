package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/linklog"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

// link is one connection. It never reconnects by itself: what was sent on it and
// what came from it ends with it.
type link struct {
	*client.Conn
	b      *broker
	config *tls.Config // nil without TLS
	closed chan struct{}
	denied chan string // subjects that the server refused, newest kept
}

func (l *link) expires() time.Time {
	state, err := l.TLSConnectionState()
	if err != nil {
		return time.Time{} // no TLS
	}
	return tlsfile.Expires(state, l.config)
}

// dial connects to one of the addresses, tried in random order. onDenied, when
// set, hears the subjects that this user may not publish to.
func (b *broker) dial(ctx context.Context, role string, onDenied func(subject string)) (*link, error) {
	if b.err != nil {
		return nil, b.err
	}
	if host := b.plainTo(); host != "" {
		b.warnPlain.Do(func() {
			b.logger.Warn("the connection to nats is not encrypted: password and messages travel readable", "host", host)
		})
	}
	l := &link{b: b, closed: make(chan struct{}), denied: make(chan string, 16)}
	o := client.GetDefaultOptions()
	o.Servers = b.servers
	o.Name = b.name + " " + role
	o.AllowReconnect = false
	o.Timeout = dialTimeout
	o.FlusherTimeout = writeTimeout
	o.PingInterval = pingInterval
	o.MaxPingsOut = 2
	o.IgnoreDiscoveredServers = true
	o.User, o.Password, o.Token = b.user, b.password, b.token
	if b.inboxPrefix != "" {
		o.InboxPrefix = b.inboxPrefix
	}
	if b.credentials != "" {
		if err := client.UserCredentials(b.credentials)(&o); err != nil {
			return nil, b.fault("connect to "+b.address, outlast.CodeInvalid, err)
		}
	}
	if b.secure {
		// The client fills in the name of the server that it dials.
		config, err := b.files.Config(b.tls, "")
		if err != nil {
			return nil, &outlast.Error{Op: "connect to " + b.address, Code: outlast.CodeUnavailable, Err: err}
		}
		o.Secure, o.TLSConfig = true, config
		l.config = config
	}
	dialer := &dialer{ctx: ctx, plain: !b.secure}
	o.CustomDialer = dialer
	o.ClosedCB = func(*client.Conn) { close(l.closed) }
	o.AsyncErrorCB = func(_ *client.Conn, _ *client.Subscription, err error) {
		subject, ok := deniedSubject(err)
		if !ok {
			return
		}
		select {
		case l.denied <- subject:
		default:
		}
		if onDenied != nil {
			onDenied(subject)
		}
	}
	nc, err := o.Connect()
	dialer.settle()
	if err != nil {
		if errors.Is(err, client.ErrNoServers) && dialer.last != nil {
			err = dialer.last // the client says only that none was left to try
		}
		fault := b.fault("connect to "+b.address, connectCode(err), err)
		fault.Hint = connectHint(fault.Code, err)
		return nil, fault
	}
	l.Conn = nc
	return l, nil
}

// end closes the connection and waits until the client has noticed.
func (l *link) end() {
	l.Close()
	<-l.closed
}

// dialer lets ctx end a connect that hangs, handshake included.
type dialer struct {
	ctx   context.Context
	plain bool
	stops []func() bool
	last  error // of the last address that could not be reached
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.ctx, network, address)
	if err == nil {
		d.stops = append(d.stops, context.AfterFunc(d.ctx, func() { _ = c.Close() }))
	} else {
		d.last = err
		return nil, err
	}
	if d.plain {
		return &guard{Conn: c}, nil
	}
	return c, nil
}

func (d *dialer) settle() {
	for _, stop := range d.stops {
		stop()
	}
}

// backoff is a full-jitter pause that doubles up to limit, or higher after a refusal.
type backoff struct{ limit, last time.Duration }

// lived starts the pauses from the beginning when a session had been up for as long as the longest.
func (w *backoff) lived(began time.Time) {
	if !began.IsZero() && time.Since(began) >= w.limit {
		w.last = 0
	}
}

// wait pauses after a session that ended with err, and reports whether ctx is still alive.
func (w *backoff) wait(ctx context.Context, err error) bool {
	limit := w.limit
	if !outlast.Retryable(err) {
		limit *= refusedBackoff
	}
	w.last = min(max(2*w.last, backoffFirst), limit)
	t := time.NewTimer(rand.N(w.last))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// linkReporter tells about changes, and only about changes.
type linkReporter struct {
	report func(outlast.Link)
	last   outlast.Link
	told   linklog.Log
	// expires is when the first certificate of the present connection ends.
	expires time.Time
}

func (r *linkReporter) set(state outlast.LinkState, err error) {
	l := outlast.Link{State: state}
	if err != nil {
		l.Reason = err.Error()
	}
	if state == outlast.LinkUp {
		l.Expires = r.expires
	}
	if l.State == r.last.State && l.Reason == r.last.Reason {
		return
	}
	l.Since = time.Now()
	if l.State == r.last.State {
		l.Since = r.last.Since
	}
	r.last = l
	if r.report != nil {
		r.report(l)
	}
}
