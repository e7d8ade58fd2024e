package console_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
)

// generation is one console after another on the same files and databases.
type generation struct {
	*fixture
	operations *console.OperationLog
	end        func() // ends Run
}

func stored(t *testing.T) (*fixture, *console.OperationLog) {
	t.Helper()
	var log *console.OperationLog
	f := newFixture(t, func(c *console.Config) {
		var err error
		if log, err = console.OpenOperations(t.TempDir() + "/operations"); err != nil {
			t.Fatal(err)
		}
		c.Operations = log
	})
	return f, log
}

// begin runs a console until end, on the files of the one before.
func (f *fixture) begin(name string) *generation {
	f.Helper()
	g := &generation{fixture: f}
	audit, err := console.OpenAudit(f.log)
	f.must(err)
	g.operations, err = console.OpenOperations(name)
	f.must(err)
	f.console, err = console.New(console.Config{Authenticate: byHeader, Audit: audit, Operations: g.operations,
		Places: []journey.Place{{Name: "orders-db", Store: f.orders}, {Name: "billing-db", Store: f.billing}}})
	f.must(err)
	f.server = httptest.NewServer(f.console)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.console.Run(ctx) }()
	ended := false
	g.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		f.must(<-done)
		f.server.Close()
		f.must(g.operations.Close())
		f.must(audit.Close())
	}
	f.Cleanup(g.end)
	return g
}

// TestOperationsSurviveARestart: an operation goes on where the last console stopped, what
// died meanwhile is not part of it, and both consoles say so in the log.
func TestOperationsSurviveARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	name := t.TempDir() + "/operations"
	for range 5 {
		f.bury(message(), "card expired")
	}
	g := f.begin(name)
	page, id := f.plan("retry", "1")
	_, other := f.plan("discard", "100")
	some := f.done("operation-plan", "db", f.db("billing-db"), "group", group, "type", typ, "fingerprint", print, "deed", "retry", "rate", "1", "most", "3", "reason", "some")
	f.done("operation-start", "id", id, "reason", "yes")
	if a := f.post("operation-start", "id", other, "reason", "at once"); a.status != http.StatusConflict {
		t.Errorf("a second operation on the same dead letters: %d", a.status)
	}
	f.until(page, "1 of 5 done")
	g.end()
	late := f.bury(message(), "card expired")
	if n := len(f.dead()); n < 2 || n > 5 {
		t.Fatalf("%d dead letters are left", n)
	}

	g = f.begin(name)
	f.page("operations", "goes on when it starts again", "discard "+typ)
	f.page(some, "at most 3 were asked for: there are more")
	f.until(page, "5 of 5 done")
	f.until(page, "ended")
	f.page(page, "5 to be tried")
	if left := f.dead(); len(left) != 1 || left[0].Envelope.ID != late.ID {
		t.Errorf("left are %v, want only what died after the count", left)
	}
	g.end()
	for _, words := range []string{"paused with the console: ", "goes on after a restart: ", "ended: 5 of 5"} {
		if n := strings.Count(f.audit(), words); n != 1 {
			t.Errorf("the log says %q %d times:\n%s", words, n, f.audit())
		}
	}

	// What is over stays, and is not begun again.
	f.begin(name)
	f.page(page, "5 of 5 done", "ended")
	if a := f.post("operation-start", "id", id, "reason", "again"); a.status != http.StatusConflict {
		t.Errorf("begun again: %d", a.status)
	}
}

// TestOperationGoesOnAfterAStop, when a person says so, and not by a restart.
func TestOperationGoesOnAfterAStop(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	name := t.TempDir() + "/operations"
	for range 4 {
		f.bury(message(), "x")
	}
	g := f.begin(name)
	page, id := f.plan("discard", "1")
	f.done("operation-start", "id", id, "reason", "yes")
	f.until(page, "1 of 4 done")
	f.done("operation-stop", "id", id, "reason", "wait")
	f.until(page, "stopped")
	g.end()
	left := len(f.dead())
	f.begin(name)
	f.page(page, "stopped", "Go on")
	if n := len(f.dead()); n != left {
		t.Errorf("a restart went on with what was stopped: %d are left, %d were", n, left)
	}
	f.done("operation-start", "id", id, "reason", "go on")
	f.until(page, "4 of 4 done")
	if n := len(f.dead()); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// TestOperationLog: what a crash leaves is read, what somebody changed is refused, and
// one console at a time has it.
func TestOperationLog(t *testing.T) {
	t.Parallel()
	f, log := stored(t)
	name := t.TempDir() + "/operations"
	f.must(log.Close())
	for range 3 {
		f.bury(message(), "x")
	}
	g := f.begin(name)
	if _, err := console.OpenOperations(name); outlast.CodeOf(err) != outlast.CodeConflict {
		t.Errorf("a second console has the file: %v", err)
	}
	page, id := f.plan("retry", "100")
	f.done("operation-start", "id", id, "reason", "yes")
	f.until(page, "3 of 3 done")
	f.until(page, "ended")
	g.end()
	whole, err := os.ReadFile(name)
	f.must(err)
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	// The crash came between a part and its record: the part is done, and counted once.
	text := string(whole)
	cut := strings.LastIndex(text, "\n{\"id\"") + 1
	f.must(os.WriteFile(name, []byte(text[:cut]+text[cut:cut+9]), 0o600))
	g = f.begin(name)
	f.until(page, "ended")
	f.page(page, "3 of 3 done", "3 to be tried")
	g.end()
	for _, i := range f.dead() {
		t.Errorf("%s is dead", i.Envelope.ID)
	}

	f.must(os.WriteFile(name, []byte("{\"id\":\"other\",\"did\":1}\n"), 0o600))
	if _, err := console.OpenOperations(name); outlast.CodeOf(err) != outlast.CodeConflict || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a line of no operation: %v", err)
	}
	f.must(os.WriteFile(name, []byte("nonsense\n"), 0o600))
	if _, err := console.OpenOperations(name); outlast.CodeOf(err) != outlast.CodeConflict {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := console.New(console.Config{Loopback: true, Operations: log, Places: []journey.Place{{Name: "a", Store: f.orders}}}); outlast.CodeOf(err) != outlast.CodeInvalid {
		t.Errorf("operations without an audit log: %v", err)
	}
}
