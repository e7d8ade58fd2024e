package rabbitmq

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

const (
	defaultHeartbeat   = 10 * time.Second
	defaultDialTimeout = 10 * time.Second
	refusedBackoff     = 8 // times the longest pause
	defaultMaxBackoff  = 750 * time.Millisecond
	firstBackoff       = 20 * time.Millisecond
	// stallLimit ends a connection whose socket takes nothing for that long, unless
	// the broker has said that it blocks.
	stallLimit = 15 * time.Second
	// callLimit ends a connection on which the broker does not answer a request.
	callLimit = 30 * time.Second
	// closeLimit bounds the polite part of closing.
	closeLimit = 2 * time.Second
	// reassertEvery is the mean time between assertions of a subscribed queue.
	reassertEvery  = 3 * time.Minute
	defaultRecheck = 20 * time.Second
)

// Option changes how [Broker] connects.
type Option func(*broker)

// Addresses adds nodes, each a URL like the first. They are tried in random order.
func Addresses(urls ...string) Option {
	return func(b *broker) { b.urls = append(b.urls, urls...) }
}

// TLS gives the TLS settings of amqps addresses. Certificates are verified by
// default against the system's authorities and the address's host, and TLS 1.2 is
// the least. InsecureSkipVerify is refused by Validate.
func TLS(config *tls.Config) Option { return func(b *broker) { b.tls = config } }

// CACertificate reads the authorities to trust from a PEM file, at every connect, so
// that a rotated one is used without a restart.
func CACertificate(file string) Option { return func(b *broker) { b.caFile = file } }

// ClientCertificate presents a certificate. The PEM files are read at every
// connect, so that rotated ones are used without a restart.
func ClientCertificate(certFile, keyFile string) Option {
	return func(b *broker) { b.certFile, b.keyFile = certFile, keyFile }
}

// AllowPlain permits amqp:// without TLS to hosts other than loopback. Passwords
// and messages then travel readable. A warning is logged at every connect.
func AllowPlain() Option { return func(b *broker) { b.allowPlain = true } }

// AllowGuest permits the account "guest" to hosts other than loopback. It may do
// everything on a fresh broker, and everybody knows its password. A warning is logged
// at every connect.
func AllowGuest() Option { return func(b *broker) { b.allowGuest = true } }

// WithoutUserID publishes without the broker's user-id. With it, which is the default
// where the address names the user, the broker vouches for who published: see [Senders].
// It must go where the broker's name for the user is another than the address's, as with
// OAuth 2 tokens: such a broker refuses every message.
func WithoutUserID() Option { return func(b *broker) { b.withoutUserID = true } }

// Senders says which users of the broker may publish for a service: messages of a source
// in the map that the broker does not vouch for as one of its users' are dead letters.
// Others are not checked. The relay of each such service needs an account of its own.
func Senders(usersOf map[string][]string) Option {
	return func(b *broker) { b.senders = usersOf }
}

// ConnectionName is shown by the broker's own tools. Default: the program's name.
func ConnectionName(name string) Option { return func(b *broker) { b.name = name } }

// Logger gets what a person should know of connections. Default: slog.Default().
// A logger in a PublisherConfig or SubscriberConfig wins over it.
func Logger(l *slog.Logger) Option { return func(b *broker) { b.logger = l } }

// Recheck is how long a subscription may get nothing until it asks the broker whether
// its queue has a consumer, and asks again; it subscribes anew when two answers in a row
// say no. A broker that loses a queue without its leader does not tell the consumers. It
// connects anew, to any node, when nothing is in hand and two answers say that the queue has
// messages to deliver: a node whose copy of the queue is stuck serves nobody.
// Range 10 ms to 1 h; default 20 s.
func Recheck(d time.Duration) Option { return func(b *broker) { b.recheck = d } }

// MaxBackoff is the longest pause between two attempts to connect. The pauses start
// at some milliseconds, double, and are drawn from zero to their length. While the
// broker answers and refuses, as with a wrong password, they may be eight times as long.
// Range 10 ms to 5 min; default 750 ms, so that a broker which is back is used within
// the second. With thousands of clients on one broker, raise it.
func MaxBackoff(d time.Duration) Option { return func(b *broker) { b.maxBackoff = d } }

// Broker returns a broker at a URL, or at a comma-separated list of URLs:
//
//	amqps://user:password@host:5671/vhost?cacertfile=/etc/ca.pem
//
// Parameters are cacertfile, certfile, keyfile, server_name_indication,
// auth_mechanism (plain, external), allow_plain, allow_guest, user_id (false: see
// [WithoutUserID]), heartbeat in seconds (default 10), connection_timeout in
// milliseconds (default 10,000), and management (see [Management]).
//
// It dials nothing. What is wrong with its arguments is returned by its Validate
// method, and by every Run and every call of its Topology, as CodeInvalid. A broker
// may be used by any number of publishers and subscribers at the same time; each
// publisher has its own connection, and all subscribers share one.
func Broker(url string, opts ...Option) outlast.Broker { return newBroker(url, opts) }

type broker struct {
	urls          []string
	tls           *tls.Config
	caFile        string
	certFile      string
	keyFile       string
	allowPlain    bool
	allowGuest    bool
	withoutUserID bool
	senders       map[string][]string
	name          string
	logger        *slog.Logger
	maxBackoff    time.Duration
	recheck       time.Duration

	managementURL string
	management    *management // nil when not given

	addresses []address
	invalid   error
	consume   *sharedSession

	staleAcks     atomic.Uint64
	userIDRefused atomic.Bool
}

var _ outlast.Broker = (*broker)(nil)

