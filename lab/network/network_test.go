package network_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast/lab/network"
)

// lacks is why the tests cannot run here; set before they do.
var lacks error

func TestMain(m *testing.M) {
	lacks = network.Isolate()
	// pgx asks the server to cancel what a lost connection was doing, for up to 15 s, beside all
	// else.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn.(*PgConn).asyncClose.func1"))
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if lacks != nil {
		fmt.Fprintln(os.Stderr, "NOT EXERCISED:", lacks)
		t.Skip(lacks)
	}
}

// world is a network with a server on one host that answers each connection with its own
// address, and a client's host.
func world(t *testing.T) (*network.Net, *network.Host, *network.Host) {
	t.Helper()
	needNamespaces(t)
	n, err := network.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	server, err := n.Host("server")
	if err != nil {
		t.Fatal(err)
	}
	client, err := n.Host("client")
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	err = server.Enter(func() (err error) { listener, err = net.Listen("tcp4", server.IP()+":7000"); return err })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().String())
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return n, server, client
}

// ask connects from a host and returns what the server says.
func ask(from, to *network.Host, patience time.Duration) (text string, err error) {
	err = from.Enter(func() error {
		// No dial with a deadline: that would leave the thread.
		conn, err := net.Dial("tcp4", to.IP()+":7000")
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		data, err := io.ReadAll(conn)
		text = string(data)
		return err
	})
	return text, err
}

// TestNetwork is not parallel: there is one bridge in a process.
func TestNetwork(t *testing.T) {
	n, server, client := world(t)
	text, err := ask(client, server, time.Minute)
	if host, _, _ := net.SplitHostPort(text); err != nil || host != client.IP() {
		t.Fatalf("the server saw %q (%v), want %s", text, err, client.IP())
	}
	sides := func(f func(a, b []*network.Host) error) {
		t.Helper()
		if err := f([]*network.Host{client}, []*network.Host{server}); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan error, 1)
	asked := func() {
		go func() {
			text, err := ask(client, server, time.Minute)
			if err == nil && text == "" {
				err = errors.New("no answer")
			}
			answered <- err
		}()
	}
	for _, broken := range []struct {
		name        string
		strike, end func()
	}{
		{"partition", func() { sides(n.Partition) }, func() { sides(n.Join) }},
		{"one way", func() { fatal(t, client.Ignore(server)) }, func() { fatal(t, client.Hear(server)) }},
		{"loss of everything", func() { fatal(t, server.Lose(100)) }, func() { fatal(t, server.Lose(0)) }},
		{"partition, healed", func() { sides(n.Partition) }, func() { fatal(t, n.Heal()) }},
	} {
		broken.strike()
		asked()
		select {
		case err := <-answered:
			t.Fatalf("%s: an answer came through: %v", broken.name, err)
		case <-time.After(300 * time.Millisecond): // the absence of an answer has no signal
		}
		broken.end()
		if err := <-answered; err != nil {
			t.Fatalf("%s: after it ended: %v", broken.name, err)
		}
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
