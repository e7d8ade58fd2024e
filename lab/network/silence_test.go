package network_test

import (
	"context"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/network"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestF81_A_statement_to_a_vanished_server_ends: the server's host takes nothing any more and
// says nothing, as after a power cut; the kernel alone would repeat the statement for a quarter
// of an hour. Not parallel: there is one bridge in a process.
func TestF81_A_statement_to_a_vanished_server_ends(t *testing.T) {
	needNamespaces(t)
	n, err := network.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fatal(t, n.Close()) })
	host, err := n.Host("database")
	if err != nil {
		t.Fatal(err)
	}
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true, Host: servers.Host{IP: host.IP(), Enter: host.Enter}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fatal(t, server.Close()) })
	db, err := postgres.Open(t.Context(), server.URL(), postgres.AllowPlain())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fatal(t, host.Lose(100))
	ended := make(chan error, 1)
	go func() {
		_, err := conn.ExecContext(context.Background(), "SELECT 1")
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an answer came from a host that takes nothing")
		}
	case <-time.After(3 * time.Minute): // far above the limit, far below the kernel's own
		t.Error("the statement still waits")
		fatal(t, n.Heal())
		<-ended
	}
	_ = conn.Close()
	fatal(t, n.Heal())
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := db.PingContext(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the pool has not recovered: %v; retryable %v", err, outlast.Retryable(err))
		}
	}
}
