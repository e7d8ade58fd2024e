package nats

import (
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
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

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
