package journey_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// past makes the partitions of an instant ago, as keep_ahead did then, and logs n
// messages that were enqueued and sent there.
func (s *service) past(t *testing.T, ago time.Duration, n int) (minute time.Time) {
	t.Helper()
	at := time.Now().Add(-ago).UTC()
	for _, p := range []struct {
		parent string
		width  time.Duration
	}{{"sent", 6 * time.Hour}, {"sent_key", 6 * time.Hour}, {"sent_body", time.Hour}} {
		from := at.Truncate(p.width)
		name := "outlast_" + p.parent + "_p" + from.Format("2006010215")
		s.exec(t, fmt.Sprintf("CREATE TABLE %s (LIKE outlast_%s INCLUDING ALL)", name, p.parent))
		s.exec(t, fmt.Sprintf("ALTER TABLE outlast_%s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			p.parent, name, from.Format(time.RFC3339), from.Add(p.width).Format(time.RFC3339)))
	}
	s.exec(t, `INSERT INTO outlast_sent (sent_at, enqueued_at, id, fate, unheard, type) SELECT $1, $1, outlast_uuid7(), 0, false, 'order.placed.v1' FROM generate_series(1, $2)`, at, n)
	s.exec(t, `INSERT INTO outlast_sent_key (sent_at, id, value) SELECT sent_at, id, 'order-' || id FROM outlast_sent`)
	s.exec(t, `INSERT INTO outlast_sent_body (sent_at, enqueued_at, id, body) SELECT sent_at, enqueued_at, id, '{}' FROM outlast_sent`)
	return at.Truncate(time.Minute)
}

func (s *service) keep(t *testing.T, r outlast.Retention) outlast.Kept {
	t.Helper()
	kept, err := s.store.Journal().Keep(t.Context(), r)
	must(t, err)
	return kept
}

// TestEvidenceIsKeptUntilTheBooksAreClosed: neither age nor bytes drop a part of the
// sent log before all its minutes are balanced or signed off.
func TestEvidenceIsKeptUntilTheBooksAreClosed(t *testing.T) {
	t.Parallel()
	const month = 30 * 24 * time.Hour
	for name, c := range map[string]struct {
		state   outlast.MinuteState // of the minute; empty: nobody looked at it
		books   bool
		dropped int
	}{
		"unbalanced":        {outlast.MinuteUnbalanced, false, 0},
		"open":              {outlast.MinuteOpen, false, 0},
		"not looked at yet": {"", true, 0},
		"balanced":          {outlast.MinuteBalanced, false, 3},
		"nobody keeps any":  {"", false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, "orders")
			minute := s.past(t, month, 10)
			if c.state != "" {
				must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: c.state, Sent: 10}, nil))
			}
			kept := s.keep(t, outlast.Retention{Books: c.books, Bytes: 1})
			if kept.Dropped != c.dropped {
				t.Fatalf("dropped %d parts, want %d: %+v", kept.Dropped, c.dropped, kept)
			}
			left := s.number(t, "SELECT count(*) FROM outlast_sent")
			if c.dropped > 0 {
				if left != 0 {
					t.Fatalf("%d rows are left", left)
				}
				return
			}
			if left != 10 || kept.Due == 0 {
				t.Fatalf("%d rows are left, and %+v", left, kept)
			}
			must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteUnbalanced, Sent: 10}, nil))
			_, err := s.store.Books().SignOff(t.Context(), []time.Time{minute}, outlast.Action{Who: "ann", Reason: "test messages"})
			must(t, err)
			if kept := s.keep(t, outlast.Retention{}); kept.Dropped != 3 {
				t.Fatalf("after the sign-off dropped %+v", kept)
			}
		})
	}
}

// TestTheSentLogIsWholeAfterWhatWasDropped: whatever Keep drops, in whatever order, the sent
// log says that it is whole from behind it.
func TestTheSentLogIsWholeAfterWhatWasDropped(t *testing.T) {
	t.Parallel()
	s := open(t, "orders")
	s.exec(t, "INSERT INTO outlast_fact (at, kind, id) VALUES (clock_timestamp() - interval '90 days', 'begun', '')")
	since := func(want time.Time) {
		t.Helper()
		page, err := s.store.Journal().Facts(t.Context(), outlast.FactQuery{})
		must(t, err)
		if d := page.Since.Sub(want); d.Abs() > time.Second {
			t.Errorf("whole since %v, want %v", page.Since, want)
		}
	}
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d).UTC().Truncate(time.Millisecond) }
	const day = 24 * time.Hour
	s.keep(t, outlast.Retention{})
	since(ago(90 * day))
	kept := s.past(t, 60*day, 1) // not balanced: it lingers
	balanced := s.past(t, 30*day, 1)
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: kept, State: outlast.MinuteUnbalanced, Sent: 1}, nil))
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: balanced, State: outlast.MinuteBalanced, Sent: 1}, nil))
	if k := s.keep(t, outlast.Retention{}); k.Dropped != 3 || k.Due == 0 {
		t.Fatalf("kept %+v", k)
	}
	since(balanced.Truncate(6 * time.Hour).Add(6 * time.Hour))
	// Where no part fitted.
	at := ago(20 * day)
	s.exec(t, "INSERT INTO outlast_sent (sent_at, enqueued_at, id, fate, unheard, type) VALUES ($1, $1, outlast_uuid7(), 0, false, 'order.placed.v1')", at)
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: at.Truncate(time.Minute), State: outlast.MinuteBalanced, Sent: 1}, nil))
	s.keep(t, outlast.Retention{})
	since(at)
	// What is not there any more cannot be compared again.
	n, err := s.store.Books().Reopen(t.Context(), ago(90*day), time.Time{}, outlast.Action{Who: "ann"})
	must(t, err)
	if n != 0 {
		t.Errorf("opened %d minutes of which the sent log has dropped something", n)
	}
	// A message that was withdrawn may have been published: of that no other row tells.
	at = ago(10 * day)
	s.exec(t, "INSERT INTO outlast_fact (at, kind, id) VALUES ($1, 'withdrawn', outlast_uuid7()::text)", at)
	s.keep(t, outlast.Retention{})
	since(at)
	if n := s.number(t, "SELECT count(*) FROM outlast_fact"); n != 3 {
		t.Errorf("%d facts are left, want the last of each kind", n)
	}
}

