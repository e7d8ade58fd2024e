package servers

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestSharedRabbitMQ_that_is_not_ours(t *testing.T) {
	t.Parallel()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := RabbitMQ(t.Context(), RabbitConfig{
		Plugins: []string{"rabbitmq_management"},
		Config:  fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d", port),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := externalRabbitMQ(t.Context(), ours.URL(), "http://guest:guest@"+loopback(port))
	if err != nil {
		t.Fatal(err)
	}

	t.Run("refuses_to_be_broken", func(t *testing.T) {
		node := theirs.Node(0)
		_, ctl := theirs.Ctl(t.Context(), "status")
		for deed, err := range map[string]error{
			"kill": node.Kill(), "pause": node.Pause(), "continue": node.Continue(), "stop": node.Stop(t.Context()),
			"start": node.Start(t.Context()), "restart": node.Restart(t.Context()), "ctl": ctl, "kill all": theirs.Kill(),
			"start all": theirs.Start(t.Context()), "flush": theirs.Flush(t.Context()),
		} {
			if !errors.Is(err, ErrNotOurs) {
				t.Errorf("%s: got %v, want ErrNotOurs", deed, err)
			}
		}
	})
	t.Run("makes_shows_and_removes_virtual_hosts", func(t *testing.T) {
		vhost, err := theirs.NewVHost(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := amqp.Dial(vhost.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		channel, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := channel.QueueDeclare("mine", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
			t.Fatal(err)
		}
		queue, err := vhost.Queue(t.Context(), "mine")
		if err != nil || queue.Arguments["x-queue-type"] != "quorum" {
			t.Errorf("the queue is %+v, %v; want a quorum queue", queue, err)
		}
		if err := vhost.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if conn, err := amqp.Dial(vhost.URL()); err == nil {
			conn.Close()
			t.Error("the virtual host outlived Delete")
		}
	})
	t.Run("names_the_variable_that_is_missing", func(t *testing.T) {
		plain, err := externalRabbitMQ(t.Context(), ours.URL(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plain.NewVHost(t.Context()); err == nil || !strings.Contains(err.Error(), envAPI) {
			t.Errorf("the error does not name %s: %v", envAPI, err)
		}
	})
	t.Run("close_leaves_it_running", func(t *testing.T) {
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		if err := ours.Node(0).ping(t.Context()); err != nil {
			t.Errorf("the broker does not answer: %v", err)
		}
	})
}

func TestSharedPostgres_that_is_not_ours(t *testing.T) {
	t.Parallel()
	theirs, err := externalPostgres(t.Context(), SharedPostgres(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	for deed, err := range map[string]error{
		"kill": theirs.Kill(), "pause": theirs.Pause(), "continue": theirs.Continue(), "stop": theirs.Stop(t.Context()),
		"start": theirs.Start(t.Context()), "restart": theirs.Restart(t.Context()),
	} {
		if !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: got %v, want ErrNotOurs", deed, err)
		}
	}
	database, err := theirs.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.DropDatabase(t.Context(), database); err != nil {
		t.Error(err)
	}
	if err := theirs.DropDatabase(t.Context(), theirs.URL()); err == nil {
		t.Error("a database that NewDatabase did not make was dropped")
	}
}

// Not parallel, as it changes the environment.
func TestMissingServer_is_an_error_that_says_how_to_install_it(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := findServer("postgres", "postgresql", envPostgres, nil); err == nil ||
		!strings.Contains(err.Error(), "apt-get install -y postgresql;") {
		t.Errorf("the error does not say how to install PostgreSQL: %v", err)
	}
}

// In a parent of its own, so that nobody else is just removing the orphan.
func TestRemoveOrphans_keeps_folders_in_use(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	inUse, err := newFolderIn(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.remove()
	orphan, err := newFolderIn(parent)
	if err != nil {
		t.Fatal(err)
	}
	orphan.lock.Close() // as the kernel does when the owner dies
	// A process that another test is just starting holds a copy of the lock until its exec:
	// then one of the next folders finds the orphan.
	for deadline := time.Now().Add(time.Minute); ; {
		next, err := newFolderIn(parent)
		if err != nil {
			t.Fatal(err)
		}
		defer next.remove()
		if !exists(orphan.path) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the orphan is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !exists(inUse.path) {
		t.Error("a folder in use was removed")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
