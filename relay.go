package outlast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Relay delivers what an outbox holds to the broker: committed rows only, in key
// order, and a row leaves the outbox only when the broker has confirmed and routed
// its message. Any number of relays, in any processes, may run on one outbox:
// they share its slots by leases.
//
// Delivery is at least once; a message is sent again only when its outcome could
// not be learnt (TestRelay/F32_republishes_after_a_lost_confirm), and the receiver's
// inbox makes its effect once.
type Relay struct {
	conf   RelayConfig
	hooks  hooks
	wake   chan struct{}
	soon   chan struct{}
	hot    hotSlots
	look   chan struct{} // at the hot slots: their commit has come
	before atomic.Int64  // settled-before in Unix microseconds; 0 is unknown

	mu     sync.Mutex
	status RelayHealth
}

// RelayConfig says what a relay works on and how. The zero value of a tuning field
// is its default.
type RelayConfig struct {
	// Source is the service whose outbox this is: lower-case letters, digits and '-',
	// at most 63. It becomes the CloudEvents source of every message.
	Source string
	Store  Store
	Broker Broker

	// Owner names this relay among others. Default: host, process id and a random part.
	Owner string
	// Interval is the longest pause between two sweeps, when nothing was found.
	// [Outbox.Publish] in the same process, or Wake, ends the pause early; without it
	// a row waits at most Interval. Range 10ms to 1h; default 1s.
	Interval time.Duration
	// WakeUps lets other processes end the pause too: those with [OutboxConfig].WakeUps, and
	// any that runs the statement in docs/tables.md after its commit. The relay holds one
	// more connection for that, outside of the store's pool, which no pooler may be in front
	// of. While that is lost, sweeps go on by Interval: it is no less safe, and no slower,
	// than without. Default false. PostgreSQL only.
	WakeUps bool
	// LeaseTTL is how long slots stay with a relay that gives no sign of life; it is
	// renewed after a third of it. Range 2s to 5min; default 10s.
	LeaseTTL time.Duration
	// InFlight and InFlightBytes bound the unconfirmed messages of one route.
	// Ranges 1 to 65,536 and 64 KiB to 256 MiB; defaults 1,024 and 8 MiB.
	InFlight      int
	InFlightBytes int
	// Buffer bounds the rows read and not settled, of all routes; their bodies take at
	// most 2 x InFlightBytes. Range InFlight to 262,144; default 4 x InFlight.
	Buffer int
	// ConfirmDeadline is how long a confirm may take before the outcome counts as
	// unknown and the route is probed on a new channel. Range 1s to 5min; default 10s.
	ConfirmDeadline time.Duration
	// Lanes is the number of AMQP channels in normal use. Range 1 to 64; default 4.
	Lanes int
	// NoTracking leaves out the sent log: what has been sent is then known to the
	// broker and to its receivers alone, and there are no books. See docs/journey.md.
	NoTracking bool
	// SentLog is how long the sent log keeps what. Zero fields are the defaults.
	SentLog Retention
	// Grace is how long Run goes on, after its context ended, to hear the confirms of
	// what it has sent. Range 0 to 5min; default 5s; NoGrace for none.
	Grace time.Duration

	Hooks  []Hook
	Logger *slog.Logger
}

// NoGrace, as RelayConfig.Grace, ends Run at once.
const NoGrace = time.Duration(-1)

// RelayHealth is what a relay knows of itself.
type RelayHealth struct {
	Link Link
	// Slots is how many slots it holds; Relays how many relays are alive.
	Slots  int
	Relays int
	// Paused: an operator paused the relays of this outbox. It noticed that within a third
	// of LeaseTTL; what it had sent by then it settles, and it holds no slots.
	Paused bool
	// Progress is when a message was last settled, or when there was last nothing to do.
	Progress time.Time
	// Closed are the routes that take nothing now, with the reason.
	Closed map[Route]string
	// Buffered rows are read and not settled yet.
	Buffered int
	// StoreError is the last error of the database, empty when the last call went well.
	StoreError string
}

// NewRelay checks conf and returns a relay that does nothing until Run.
func NewRelay(conf RelayConfig) (*Relay, error) {
	conf.setDefaults()
	if err := conf.validate(); err != nil {
		return nil, err
	}
	r := &Relay{conf: conf, wake: make(chan struct{}, 1), soon: make(chan struct{}, 1), look: make(chan struct{}, 1), hooks: hooks{conf.Hooks, conf.Logger}}
	r.status.Link = Link{State: LinkDown, Since: time.Now(), Reason: "not started"}
	return r, nil
}

