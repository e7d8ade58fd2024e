package main

import (
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// What somebody meets who does not know the program yet.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	t.Run("status tells of a broker that is down, when one is named", func(t *testing.T) {
		s := withTables(t)
		if text := s.ok("status", "--interval", "100ms", "--json"); strings.Contains(text, `"broker"`) {
			t.Errorf("without a broker's URL: %s", text)
		}
		contains(t, s.ok("status", "--interval", "100ms", "--broker", "amqp://127.0.0.1:1"), "WARNING: broker: connect to amqp://127.0.0.1:1", "refused")
		contains(t, s.ok("status", "--interval", "100ms", "--json", "--broker", "nats://127.0.0.1:1"), `"broker":{"address":"nats://127.0.0.1:1","problem":"connect to`)
		if text := withBroker(t, s).ok("status", "--interval", "100ms"); strings.Contains(text, "WARNING") {
			t.Errorf("with a broker that answers: %s", text)
		}
	})
	t.Run("an adapter warns as the program does", func(t *testing.T) {
		s := withTables(t)
		got := s.run("status", "--interval", "100ms", "--timeout", "1s", "--insecure-plain", "--broker", "nats://mq.invalid:4222")
		contains(t, got.err, "warning: the connection to nats is not encrypted", "host=mq.invalid:4222")
		if strings.Contains(got.err, "WARN ") || strings.Contains(got.err, "level=") {
			t.Errorf("another format: %s", got.err)
		}
	})
	t.Run("a type without a version is told, once, with the type that may be meant", func(t *testing.T) {
		s := withTables(t)
		file := s.file("messages", strings.Repeat(`{"type":"order.placed","body":{}}`+"\n", 3)+`{"type":"order.shipped.v2","body":{}}`+"\n")
		got := s.run("publish", "--file", file, "--batch", "1")
		if got.code != exitOK || strings.Count(got.err, "warning: type order.placed has no version") != 1 || strings.Contains(got.err, "shipped") {
			t.Errorf("exit %d: %s", got.code, got.err)
		}
		contains(t, got.err, "was order.placed.v1 meant?")
		db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(t.Context())
		if err == nil {
			defer db.close()
			err = db.Journal().Hear(t.Context(), "billing", []string{"order.placed.v2", "stock.counted.v1"})
		}
		if err != nil {
			t.Fatal(err)
		}
		contains(t, s.run("publish", "--type", "order.placd", "--body", "{}").err, "was order.placed.v2 meant?")
	})
	t.Run("find says that no receiver was asked", func(t *testing.T) {
		s := withBroker(t, withTables(t))
		s.ok("topology", "apply", "--group", "billing", "--handles", "order.placed.v1")
		s.ok("publish", "--type", "order.placed.v1", "--key", "order-7", "--body", "{}")
		relay := s.startRelay("--source", "orders")
		eventually(t, "it is sent", func() bool { return s.waiting() == 0 })
		relay.stop()
		contains(t, s.ok("find", "order-7"), "sent", "no database that was asked knows a group that hears it: name those of its receivers with --in")
		db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(t.Context())
		if err == nil {
			defer db.close()
			err = db.Journal().Hear(t.Context(), "billing", []string{"order.placed.v1"})
		}
		if err != nil {
			t.Fatal(err)
		}
		s.ok("publish", "--type", "order.placed.v1", "--key", "order-8", "--body", "{}")
		relay = s.startRelay("--source", "orders")
		eventually(t, "it is sent", func() bool { return s.waiting() == 0 })
		relay.stop()
		got := s.ok("find", "order-8")
		contains(t, got, "sent", "billing: not seen yet: it is on its way, or in the group's queue")
		if strings.Contains(got, "no database that was asked") {
			t.Error("find blames the command line for what is on its way: " + got)
		}
	})
	t.Run("a message of the command line has the business keys that it is given", func(t *testing.T) {
		s := withTables(t)
		s.ok("publish", "--type", "order.placed.v1", "--find", "order_id=order-7", "--find", "city=Turin", "--body", "{}")
		s.ok("publish", "--file", s.file("messages", `{"type":"order.placed.v1","find":{"order_id":"order-8"},"body":{}}`+"\n"))
		contains(t, s.ok("find", "Turin"), "order_id=order-7", "pending")
		contains(t, s.ok("find", "order-8"), "order_id=order-8")
		s.fails(exitUsage, []string{"--find", "NAME=VALUE"}, "publish", "--type", "order.placed.v1", "--find", "order-7", "--body", "{}")
		s.fails(exitFailure, []string{"only the business keys that its writer gave it"}, "find", "order-9")
	})
	t.Run("find without databases says how they are named", func(t *testing.T) {
		s := newShell(t)
		s.fails(exitUsage, []string{"--in not given: must be a URL or env:NAME for each database", "OUTLAST_DATABASES"}, "find", "x")
	})
	t.Run("a wrong flag has a hint at the nearest one", func(t *testing.T) {
		s := withTables(t)
		s.fails(exitUsage, []string{"flag --formt unknown", "did you mean --format?"}, "find", "x", "--formt", "svg")
		s.fails(exitUsage, []string{"flag --databse unknown", "did you mean --database?"}, "status", "--databse", "x")
		s.fails(exitUsage, []string{"flag --inter unknown", "did you mean --interval?"}, "status", "--inter", "x")
		got := s.fails(exitUsage, []string{"flag --frobnicate unknown", "see outlast status --help"}, "status", "--frobnicate")
		if strings.Contains(got.err, "did you mean") {
			t.Errorf("a far one: %s", got.err)
		}
	})
	t.Run("peek tells a queue from a group", func(t *testing.T) {
		s := withBroker(t, withTables(t))
		s.fails(exitFailure, []string{"outlast peek billing --partition 2"}, "peek", "billing.2")
		s.fails(exitFailure, []string{"a group's queues are there once its service has run"}, "peek", "billing")
	})
	t.Run("an empty list names the database that was asked", func(t *testing.T) {
		s := withTables(t)
		contains(t, s.ok("dead", "list"), "there are no dead letters in sqlite:")
		contains(t, s.ok("retry", "list", "--group", "mail"), "nothing waits for a retry with these filters in sqlite:")
	})
	t.Run("flow takes ids, and says how a key leads to one", func(t *testing.T) {
		s := withTables(t)
		got := s.fails(exitFailure, []string{"no message has this id in", "a key leads to an id by outlast find"}, "flow", "order-7")
		if strings.Contains(got.err, "or key") {
			t.Errorf("it takes no key: %s", got.err)
		}
		s.fails(exitFailure, []string{"no message has this id, flow or key"}, "find", "order-7")
	})
	t.Run("a minute without lines says why it has none", func(t *testing.T) {
		s := withTables(t)
		db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer db.close()
		at := time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)
		contains(t, s.ok("books", "show", "2026-01-02T15:04Z"), "nobody has looked at this minute")
		for sent, words := range []string{"nothing was sent", "1 message was sent, and compared with nobody"} {
			if err := db.Books().Write(t.Context(), outlast.BookMinute{Minute: at, State: outlast.MinuteBalanced, Sent: sent, At: at}, nil); err != nil {
				t.Fatal(err)
			}
			contains(t, s.ok("books", "show", "2026-01-02T15:04Z"), words)
		}
	})
	t.Run("a bad address is said with the flag that has it", func(t *testing.T) {
		s := withTables(t)
		got := s.fails(exitUsage, []string{"--in"}, "find", "x", "--in", "mysql://x/y")
		if strings.Contains(got.err, "--database") {
			t.Errorf("it is not of --database: %s", got.err)
		}
	})
}
