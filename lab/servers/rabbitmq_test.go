package servers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/servers"
)

func startRabbitMQ(t *testing.T, config servers.RabbitConfig) *servers.RabbitCluster {
	t.Helper()
	cluster, err := servers.RabbitMQ(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// openChannel returns a channel in confirm mode; its connection is closed with the test.
func openChannel(t *testing.T, amqpURL string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // an error says only that a test broke the connection
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return channel
}

func declareQuorum(t *testing.T, channel *amqp.Channel, name string) {
	t.Helper()
	if _, err := channel.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, cluster *servers.RabbitCluster) {
	t.Helper()
	if err := cluster.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// publish repeats what the broker refuses or leaves without an answer, on a connection of
// its own: a quorum queue does both when it has just lost its leader.
func publish(t *testing.T, amqpURL, queue, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if publishOnce(t, amqpURL, queue, body) {
			return
		}
	}
	t.Fatalf("publish %q: not confirmed", body)
}

func publishOnce(t *testing.T, amqpURL, queue, body string) bool {
	t.Helper()
	confirm, err := openChannel(t, amqpURL).PublishWithDeferredConfirm("", queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	acked, err := confirm.WaitContext(ctx)
	return acked && err == nil
}

// wantMessage skips other messages: a repeated publish may have left a copy.
func wantMessage(t *testing.T, channel *amqp.Channel, queue, body string) {
	t.Helper()
	for {
		message, ok, err := channel.Get(queue, true)
		if err != nil || !ok {
			t.Fatalf("get %q from %s: found %v, %v", body, queue, ok, err)
		}
		if string(message.Body) == body {
			return
		}
	}
}

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	cluster := startRabbitMQ(t, servers.RabbitConfig{Config: "channel_max = 77"})
	node := cluster.Node(0)

	// The steps follow each other on one node: each leaves it running.
	t.Run("takes_further_configuration", func(t *testing.T) {
		output, err := cluster.Ctl(t.Context(), "environment")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(output, "{channel_max,77}") {
			t.Errorf("channel_max = 77 is not in the environment:\n%s", output)
		}
	})
	t.Run("kill_keeps_what_was_confirmed", func(t *testing.T) {
		channel := openChannel(t, cluster.URL())
		declareQuorum(t, channel, "kept")
		flush(t, cluster)
		publish(t, cluster.URL(), "kept", "killed")
		if err := node.Kill(); err != nil {
			t.Fatal(err)
		}
		if conn, err := amqp.Dial(cluster.URL()); err == nil {
			conn.Close()
			t.Error("the node took a connection after Kill")
		}
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMessage(t, openChannel(t, cluster.URL()), "kept", "killed")
	})
	t.Run("paused_it_does_not_answer_until_continued", func(t *testing.T) {
		channel := openChannel(t, cluster.URL())
		if err := node.Pause(); err != nil {
			t.Fatal(err)
		}
		confirm, err := channel.PublishWithDeferredConfirm("", "kept", true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("frozen")})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-confirm.Done():
			t.Error("a frozen node confirmed a message")
		case <-time.After(300 * time.Millisecond):
		}
		if err := node.Continue(); err != nil {
			t.Fatal(err)
		}
		if acked, err := confirm.WaitContext(t.Context()); err != nil || !acked {
			t.Fatalf("no confirm after Continue: %v, %v", acked, err)
		}
		wantMessage(t, channel, "kept", "frozen")
	})
	t.Run("restart_keeps_port_and_data", func(t *testing.T) {
		publish(t, cluster.URL(), "kept", "restarted")
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMessage(t, openChannel(t, cluster.URL()), "kept", "restarted")
	})
}

func TestRabbitMQ_refuses_a_wrong_configuration(t *testing.T) {
	t.Parallel()
	_, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Nodes: 9, NetTick: time.Millisecond})
	for _, field := range []string{"RabbitConfig.Nodes 9", "RabbitConfig.NetTick 1ms"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

func TestRabbitMQ_shows_the_log_when_it_does_not_start(t *testing.T) {
	t.Parallel()
	_, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Config: "no_such_setting = 1"})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Fatalf("the error does not hold the broker's complaint: %v", err)
	}
}

func TestNewVHost_separates_tests_on_one_broker(t *testing.T) {
	t.Parallel()
	first, second := servers.NewVHost(t), servers.NewVHost(t)
	declareQuorum(t, openChannel(t, first.URL()), "mine")
	publish(t, first.URL(), "mine", "hello")

	if queues, err := second.Queues(t.Context()); err != nil || len(queues) != 0 {
		t.Errorf("the second virtual host has queues %v, %v; want none", queues, err)
	}
	for range 30 { // the counts lag
		queue, err := first.Queue(t.Context(), "mine")
		if err != nil {
			t.Fatal(err)
		}
		if queue.Type != "quorum" || !queue.Durable || queue.Arguments["x-queue-type"] != "quorum" {
			t.Fatalf("the queue is %+v, want a durable quorum queue", queue)
		}
		if queue.Ready == 1 && queue.Messages == 1 {
			return
		}
	}
	t.Error("the queue's counts never showed the message")
}

func TestRabbitMQ_cluster(t *testing.T) {
	t.Parallel()
	cluster := startRabbitMQ(t, servers.RabbitConfig{Nodes: 3, NetTick: 5 * time.Second})
	vhost, err := cluster.NewVHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	urls := vhost.URLs()
	declareQuorum(t, openChannel(t, urls[0]), "kept")
	flush(t, cluster)

	t.Run("forms_one_cluster", func(t *testing.T) {
		var status struct {
			Running []string `json:"running_nodes"`
		}
		if err := cluster.CtlJSON(t.Context(), &status, "cluster_status"); err != nil {
			t.Fatal(err)
		}
		if len(status.Running) != 3 {
			t.Errorf("running nodes are %q, want 3", status.Running)
		}
		queue, err := vhost.Queue(t.Context(), "kept")
		if err != nil {
			t.Fatal(err)
		}
		if len(queue.Members) != 3 {
			t.Errorf("the quorum queue is on %q, want 3 nodes", queue.Members)
		}
	})
	t.Run("survives_a_killed_node", func(t *testing.T) {
		if err := cluster.Node(0).Kill(); err != nil {
			t.Fatal(err)
		}
		publish(t, urls[1], "kept", "by two")
		wantMessage(t, openChannel(t, urls[1]), "kept", "by two")
		publish(t, urls[1], "kept", "for the third")
		if err := cluster.Node(0).Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMessage(t, openChannel(t, urls[0]), "kept", "for the third")
	})
	t.Run("returns_after_all_were_killed", func(t *testing.T) {
		publish(t, urls[1], "kept", "through the dark")
		if err := cluster.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMessage(t, openChannel(t, urls[2]), "kept", "through the dark")
	})
}