func (c *RelayConfig) setDefaults() {
	setDefault(&c.Interval, time.Second)
	setDefault(&c.LeaseTTL, 10*time.Second)
	setDefault(&c.InFlight, 1024)
	setDefault(&c.InFlightBytes, 8<<20)
	setDefault(&c.Buffer, 4*c.InFlight)
	setDefault(&c.ConfirmDeadline, 10*time.Second)
	setDefault(&c.Lanes, 4)
	setDefault(&c.Grace, 5*time.Second)
	if c.Grace == NoGrace {
		c.Grace = 0
	}
	if c.Owner == "" {
		host, _ := os.Hostname()
		c.Owner = fmt.Sprintf("%.100s/%d/%s", host, os.Getpid(), NewID()[24:])
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (c *RelayConfig) validate() error {
	bad := c.check()
	bad.broker(c.Broker)
	return bad.err("new relay", "")
}

// check returns every bad field, but for what the broker says of its own.
func (c *RelayConfig) check() fieldErrors {
	var bad fieldErrors
	if !validServiceName(c.Source) {
		bad.add("RelayConfig.Source", serviceNameRule, quoted(c.Source))
	}
	if c.Store == nil {
		bad.add("RelayConfig.Store", "a store", "nil")
	}
	if c.Broker == nil {
		bad.add("RelayConfig.Broker", "a broker", "nil")
	}
	inRange(&bad, "RelayConfig.Interval", c.Interval, 10*time.Millisecond, time.Hour)
	if c.WakeUps && c.Store != nil {
		if _, ok := c.Store.Relay().(WakeListener); !ok {
			bad.add("RelayConfig.WakeUps", wakeUpsRule, c.Store.Engine())
		}
	}
	inRange(&bad, "RelayConfig.LeaseTTL", c.LeaseTTL, 2*time.Second, 5*time.Minute)
	inRange(&bad, "RelayConfig.InFlight", c.InFlight, 1, 65536)
	inRange(&bad, "RelayConfig.InFlightBytes", c.InFlightBytes, 64<<10, 256<<20)
	inRange(&bad, "RelayConfig.Buffer", c.Buffer, c.InFlight, 262144)
	inRange(&bad, "RelayConfig.ConfirmDeadline", c.ConfirmDeadline, time.Second, 5*time.Minute)
	inRange(&bad, "RelayConfig.Lanes", c.Lanes, 1, 64)
	if age := c.SentLog.Age; age != 0 {
		inRange(&bad, "RelayConfig.SentLog.Age", age, time.Hour, 10*MaxDelay)
	}
	if age := c.SentLog.BodyAge; age != 0 {
		inRange(&bad, "RelayConfig.SentLog.BodyAge", age, time.Minute, 10*MaxDelay)
	}
	if n := c.SentLog.Bytes; n != 0 {
		inRange(&bad, "RelayConfig.SentLog.Bytes", n, 1<<20, 1<<50)
	}
	inRange(&bad, "RelayConfig.Grace", c.Grace, 0, 5*time.Minute)
	return bad
}

const serviceNameRule = "1 to 63 lower-case letters, digits and '-', starting with a letter"

func validServiceName(s string) bool {
	return s != "" && len(s) <= 63 && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Wake tells the relay that a transaction with messages has committed: it sweeps at
// once, or when the sweep under way has ended and the database had a pause of some
// milliseconds, and then a few times in quick succession.
func (r *Relay) Wake() { hint(r.wake) }

// expect tells the relay that a transaction has messages and is about to commit, and in which
// slots, if that is known.
func (r *Relay) expect(slots []int) {
	if len(slots) > 0 {
		r.hot.add(slots, time.Now())
	}
	hint(r.soon)
}

// committed tells the relay of a commit with messages, the first of which was published at a
// time, with its slot; the zero time: their slots are not known.
func (r *Relay) committed(first time.Time) {
	if time.Since(first) < hotTime/2 {
		hint(r.look)
		return
	}
	r.Wake()
}

func hint(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Health returns what the relay knows of itself now.
func (r *Relay) Health() RelayHealth {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run relays until ctx ends; then it takes no more, hears the confirms of what it
// has sent for at most Grace, settles them, gives its leases back, and returns nil
// with nothing of it alive. Outages of the broker or the database are waited out
// for ever. It returns an error at once for what only a person can change: wrong
// tables, missing rights, an outbox that belongs to another service.
func (r *Relay) Run(ctx context.Context) error {
	if err := r.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// Jobs outlive ctx so that the drain can settle and release.
	jobs, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	newRelayRun(r, jobs).run(ctx, cancel)
	return nil
}

// prepare waits until the database can be asked whether this relay may work on it.
func (r *Relay) prepare(ctx context.Context) error {
	if v, ok := r.conf.Broker.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := r.conf.Store.Check(ctx)
		if err == nil {
			err = r.conf.Store.Relay().Identify(ctx, r.conf.Source)
		}
		if err == nil || !Retryable(err) {
			return err
		}
		r.noteStore(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jitter(wait)):
		}
	}
}

// keepSettledBefore refreshes what every message says about the oldest unsettled
// one. It may lag; it must never lead.
func (r *Relay) keepSettledBefore(ctx context.Context) {
	every := max(20*time.Second, r.conf.Interval)
	for {
		t, err := r.conf.Store.Relay().SettledBefore(ctx)
		if err == nil && !t.IsZero() {
			r.before.Store(t.UnixMicro())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// keepEvery is the time between two looks at the sent log.
const keepEvery = 10 * time.Minute

// keepSentLog makes room in the sent log and drops what is old. A relay that has just
// begun looks soon: the one before it may have been gone for long.
func (r *Relay) keepSentLog(ctx context.Context) {
	if r.conf.NoTracking {
		return
	}
	for wait := 5 * time.Second; sleep(ctx, wait/2+jitter(wait), nil); wait = keepEvery {
		kept, err := r.conf.Store.Journal().Keep(ctx, r.conf.SentLog)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.conf.Logger.Warn("keep the sent log: trying again later", "error", err)
		case kept.Due > 0:
			r.conf.Logger.Warn("the sent log is past its age or its bytes, and waits for its books", "parts", kept.Due, "bytes", kept.Bytes)
		case kept.Dropped > 0:
			r.conf.Logger.Info("dropped old parts of the sent log", "parts", kept.Dropped, "bytes", kept.Bytes)
		}
	}
}

// noteStore keeps the last state of the database for Health and logs its changes.
func (r *Relay) noteStore(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	was := r.status.StoreError
	r.status.StoreError = text
	r.mu.Unlock()
	switch {
	case text != "" && was == "":
		r.conf.Logger.Warn("a call to the database failed; trying again", "error", text)
	case text == "" && was != "":
		r.conf.Logger.Info("the database answers again")
	}
}

func (r *Relay) updateStatus(f func(*RelayHealth)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.status)
}
