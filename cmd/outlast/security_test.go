package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/rabbitmq"
)

// TestS29_MigratePrintRoles connects to nothing and refuses what is no plain name.
func TestS29_MigratePrintRoles(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	got := s.run("migrate", "print", "--roles", "--service", "orders", "--schema", "messaging", "--prefix", "box_")
	contains(t, got.out, "CREATE ROLE orders_app NOLOGIN", `ON "messaging".box_outbox TO orders_app`, "COMMIT;")
	if strings.Contains(got.out, "GRANT ALL") || strings.Contains(got.out, "outlast_") {
		t.Errorf("%s", got.out)
	}
	s.fails(exitUsage, []string{"service", "a-z"}, "migrate", "print", "--roles", "--service", "x; DROP TABLE y")
	s.fails(exitUsage, []string{"--service"}, "migrate", "print", "--roles")
	s.fails(exitUsage, []string{"--engine"}, "migrate", "print", "--roles", "--service", "orders", "--engine", "sqlite")
	s.fails(exitUsage, []string{"--from and --to"}, "migrate", "print", "--roles", "--service", "orders", "--from", "1")
	s.fails(exitUsage, []string{"--service"}, "migrate", "print", "--engine", "postgres", "--service", "orders")
}

// TestS28_TopologyPermissions prints the same rights for people and for import.
func TestS28_TopologyPermissions(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	args := []string{"topology", "permissions", "--service", "billing", "--vhost", "shop", "--group", "billing", "--handles", "order.placed.v1", "--publishes", "invoice.sent.v1"}
	contains(t, s.run(args...).out,
		`rabbitmqctl set_permissions --vhost shop billing '^(billing\.(g[0-9]+\.)?[0-9]+)$'`,
		`rabbitmqctl set_topic_permissions --vhost shop billing 'outlast.events' '^(invoice\.sent\.v1)\.[0-9]+$' '^(order\.placed\.v1)\.([0-9]+|\*)$'`)
	var p rabbitmq.Permissions
	if err := json.Unmarshal([]byte(s.run(append(args, "--json")...).out), &p); err != nil || len(p.Permissions) != 1 || len(p.Topics) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	s.fails(exitUsage, []string{"--service"}, "topology", "permissions", "--publishes", "a.v1")
	s.fails(exitUsage, []string{"--publishes"}, "topology", "permissions", "--service", "orders")
	s.fails(exitUsage, []string{"--publishes"}, "topology", "permissions", "--service", "orders", "--publishes", "a.*")
	s.fails(exitUsage, []string{"--vhost"}, "topology", "permissions", "--service", "orders", "--publishes", "a.v1", "--vhost", "x\n")
	s.fails(exitUsage, []string{"--user"}, "topology", "permissions", "--service", "orders", "--publishes", "a.v1", "--user", "-p")
}

// TestS25_S27_S28_InsecureNeedsAFlag: each refusal names its field, and each flag lifts
// its own alone. The hosts do not exist: nothing is sent anywhere.
func TestS25_S27_S28_InsecureNeedsAFlag(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ flag, kind, address, field string }{
		{"--insecure-plain", "--database", "postgres://app@db.invalid/orders?sslmode=require&connect_timeout=1", "sslmode"},
		{"--insecure-plain", "--broker", "amqp://app@mq.invalid/?connection_timeout=100", "amqps://"},
		{"--insecure-guest", "--broker", "amqps://guest@mq.invalid/?connection_timeout=100", "guest"},
		{"--insecure-plain", "--broker", "nats://mq.invalid", "tls://"},
	} {
		s := newShell(t)
		s.fails(exitUsage, []string{c.field}, "doctor", c.kind, c.address)
		s.fails(exitUsage, []string{c.field}, "doctor", c.kind, c.address, map[string]string{"--insecure-plain": "--insecure-guest", "--insecure-guest": "--insecure-plain"}[c.flag])
		got := s.run("doctor", c.kind, c.address, c.flag, "--timeout", "3s")
		if got.code != exitFailure || !strings.Contains(got.out, ".invalid") {
			t.Errorf("%s %s: exit code %d: %s%s", c.flag, c.address, got.code, got.out, got.err)
		}
	}
}
