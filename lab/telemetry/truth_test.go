package telemetry_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/servers"
)

// through returns a broker's URL by way of a proxy.
func through(t *testing.T, broker string) (*proxy.Proxy, string) {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	u.Host = p.Address()
	return p, u.String()
}

// cutTwice places orders and cuts the way to the broker while they travel.
func cutTwice(t *testing.T, s *shop, p *proxy.Proxy) {
	t.Helper()
	for range 2 {
		p.CutAfter(proxy.Up, 20_000)
		s.place(200)
		<-p.Cuts()
		s.place(100)
		if err := p.Restore(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTruth(t *testing.T) {
	t.Parallel()

	t.Run("the counters equal the tables after cuts and failures", func(t *testing.T) {
		t.Parallel()
		p, broker := through(t, servers.NewVHost(t).URL())
		s := newShop(t, broker)
		s.observe()
		running(t, s.conf)
		s.place(50)
		cutTwice(t, s, p)
		s.publish(unheard.Message(order{ID: "x"}))
		s.settled()
		eventually(t, "the unheard message is held", func() bool { return s.number(`SELECT count(*) FROM outlast_held`) == 1 })
		orders, dead := float64(s.orders), s.number(`SELECT count(*) FROM outlast_dead`)
		want := map[string]float64{
			"enqueued": orders + float64(s.copies) + 1,
			"sent":     orders + float64(s.copies),
			"ok":       s.number(`SELECT count(*) FROM outlast_inbox WHERE state = 'handled'`),
			"dead":     dead,
			"parked":   1,
		}
		if dead == 0 || s.copies == 0 {
			t.Fatal("the run had no dead letters or no copies")
		}
		count := func() map[string]float64 {
			now := s.scrape()
			return map[string]float64{
				"enqueued": now.sum("outlast_enqueued_total"),
				"sent":     now.sum("outlast_relay_settled_total", `result="sent"`),
				"ok":       now.sum("outlast_handled_total", `outcome="ok"`),
				"dead":     now.sum("outlast_handled_total", `outcome="dead"`),
				"parked":   now.sum("outlast_outbox_parked_messages", `reason="unroutable"`),
			}
		}
		// A hook is called after the commit that the tables show: the last may be on its way.
		eventually(t, "the counters say what the tables say", func() bool {
			got := count()
			for name, n := range want {
				if got[name] > n {
					t.Fatalf("%s: counted %v, the tables have %v", name, got[name], n)
				}
				if got[name] != n {
					return false
				}
			}
			return true
		})
		now := s.scrape()
		for _, c := range []struct {
			what string
			is   bool
		}{
			{"confirms for every message", now.sum("outlast_relay_outcomes_total", `outcome="confirmed"`) >= want["sent"]},
			{"an outcome other than a confirm", now.sum("outlast_relay_outcomes_total") > now.sum("outlast_relay_outcomes_total", `outcome="confirmed"`)},
			{"a return", now.sum("outlast_relay_outcomes_total", `outcome="returned"`) >= 1},
			{"the conventions' counter as ours", now.sum("messaging_client_sent_messages_total") == now.sum("outlast_relay_outcomes_total")},
			{"duplicates for the copies", now.sum("outlast_handled_total", `outcome="duplicate"`) >= float64(s.copies)},
			{"every delivery", now.sum("messaging_client_consumed_messages_total") >= now.sum("outlast_handled_total", `outcome="duplicate"`)+orders},
			{"retries", now.sum("outlast_handled_total", `outcome="deferred"`) >= orders/20},
			{"the dead letters as the table has them", now.sum("outlast_dead_letter_messages") == dead},
			{"a latency for each effect", now.sum("outlast_commit_to_handled_seconds_count") == want["ok"]},
			{"what the contract promises", now.sum("outlast_handling_deadline_seconds", `group="shop"`, `type="order.placed.v1"`) == time.Hour.Seconds()},
			{"a try for each effect", now.sum("messaging_process_duration_seconds_count") >= want["ok"]},
		} {
			if !c.is {
				t.Errorf("the metrics do not show %s", c.what)
			}
		}
	})

	t.Run("the lag gauge equals the age of the oldest row", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, "amqp://127.0.0.1:1/")
		s.observe()
		s.place(3)
		if _, err := s.db.ExecContext(t.Context(), `UPDATE outlast_outbox SET enqueued_at = clock_timestamp() - interval '1 hour' WHERE seq = (SELECT min(seq) FROM outlast_outbox)`); err != nil {
			t.Fatal(err)
		}
		const age = `SELECT extract(epoch FROM clock_timestamp() - min(enqueued_at)) FROM outlast_outbox`
		before := s.number(age)
		now := s.scrape()
		after := s.number(age)
		if lag := now.sum("outlast_outbox_oldest_pending_age_seconds"); lag < before || lag > after {
			t.Errorf("the gauge says %v, the table %v to %v", lag, before, after)
		}
		if n, rows := now.sum("outlast_outbox_never_attempted_messages"), s.number(`SELECT count(*) FROM outlast_outbox`); n != rows || now.sum("outlast_outbox_pending_messages") != rows {
			t.Errorf("%v never attempted, %v pending; the table has %v", n, now.sum("outlast_outbox_pending_messages"), rows)
		}
	})

	t.Run("gauges that cannot be read grow old visibly", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, "amqp://127.0.0.1:1/")
		s.observe()
		s.place(1)
		at := s.scrape().sum("outlast_sample_timestamp_seconds")
		if err := s.db.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a failure is counted", func() bool { return s.scrape().sum("outlast_sample_failures_total") > 0 })
		if now := s.scrape(); now.sum("outlast_sample_timestamp_seconds") != at || now.sum("outlast_outbox_pending_messages") == 0 {
			t.Errorf("the timestamp moved from %v to %v, or a value of a minute ago is withheld", at, now.sum("outlast_sample_timestamp_seconds"))
		}
	})

	t.Run("an operator's replay is counted by its end", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, servers.NewVHost(t).URL())
		s.observe()
		running(t, s.conf)
		s.place(10)
		s.settled()
		if n, err := s.store.Operator().Dead().Replay(t.Context(), outlast.Filter{}, outlast.Action{Who: "a test"}); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		eventually(t, "it is dead again", func() bool { return s.scrape().sum("outlast_replayed_total", `result="dead"`) == 1 })
	})
}
