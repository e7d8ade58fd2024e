package shop

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// openShop makes the databases of a shop in a directory of the test.
func openShop(t *testing.T) map[string]*Database {
	t.Helper()
	_, databases := openShopIn(t)
	return databases
}

// openShopIn returns the directory too.
func openShopIn(t *testing.T) (dir string, databases map[string]*Database) {
	t.Helper()
	dir, databases = t.TempDir(), map[string]*Database{}
	for _, service := range Services {
		db, err := Open(t.Context(), "sqlite:"+dir, service)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if err := db.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		databases[service] = db
	}
	return dir, databases
}

func (d *Database) mustExec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := d.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// sent writes a line of what orders committed; at is in microseconds.
func sent(t *testing.T, databases map[string]*Database, id, key string, position, at int64) {
	databases["orders"].mustExec(t, `INSERT INTO journal_sent (id, type, ordering_key, position, at) VALUES ($1, 'order.placed.v1', $2, $3, $4)`,
		id, key, position, at)
}

// took writes an effect of it in a group.
func took(t *testing.T, databases map[string]*Database, group, id string, attempt int, at int64) {
	databases[group].mustExec(t, `INSERT INTO journal_effect (source, id, type, attempt, at) VALUES ('orders', $1, 'order.placed.v1', $2, $3)`,
		id, attempt, at)
}

// died makes a real dead letter.
func died(t *testing.T, databases map[string]*Database, group, id string, attempts int) {
	t.Helper()
	m := &outlast.Message{Body: []byte(`{}`)}
	m.ID, m.Source, m.Type, m.EnqueuedAt = id, "orders", "order.placed.v1", time.Now()
	inbox := databases[group].Store.Inbox()
	tx, err := inbox.Begin(t.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, EnqueuedAt: m.EnqueuedAt}})
	if err != nil {
		t.Fatal(err)
	}
	record := &outlast.DeadLetterRecord{Group: group, Message: m, Reason: outlast.DeadVerdict, Error: "no", Attempts: attempts}
	if err := errors.Join(tx.Bury(t.Context(), record), tx.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func audit(t *testing.T, databases map[string]*Database, outageEnd time.Time) *Report {
	t.Helper()
	list := make([]*Database, 0, len(Services))
	for _, service := range Services {
		list = append(list, databases[service])
	}
	r, err := Audit(context.Background(), list, outageEnd)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func id(n int) string { return fmt.Sprintf("018f4e9a-0000-7000-8000-%012d", n) }

// A sound history: three messages of one customer, one of them dead, in the three
// groups that hear them.
func soundHistory(t *testing.T) map[string]*Database {
	databases := openShop(t)
	for n := 1; n <= 3; n++ {
		sent(t, databases, id(n), "ada", int64(n), int64(n)*1e6)
	}
	for _, group := range []string{"payments", "stock", "notifications"} {
		took(t, databases, group, id(1), 1, 4e6)
		if group != "payments" {
			took(t, databases, group, id(2), 1, 5e6)
		}
		took(t, databases, group, id(3), 2, 6e6)
	}
	died(t, databases, "payments", id(2), 3)
	return databases
}

func TestAudit(t *testing.T) {
	t.Parallel()
	sound := Account{Committed: 3, Handled: 2, Retried: 2, Dead: 1}
	cases := []struct {
		name  string
		plant func(t *testing.T, databases map[string]*Database)
		want  func(a *Account)
	}{
		{"accepts a sound history", func(*testing.T, map[string]*Database) {}, func(*Account) {}},
		{"finds a lost message", func(t *testing.T, databases map[string]*Database) {
			sent(t, databases, id(4), "ada", 4, 4e6)
			took(t, databases, "stock", id(4), 1, 7e6) // by payments it is not handled
		}, func(a *Account) { a.Committed, a.Lost = 4, 1 }},
		{"finds a second effect", func(t *testing.T, databases map[string]*Database) {
			took(t, databases, "payments", id(1), 1, 7e6)
		}, func(a *Account) { a.Doubled = 1 }},
		{"finds an effect of a dead letter", func(t *testing.T, databases map[string]*Database) {
			took(t, databases, "payments", id(2), 1, 7e6)
		}, func(a *Account) { a.Handled, a.Doubled, a.OutOfOrder = 3, 1, 1 }},
		{"finds an effect out of order", func(t *testing.T, databases map[string]*Database) {
			sent(t, databases, id(4), "bob", 2, 1e6)
			sent(t, databases, id(5), "bob", 1, 1e6)
			took(t, databases, "payments", id(4), 1, 7e6)
			took(t, databases, "payments", id(5), 1, 8e6)
		}, func(a *Account) { a.Committed, a.Handled, a.OutOfOrder = 5, 4, 1 }},
		{"finds a message that nobody committed", func(t *testing.T, databases map[string]*Database) {
			took(t, databases, "payments", id(9), 1, 7e6)
		}, func(a *Account) { a.Ghosts = 1 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			databases := soundHistory(t)
			c.plant(t, databases)
			want := sound
			c.want(&want)
			got := audit(t, databases, time.Time{}).Groups["payments"]
			got.LongestBacklog, got.RecoverySeconds = 0, 0
			if told := got.FirstOutOfOrder != ""; told != (want.OutOfOrder > 0) {
				t.Errorf("out of order: %d, told as %q", want.OutOfOrder, got.FirstOutOfOrder)
			}
			got.FirstOutOfOrder = ""
			if got != want {
				t.Errorf("payments: %+v\nwant      %+v", got, want)
			}
			if broken := want.Lost+want.Doubled+want.OutOfOrder+want.Ghosts > 0; got.Broken() != broken {
				t.Errorf("Broken is %v", got.Broken())
			}
		})
	}
}

func TestAudit_sums_over_groups_and_counts_a_message_once(t *testing.T) {
	t.Parallel()
	got := audit(t, soundHistory(t), time.Time{}).Account
	want := Account{Committed: 3, Handled: 8, Retried: 4, Dead: 1}
	if got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestAudit_measures_the_backlog_and_the_recovery(t *testing.T) {
	t.Parallel()
	databases := soundHistory(t)
	sent(t, databases, id(4), "ada", 4, 20e6)
	took(t, databases, "stock", id(4), 1, 90e6) // committed after the outage
	got := audit(t, databases, time.UnixMicro(3_500_000)).Groups["stock"]
	if got.LongestBacklog != 3 || got.RecoverySeconds != 2.5 {
		t.Errorf("longest backlog %d, recovery %v s; want 3 and 2.5 s", got.LongestBacklog, got.RecoverySeconds)
	}
}
