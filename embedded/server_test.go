package embedded

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

func TestServer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	if _, err := Connect(dir); outlast.CodeOf(err) != outlast.CodeNotFound {
		t.Fatalf("Connect before anything ran: %v", err)
	}
	s, err := Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Start(dir); outlast.CodeOf(err) != outlast.CodeConflict {
		t.Fatalf("a second owner: %v", err)
	}
	if address, err := Connect(dir); err != nil || address != s.URL() {
		t.Fatalf("Connect: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, addressFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file with the token: %v, %v", info, err)
	}
	_ = s.Close()
	_ = s.Close()
	s.Wait()
	again, err := Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.URL() != s.URL() {
		t.Fatal("another address after a restart")
	}
	// The port is somebody else's by now.
	if _, err := Start(t.TempDir(), Port(again.ns.Addr().(*net.TCPAddr).Port)); outlast.CodeOf(err) != outlast.CodeUnavailable {
		t.Fatalf("a port that is taken: %v", err)
	}
}

// child is a server in a process of its own.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), "OUTLAST_TEST_SERVE="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); _ = c.cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	return c
}

// kill ends it with SIGKILL and waits until it is gone.
func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	_ = c.cmd.Wait()
}

func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startChild(t, dir)
	address, err := Connect(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := nats.Broker(address)
	g := group("billing", true)
	apply(t, b, g)
	p := publisher(t, b)

	const rounds, size = 3, 1500 // far more than can be confirmed before the kill
	sent := 0
	for round := range rounds {
		ps := messages(sent, size)
		sent += size
		before := sent - size // each of the earlier ones has its result
		p.Send(round, ps)
		p.until("some results", func() bool { return len(p.results) >= before+100 })
		server.kill()
		p.until("every message has a result", func() bool { return len(p.results) == sent })
		p.until("down", func() bool { return p.link.State == outlast.LinkDown })
		server = startChild(t, dir)
		p.until("up", func() bool { return p.link.State == outlast.LinkUp })
	}
	last := messages(sent, 1)
	p.confirm(last...)

	in := subscribe(t, b, g, 64, true)
	in.until("the last message", func() bool { return slices.Contains(numbers(in.got), fmt.Sprint(sent)) })
	in.mu.Lock()
	defer in.mu.Unlock()
	arrived := map[string]bool{}
	previous := -1
	for _, d := range in.got {
		arrived[d.Message.ID] = true
		if n := number(d.Message.Envelope.Subject); n <= previous {
			t.Fatalf("%d after %d", n, previous)
		} else {
			previous = n
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	outcomes := map[outlast.Outcome]int{}
	for id, x := range p.results {
		outcomes[x.Outcome]++
		switch x.Outcome {
		case outlast.OutcomeConfirmed:
			if !arrived[id] {
				t.Errorf("message %s was confirmed and is lost", x.P.Message.Envelope.Subject)
			}
		case outlast.OutcomeUnknown:
		case outlast.OutcomeNotSent:
			if arrived[id] {
				t.Errorf("message %s was called not sent and arrived", x.P.Message.Envelope.Subject)
			}
		default:
			t.Errorf("message %s: %v, %v", x.P.Message.Envelope.Subject, x.Outcome, x.Err)
		}
	}
	if len(p.twice) > 0 {
		t.Errorf("%d messages with two results", len(p.twice))
	}
	if outcomes[outlast.OutcomeUnknown] == 0 {
		t.Error("not exercised: no outcome was unknown")
	}
	t.Logf("outcomes %v, arrived %d", outcomes, len(in.got))
}

func TestSubscriptionComesBackAfterTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startChild(t, dir)
	address, err := Connect(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := nats.Broker(address)
	g := group("billing", true)
	in := subscribe(t, b, g, 10, false)
	p := publisher(t, b)
	p.confirm(messages(1, 10)...)
	in.numbersAfter(10)
	server.kill()
	in.until("down", func() bool { return in.link.State == outlast.LinkDown })
	startChild(t, dir)
	in.until("up again", func() bool { return in.up == 2 })
	p.until("up again", func() bool { return p.link.State == outlast.LinkUp })
	if got := in.numbersAfter(20)[10:]; !slices.Equal(got, count(1, 10)) {
		t.Fatalf("after the restart: %v", got)
	}
}
