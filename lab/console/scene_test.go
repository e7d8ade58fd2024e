package console_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

// scene is a console with something on every page, and a tab of the browser that looks at it.
type scene struct {
	*testing.T
	*tab
	url                    string
	orders, billing, stock *memory.Store
	broker                 *memory.Broker

	// Messages, by what is to be seen of them: first is the first one of a flow; pending
	// waits where no relay is, racing where one is alive; lost was sent, and billing has
	// not seen it.
	first, dead, waits, held, pending, racing, lost string
}

const (
	placedV1  = "order.placed.v1"
	expired   = "card expired"          // a failure of three messages
	negative  = "amount -5 is negative" // and of one
	byMachine = "somebody on this machine"
)

// print is the fingerprint of the dead letters with that error.
func print(text string) string { return fmt.Sprintf("%08x", len(text)*7919) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func message(typ, source, flow, cause string) *outlast.Message {
	id := outlast.NewID()
	if flow == "" {
		flow = id
	}
	return &outlast.Message{Envelope: outlast.Envelope{ID: id, Type: typ, Kind: outlast.KindEvent, Source: source, Key: "customer-ada", CorrelationID: flow, CausationID: cause,
		EnqueuedAt: time.Now().UTC().Add(-3 * time.Second), Headers: outlast.Headers{"region": "eu", "note": `<b onclick="alert(1)">bold</b>`}, Show: []string{"order_id"}}, Body: []byte(`{"order_id":"o-7","total_cents":4200}`)}
}

// newScene starts a console and opens a tab. Who connects from this machine may do
// everything, unless change names somebody to ask.
func newScene(t *testing.T, change ...func(*console.Config)) *scene {
	t.Helper()
	s := &scene{T: t, tab: newTab(t), orders: memory.NewStore(), billing: memory.NewStore(), stock: memory.NewStore(), broker: broker(t)}
	must(t, s.orders.Relay().Identify(t.Context(), "orders"))
	must(t, s.billing.Relay().Identify(t.Context(), "billing"))
	must(t, s.billing.Journal().Hear(t.Context(), "billing", []string{placedV1}))
	must(t, s.stock.Journal().Hear(t.Context(), "stock", []string{placedV1, "order.paid.v1"}))
	s.fill()
	places := []journey.Place{{Name: "postgres://app@db.example/orders", Store: s.orders}, {Name: "postgres://app@db.example/billing", Store: s.billing}, {Name: "sqlite:stock.db", Store: s.stock}}
	audit, err := console.OpenAudit(filepath.Join(t.TempDir(), "audit.jsonl"))
	must(t, err)
	config := console.Config{Loopback: true, Audit: audit, AllowEdit: true, Broker: s.broker, Declared: declared, Collector: collected(t, places), Places: places}
	for _, f := range change {
		f(&config)
	}
	c, err := console.New(config)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	runs := make(chan error, 1)
	go func() { runs <- c.Run(ctx) }()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method+" "+r.URL.Path, true)
		c.ServeHTTP(w, r)
	}))
	s.url = server.URL + "/"
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		must(t, errors.Join(<-runs, audit.Close()))
	})
	return s
}

// stockIsAway makes the database of stock, and one that the collector never heard of,
// unreachable.
func stockIsAway(c *console.Config) {
	c.Places = append(slices.Clone(c.Places[:2]), journey.Place{Name: "sqlite:stock.db", Err: errors.New("connection refused")},
		journey.Place{Name: "postgres://app@db.example/mail", Err: errors.New("no such host")})
}

// asGuest lets in somebody who may only look at what orders sends.
func asGuest(c *console.Config) {
	guest := &console.Identity{Name: "guest", Grants: []console.Grant{{Permissions: []console.Permission{console.View}, Services: []string{"orders"}, Types: []string{"*"}}}}
	c.Loopback, c.Authenticate = false, func(http.ResponseWriter, *http.Request) *console.Identity { return guest }
}

// collected is a collector's database after one look at the places, and at one that does
// not answer.
func collected(t *testing.T, places []journey.Place) *collector.Store {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "collector.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	store, err := collector.Open(db, collector.SQLite, "")
	must(t, err)
	must(t, store.Migrate(t.Context()))
	c, err := collector.New(collector.Config{Store: store, Grace: time.Second, Share: 1,
		Places: append(places[:len(places):len(places)], journey.Place{Name: "postgres://app@db.example/mail", Err: errors.New("connection refused")})})
	must(t, err)
	_, err = c.Round(t.Context())
	must(t, err)
	return store
}

