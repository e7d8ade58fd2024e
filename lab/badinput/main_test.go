// Package badinput gives the built program, the library and the tables what they must
// refuse, on real servers: the answer names the field, the limit and what was given,
// nothing is lost, and no secret is shown.
package badinput

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

func TestMain(m *testing.M) { servers.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contains checks that a text holds all words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is missing in:\n%s", word, text)
		}
	}
}

// as returns an address with another user and password.
func as(t *testing.T, address, user, password string) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	u.User = url.UserPassword(user, password)
	return u.String()
}

// consume runs a group in this process until the test ends, and waits for its queues.
func consume(t *testing.T, w *rig.World, group string, handlers ...outlast.Handler) {
	t.Helper()
	consumer, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: group, Store: postgres.Store(w.DB), Broker: rabbitmq.Broker(w.Broker), Handlers: handlers,
		Retry: outlast.RetryPolicy{First: 10 * time.Millisecond, Longest: 50 * time.Millisecond, Attempts: 3},
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the consumer ended: %v", err)
		}
	})
	w.Eventually("the consumer is subscribed", func() bool {
		for _, s := range consumer.Health().Subscriptions {
			if s.Link.State != outlast.LinkUp {
				return false
			}
		}
		return true
	})
}

// dead is a dead letter as the program lists it.
type dead struct{ ID, Reason, Error string }

// deadLetters waits for n dead letters of a group and returns them by id.
func deadLetters(t *testing.T, w *rig.World, group string, n int) map[string]dead {
	t.Helper()
	w.Eventually("dead letters", func() bool { return w.Number("SELECT count(*) FROM outlast_dead WHERE grp = $1", group) >= n })
	found := map[string]dead{}
	for _, item := range list(t, w, "dead", "list", "--group", group) {
		found[item.Envelope.ID] = dead{item.Envelope.ID, item.Reason, item.Error}
	}
	if len(found) != n {
		t.Errorf("%d dead letters, want %d: %v", len(found), n, found)
	}
	return found
}
