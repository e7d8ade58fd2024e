package demo_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/servers"
)

// refuses checks that the demo ends at once, with exit code 1 and these words.
func refuses(t *testing.T, words string, args ...string) {
	t.Helper()
	r := start(t, args...)
	if err := <-r.ended; err == nil || r.cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("the demo ended with %v, want exit code 1\n%s", err, r.said.String())
	}
	if !strings.Contains(r.said.String(), words) {
		t.Errorf("it said:\n%s\nwant %q", r.said.String(), words)
	}
}

func TestDemo_replaces_no_schema_that_is_not_its_own(t *testing.T) {
	t.Parallel()
	database := servers.Database(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA shop_stock CREATE TABLE precious (n int)`); err != nil {
		t.Fatal(err)
	}
	refuses(t, `shop_stock`, "--database", database, "--broker", servers.NewVHost(t).URL())
	if _, err := conn.Exec(t.Context(), `SELECT n FROM shop_stock.precious`); err != nil {
		t.Error(err)
	}
}

func TestDemo_uses_no_queue_that_holds_messages(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	conn, err := amqp.Dial(vhost.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDeclare("stock.0", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirm, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "", "stock.0", false, false, amqp.Publishing{})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirm.WaitContext(t.Context()); err != nil || !ok {
		t.Fatalf("the message was not taken: %v", err)
	}
	refuses(t, `the queue \"stock.0\" exists with 1 message`, "--database", servers.Database(t), "--broker", vhost.URL())
}
