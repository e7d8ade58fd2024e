package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/embedded"
)

// contextAfter is Ctrl-C after a while.
func contextAfter(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// withBrokerDir adds an embedded broker to a shell.
func withBrokerDir(t *testing.T, s *shell) *shell {
	t.Helper()
	dir := filepath.Join(s.dir, "mq")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.env[brokerServer.env] = "embedded:" + dir
	return s
}

// withBroker adds an embedded broker that this process runs, as a service does.
func withBroker(t *testing.T, s *shell) *shell {
	t.Helper()
	s = withBrokerDir(t, s)
	server, err := embedded.Start(strings.TrimPrefix(s.env[brokerServer.env], "embedded:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return s
}

func TestOnlyRelayRunsTheEmbeddedBroker(t *testing.T) {
	s := withBrokerDir(t, withTables(t))
	dir := strings.TrimPrefix(s.env[brokerServer.env], "embedded:")
	group := []string{"--group", "billing", "--handles", "order.placed.v1"}
	nobody := []string{"nobody runs the embedded broker of " + dir, "hint: start the service that runs it, or outlast relay"}
	asking := func() {
		t.Helper()
		s.fails(exitFailure, nobody, "peek", "billing")
		s.fails(exitFailure, nobody, append([]string{"topology", "apply"}, group...)...)
		s.fails(exitFailure, nobody, append([]string{"topology", "check"}, group...)...)
		got := s.fails(exitFailure, []string{"1 check failed"}, "doctor")
		contains(t, got.out, "fail  broker: ", nobody[0], "No loss       unknown  a check of the broker failed", "Fair retry    holds")
	}
	asking()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a command that only asks left %v in the directory, %v", left, err)
	}

	relay := s.startRelay("--source", "orders")
	eventually(t, "the relay runs the broker", func() bool {
		return strings.Contains(relay.errs.String(), "running the embedded broker in "+dir+"; other processes connect to it")
	})
	s.ok(append([]string{"topology", "apply"}, group...)...)
	s.ok(append([]string{"topology", "check"}, group...)...)
	second := s.startRelay("--source", "orders")
	eventually(t, "a second relay joins", func() bool {
		return strings.Contains(second.errs.String(), "another process runs the embedded broker in "+dir)
	})
	second.stop()
	relay.stop()
	asking() // its address is still there

	url, err := embedded.Connect(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", regexp.MustCompile(`[^@/]+$`).FindString(url))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = c.Write([]byte("220 mail.example ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	asking() // another program has the port
}

func TestTopologyShow(t *testing.T) {
	s := newShell(t)
	contains(t, s.ok("topology", "show", "--group", "billing", "--handles", "order.placed.v1", "--handles-command", "card.charge.v1", "--partitions", "2", "--ordered", "--generation", "2"),
		"exchange outlast.events", "exchange outlast.commands", "queue billing.g2.1: quorum, single active consumer", "order.placed.v1.1", "(32 keys)")
	printed := s.ok("topology", "show", "--group", "billing", "--handles", "order.placed.v1", "--json")
	again := s.ok("topology", "show", "--file", s.file("topology.json", printed), "--json")
	if printed != again {
		t.Errorf("printed\n%s, read back\n%s", printed, again)
	}
	s.fails(exitUsage, []string{"--file or --group"}, "topology", "show")
	s.fails(exitUsage, []string{"bindings", "partitions 65"}, "topology", "show", "--group", "billing", "--partitions", "65")
	s.fails(exitUsage, []string{"group", "a.b"}, "topology", "show", "--group", "a.b", "--handles", "x.v1")
	s.fails(exitUsage, []string{"not JSON"}, "topology", "show", "--file", s.file("bad.json", "{"))
	s.fails(exitUsage, []string{"exchangs"}, "topology", "show", "--file", s.file("bad.json", `{"exchangs":[]}`))
	s.fails(exitUsage, []string{"one of the two"}, "topology", "show", "--file", "x", "--group", "y")
}

func TestTopologyApplyAndCheck(t *testing.T) {
	s := withBroker(t, newShell(t))
	group := []string{"--group", "billing", "--handles", "order.placed.v1"}
	got := s.fails(exitFailure, []string{"topology check", "difference"}, append([]string{"topology", "check"}, group...)...)
	contains(t, got.out, "WANT", "billing")
	contains(t, s.ok(append([]string{"topology", "apply"}, group...)...), "queue billing.0", "applied at embedded:")
	contains(t, s.ok(append([]string{"topology", "check"}, group...)...), "has all of it")
	if d := decode[[]outlast.TopologyDifference](s, append([]string{"topology", "check"}, group...)...); len(d) != 0 {
		t.Errorf("differences: %v", d)
	}
	s.fails(exitFailure, []string{"nobody"}, "peek", "nobody")
}

// relayRun is `outlast relay` in the background.
type relayRun struct {
	errs *syncBuffer
	end  context.CancelFunc
	done chan int
}

func (s *shell) startRelay(args ...string) *relayRun {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	r := &relayRun{errs: &syncBuffer{}, end: cancel, done: make(chan int, 1)}
	p := s.program(&syncBuffer{}, r.errs)
	go func() {
		r.done <- p.run(ctx, append([]string{"relay", "--interval", "20ms", "--report-interval", "1s"}, args...))
	}()
	s.t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// stop ends the relay as SIGTERM does and returns its exit code.
func (r *relayRun) stop() int {
	r.end()
	code := <-r.done
	r.done <- code
	return code
}

// eventually waits for a condition; only the test's own deadline ends it.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestRelayDeliversAndTellsProblemsInWords(t *testing.T) {
	s := withBroker(t, withTables(t))
	s.ok("topology", "apply", "--group", "billing", "--handles", "order.placed.v1")
	s.ok("publish", "--file", s.file("some", lines(40)))
	s.ok("publish", "--type", "unheard.of.v1", "--body", "{}")
	relay := s.startRelay("--source", "orders", "--listen", "127.0.0.1:0", "--warn-age", "1ms")

	eventually(t, "only the unroutable message is left", func() bool {
		items := decode[[]outlast.Item](s, "outbox", "list")
		return len(items) == 1 && items[0].Envelope.Type == "unheard.of.v1" && items[0].Reason == string(outlast.HeldUnroutable)
	})
	eventually(t, "the route's problem is told", func() bool {
		return strings.Contains(relay.errs.String(), "unheard.of.v1: ") && strings.Contains(relay.errs.String(), "1 message held")
	})
	contains(t, relay.errs.String(), "relay starts", "source=orders", "database=sqlite:", "broker=embedded:")
	contains(t, s.ok("status", "--interval", "100ms"), "unroutable", "RELAY")

	found := regexp.MustCompile(`health endpoints" address=(\S+)`).FindStringSubmatch(relay.errs.String())
	if found == nil {
		t.Fatalf("no address of the health endpoints in:\n%s", relay.errs.String())
	}
	code, report := getReport(t, "http://"+found[1]+"/readyz")
	if code != http.StatusOK || !report.Ready || report.Slots != 1 || len(report.Problems) != 1 || len(report.Warnings) != 1 {
		t.Errorf("readyz: %d %+v", code, report)
	}
	if code, _ := getReport(t, "http://"+found[1]+"/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}

	out := s.ok("peek", "billing", "-n", "5", "--body")
	contains(t, out, "40 messages ready", "order.placed.v1", `{"n":`) // which ones come first is not said
	again := decode[struct{ Peeked []peeked }](s, "peek", "billing", "-n", "40")
	if len(again.Peeked) != 40 || again.Peeked[0].Body != nil {
		t.Errorf("a second peek sees %d, want 40 without bodies", len(again.Peeked))
	}

	s.ok("topology", "apply", "--group", "late", "--handles", "unheard.of.v1")
	eventually(t, "the held message is delivered once a queue is bound", func() bool { return s.waiting() == 0 })
	if code := relay.stop(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, relay.errs.String())
	}
	contains(t, relay.errs.String(), "relay has ended")
	if strings.Contains(relay.errs.String(), "nats://") && regexp.MustCompile(`nats://[^/ ]+@`).MatchString(relay.errs.String()) {
		t.Errorf("the embedded broker's token was printed:\n%s", relay.errs.String())
	}
}

func getReport(t *testing.T, url string) (int, relayReport) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var r relayReport
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, r
}

func TestRelayIsNotReadyWithoutItsBroker(t *testing.T) {
	s := withTables(t)
	s.env[brokerServer.env] = "amqp://app:" + planted + "@127.0.0.1:1"
	relay := s.startRelay("--source", "orders", "--listen", "127.0.0.1:0", "--log", "json")
	address := regexp.MustCompile(`"health endpoints","address":"([^"]+)"`)
	eventually(t, "the endpoints are up", func() bool { return address.MatchString(relay.errs.String()) })
	url := "http://" + address.FindStringSubmatch(relay.errs.String())[1]
	eventually(t, "only the broker is missing", func() bool {
		code, report := getReport(t, url+"/readyz")
		if code != http.StatusServiceUnavailable || report.Ready || len(report.Problems) == 0 {
			t.Fatalf("readyz: %d %+v", code, report)
		}
		return len(report.Problems) == 1 && strings.Contains(report.Problems[0], "broker: no connection")
	})
	if code, _ := getReport(t, url+"/livez"); code != http.StatusOK {
		t.Errorf("livez during an outage: %d", code)
	}
	eventually(t, "the outage is told", func() bool { return strings.Contains(relay.errs.String(), "broker: no connection") })
	if code := relay.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(relay.errs.String(), planted) {
		t.Errorf("the password is in the log:\n%s", relay.errs.String())
	}
}

func TestRelayRefusesWhatOnlyAPersonCanChange(t *testing.T) {
	s := withBrokerDir(t, withTables(t))
	nobodys := newShell(t)
	nobodys.env[brokerServer.env] = s.env[brokerServer.env]
	nobodys.env[databaseServer.env] = "sqlite:" + filepath.Join(nobodys.dir, "new.db")
	nobodys.ok("migrate", "up")
	nobodys.fails(exitUsage, []string{"--source not given", "set --source or OUTLAST_SOURCE"}, "relay")
	s.fails(exitUsage, []string{"--interval", "--lanes"}, "relay", "--source", "orders", "--interval", "1ms", "--lanes", "65")
	s.fails(exitUsage, []string{"--log"}, "relay", "--source", "orders", "--log", "xml")
	s.fails(exitUsage, []string{"--listen"}, "relay", "--source", "orders", "--listen", "nowhere:x")
	s.fails(exitFailure, []string{"orders", "billing"}, "relay", "--source", "billing")
}

func TestRelayTakesTheSourceThatTheDatabaseKnows(t *testing.T) {
	s := withBroker(t, withTables(t))
	relay := s.startRelay()
	eventually(t, "the relay runs", func() bool { return strings.Contains(relay.errs.String(), "relay starts") })
	contains(t, relay.errs.String(), "no --source", "source=orders")
	if code := relay.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestRelayCountsAsStuck(t *testing.T) {
	now := time.Now()
	long, short := now.Add(-2*stuckAfter), now.Add(-time.Second)
	up := outlast.Link{State: outlast.LinkUp, Since: long}
	for name, c := range map[string]struct {
		h    outlast.RelayHealth
		want bool
	}{
		"nothing settles":          {outlast.RelayHealth{Link: up, Buffered: 1, Progress: long}, true},
		"progress":                 {outlast.RelayHealth{Link: up, Buffered: 1, Progress: short}, false},
		"nothing to do":            {outlast.RelayHealth{Link: up, Progress: long}, false},
		"the database is away":     {outlast.RelayHealth{Link: up, Buffered: 1, Progress: long, StoreError: "x"}, false},
		"the broker is away":       {outlast.RelayHealth{Link: outlast.Link{State: outlast.LinkDown, Since: long}, Buffered: 1, Progress: long}, false},
		"the broker just came":     {outlast.RelayHealth{Link: outlast.Link{State: outlast.LinkUp, Since: short}, Buffered: 1, Progress: long}, false},
		"its route takes nothing":  {outlast.RelayHealth{Link: up, Buffered: 1, Progress: long, Closed: map[outlast.Route]string{{}: "x"}}, false},
		"the broker blocks for it": {outlast.RelayHealth{Link: outlast.Link{State: outlast.LinkBlocked, Since: long}, Buffered: 1, Progress: long}, false},
	} {
		if got := stuck(c.h, now); got != c.want {
			t.Errorf("%s: stuck is %t", name, got)
		}
	}
}

func TestDoctor(t *testing.T) {
	s := withBroker(t, withTables(t))
	out := s.ok("doctor")
	contains(t, out, "ok    tables", "SQLite", "belongs to orders", "no relay is alive", "PROMISE", "Key order", "holds")
	d := decode[diagnosis](s, "doctor")
	contains(t, out, "made when a group that handles a command subscribes")
	s.ok("topology", "apply", "--group", "other", "--handles", "other.v1")
	if out := s.ok("doctor"); !strings.Contains(out, "syncs every message") || strings.Contains(out, "No loss       at risk") {
		t.Errorf("the embedded server is not known to sync:\n%s", out)
	}
	if len(d.Promises) != len(promises) || d.count(outlast.FindingFail) != 0 {
		t.Errorf("diagnosis: %+v", d)
	}

	got := s.fails(exitFailure, []string{"1 check failed"}, "doctor", "--group", "billing", "--handles", "order.placed.v1")
	contains(t, got.out, "fail  topology", "at risk")

	s.ok("publish", "--type", "a.v1", "--body", "{}")
	got = s.fails(exitFailure, []string{"1 check failed"}, "doctor")
	contains(t, got.out, "fail  relay: no relay is alive, and 1 message", "Self-healing  at risk")
	contains(t, got.out, "Key order     holds")
	delete(s.env, brokerServer.env)
	got = s.run("doctor")
	contains(t, got.out, "unknown  the broker was not checked")
}

func TestDoctorWithoutServers(t *testing.T) {
	s := newShell(t)
	s.fails(exitUsage, []string{"--database or --broker"}, "doctor")
	s.env[databaseServer.env] = "postgres://app:" + planted + "@127.0.0.1:1/orders"
	s.env[brokerServer.env] = "amqp://app:" + planted + "@127.0.0.1:1"
	got := s.fails(exitFailure, []string{"checks failed"}, "doctor", "--timeout", "2s")
	contains(t, got.out, "fail  database", "fail  rabbitmq", "unknown")
	mustNotLeak(t, got, "the environment")
	for _, promise := range promises {
		contains(t, got.out, fmt.Sprintf("%-12s  unknown", promise.name))
	}
}

func TestDoctorWithoutTheBrokerVouchesForTheDatabaseOnly(t *testing.T) {
	s := withTables(t)
	s.env[brokerServer.env] = "amqp://127.0.0.1:1/x"
	got := s.fails(exitFailure, []string{"1 check failed"}, "doctor")
	for _, promise := range promises {
		want := fmt.Sprintf("%-12s  holds", promise.name)
		if promise.broker {
			want = fmt.Sprintf("%-12s  unknown  a check of the broker failed", promise.name)
		}
		contains(t, got.out, want)
	}
}

func TestF80_DoctorNoticesASkewedClock(t *testing.T) {
	now := time.Now()
	for skew, want := range map[time.Duration]outlast.FindingLevel{0: outlast.FindingOK, -time.Second: outlast.FindingOK, time.Hour: outlast.FindingWarn, -time.Hour: outlast.FindingWarn} {
		var d diagnosis
		d.examineClock(now.Add(skew), now, now)
		if d.Findings[0].Level != want {
			t.Errorf("skew %v: %+v", skew, d.Findings[0])
		}
	}
}

func TestVersion(t *testing.T) {
	s := newShell(t)
	r := decode[versionReport](s, "version")
	if s.ok("--version") != s.ok("version") || s.ok("--version", "--json") != s.ok("version", "--json") {
		t.Error("--version and version differ")
	}
	if r.Go == "" || r.Tables["postgres"] < 1 || r.Tables["sqlite"] < 1 {
		t.Errorf("version: %+v", r)
	}
}

func TestEveryCommandTeaches(t *testing.T) {
	s := newShell(t)
	root := s.program(&syncBuffer{}, &syncBuffer{}).root()
	for _, c := range root.Commands() {
		all := append(c.Commands(), c)
		for _, c := range all {
			if c.Hidden || c.HasSubCommands() || c.Name() == "help" || c.Name() == "completion" || c.Parent().Name() == "completion" {
				continue
			}
			if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
				t.Errorf("%s: --help has no example of it", c.CommandPath())
			}
		}
	}
	contains(t, s.ok("completion", "bash"), "__start_outlast")
	contains(t, s.ok("dead", "replay", "--help"), "--rate", "Examples")
	s.fails(exitUsage, []string{`command "statsu"`, "did you mean status?"}, "statsu")
	s.fails(exitUsage, []string{`command "lsit"`, "did you mean list?"}, "dead", "lsit")
	s.fails(exitUsage, []string{`command "frob"`}, "help", "frob")
	s.fails(exitUsage, []string{"did you mean"}, "outbo")
	if help := s.ok("publish", "--help"); strings.Count(help[strings.Index(help, "--max-body"):], "default") < 1 || strings.Contains(help, "0 B") {
		t.Errorf("two defaults of --max-body:\n%s", help)
	}
	s.fails(exitUsage, []string{"command", "outlast dead --help"}, "dead", "frobnicate")
}
