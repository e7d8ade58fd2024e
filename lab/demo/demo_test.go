// Package demo_test runs the demo as a person does: as a built program, on the embedded
// broker and on real servers.
package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// patience only ends a run that would hang for ever.
const patience = 5 * time.Minute

// program builds outlast once for all tests.
var program = sync.OnceValues(func() (string, error) {
	file, err := filepath.Abs("../../bin/outlast-lab-demo")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", file, ".")
	build.Dir, build.Env = "../../cmd/outlast", append(os.Environ(), "GOWORK=off")
	if output, err := build.CombinedOutput(); err != nil {
		return string(output), err
	}
	return file, nil
})

// account and report are what the demo promises to print, key by key.
type account struct {
	Committed       *int     `json:"committed"`
	Handled         *int     `json:"handled"`
	Retried         *int     `json:"retried"`
	Dead            *int     `json:"dead"`
	Lost            *int     `json:"lost"`
	Doubled         *int     `json:"doubled"`
	OutOfOrder      *int     `json:"out_of_order"`
	LongestBacklog  *int     `json:"longest_backlog"`
	RecoverySeconds *float64 `json:"recovery_seconds"`
}

type report struct {
	account
	Orders *int               `json:"orders"`
	Poison *int               `json:"poison"`
	Groups map[string]account `json:"groups"`
}

// run is a demo under way.
type run struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    bytes.Buffer
	cancel context.CancelFunc
	lines  chan string // what it says
	said   bytes.Buffer
	ended  chan error
}

func start(t *testing.T, args ...string) *run {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r := &run{t: t, cancel: cancel, lines: make(chan string, 10_000), ended: make(chan error, 1)}
	r.cmd = exec.CommandContext(ctx, file, append([]string{"demo", "--json"}, args...)...)
	r.cmd.Stdout = &r.out
	r.cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // a demo that is killed leaves its data
	said, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		r.hear(said)
	}()
	go func() {
		<-heard
		r.ended <- r.cmd.Wait()
	}()
	t.Cleanup(cancel)
	return r
}

func (r *run) hear(said io.Reader) {
	defer close(r.lines)
	for s := bufio.NewScanner(said); s.Scan(); {
		r.said.WriteString(s.Text() + "\n")
		r.lines <- s.Text()
	}
}

// hears waits until the demo has said words.
func (r *run) hears(words string) {
	r.t.Helper()
	for line := range r.lines {
		if strings.Contains(line, words) {
			return
		}
	}
	r.t.Fatalf("the demo ended without saying %q: %v\n%s", words, <-r.ended, r.said.String())
}

// hearsOrders waits while the demo tells n times how it goes, which is about once a second.
func (r *run) hearsOrders(n int) {
	r.t.Helper()
	for range n {
		r.hears("orders accepted")
	}
}

// report waits for the end, which must be a success, and returns the report.
func (r *run) report() report {
	r.t.Helper()
	if err := <-r.ended; err != nil {
		r.t.Fatalf("the demo ended with %v\n%s\n%s", err, r.said.String(), r.out.String())
	}
	r.t.Logf("%s\n%s", r.said.String(), r.out.String())
	lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	var got report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		r.t.Fatalf("the last line is no report: %v\n%s", err, r.out.String())
	}
	return got
}

// clean checks that the report is complete and good, for at least so many orders.
func (r report) clean(t *testing.T, orders int) {
	t.Helper()
	check := func(name string, a account) {
		for what, n := range map[string]*int{"committed": a.Committed, "handled": a.Handled, "retried": a.Retried, "dead": a.Dead,
			"lost": a.Lost, "doubled": a.Doubled, "out_of_order": a.OutOfOrder, "longest_backlog": a.LongestBacklog} {
			if n == nil {
				t.Fatalf("%s: the report has no %q", name, what)
			}
		}
		if a.RecoverySeconds == nil {
			t.Fatalf("%s: the report has no %q", name, "recovery_seconds")
		}
		if *a.Lost != 0 || *a.Doubled != 0 || *a.OutOfOrder != 0 {
			t.Errorf("%s: lost %d, doubled %d, out of order %d", name, *a.Lost, *a.Doubled, *a.OutOfOrder)
		}
	}
	check("all", r.account)
	for _, group := range []string{"orders", "payments", "stock", "shipping", "notifications"} {
		a, ok := r.Groups[group]
		if !ok {
			t.Fatalf("the report has no group %q", group)
		}
		check(group, a)
		if *a.Handled+*a.Dead != *a.Committed || *a.Handled == 0 {
			t.Errorf("%s: %d handled and %d dead of %d committed", group, *a.Handled, *a.Dead, *a.Committed)
		}
	}
	if *r.Orders < orders {
		t.Errorf("%d orders were accepted, want at least %d", *r.Orders, orders)
	}
	if *r.Dead != *r.Poison {
		t.Errorf("%d dead letters of %d poison orders", *r.Dead, *r.Poison)
	}
}