// declared is the topology of the scene, and broker one that has it, but for a queue and a
// binding, and with a message that nobody consumes.
var declared = outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: []outlast.GroupTopology{
	{Group: "billing", Partitions: 2, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: placedV1}}},
	{Group: "mail", Partitions: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.paid.v1"}}}}}

func broker(t *testing.T) *memory.Broker {
	b := memory.NewBroker()
	must(t, b.Topology().Apply(t.Context(), declared))
	must(t, b.DeleteQueue("billing.1"))
	must(t, b.Unbind("mail.0", outlast.EventExchange, "order.paid.v1.*"))
	b.PublishForeign(outlast.EventExchange, "order.placed.v1.0", nil, "", []byte("{}"))
	return b
}

// fill puts a flow, failures, minutes of the books and what waits into the stores.
func (s *scene) fill() {
	placed := message(placedV1, "orders", "", "")
	placed.Find = map[string]string{"order": "o-7"}
	paid := message("order.paid.v1", "billing", placed.ID, placed.ID)
	lost, held, racing := message(placedV1, "orders", "", ""), message("order.invoiced.v1", "orders", "", ""), message("order.cancelled.v1", "orders", "", "")
	held.Key, racing.Key = "customer-bob", "customer-eve"
	s.first, s.pending, s.lost, s.held, s.racing = placed.ID, paid.ID, lost.ID, held.ID, racing.ID
	publish(s.T, s.billing, paid)
	sent := []*outlast.Message{placed, lost}
	handled := inbox(s.T, s.billing, "billing", placed)
	must(s.T, handled.Commit(s.Context()))
	waits := inbox(s.T, s.stock, "stock", placed)
	must(s.T, waits.Wait(s.Context(), &outlast.Waiting{Group: "stock", Message: placed, Attempts: 2, Wait: time.Hour, Reason: "failed", Error: "warehouse does not answer"}))
	must(s.T, waits.Commit(s.Context()))
	s.waits = placed.ID
	handled = inbox(s.T, s.stock, "stock", paid)
	must(s.T, handled.Commit(s.Context()))
	for i, text := range []string{expired, expired, expired, negative} {
		m := s.bury(text, 1+i)
		sent = append(sent, m)
		if i == 0 {
			s.dead = m.ID
		}
	}
	publish(s.T, s.orders, append(sent, held, racing)...)
	s.relay(sent)
	s.closeBooks()
}

func publish(t *testing.T, store *memory.Store, messages ...*outlast.Message) {
	t.Helper()
	tx := store.Begin()
	for _, m := range messages {
		must(t, outlast.NewOutbox(store).Publish(t.Context(), tx, *m))
	}
	must(t, tx.Commit())
}

func inbox(t *testing.T, s *memory.Store, group string, m *outlast.Message) outlast.InboxTx {
	t.Helper()
	tx, err := s.Inbox().Begin(t.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, Hash: 1, EnqueuedAt: m.EnqueuedAt}})
	must(t, err)
	return tx
}

// bury makes a dead letter of billing.
func (s *scene) bury(text string, attempts int) *outlast.Message {
	s.Helper()
	m := message(placedV1, "orders", "", "")
	tx := inbox(s.T, s.billing, "billing", m)
	must(s.T, tx.Bury(s.Context(), &outlast.DeadLetterRecord{Group: "billing", Message: m, Reason: "verdict", Error: text, Attempts: attempts, Fingerprint: print(text)}))
	must(s.T, tx.Commit(s.Context()))
	return m
}

// relay is a relay of orders that is alive: it has sent some messages, the broker refused
// the held one, and it is about to send the rest.
func (s *scene) relay(sent []*outlast.Message) {
	s.Helper()
	grant, err := s.orders.Leases().Lease(s.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "orders-7c9f5d", TTL: time.Hour, Total: s.orders.Slots()})
	must(s.T, err)
	rows, err := s.orders.Relay().Reader().Pick(s.Context(), grant.Held, 100, 1<<20)
	must(s.T, err)
	settled := &outlast.Settlement{Leases: grant.Held}
	for _, r := range rows {
		switch {
		case r.ID == s.held:
			settled.Hold = append(settled.Hold, outlast.Hold{Row: r, Reason: outlast.HeldRefused, Error: "larger than the broker takes"})
		case slices.ContainsFunc(sent, func(m *outlast.Message) bool { return m.ID == r.ID }):
			settled.Sent = append(settled.Sent, r)
		}
	}
	if len(settled.Sent) != len(sent) || len(settled.Hold) != 1 {
		s.Fatalf("the relay picked %d to be sent and %d to be held, of %d rows", len(settled.Sent), len(settled.Hold), len(rows))
	}
	_, err = s.orders.Relay().Settle(s.Context(), settled)
	must(s.T, err)
}

// closeBooks writes six minutes, of which one lacks the lost message and one that nobody
// knows any more.
func (s *scene) closeBooks() {
	s.Helper()
	minute := time.Now().UTC().Truncate(time.Minute).Add(-10 * time.Minute)
	for i := range 6 {
		state, lines := outlast.MinuteBalanced, []outlast.BookLine{{Type: placedV1, Group: "billing", Sent: 600, Received: 600}}
		if i == 2 {
			state = outlast.MinuteUnbalanced
			lines[0].Received, lines[0].Missing = 598, []string{s.lost, outlast.NewID()}
		}
		must(s.T, s.orders.Books().Write(s.Context(), outlast.BookMinute{Minute: minute.Add(time.Duration(-i) * time.Minute), State: state, Sent: 600, At: minute}, lines))
	}
}
