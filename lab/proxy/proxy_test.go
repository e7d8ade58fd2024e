package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast/lab/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newEcho starts a server that sends back what it gets, and a proxy before it.
func newEcho(t *testing.T) *proxy.Proxy {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
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
			go func() {
				defer conn.Close()
				io.Copy(conn, conn) // a cut is what the tests are about
			}()
		}
	}()
	p, err := proxy.New(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		listener.Close()
		<-done
	})
	return p
}

func dial(t *testing.T, p *proxy.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

// wantNothing waits for as long as given, in which nothing may come.
func wantNothing(t *testing.T, conn net.Conn, d time.Duration) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes came, %v", n, err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// wantEnd reads to the end and returns what came before it.
func wantEnd(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	var got bytes.Buffer
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(&got, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is still open")
	}
	return got.Bytes()
}

func TestProxy(t *testing.T) {
	t.Parallel()
	t.Run("forwards_both_ways", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, newEcho(t))
		send(t, conn, "hello")
		wantRead(t, conn, "hello")
	})
	t.Run("hands_on_the_end_of_a_connection", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		client := dial(t, p)
		send(t, client, "x")
		wantRead(t, client, "x")
		client.Close()
		other := dial(t, p) // the proxy itself goes on
		send(t, other, "y")
		wantRead(t, other, "y")
	})
	t.Run("cut_on_a_request_keeps_the_reply_back", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		conn := dial(t, p)
		send(t, conn, "begin;")
		wantRead(t, conn, "begin;")
		p.CutOn(proxy.Up, []byte("commit"), proxy.Down, 3)
		send(t, conn, "com") // the pattern comes in two pieces
		wantRead(t, conn, "com")
		send(t, conn, "mit;")
		<-p.Cuts()
		if got := wantEnd(t, conn); string(got) != "mit" {
			t.Errorf("%q came back, want 3 bytes", got)
		}
		if err := p.Restore(); err != nil {
			t.Fatal(err)
		}
		again := dial(t, p)
		send(t, again, "commit;") // the trigger is spent
		wantRead(t, again, "commit;")
	})
	t.Run("cut_on_a_message_cuts_behind_it_in_its_direction", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		conn := dial(t, p)
		p.CutOn(proxy.Down, []byte("ack"), proxy.Down, 1)
		send(t, conn, "one ack two")
		if got := wantEnd(t, conn); string(got) != "one ack " {
			t.Errorf("%q came back", got)
		}
	})
	t.Run("delay_loses_nothing", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		p.Delay(time.Millisecond)
		conn := dial(t, p)
		send(t, conn, "late")
		wantRead(t, conn, "late")
	})
	t.Run("cut_ends_connections_and_refuses_new_ones_until_restored", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		conn := dial(t, p)
		send(t, conn, "hello")
		wantRead(t, conn, "hello")
		p.Cut()
		wantEnd(t, conn)
		if conn, err := net.Dial("tcp", p.Address()); err == nil {
			conn.Close()
			t.Error("a cut proxy took a connection")
		}
		if err := p.Restore(); err != nil {
			t.Fatal(err)
		}
		again := dial(t, p)
		send(t, again, "again")
		wantRead(t, again, "again")
	})
	t.Run("stall_passes_nothing_and_loses_nothing", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		old := dial(t, p)
		send(t, old, "before")
		wantRead(t, old, "before")
		p.Stall()
		fresh := dial(t, p)
		for _, conn := range []net.Conn{old, fresh} {
			send(t, conn, "held")
			wantNothing(t, conn, 100*time.Millisecond)
		}
		if err := p.Restore(); err != nil {
			t.Fatal(err)
		}
		wantRead(t, old, "held")
		wantRead(t, fresh, "held")
	})
	t.Run("cut_ends_stalled_connections", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		p.Stall()
		conn := dial(t, p)
		send(t, conn, "held")
		p.Cut()
		if got := wantEnd(t, conn); len(got) != 0 {
			t.Errorf("a stalled proxy passed %q", got)
		}
	})
}

func TestProxy_Stall_holds_what_was_delayed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p, err := proxy.New(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client := dial(t, p)
	target, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	p.Delay(300 * time.Millisecond)
	send(t, client, "held")
	wantNothing(t, target, 20*time.Millisecond) // the proxy has it, and lets it wait
	p.Stall()
	wantNothing(t, target, 500*time.Millisecond)
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	wantRead(t, target, "held")
}

func TestProxy_CutAfter_passes_exactly_as_many_bytes(t *testing.T) {
	t.Parallel()
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		conn := dial(t, p)
		send(t, conn, "ab")
		wantRead(t, conn, "ab")
		p.CutAfter(proxy.Down, 3)
		send(t, conn, "cdefgh")
		if got := wantEnd(t, conn); string(got) != "cde" {
			t.Errorf("got %q before the cut, want cde", got)
		}
		<-p.Cuts()
		if conn, err := net.Dial("tcp", p.Address()); err == nil {
			conn.Close()
			t.Error("a cut proxy took a connection")
		}
	})
	t.Run("up", func(t *testing.T) {
		t.Parallel()
		target, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		p, err := proxy.New(target.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.CutAfter(proxy.Up, 4)
		send(t, dial(t, p), "abcdef")
		server, err := target.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if got := wantEnd(t, server); string(got) != "abcd" {
			t.Errorf("the target got %q before the cut, want abcd", got)
		}
	})
	t.Run("forgotten_by_restore", func(t *testing.T) {
		t.Parallel()
		p := newEcho(t)
		p.CutAfter(proxy.Down, 1)
		if err := p.Restore(); err != nil {
			t.Fatal(err)
		}
		conn := dial(t, p)
		send(t, conn, "all of it")
		wantRead(t, conn, "all of it")
	})
}

func TestProxy_ends_connections_when_the_target_is_down(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	p, err := proxy.New(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		return // it was reset so soon that the dial saw it
	}
	defer conn.Close()
	if got := wantEnd(t, conn); len(got) != 0 {
		t.Errorf("got %q from a target that is down", got)
	}
}

func TestDeafenLosesTheAnswersOfThatConnectionAlone(t *testing.T) {
	t.Parallel()
	p := newEcho(t)
	deaf := dial(t, p)
	send(t, deaf, "before")
	wantRead(t, deaf, "before")
	p.Deafen()
	send(t, deaf, "lost")
	other := dial(t, p)
	send(t, other, "heard")
	wantRead(t, other, "heard")
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := deaf.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := deaf.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v; want none", n, err)
	}
}