// faulty checks what only a run with faults shows.
func (r report) faulty(t *testing.T, longestAtLeast int) {
	t.Helper()
	if *r.Poison == 0 || *r.Retried == 0 {
		t.Errorf("%d poison orders and %d retried: nothing was put to the test", *r.Poison, *r.Retried)
	}
	if *r.LongestBacklog < longestAtLeast {
		t.Errorf("the longest backlog was %d, want at least %d: there was no outage", *r.LongestBacklog, longestAtLeast)
	}
	if *r.RecoverySeconds <= 0 {
		t.Errorf("the recovery took %v s", *r.RecoverySeconds)
	}
}

func TestDemo_on_the_embedded_broker(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "shop")
	r := start(t, "--for", "12s", "--outage", "4s", "--rate", "25", "--dir", dir)
	got := r.report()
	got.clean(t, 100)
	got.faulty(t, 30)
	if _, err := os.Stat(filepath.Join(dir, "payments.db")); err != nil {
		t.Errorf("the data is not kept: %v", err)
	}
}

// OUTLAST_TEST_OUTAGE makes the outage longer, and the run with it: 60s.
func TestDemo_on_real_servers_through_a_cut(t *testing.T) {
	t.Parallel()
	lasts, outage := 20*time.Second, 6*time.Second
	if s := os.Getenv("OUTLAST_TEST_OUTAGE"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		lasts, outage = d+30*time.Second, d
	}
	r := start(t, "--for", lasts.String(), "--outage", outage.String(), "--rate", "40",
		"--database", servers.Database(t), "--broker", servers.NewVHost(t).URL())
	got := r.report()
	got.clean(t, 300)
	got.faulty(t, 60)
}

func TestDemo_while_the_real_broker_is_killed(t *testing.T) {
	t.Parallel()
	cluster, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := start(t, "--for", "25s", "--rate", "40", "--no-faults",
		"--database", servers.Database(t), "--broker", cluster.URL())
	r.hears("the shop is open")
	if err := cluster.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.hearsOrders(5) // some of everything is under way
	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	r.hearsOrders(5)
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := r.report()
	got.clean(t, 300)
	if *got.LongestBacklog < 50 {
		t.Errorf("the longest backlog was %d: the broker was not missed", *got.LongestBacklog)
	}
}

// After the report the shop opens again with its mistake mended: all dead letters of one
// cause are retried in the console, and handled.
func TestDemo_stays_and_replays_in_its_console(t *testing.T) {
	t.Parallel()
	r := start(t, "--for", "12s", "--outage", "2s", "--rate", "30", "--stay")
	console := r.hearsAddress("failures: choose a failure")
	page := fetch(t, console+"failures", nil)
	cause := regexp.MustCompile(`href="(failure\?[^"]*)"`).FindStringSubmatch(page)
	if cause == nil {
		t.Fatalf("no failure at %sfailures:\n%s", console, page)
	}
	plan, err := url.Parse(html.UnescapeString(cause[1]))
	if err != nil {
		t.Fatal(err)
	}
	form := plan.Query()
	form.Set("deed", "retry")
	form.Set("rate", "100")
	form.Set("reason", "the bank is mended")
	page = fetch(t, console+"operation-plan", form)
	id := regexp.MustCompile(`action="operation-start"><input type="hidden" name="id" value="([^"]*)"`).FindStringSubmatch(page)
	if id == nil {
		t.Fatalf("the plan cannot be started:\n%s", page)
	}
	fetch(t, console+"operation-start", url.Values{"id": {id[1]}, "reason": {"the bank is mended"}})
	gone := 0 // one that fails again is away for a moment
	// The demo is killed when all of the patience is over.
	for deadline := time.Now().Add(patience / 2); gone < 30; time.Sleep(100 * time.Millisecond) {
		if gone++; strings.Contains(fetch(t, console+"failures", nil), form.Get("fingerprint")) {
			gone = 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("the dead letters are still there:\n%s", fetch(t, console+"failures", nil))
		}
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("its end: %v", err)
	}
}

// hearsAddress waits for a line with words, and returns the address that it begins with.
func (r *run) hearsAddress(words string) string {
	r.t.Helper()
	for line := range r.lines {
		if address, _, ok := strings.Cut(line, words); ok {
			return address
		}
	}
	r.t.Fatalf("the demo ended without an address: %v\n%s", <-r.ended, r.said.String())
	return ""
}

// fetch gets a page, or posts a form and follows to the page that answers it.
func fetch(t *testing.T, address string, form url.Values) string {
	t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", address, answer.Status, err, page)
	}
	return string(page)
}
