package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/linklog"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

// Defaults and bounds of the options.
const (
	defaultAckWait    = 30 * time.Second
	defaultRefresh    = 5 * time.Second
	refusedBackoff    = 8 // times the longest pause
	defaultMaxBackoff = 750 * time.Millisecond
	assertEvery       = 3 * time.Minute // bindings, while subscribed

	dialTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	apiTimeout   = 5 * time.Second
	pingInterval = 10 * time.Second
	backoffFirst = 100 * time.Millisecond
)

// Option refines a broker.
type Option func(*broker)

// Credentials logs in with a credentials file (JWT and seed). The file is read at
// every connect, so that it can be replaced.
func Credentials(path string) Option { return func(b *broker) { b.credentials = path } }

// UserPassword logs in by name and password.
func UserPassword(user, password string) Option {
	return func(b *broker) { b.user, b.password = user, password }
}

// Token logs in by a token.
func Token(token string) Option { return func(b *broker) { b.token = token } }

// TLS demands TLS on every connection, with this configuration. Without it,
// "tls://" addresses use the system's authorities. TLS 1.2 is the least, and
// InsecureSkipVerify is refused.
func TLS(c *tls.Config) Option { return func(b *broker) { b.tls = c } }

// CACertificate reads the authorities to trust from a PEM file, at every connect, so
// that a rotated one is used without a restart.
func CACertificate(file string) Option { return func(b *broker) { b.files.CA = file } }

// ClientCertificate presents a certificate. The PEM files are read at every connect,
// so that rotated ones are used without a restart.
func ClientCertificate(certFile, keyFile string) Option {
	return func(b *broker) { b.files.Cert, b.files.Key = certFile, keyFile }
}

// AllowPlain permits connections without TLS to other machines. Without it they
// are refused: passwords and messages would be readable on the way. A warning is
// logged.
func AllowPlain() Option { return func(b *broker) { b.allowPlain = true } }

// Name is shown in the server's list of connections. Default "outlast".
func Name(name string) Option { return func(b *broker) { b.name = name } }

// Logger gets what a person should know of the settings. Default: slog.Default().
// Links log to the logger of a PublisherConfig or SubscriberConfig.
func Logger(l *slog.Logger) Option { return func(b *broker) { b.logger = l } }

// Replicas is the number of copies of streams that Outlast creates, 1 to 5.
// Default 0: one copy, and an existing stream may have any number.
func Replicas(n int) Option { return func(b *broker) { b.replicas = n } }

// AckWait is how long the server waits for a sign of life about a message in hand
// before it gives it to somebody else; Outlast gives one three times in that time.
// It bounds how long the messages of a process that died stay away. It applies
// where Outlast creates the consumer. Range 2 s to 10 min; default 30 s.
func AckWait(d time.Duration) Option { return func(b *broker) { b.ackWait = d } }

// Refresh is the longest time for which a publisher believes what it knows of a
// stream's consumers. Range 100 ms to 5 min; default 5 s.
func Refresh(d time.Duration) Option { return func(b *broker) { b.refresh = d } }

// MaxBackoff is the longest pause between two attempts to connect. The pauses start
// at some milliseconds, double, and are drawn from zero to their length. While the
// broker answers and refuses, as with a wrong password, they may be eight times as long.
// Range 100 ms to 5 min; default 750 ms, so that a broker which is back is used within
// the second. With thousands of clients on one broker, raise it.
func MaxBackoff(d time.Duration) Option { return func(b *broker) { b.maxBackoff = d } }

// InboxPrefix replaces "_INBOX", for accounts whose users may only listen on
// inboxes of their own.
func InboxPrefix(prefix string) Option { return func(b *broker) { b.inboxPrefix = prefix } }

type broker struct {
	servers     []string
	address     string
	secrets     []string
	credentials string
	user        string
	password    string
	token       string
	tls         *tls.Config
	files       tlsfile.Files
	warnPlain   sync.Once
	logger      *slog.Logger
	secure      bool
	allowPlain  bool
	name        string
	replicas    int
	ackWait     time.Duration
	refresh     time.Duration
	maxBackoff  time.Duration
	inboxPrefix string
	err         error // what is wrong with the settings
}

// Broker returns a broker at a NATS address, or at several of one cluster,
// separated by commas: "nats://127.0.0.1:4222", "tls://a:4222,tls://b:4222". A
// user and a password, or a token, may be in the address, and the parameters
// cacertfile, certfile, keyfile and allow_plain. It dials nothing. Bad
// settings are returned by everything that would connect, as a CodeInvalid that
// names all of them.
func Broker(address string, opts ...Option) outlast.Broker {
	b := &broker{name: "outlast", ackWait: defaultAckWait, refresh: defaultRefresh, maxBackoff: defaultMaxBackoff}
	for _, o := range opts {
		o(b)
	}
	if b.logger == nil {
		b.logger = slog.Default()
	}
	b.err = b.validate(address)
	return b
}

func (b *broker) Name() string    { return "nats" }
func (b *broker) Address() string { return b.address }