func newBroker(list string, opts []Option) *broker {
	b := &broker{maxBackoff: defaultMaxBackoff, recheck: defaultRecheck, urls: splitURLs(list)}
	for _, opt := range opts {
		opt(b)
	}
	if b.logger == nil {
		b.logger = slog.Default()
	}
	if b.name == "" && len(os.Args) > 0 {
		b.name = os.Args[0][strings.LastIndexByte(os.Args[0], '/')+1:]
	}
	b.consume = &sharedSession{b: b, turn: make(chan struct{}, 1)}
	b.invalid = b.check()
	b.urls, b.managementURL = nil, "" // they hold passwords
	for i := range b.addresses {
		b.addresses[i].management = ""
	}
	return b
}

func (b *broker) Name() string { return "rabbitmq" }

// Address lists all addresses, without users and passwords.
func (b *broker) Address() string {
	if len(b.addresses) == 0 {
		return "rabbitmq (no valid address)"
	}
	texts := make([]string, 0, len(b.addresses))
	for _, a := range b.addresses {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

// Validate returns what is wrong with the URLs and options, all at once, as an
// *outlast.Error with CodeInvalid; nil when nothing is. It does not connect.
func (b *broker) Validate() error { return b.invalid }

// StaleAcks counts acknowledgements that came after the end of the subscription
// that their delivery belonged to, and so did nothing.
func (b *broker) StaleAcks() uint64 { return b.staleAcks.Load() }

func (b *broker) Publisher(c outlast.PublisherConfig) outlast.Publisher { return newPublisher(b, c) }

func (b *broker) Subscriber(c outlast.SubscriberConfig) outlast.Subscriber {
	return &subscriber{b: b, c: c, log: b.loggerOr(c.Logger)}
}

func (b *broker) Topology() outlast.TopologyBroker { return &topology{b: b} }

func (b *broker) loggerOr(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return b.logger
}

func (b *broker) check() error {
	var bad problems
	for i, raw := range b.urls {
		field := "url"
		if len(b.urls) > 1 {
			field = fmt.Sprintf("url[%d]", i)
		}
		a, ok := parseAddress(field, raw, &bad)
		if !ok {
			continue
		}
		b.checkAddress(field, &a, &bad)
		b.addresses = append(b.addresses, a)
	}
	b.checkManagement(&bad)
	if b.maxBackoff < 10*time.Millisecond || b.maxBackoff > 5*time.Minute {
		bad.add("MaxBackoff", "10ms..5m", b.maxBackoff.String())
	}
	if b.recheck < 10*time.Millisecond || b.recheck > time.Hour {
		bad.add("Recheck", "10ms..1h", b.recheck.String())
	}
	if b.tls != nil && b.tls.InsecureSkipVerify {
		bad.add("TLS", "verifying; give the authority by CACertificate", "InsecureSkipVerify")
	}
	if len(bad) == 0 {
		return nil
	}
	return &outlast.Error{Op: "rabbitmq broker", Code: outlast.CodeInvalid, Fields: bad}
}

// checkAddress refuses what would be unsafe. The shared guest account of every
// fresh broker may do everything, so that it is only for one's own machine.
func (b *broker) checkAddress(field string, a *address, bad *problems) {
	if b.caFile != "" && a.caFile == "" {
		a.caFile = b.caFile
	}
	if b.certFile != "" && a.certFile == "" {
		a.certFile, a.keyFile = b.certFile, b.keyFile
	}
	if (a.certFile == "") != (a.keyFile == "") {
		bad.add(field+" certfile and keyfile", "given together", "one alone")
	}
	if !a.tls && !a.loopback() && !a.allowPlain && !b.allowPlain {
		bad.add(field, "amqps:// beyond loopback, unless AllowPlain() or allow_plain=true is given", "amqp:// to "+strconv.Quote(a.host))
	}
	if a.user == "guest" && !a.external && !a.loopback() && !a.allowGuest && !b.allowGuest {
		bad.add(field+" user", "an account of this service; guest is for loopback only, unless AllowGuest() or allow_guest=true is given", `"guest"`)
	}
	if a.external && !a.tls {
		bad.add(field+" auth_mechanism", "external only with amqps://", "external with amqp://")
	}
}

// tlsConfig is made anew for every connect, because files may have been rotated.
func (b *broker) tlsConfig(a address) (*tls.Config, error) {
	base := b.tls
	if a.serverName != "" {
		base = base.Clone() // nil stays nil
		if base == nil {
			base = &tls.Config{}
		}
		base.ServerName = a.serverName
	}
	return tlsfile.Files{CA: a.caFile, Cert: a.certFile, Key: a.keyFile}.Config(base, a.host)
}

// shuffled returns the addresses in random order, so that clients spread over nodes.
func (b *broker) shuffled() []address {
	order := make([]address, len(b.addresses))
	for i, j := range rand.Perm(len(b.addresses)) {
		order[i] = b.addresses[j]
	}
	return order
}

// backoff spaces attempts: full jitter, doubling to a cap, which is higher when the last
// attempt ended with a refusal. A session that was up for as long as the longest pause
// starts it from the beginning; an attempt that takes so long to fail does not.
type backoff struct {
	limit   time.Duration
	attempt int
}

func (o *backoff) next(after error) time.Duration {
	span := o.limit
	if !outlast.Retryable(after) {
		span *= refusedBackoff
	}
	if o.attempt < 20 {
		span = min(span, firstBackoff<<o.attempt)
	}
	o.attempt++
	return rand.N(span) + time.Millisecond
}

func (o *backoff) lived(d time.Duration) {
	if d >= o.limit {
		o.attempt = 0
	}
}
