package journey_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestTruthQueues takes away a group's consumers, its queue and the broker, one after the
// other: the pages say which of it is so, and nothing of a broker that is cut off.
func TestTruthQueues(t *testing.T) {
	s := newStage(t)
	file := filepath.Join(t.TempDir(), "topology.json")
	must(t, os.WriteFile(file, []byte(s.world.Run("topology", "show", "--group", "billing", "--handles", "order.placed.v1", "--json")), 0o600))
	s.open("--topology", file, "--audit", filepath.Join(t.TempDir(), "another.jsonl"))
	s.relay(s.world.Broker)
	stop := s.group("billing", s.broker, nil)
	s.hears(1)
	s.publish(2, 0)
	s.handles("billing", 2)
	s.shows("queues", "billing.0 billing there 0 1", "Every queue is there and is consumed, or empty.")
	s.shows("topology", "No difference: 1 queue as declared.")
	if text := s.world.Run("status", "--interval", "100ms", "--database", s.billingURL()); !regexp.MustCompile(`(?m)^billing +1 +\d\S* +0 +0$`).MatchString(text) {
		t.Errorf("a group that has nothing to do is not shown as running:\n%s", text)
	}

	stop()
	s.publish(3, 0)
	s.settled()
	s.shows("queues", "3 messages in billing.0, and nobody consumes it: is billing up?", "billing.0 billing there 3 0")
	s.world.Run("pause", "billing", "--reason", "card service is down", "--database", s.billingURL())
	s.shows("queues", "3 messages in billing.0, while billing is paused by ", "!nobody consumes")
	s.world.Run("resume", "billing", "--database", s.billingURL())

	s.link.Cut()
	s.shows("queues", "The broker does not say anything of its queues", "billing.0 billing unknown unknown unknown", "!missing")
	s.shows("topology", "whether anything differs is unknown", "!No difference")
	must(t, s.link.Restore())
	s.shows("queues", "billing.0 billing there 3 0")

	ch := channel(t, s.broker)
	_, err := ch.QueueDelete("billing.0", false, false, false)
	must(t, err)
	s.shows("queues", "billing.0 is missing: messages for billing cannot get there.", "billing.0 billing missing none none")
	s.shows("topology", `Queue "billing.0" is missing.`, "outlast topology apply declares what is missing", "!No difference")
	s.world.Run("topology", "apply", "--file", file)
	s.shows("queues", "billing.0 billing there 0 0")
	s.shows("topology", "No difference: 1 queue as declared.")
}

// TestTruthRelaysPaused pauses the relays on the page, restarts one meanwhile, and resumes
// them with the command: nothing is sent in between, and everything afterwards, once.
func TestTruthRelaysPaused(t *testing.T) {
	s := newStage(t)
	relay := s.relay(s.world.Broker)
	s.group("billing", s.broker, nil)
	s.hears(1)
	s.publish(2, 0)
	s.handles("billing", 2)
	s.settled()
	s.shows("outbox", " 256 ", "Pause the relays")
	db := regexp.MustCompile(`name="db" value="([0-9a-f]+)"`).FindStringSubmatch(s.raw("outbox"))[1]
	if code, text, _ := s.post("pause-relays", "db", db, "reason", "the broker moves"); code != http.StatusSeeOther {
		t.Fatalf("paused: %d %s", code, text)
	}
	slots := "SELECT count(*) FROM outlast_slot WHERE scope = 'relay' AND owner IS NOT NULL"
	s.world.Eventually("the slots are given back", func() bool { return s.world.Number(slots) == 0 })
	waits := s.publish(5, 0)
	relay.Kill()
	s.relay(s.world.Broker)
	s.world.Eventually("the next relay is there", func() bool {
		return s.world.Number("SELECT count(*) FROM outlast_owner WHERE scope = 'relay' AND expires_at > now()") >= 1
	})
	s.shows("", "The relays of orders are paused by somebody on this machine since", "nothing is sent", "!no relay is there")
	s.says("status", s.world.Run("status"), "PAUSED: the relays, nothing is sent", "the broker moves", "5 to send")
	s.tell(waits[0], "orders: pending", "!orders: sent", "!LOST")
	if n := s.world.Number(slots); n != 0 {
		t.Errorf("%d slots are held while paused", n)
	}
	s.world.Run("resume", "--relays")
	s.handles("billing", 7)
	s.settled()
	s.shows("", "Nothing needs a person", "!paused")
	s.tell(waits[4], "orders: sent", "billing: handled", "!DOUBLED")
}
