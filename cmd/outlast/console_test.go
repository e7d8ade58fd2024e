package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/embedded"
)

func TestS31_ConsoleRefusesAWideListener(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	s.fails(exitUsage, []string{"--access", "127.0.0.1:8440"}, "console", "--listen", "0.0.0.0:0")
	s.fails(exitUsage, []string{"127.0.0.1:8440"}, "demo", "--console", "0.0.0.0:0")
	s.fails(exitUsage, []string{"--grace"}, "console", "--grace", "0s")
	access := filepath.Join(s.dir, "access.json")
	for name, text := range map[string]string{
		"a misspelt field":  `{"user": {}}`,
		"nobody":            `{}`,
		"a plain password":  `{"users": {"ada": {"password": "secret"}}}`,
		"a proxy of anyone": `{"forwarded": {"header": "X-User"}}`,
	} {
		if err := os.WriteFile(access, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.run("console", "--listen", "0.0.0.0:0", "--access", access); got.code != exitUsage {
			t.Errorf("%s: exit code %d, %s", name, got.code, got.err)
		}
	}
}

// console starts the console and returns its address and a function that ends it.
func (s *shell) console(args ...string) (address string, end func() (code int)) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	out, in := io.Pipe()
	done := make(chan int, 1)
	var errs syncBuffer
	go func() {
		done <- s.program(in, &errs).run(ctx, append([]string{"console", "--listen", "127.0.0.1:0"}, args...))
		_ = in.Close()
	}()
	line := make([]byte, 200)
	n, err := out.Read(line)
	m := regexp.MustCompile(`http://[0-9.:]+/`).FindString(string(line[:n]))
	if err != nil || m == "" {
		cancel()
		s.t.Fatalf("the console says %q, %v; exit code %d\n%s", line[:n], err, <-done, errs.String())
	}
	return m, func() int { cancel(); return <-done }
}

// TestConsoleWarnsOfADatabaseThatDoesNotAnswer: a mistyped name looks like one that is down.
func TestConsoleWarnsOfADatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs syncBuffer
	done := make(chan int, 1)
	go func() {
		done <- s.program(&out, &errs).run(ctx, []string{"console", "--listen", "127.0.0.1:0", "--in", "postgres://app@127.0.0.1:1/orders", "--in", "sqlite:" + filepath.Join(s.dir, "nowhere.db")})
	}()
	eventually(t, "it serves", func() bool { return strings.Contains(out.String(), "the console is at") })
	cancel()
	<-done
	contains(t, errs.String(), "warning: postgres://app@127.0.0.1:1/orders does not answer", "nowhere.db does not answer")
	if n := strings.Count(errs.String(), "does not answer"); n != 2 {
		t.Errorf("%d warnings, want none of the database that answers:\n%s", n, errs.String())
	}
}

func request(t *testing.T, url string, change func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	res, err := (&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestConsoleServes(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	s.ok("publish", "--type", "order.placed.v1", "--body", `{"a":1}`)
	s.in = strings.NewReader("correct horse\n")
	hash := strings.TrimSpace(s.ok("console", "password"))
	access, audit := filepath.Join(s.dir, "access.json"), filepath.Join(s.dir, "audit.jsonl")
	text, err := json.Marshal(accessFile{Users: map[string]console.User{"ada": {Password: hash, Grants: console.All()}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(access, text, 0o600); err != nil {
		t.Fatal(err)
	}
	address, end := s.console("--access", access, "--audit", audit)
	if code, _ := request(t, address, nil); code != http.StatusUnauthorized {
		t.Errorf("without a password: %d", code)
	}
	code, page := request(t, address+"outbox", func(r *http.Request) { r.SetBasicAuth("ada", "correct horse") })
	if code != http.StatusOK || !strings.Contains(page, "order.placed.v1") {
		t.Errorf("with one: %d\n%s", code, page)
	}
	s.fails(1, []string{"another console has"}, "console", "--listen", "127.0.0.1:0", "--audit", audit)
	if code := end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	contains(t, s.ok("console", "verify", audit), "0 records")
}

func TestConsoleLooksAtTheBroker(t *testing.T) {
	t.Parallel()
	s := withTables(t)
	file := filepath.Join(s.dir, "topology.json")
	declared := s.ok("topology", "show", "--group", "billing", "--handles", "order.placed.v1", "--json")
	if err := os.WriteFile(file, []byte(declared), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(exitUsage, []string{"--topology", "no broker"}, "console", "--topology", file)
	s = withBrokerDir(t, s)
	address, end := s.console() // nobody runs the broker
	if code, page := request(t, address, nil); code != http.StatusOK || strings.Contains(page, "Queues") {
		t.Errorf("a broker that cannot be opened: %d\n%s", code, page)
	}
	end()
	server, err := embedded.Start(strings.TrimPrefix(s.env[brokerServer.env], "embedded:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	address, end = s.console("--topology", file)
	if code, page := request(t, address+"queues", nil); code != http.StatusOK || !strings.Contains(page, "billing.0 is missing") {
		t.Errorf("before it is applied: %d\n%s", code, page)
	}
	end()
	s.ok("topology", "apply", "--file", file)
	address, end = s.console("--topology", file)
	code, page := request(t, address+"topology", nil)
	if code != http.StatusOK || strings.Contains(page, "is missing") || !strings.Contains(page, "No database that was asked knows the group billing") {
		t.Errorf("when it is applied: %d\n%s", code, page)
	}
	if code := end(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