// Validate returns what is wrong with the address and the options, all at once, as an
// *outlast.Error with CodeInvalid; nil when nothing is. It does not connect.
func (b *broker) Validate() error { return b.err }

func (b *broker) validate(address string) error {
	var bad []outlast.FieldError
	add := func(field, limit, given string) {
		bad = append(bad, outlast.FieldError{Field: field, Limit: limit, Given: given})
	}
	if b.replicas < 0 || b.replicas > 5 {
		add("Replicas", "0 to 5", fmt.Sprint(b.replicas))
	}
	if b.ackWait < 2*time.Second || b.ackWait > 10*time.Minute {
		add("AckWait", "2s to 10m", b.ackWait.String())
	}
	if b.refresh < 100*time.Millisecond || b.refresh > 5*time.Minute {
		add("Refresh", "100ms to 5m", b.refresh.String())
	}
	if b.maxBackoff < backoffFirst || b.maxBackoff > 5*time.Minute {
		add("MaxBackoff", "100ms to 5m", b.maxBackoff.String())
	}
	for _, s := range []string{b.password, b.token} {
		if s != "" {
			b.secrets = append(b.secrets, s)
		}
	}
	if b.tls != nil && b.tls.InsecureSkipVerify {
		add("TLS", "verifying; give the authority by CACertificate", "InsecureSkipVerify")
	}
	b.secure = b.tls != nil
	var shown []string
	parts := strings.Split(address, ",")
	if cutPassword(parts) {
		add("address", `with a scheme before every user, and "%2C" for a comma in a password`, unreadable)
		parts, shown = nil, []string{unreadable}
	}
	for _, part := range parts {
		show, limit := b.addServer(strings.TrimSpace(part))
		shown = append(shown, show)
		if limit != "" {
			add("address", limit, show)
		}
	}
	b.address = strings.Join(shown, ",")
	if (b.files.Cert == "") != (b.files.Key == "") {
		add("certfile and keyfile", "given together", "one alone")
	}
	if b.files != (tlsfile.Files{}) && !b.secure {
		add("address", "tls:// with certificate files", "nats://")
	}
	if len(bad) > 0 {
		return &outlast.Error{Op: "open nats", Code: outlast.CodeInvalid, Fields: bad}
	}
	return nil
}

// cutPassword reports whether a comma may have cut a password in two: the part behind it
// then has a user and no scheme, and the part before it would be shown as a host.
func cutPassword(parts []string) bool {
	return slices.ContainsFunc(parts[1:], func(part string) bool {
		scheme, _, _ := strings.Cut(part, "://") // all of part when it has none
		return strings.Contains(scheme, "@")
	})
}

const unreadable = "(unreadable)"

// addServer takes one address. It returns it without secrets, and the rule that
// it breaks.
func (b *broker) addServer(s string) (show, limit string) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	// The parser's error would repeat the password, and so would a host that an unescaped
	// '/', '?' or '#' in the password ends early, or one with two colons.
	if err != nil || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "[") || strings.Contains(u.EscapedPath()+u.RawQuery+u.EscapedFragment(), "@") {
		return unreadable, `like "nats://host:4222"`
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "4222")
	}
	if u.User != nil {
		if p, ok := u.User.Password(); ok {
			b.secrets = append(b.secrets, p, url.QueryEscape(p), url.PathEscape(p))
		} else {
			b.secrets = append(b.secrets, u.User.Username(), url.PathEscape(u.User.Username()))
		}
	}
	show = u.Scheme + "://" + u.Host
	if limit = b.parameters(u.RawQuery); limit != "" {
		return show, limit
	}
	switch u.Scheme {
	case "tls":
		b.secure = true
	case "nats":
		if !b.allowPlain && b.tls == nil && !loopback(u.Hostname()) {
			return show, `"tls://" beyond this machine, unless AllowPlain or allow_plain=true is given`
		}
	default:
		return show, `"nats://" or "tls://"`
	}
	b.servers = append(b.servers, (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}).String())
	return show, ""
}

// parameters takes what stands behind the "?" of an address.
func (b *broker) parameters(raw string) (limit string) {
	const names = "parameters cacertfile, certfile, keyfile and allow_plain=true only"
	values, err := url.ParseQuery(raw)
	if err != nil {
		return names
	}
	for name, all := range values {
		value := all[len(all)-1]
		switch name {
		case "cacertfile":
			b.files.CA = value
		case "certfile":
			b.files.Cert = value
		case "keyfile":
			b.files.Key = value
		case "allow_plain":
			allow, err := strconv.ParseBool(value)
			if err != nil {
				return names
			}
			b.allowPlain = b.allowPlain || allow
		default:
			return names
		}
	}
	return ""
}

// plainTo is the first address that is reached without TLS on another machine.
func (b *broker) plainTo() string {
	for _, s := range b.servers {
		if u, err := url.Parse(s); err == nil && !b.secure && u.Scheme == "nats" && !loopback(u.Hostname()) {
			return u.Host
		}
	}
	return ""
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

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

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
