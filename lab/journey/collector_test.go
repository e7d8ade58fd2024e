package journey_test

import (
	"bufio"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

// across is two services on PostgreSQL, and a collector of both as a process.
type across struct {
	*testing.T
	orders, billing *service
	urls            []string // of the databases, for the collector: read only
	proxy           *proxy.Proxy
	world           *rig.World
	store           string
	leases          []outlast.Lease
}

// readOnly makes a database refuse every write of the connections of an address.
func readOnly(t *testing.T, address, host string) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	q := u.Query()
	q.Set("default_transaction_read_only", "on")
	if host != "" {
		u.Host = host
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func newAcross(t *testing.T, store string) *across {
	t.Helper()
	x := &across{T: t, store: store}
	ordersURL, billingURL := servers.Database(t), servers.Database(t)
	x.orders, x.billing = openAt(t, "orders", ordersURL), openAt(t, "billing", billingURL)
	u, err := url.Parse(billingURL)
	must(t, err)
	x.proxy, err = proxy.New(u.Host)
	must(t, err)
	t.Cleanup(func() { must(t, x.proxy.Close()) })
	x.urls = []string{readOnly(t, ordersURL, ""), readOnly(t, billingURL, x.proxy.Address())}
	x.world = rig.Bare(t, x.urls[0], "")
	g, err := x.orders.store.Leases().Lease(t.Context(), outlast.LeaseRequest{Scope: outlast.RelayScope, Owner: "a", TTL: time.Hour, Total: 256})
	must(t, err)
	x.leases = g.Held
	must(t, x.billing.store.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"}))
	x.billing.exec(t, "UPDATE outlast_hearer SET since = since - interval '1 day'")
	return x
}

// publish enqueues messages of the past, and sends and receives them. Of ten, those from
// the sixth on go wrong: one dies, one waits, one is not seen, and one is refused by the
// broker. The others are handled, when first says that they are to be there at all: a
// collector looks for its share of flows in minutes that it has not passed.
func (x *across) publish(n int, first bool) {
	x.Helper()
	x.orders.exec(x, `INSERT INTO outlast_outbox (type, ordering_key, body, headers, enqueued_at)
		SELECT 'order.placed.v1', 'k' || i, '{}', json_build_object('outlast-find', json_build_object('order', 'o-' || i)::text)::jsonb, date_trunc('minute', now()) - CASE i % 10 WHEN 9 THEN interval '25 minutes' ELSE interval '20 minutes' END + i * interval '1 millisecond'
		FROM generate_series(1, $1::int) i WHERE i % 10 >= 6 OR $2::boolean`, n, first)
	reader := x.orders.store.Relay().Reader()
	for {
		rows, err := reader.Pick(x.Context(), x.leases, 1000, 8<<20)
		must(x, err)
		if len(rows) == 0 {
			break
		}
		s := &outlast.Settlement{Leases: x.leases}
		for _, r := range rows {
			if kind(r) == '9' {
				s.Hold = append(s.Hold, outlast.Hold{Row: r, Reason: outlast.HeldRefused, Wait: -1, Error: "too big"})
			} else {
				s.Sent = append(s.Sent, r)
			}
		}
		_, err = x.orders.store.Relay().Settle(x.Context(), s)
		must(x, err)
		reader.Forget(rows)
		for _, r := range rows {
			if k := kind(r); k < '8' {
				x.receive(k, &r.Message)
			}
		}
	}
	x.books()
}

// kind is the last digit of a row's key.
func kind(r *outlast.Row) byte { return r.Key[len(r.Key)-1] }

func (x *across) receive(kind byte, m *outlast.Message) {
	x.Helper()
	m.Source = "orders"
	tx, err := x.billing.store.Inbox().Begin(x.Context(), "billing", []outlast.Mark{{Source: "orders", ID: m.ID, EnqueuedAt: m.EnqueuedAt}})
	must(x, err)
	switch kind {
	case '6':
		must(x, tx.Bury(x.Context(), &outlast.DeadLetterRecord{Group: "billing", Message: m, Reason: "verdict", Error: "no", Attempts: 2, Fingerprint: "f00d"}))
	case '7':
		must(x, tx.Wait(x.Context(), &outlast.Waiting{Group: "billing", Message: m, Attempts: 1, Wait: time.Hour, Reason: "failed", Error: "no"}))
	}
	must(x, tx.Commit(x.Context()))
}

// books closes the books, so that what is missing has its name.
func (x *across) books() {
	x.Helper()
	b := &journey.Books{Service: "orders", Store: x.orders.store, Others: []journey.Place{{Name: "billing", Store: x.billing.store}}}
	eventually(x, "the minute is looked at", func() bool {
		_, err := b.Close(x.Context())
		must(x, err)
		list, err := x.orders.store.Books().Minutes(x.Context(), outlast.MinuteQuery{})
		must(x, err)
		return len(list) > 0
	})
}

func (x *across) args(command ...string) []string {
	return append(append([]string{"collector"}, command...), "--store", x.store, "--in", x.urls[1], "--share", "1", "--grace", "1s")
}

func (x *across) start() *rig.Process {
	x.Helper()
	return x.world.Start(append(x.args(), "--every", "1s", "--log-level", "debug")...)
}

// view is all that the collector keeps, as lines without the times of asking.
func (x *across) view() []string {
	x.Helper()
	code, out, errs := x.world.Try("collector", "list", "--store", x.store, "--limit", "1000", "--json")
	if code != 0 {
		return []string{errs}
	}
	var list []collector.Message
	must(x, json.Unmarshal([]byte(out), &list))
	var lines []string
	for _, m := range list {
		lines = append(lines, fmt.Sprintf("%v %v", m.Open, tracks(m.Story)))
	}
	slices.Sort(lines)
	return lines
}

func tracks(s *journey.Story) string {
	text := fmt.Sprintf("%s %s %s %s(%s)", s.ID, s.Type(), s.Envelope.Key, s.Send.State, s.Send.Code)
	for _, g := range s.Groups {
		text += fmt.Sprintf(" %s %s(%s) %d", g.Group, g.State, g.Code, g.Attempt)
	}
	return text
}

// truth is the same, asked of the databases themselves.
func (x *across) truth() []string {
	x.Helper()
	a := &journey.Asker{Places: []journey.Place{{Name: "orders", Store: x.orders.store}, {Name: "billing", Store: x.billing.store}}}
	rows, err := x.orders.db.QueryContext(x.Context(), "SELECT id::text FROM outlast_sent UNION SELECT id::text FROM outlast_held")
	must(x, err)
	var ids []string
	for rows.Next() {
		var id string
		must(x, rows.Scan(&id))
		ids = append(ids, id)
	}
	must(x, rows.Err())
	var lines []string
	for _, id := range ids {
		_, s, err := a.Message(x.Context(), id)
		must(x, err)
		open := s.Send.State == journey.Held || len(s.Groups) == 0
		for _, g := range s.Groups {
			open = open || g.State == journey.Dead || g.State == journey.Waiting
		}
		lines = append(lines, fmt.Sprintf("%v %v", open, tracks(s)))
	}
	slices.Sort(lines)
	return lines
}

// holds waits until the collector keeps exactly what the databases say.
func (x *across) holds(what string) {
	x.Helper()
	want := x.truth()
	var got []string
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = x.view(); slices.Equal(got, want) {
			return
		}
	}
	x.Fatalf("%s: the collector keeps %d messages, the databases have %d:\n%s\n\n%s", what, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
}

// contents is a sum over all rows of all tables of a service.
func (s *service) contents(t testing.TB) string {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
	must(t, err)
	var tables []string
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	must(t, rows.Err())
	h := md5.New()
	for _, name := range tables {
		var text string
		must(t, s.db.QueryRowContext(t.Context(), "SELECT coalesce(string_agg(r::text || r.xmin::text, ',' ORDER BY r::text), '') FROM (SELECT x.*, x.xmin FROM "+name+" x) r").Scan(&text))
		fmt.Fprintln(h, name, text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestCollectorIsACache kills the collector in the middle of its work, wipes what it
// keeps, and builds it anew: each time it keeps what the databases say. It connects to
// them read only, and they are as before.
func TestCollectorIsACache(t *testing.T) {
	for _, engine := range []string{"postgres", "sqlite"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			store := "sqlite:" + filepath.Join(t.TempDir(), "collector.db")
			if engine == "postgres" {
				store = servers.Database(t)
			}
			x := newAcross(t, store)
			x.publish(200, true)
			p := x.start()
			x.holds("at first")
			for i := range 4 {
				p.Kill()
				x.publish(60, false)
				p = x.start()
				if i%2 == 0 {
					x.world.Eventually("a round is under way", func() bool { return strings.Contains(p.Log(), "collector starts") })
				}
				time.Sleep(time.Duration(i) * 150 * time.Millisecond) // a kill somewhere in a round
			}
			before := x.orders.contents(t) + x.billing.contents(t)
			x.holds("after kills")
			kept := x.view()
			x.world.Run("collector", "wipe", "--yes", "--store", store)
			x.holds("wiped while it runs")
			p.End()
			x.world.Run("collector", "wipe", "--yes", "--store", store)
			if left := x.view(); len(left) != 0 {
				t.Errorf("after a wipe it keeps %v", left)
			}
			// A transaction is open for longer than a round waits, as some always is on a busy server.
			open, err := x.orders.db.BeginTx(t.Context(), nil)
			must(t, err)
			_, err = open.ExecContext(t.Context(), "SELECT pg_current_xact_id()")
			must(t, err)
			time.AfterFunc(3*time.Second, func() { _ = open.Rollback() })
			x.world.Run(x.args("rebuild", "--yes")...)
			if again := x.view(); !slices.Equal(again, kept) {
				t.Errorf("rebuilt it keeps %d messages, before %d:\n%s", len(again), len(kept), strings.Join(again, "\n"))
			}
			if after := x.orders.contents(t) + x.billing.contents(t); after != before {
				t.Error("the collector changed a database of a service")
			}
		})
	}
}

// TestCollectorDrawsGaps: a database that it cannot reach is unknown since then, and what
// it said before stays, with its time.
func TestCollectorDrawsGaps(t *testing.T) {
	t.Parallel()
	x := newAcross(t, "sqlite:"+filepath.Join(t.TempDir(), "collector.db"))
	x.publish(10, true)
	p := x.start()
	x.holds("at first")
	place := func() collector.Place {
		var report struct{ Places []collector.Place }
		must(t, json.Unmarshal([]byte(firstJSON(x.world.Run("collector", "status", "--store", x.store, "--json"))), &report))
		for _, p := range report.Places {
			if strings.Contains(p.Name, x.proxy.Address()) {
				return p
			}
		}
		t.Fatalf("billing is not among %+v", report.Places)
		return collector.Place{}
	}
	if since := place().UnknownSince; !since.IsZero() {
		t.Fatalf("unknown since %s although it answers", since)
	}
	x.proxy.Cut()
	x.world.Eventually("the gap is noticed", func() bool { return !place().UnknownSince.IsZero() })
	gap := place()
	x.world.Eventually("a later round meets the same gap", func() bool {
		list := x.messages()
		return len(list) > 0 && slices.ContainsFunc(list, func(m collector.Message) bool { return m.AskedAt.After(gap.UnknownSince) })
	})
	if now := place(); !now.UnknownSince.Equal(gap.UnknownSince) || !now.AnsweredAt.Equal(gap.AnsweredAt) {
		t.Errorf("unknown since %s, a round later since %s", gap.UnknownSince, now.UnknownSince)
	}
	dead := 0
	for _, m := range x.messages() {
		for _, g := range m.Story.Groups {
			if g.State != journey.Dead {
				continue
			}
			if dead++; m.AskedAt.After(gap.UnknownSince) && (g.AsOf.IsZero() || len(m.Story.Gaps) != 1) {
				t.Errorf("a dead letter of a database that is away is shown as %+v with the gaps %v", g, m.Story.Gaps)
			}
		}
	}
	if dead != 1 {
		t.Errorf("%d dead letters are kept of the database that is away, want 1", dead)
	}
	code, out, _ := x.world.Try("find", "k6", "--in", x.urls[1], "--collector", x.store)
	if code != 1 || !strings.Contains(out, "unknown, it could not be asked") || !strings.Contains(out, "billing: dead (verdict), 2 failed, by the collector as of ") {
		t.Errorf("find ends with %d and says\n%s", code, out)
	}
	must(t, x.proxy.Restore())
	x.world.Eventually("the gap closes", func() bool { return place().UnknownSince.IsZero() })
	x.holds("after the gap")
	p.End()
}

func (x *across) messages() (list []collector.Message) {
	x.Helper()
	must(x, json.Unmarshal([]byte(firstJSON(x.world.Run("collector", "list", "--store", x.store, "--json", "--limit", "1000"))), &list))
	return list
}

// firstJSON leaves out warnings behind the answer.
func firstJSON(out string) string {
	var raw json.RawMessage
	if err := json.NewDecoder(bufio.NewReader(strings.NewReader(out))).Decode(&raw); err != nil {
		return out
	}
	return string(raw)
}
