package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast/examples/shop"
)

// The runs of the demo itself are in lab/demo, where the program is built.

func TestDemo_refuses_settings_that_cannot_work(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.env["MQ"] = "amqp://shop:hidden-word@127.0.0.1:1/"
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		words string
		args  []string
	}{
		{"--rate 0: must be 1 to 10000", []string{"--rate", "0"}},
		{"--outage 1ms: must be 1s to 24h", []string{"--outage", "1ms"}},
		{"--for 10s: must be 15s to 48h", []string{"--for", "10s"}},
		{"--dir one with files in it: must be a new or empty directory", []string{"--dir", full}},
		{"must be a postgres:// URL", []string{"--database", "sqlite:x.db"}},
		{"must be the URL of a server", []string{"--broker", "embedded:x"}},
		{"one amqp:// URL, or anything with --no-faults", []string{"--broker", "nats://127.0.0.1:4222"}},
		{"one amqp:// URL, or anything with --no-faults", []string{"--broker", "amqp://a,amqp://b"}},
	}
	for _, c := range cases {
		s.fails(exitUsage, []string{c.words}, append([]string{"demo"}, c.args...)...)
	}
}

func TestDemo_gives_a_long_outage_the_time_around_it(t *testing.T) {
	t.Parallel()
	p := newShell(t).program(&syncBuffer{}, &syncBuffer{})
	cmd := p.demoCommand()
	f := demoFlags{rate: 1, lasts: demoLasts, outage: time.Minute}
	if err := f.check(cmd); err != nil || f.lasts != 90*time.Second {
		t.Errorf("orders for %s (%v), want 90s", f.lasts, err)
	}
}

func TestDemo_fails_when_a_promise_was_broken(t *testing.T) {
	t.Parallel()
	d := &demo{}
	good := shop.Report{Account: shop.Account{Dead: 3}, Poison: 3}
	if err := d.verdict(&good); err != nil {
		t.Errorf("a good report: %v", err)
	}
	for name, spoil := range map[string]func(r *shop.Report){
		"1 lost":         func(r *shop.Report) { r.Lost = 1 },
		"1 doubled":      func(r *shop.Report) { r.Doubled = 1 },
		"1 out of order": func(r *shop.Report) { r.OutOfOrder = 1 },
		"1 never":        func(r *shop.Report) { r.Ghosts = 1 },
		"4 dead letters": func(r *shop.Report) { r.Dead = 4 },
	} {
		r := good
		spoil(&r)
		if err := d.verdict(&r); err == nil || !strings.Contains(err.Error(), name) || exitCode(err, true) != exitFailure {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDemo_load_is_poisoned_at_a_fixed_rate(t *testing.T) {
	t.Parallel()
	cards := map[string]int{}
	poisoned, plain := newLoad("", 1, true), newLoad("", 1, false)
	for n := range 1000 {
		cards[poisoned.order(n).Card]++
		if card := plain.order(n).Card; card != "good" {
			t.Fatalf("order %d of a demo without faults has a card that is %s", n, card)
		}
	}
	if cards[shop.CardExpired] != 10 || cards[shop.CardUnreadable] != 10 || cards[shop.CardBusy] == 0 {
		t.Errorf("%v", cards)
	}
}

func TestDemo_is_at_rest_when_two_audits_agree(t *testing.T) {
	t.Parallel()
	report := func(committed, handled, lost, ghosts int) *shop.Report {
		return &shop.Report{Account: shop.Account{Committed: committed, Handled: handled, Lost: lost, Ghosts: ghosts}}
	}
	for name, c := range map[string]struct {
		last, now *shop.Report
		want      bool
	}{
		"the first audit":                 {nil, report(5, 9, 0, 0), false},
		"the same again":                  {report(5, 9, 0, 0), report(5, 9, 0, 0), true},
		"more was committed meanwhile":    {report(5, 9, 0, 0), report(6, 9, 0, 0), false},
		"committed while the audit read":  {report(5, 9, 0, 0), report(5, 9, 0, 1), false},
		"something is under way, or lost": {report(5, 9, 1, 0), report(5, 9, 1, 0), false},
	} {
		if got := atRest(c.last, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
