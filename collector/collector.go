package collector

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/settings"
	"github.com/outlastmq/outlast/journey"
)

// Config is what a collector reads, how often, and how much it keeps.
type Config struct {
	// Store is the collector's own database, with its tables.
	Store *Store
	// Places are the databases of the services. It only reads there. Their names are
	// kept and shown, and hold no secrets.
	Places []journey.Place
	// Every is the pause between two rounds. Range 1s to 1h; default 10s.
	Every time.Duration
	// Patience bounds one answer of a database. Range 100ms to 5m; default 10s.
	Patience time.Duration
	// Grace is how long a message may be pending, or wait for a retry, before it is
	// kept here. Range 1s to 24h; default 1m.
	Grace time.Duration
	// Share of the flows is kept although nothing is wrong with them, chosen by the hash of
	// the id of the message that began each. Range 0 to 1; default 0: none.
	Share float64
	// Look is how many messages one round takes of each kind and database, and asks for
	// again. Range 10 to 100000; default 2000.
	Look int
	// Rows and Bytes bound what is kept. What exceeds them is shed: of the share of flows
	// first, then what is over, and what is still open last; of each the oldest first. Age
	// bounds what is over. Ranges 100 to 10000000, 1 MiB to 1 TiB, 1m to 1 year; defaults
	// 200000, 1 GiB, 7 days.
	Rows  int
	Bytes int64
	Age   time.Duration
	// History is how far back a new or wiped collector looks for its share of flows. Range
	// 1m to 30 days; default 24h.
	History time.Duration
}

func (c *Config) validate() error {
	settings.Default(&c.Every, 10*time.Second)
	settings.Default(&c.Patience, 10*time.Second)
	settings.Default(&c.Grace, time.Minute)
	settings.Default(&c.Look, 2000)
	settings.Default(&c.Rows, 200_000)
	settings.Default(&c.Bytes, 1<<30)
	settings.Default(&c.Age, 7*24*time.Hour)
	settings.Default(&c.History, 24*time.Hour)
	var bad settings.Bad
	bad.Unless(c.Store != nil, "Store", "set", "nil")
	bad.Unless(len(c.Places) > 0, "Places", "at least one database", 0)
	settings.Within(&bad, "Every", c.Every, time.Second, time.Hour)
	settings.Within(&bad, "Patience", c.Patience, 100*time.Millisecond, 5*time.Minute)
	settings.Within(&bad, "Grace", c.Grace, time.Second, 24*time.Hour)
	settings.Within(&bad, "Share", c.Share, 0, 1)
	settings.Within(&bad, "Look", c.Look, 10, 100_000)
	settings.Within(&bad, "Rows", c.Rows, 100, 10_000_000)
	settings.Within(&bad, "Bytes", c.Bytes, 1<<20, 1<<40)
	settings.Within(&bad, "Age", c.Age, time.Minute, 366*24*time.Hour)
	settings.Within(&bad, "History", c.History, time.Minute, 30*24*time.Hour)
	seen := map[string]bool{}
	for _, p := range c.Places {
		bad.Unless(!seen[key(p.Name)], "Places", "each named once", p.Name)
		seen[key(p.Name)] = true
	}
	return bad.Err("new collector")
}

// Collector reads the databases of the services, round after round. Several on one
// store do no harm: they write the same.
type Collector struct {
	c  Config
	mu sync.Mutex
	// made says that the tables are there.
	made bool
	// shed counts what was dropped for want of room, by reason.
	shed map[string]int64
}

// New returns a collector, or every bad field in one error. It starts nothing.
func New(c Config) (*Collector, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Collector{c: c, shed: map[string]int64{}}, nil
}

// Report is what a round did.
type Report struct {
	// Unknown are the databases that did not answer, and why.
	Unknown map[string]string
	// Asked counts messages that were asked for, Kept what is in the store now, Shed what
	// was dropped for want of room.
	Asked, Kept, Shed int
	// More says that there was more to read than one round takes.
	More bool
	// Unclosed counts the databases that cannot tell yet which minutes are over, as a
	// transaction there was open when the round began: their share of the flows is read by a
	// later round. Always 0 without a share.
	Unclosed int
}

// Run does rounds until ctx ends. A round that fails is told to report, as is one that
// does not, and the next one tries again. Only tables of a newer build end it, with
// CodeSchema.
func (c *Collector) Run(ctx context.Context, report func(Report, error)) error {
	for {
		r, err := c.Round(ctx)
		if ctx.Err() == nil && report != nil {
			report(r, err)
		}
		if outlast.CodeOf(err) == outlast.CodeSchema {
			return err
		}
		wait := c.c.Every
		if err == nil && r.More {
			wait = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// The reasons for which a message is kept, the gravest first.
const (
	WhyDead    = "dead"
	WhyMissing = "missing"
	WhyHeld    = "held"
	WhyWaiting = "waiting"
	WhyPending = "pending"
	WhySample  = "sample"
)

// Whys are all reasons.
var Whys = []string{WhyDead, WhyMissing, WhyHeld, WhyWaiting, WhyPending, WhySample}

func graver(a, b string) bool { return b == "" || slices.Index(Whys, a) < slices.Index(Whys, b) }

// Shed counts, since this collector was made, what was dropped for want of room: of the
// share of flows ("sample"), what was over ("over"), and what was still open ("open").
func (c *Collector) Shed() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.shed)
}