// TestMinutesBehindTheBooksAreOpened: a message whose enqueue lies in a minute that the
// books have passed does not keep its part of the sent log for ever.
func TestMinutesBehindTheBooksAreOpened(t *testing.T) {
	t.Parallel()
	s := open(t, "orders")
	minute := s.past(t, 30*24*time.Hour, 1)
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: minute.Add(time.Hour), State: outlast.MinuteBalanced}, nil))
	due := func() int {
		list, err := s.store.Books().Due(t.Context(), time.Now(), 10)
		must(t, err)
		return len(list)
	}
	if kept := s.keep(t, outlast.Retention{}); kept.Dropped != 0 || due() != 1 {
		t.Fatalf("kept %+v, and %d minutes are due", kept, due())
	}
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteBalanced}, nil))
	if kept := s.keep(t, outlast.Retention{}); kept.Dropped != 3 {
		t.Fatalf("kept %+v", kept)
	}
}

// TestBodiesGoBeforeHeaders: after an hour the body of a balanced minute is gone, and the
// message is still found: named, not resendable.
func TestBodiesGoBeforeHeaders(t *testing.T) {
	t.Parallel()
	s := open(t, "orders")
	minute := s.past(t, 30*time.Hour, 1)
	must(t, s.store.Books().Write(t.Context(), outlast.BookMinute{Minute: minute, State: outlast.MinuteBalanced, Sent: 1}, nil))
	if kept := s.keep(t, outlast.Retention{}); kept.Dropped != 1 || s.number(t, "SELECT count(*) FROM outlast_sent_body") != 0 {
		t.Fatalf("kept %+v", kept)
	}
	var id string
	must(t, s.db.QueryRowContext(t.Context(), "SELECT id::text FROM outlast_sent").Scan(&id))
	r, err := s.store.Books().Resend(t.Context(), []string{id}, outlast.Action{Who: "ann"})
	must(t, err)
	if len(r.Bodiless) != 1 || len(r.Sent) != 0 {
		t.Fatalf("sent again: %+v", r)
	}
}

// TestKeepNeedsNoRightToCreateTables runs as a role that may only read and write rows.
func TestKeepNeedsNoRightToCreateTables(t *testing.T) {
	t.Parallel()
	owner := open(t, "orders")
	owner.past(t, 30*24*time.Hour, 1)
	role := "r" + strings.ReplaceAll(outlast.NewID(), "-", "")
	owner.exec(t, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() {
		_, err := owner.db.Exec("DROP OWNED BY " + role + "; DROP ROLE " + role)
		if err != nil {
			t.Error(err)
		}
	})
	var address string
	must(t, owner.db.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&address))
	as := func() *service {
		u, err := url.Parse(servers.Database(t))
		must(t, err)
		u.User, u.Path = url.User(role), "/"+address
		db, err := postgres.Open(t.Context(), u.String())
		must(t, err)
		t.Cleanup(func() { must(t, db.Close()) })
		return &service{"orders", db, postgres.Store(db)}
	}
	poor := as()
	if err := poor.store.Journal().Tracking(t.Context()); outlast.CodeOf(err) != outlast.CodeDenied {
		t.Fatalf("without rights: %v", err)
	}
	owner.exec(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+role)
	owner.exec(t, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+role)
	must(t, poor.store.Journal().Tracking(t.Context()))
	if kept := poor.keep(t, outlast.Retention{}); kept.Dropped != 3 {
		t.Fatalf("kept %+v", kept)
	}
	// The functions drop parts of the sent log, and nothing else.
	for _, name := range []string{"outlast_outbox", "outlast_sent", "outlast_sent_default", "outlast_sent_p2026010100; DROP TABLE outlast_meta"} {
		var dropped bool
		must(t, poor.db.QueryRowContext(t.Context(), "SELECT outlast_drop_part($1)", name).Scan(&dropped))
		if dropped {
			t.Errorf("dropped %q", name)
		}
	}
	owner.exec(t, "REVOKE DELETE ON outlast_sent FROM "+role)
	if _, err := poor.db.ExecContext(t.Context(), "SELECT outlast_drop_part('outlast_sent_p2026010100')"); err == nil {
		t.Error("a role that may not delete from the sent log may drop parts of it")
	}
}
