package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// receive lets the group's inbox record n messages, each by what settle does.
func (s *shell) receive(group string, n int, settle func(outlast.InboxTx, *outlast.Message) error) []string {
	s.t.Helper()
	ctx := s.t.Context()
	db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.close()
	var ids []string
	for i := range n {
		m := &outlast.Message{Envelope: outlast.Envelope{
			ID: outlast.NewID(), Type: "order.placed.v1", Kind: outlast.KindEvent, Source: "orders", Key: fmt.Sprintf("k%d", i),
			EnqueuedAt: time.Now(), ContentType: "application/json",
		}, Body: []byte(`{"n":1}`)}
		tx, err := db.Inbox().Begin(ctx, group, []outlast.Mark{{Source: m.Source, ID: m.ID, Hash: 7, EnqueuedAt: m.EnqueuedAt}})
		if err == nil {
			err = settle(tx, m)
		}
		if err == nil {
			err = tx.Commit(ctx)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

func (s *shell) bury(group string, n int) []string {
	s.t.Helper()
	return s.receive(group, n, func(tx outlast.InboxTx, m *outlast.Message) error {
		return tx.Bury(s.t.Context(), &outlast.DeadLetterRecord{
			Group: group, Message: m, Reason: "attempts spent", Error: "charge card: refused\x1b[2J", Attempts: 15, Fingerprint: "f-" + group, FirstAt: time.Now(),
		})
	})
}

func TestDeadLetters(t *testing.T) {
	s := withTables(t)
	contains(t, s.ok("dead", "list"), "there are no dead letters")
	billing := s.bury("billing", 7)
	s.bury("mail", 3)
	contains(t, s.ok("dead", "list", "--group", "billing"), billing[0], "attempts spent", "f-billing", "charge card: refused")
	contains(t, s.ok("dead", "show", "billing", billing[0]), "15", "orders", `{"n":1}`)
	s.fails(exitFailure, []string{`group "mail" has no dead letter`, "the id is one of group billing"}, "dead", "show", "mail", billing[0])
	contains(t, s.ok("status", "--interval", "100ms"), "DEAD", "billing", "mail")

	s.fails(exitUsage, []string{"--all"}, "dead", "replay")
	s.fails(exitUsage, []string{"--rate"}, "dead", "replay", "--all", "--rate", "-1")
	contains(t, s.ok("dead", "replay", "--fingerprint", "f-billing", "--dry-run"), "would be replayed: 7")
	contains(t, s.ok("dead", "replay", billing[0]), "replayed: 1")
	contains(t, s.ok("dead", "replay", "--group", "billing", "--limit", "2"), "replayed: 2")
	result := decode[bulkResult](s, "dead", "replay", "--all", "--rate", "1000", "--reason", "card service is back")
	if result.Selected != 7 || result.Done != 7 {
		t.Errorf("replayed over groups: %+v", result)
	}
	if left := decode[[]outlast.Item](s, "dead", "list"); len(left) != 0 {
		t.Errorf("dead after the replay: %+v", left)
	}
	if waiting := decode[[]outlast.Item](s, "retry", "list"); len(waiting) != 10 {
		t.Errorf("%d wait for a retry, want 10", len(waiting))
	}
	contains(t, s.ok("actions"), "card service is back")
}

// burySame buries one message for several groups.
func (s *shell) burySame(m outlast.Message, fingerprints map[string]string) {
	s.t.Helper()
	db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.close()
	for group, fingerprint := range fingerprints {
		tx, err := db.Inbox().Begin(s.t.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, Hash: 7, EnqueuedAt: m.EnqueuedAt}})
		if err == nil {
			err = tx.Bury(s.t.Context(), &outlast.DeadLetterRecord{Group: group, Message: &m, Reason: "spent", Error: "x", Attempts: 1, Fingerprint: fingerprint, FirstAt: time.Now()})
		}
		if err == nil {
			err = tx.Commit(s.t.Context())
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestShowFindsTheGroup(t *testing.T) {
	s := withTables(t)
	one := s.bury("billing", 1)[0]
	both := outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a.v1", Kind: outlast.KindEvent, Source: "orders", EnqueuedAt: time.Now()}, Body: []byte("{}")}
	s.burySame(both, map[string]string{"billing": "5f3a9c01d2e4", "mail": "5f3abbbbbbbb"})

	contains(t, s.ok("dead", "show", one), "billing", one)
	contains(t, s.ok("dead", "show", one, "--group", "billing"), one)
	s.fails(exitUsage, []string{"--group", "billing, mail"}, "dead", "show", both.ID)
	contains(t, s.ok("dead", "show", both.ID, "--group", "mail"), "mail", "5f3abbbbbbbb")
	contains(t, s.ok("dead", "show", "mail", both.ID), "5f3abbbbbbbb")
	s.fails(exitFailure, []string{`group "shop" is unknown here, or has no dead letter`}, "dead", "show", "shop", outlast.NewID())
	s.fails(exitFailure, []string{`group "mail" has no dead letter`, "billing"}, "dead", "show", "mail", one)
	s.fails(exitFailure, []string{"no group has a dead letter", "outlast dead list"}, "dead", "show", outlast.NewID())
	s.fails(exitUsage, []string{"given twice"}, "dead", "show", "mail", one, "--group", "mail")
	s.fails(exitUsage, []string{"GROUP"}, "dead", "show")
}

func TestFingerprintByItsFirstDigits(t *testing.T) {
	s := withTables(t)
	m := outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "a.v1", Kind: outlast.KindEvent, Source: "orders", EnqueuedAt: time.Now()}, Body: []byte("{}")}
	s.burySame(m, map[string]string{"billing": "5f3a9c01d2e4", "mail": "5f3abbbbbbbb", "shop": "5f3a9c01d2e4"})

	contains(t, s.ok("dead", "list"), "FINGERPRINT")
	if got := decode[[]outlast.Item](s, "dead", "list", "--fingerprint", "5F3A9"); len(got) != 2 {
		t.Errorf("listed %+v", got)
	}
	s.fails(exitUsage, []string{"5f3a9c01d2e4, 5f3abbbbbbbb", "more digits"}, "dead", "list", "--fingerprint", "5f3a")
	contains(t, s.ok("dead", "list", "--fingerprint", "5f3a", "--group", "mail"), "5f3abbbbbbbb")
	s.fails(exitUsage, []string{"at least the first 4"}, "dead", "replay", "--fingerprint", "5f3")
	contains(t, s.ok("dead", "replay", "--fingerprint", "5f3a9c"), "replayed: 2")

	got := s.run("dead", "replay", "--fingerprint", "5f3a9c")
	if got.code != exitOK {
		t.Errorf("exit code %d", got.code)
	}
	contains(t, got.out, "replayed: 0")
	contains(t, got.err, "nothing was selected", "outlast dead list")
	if got := s.run("dead", "discard", "--group", "mail", "--reason", "x"); got.err != "" {
		t.Errorf("stderr of an action that did something: %s", got.err)
	}
}

func TestDeadDiscardNeedsAReason(t *testing.T) {
	s := withTables(t)
	ids := s.bury("billing", 4)
	s.fails(exitUsage, []string{"--reason", "recorded"}, "dead", "discard", ids[0])
	contains(t, s.ok("dead", "discard", ids[0], "--reason", "test order"), "discarded: 1")
	contains(t, s.ok("dead", "discard", "--group", "billing", "--older-than", "1h", "--reason", "none is that old"), "discarded: 0")
	contains(t, s.ok("dead", "discard", "--group", "billing", "--reason", "rest"), "discarded: 3")
}

func TestS35_ReplayAtARateCanBeInterrupted(t *testing.T) {
	s := withTables(t)
	s.bury("billing", 5)
	ctx, cancel := contextAfter(t, 300*time.Millisecond)
	defer cancel()
	got := s.runContext(ctx, "dead", "replay", "--all", "--rate", "0.01")
	if got.code != exitFailure {
		t.Errorf("exit code %d", got.code)
	}
	contains(t, got.err, "interrupted; 1 of 5 done")
	contains(t, got.out, "replayed: 1 of 5 selected")
	if left := decode[[]outlast.Item](s, "dead", "list"); len(left) != 4 {
		t.Errorf("%d are left, want 4", len(left))
	}
}

func TestRetry(t *testing.T) {
	s := withTables(t)
	contains(t, s.ok("retry", "list"), "nothing waits for a retry")
	ids := s.receive("billing", 2, func(tx outlast.InboxTx, m *outlast.Message) error {
		return tx.Wait(s.t.Context(), &outlast.Waiting{Group: "billing", Message: m, Attempts: 1, Wait: time.Hour, Reason: "failed", Error: "no route to host"})
	})
	contains(t, s.ok("retry", "list", "--group", "billing"), ids[0], ids[1], "failed", "no route to host")
	contains(t, s.ok("retry", "show", "billing", ids[0]), "no route to host")
	contains(t, s.ok("retry", "now", ids[1], "--reason", "host is back"), "made due: 1")
	var due int
	for _, it := range decode[[]outlast.Item](s, "retry", "list") {
		if it.NextAt.Before(time.Now().Add(30 * time.Minute)) {
			due++
		}
	}
	if due != 1 {
		t.Errorf("%d are due, want 1", due)
	}
}

func TestPauseAndResume(t *testing.T) {
	s := withTables(t)
	s.bury("billing", 1)
	contains(t, s.ok("pause", "billing", "--reason", "card service is down"), "billing is paused")
	contains(t, s.ok("status", "--interval", "100ms"), "PAUSED: group billing", "ada@", "card service is down")
	s.ok("resume", "billing")
	if report := decode[statusReport](s, "status", "--interval", "100ms"); len(report.Groups) != 0 {
		t.Errorf("still paused: %+v", report.Groups)
	}
	s.fails(exitUsage, []string{"GROUP"}, "pause")
}

func TestPauseAndResumeTheRelays(t *testing.T) {
	s := withTables(t)
	contains(t, s.ok("pause", "--relays", "--reason", "the broker moves"), "the relays of sqlite:", "pause")
	contains(t, s.ok("status", "--interval", "100ms"), "PAUSED: the relays, nothing is sent", "ada@", "the broker moves")
	report := decode[statusReport](s, "status", "--interval", "100ms")
	if len(report.Groups) != 0 || report.RelaysPaused == nil || report.RelaysPaused.Reason != "the broker moves" {
		t.Errorf("the status tells %+v and %+v", report.Groups, report.RelaysPaused)
	}
	contains(t, s.ok("actions"), "the broker moves")
	contains(t, s.ok("resume", "--relays"), "go on")
	if report := decode[statusReport](s, "status", "--interval", "100ms"); report.RelaysPaused != nil {
		t.Errorf("still paused: %+v", report.RelaysPaused)
	}
	s.fails(exitUsage, []string{"not given with --relays"}, "pause", "billing", "--relays")
}

func TestPauseRefusesAGroupThatTheDatabaseDoesNotKnow(t *testing.T) {
	s := withTables(t)
	s.fails(exitFailure, []string{`no group "mialer"`, "none at all", "--force"}, "pause", "mialer")
	s.bury("mailer", 1)
	s.receive("billing", 1, func(outlast.InboxTx, *outlast.Message) error { return nil }) // handled: only the inbox has it
	s.record(func(db *database) error { return db.Journal().Hear(t.Context(), "hearer", []string{"order.placed.v1"}) })
	s.record(func(db *database) error {
		_, err := db.Inbox().Alive(t.Context(), "starter", "i-1")
		return err
	})
	for _, deed := range []string{"pause", "resume"} {
		s.fails(exitFailure, []string{`no group "mialer"`, "billing, hearer, mailer, starter", "--force"}, deed, "mialer")
	}
	for _, group := range []string{"billing", "hearer", "mailer", "starter"} {
		s.ok("pause", group)
		s.ok("resume", group)
	}
	s.ok("pause", "mialer", "--force")
	s.ok("resume", "mialer") // what is paused is known
	s.ok("resume", "mialer", "--force")
}

// record does something to the database of the shell.
func (s *shell) record(do func(*database) error) {
	s.t.Helper()
	db, err := s.program(&syncBuffer{}, &syncBuffer{}).openDatabase(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.close()
	if err := do(db); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnEmptyListNamesTheFilters(t *testing.T) {
	s := withTables(t)
	s.bury("mailer", 1)
	contains(t, s.ok("dead", "list", "--group", "mialer"), "there are no dead letters with these filters")
	s.fails(exitUsage, []string{`"zz"`, "12 hexadecimal digits"}, "dead", "list", "--fingerprint", "zz")
}
