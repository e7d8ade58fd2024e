// Package rig runs the built program against real servers for tests: a database, a
// virtual host of a broker, and what a person would type.
package rig

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// Patience bounds every wait of these tests; nothing asserts how long a step takes.
const Patience = 3 * time.Minute

// program builds the program once for a test binary and returns its path.
var program = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	path := filepath.Join(root, "bin", "outlast-lab")
	// Another test binary may be running the file: it keeps its own when this one is put
	// in its place.
	own := fmt.Sprintf("%s-%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", own, ".")
	cmd.Dir = filepath.Join(root, "cmd", "outlast")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, os.Rename(own, path)
})

// World is a database and a broker with the program for them.
type World struct {
	T        *testing.T
	Database string // URL
	Broker   string // URL
	DB       *sql.DB
	// Secrets must never be printed by the program.
	Secrets []string

	path string
}

// Bare returns a world whose database has no tables.
func Bare(t *testing.T, database, broker string) *World {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &World{T: t, Database: database, Broker: broker, DB: db, path: path}
}

// New returns a world whose database has the tables of the service "orders".
func New(t *testing.T, database, broker string) *World {
	t.Helper()
	w := Bare(t, database, broker)
	w.Run("migrate", "up", "--service", "orders")
	return w
}

// Shared returns a world of its own on the shared servers.
func Shared(t *testing.T) *World {
	t.Helper()
	return New(t, servers.Database(t), servers.NewVHost(t).URL())
}

// With returns the same world with other addresses for the program.
func (w *World) With(database, broker string, secrets ...string) *World {
	other := *w
	other.Database, other.Broker, other.Secrets = database, broker, append(other.Secrets, secrets...)
	return &other
}

func (w *World) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.path, args...)
	cmd.Env = append(os.Environ(), "OUTLAST_DATABASE_URL="+w.Database, "OUTLAST_BROKER_URL="+w.Broker)
	return cmd
}

// Try runs a command to its end.
func (w *World) Try(args ...string) (code int, out, errs string) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), Patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := w.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		w.T.Fatalf("outlast %q: %v\n%s%s", args, err, &stdout, &stderr)
	}
	w.silent(args, stdout.String()+stderr.String())
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// silent checks that no secret was printed.
func (w *World) silent(args []string, printed string) {
	w.T.Helper()
	for _, secret := range w.Secrets {
		if strings.Contains(printed, secret) {
			w.T.Errorf("outlast %q prints a secret:\n%s", args, printed)
		}
	}
}

// Run runs a command that must succeed and returns what it printed.
func (w *World) Run(args ...string) string {
	w.T.Helper()
	code, out, errs := w.Try(args...)
	if code != 0 {
		w.T.Fatalf("outlast %q: exit code %d\n%s%s", args, code, out, errs)
	}
	return out + errs
}

// Problem is an error as the program prints it for other programs.
type Problem struct {
	Op     string               `json:"op"`
	Code   outlast.Code         `json:"code"`
	Text   string               `json:"text"`
	Fields []outlast.FieldError `json:"fields"`
	Hint   string               `json:"hint"`
}

// Fails runs a command that must end with an exit code, and returns its error. A
// person must be told the same.
func (w *World) Fails(exit int, args ...string) Problem {
	w.T.Helper()
	code, out, errs := w.Try(append(args, "--json")...)
	if code != exit {
		w.T.Fatalf("outlast %q: exit code %d, want %d\n%s%s", args, code, exit, out, errs)
	}
	line := errs[strings.LastIndexByte(strings.TrimSuffix(errs, "\n"), '\n')+1:]
	var printed struct{ Error Problem }
	if err := json.Unmarshal([]byte(line), &printed); err != nil || printed.Error.Code == "" {
		w.T.Fatalf("outlast %q: no error in JSON: %v\n%s", args, err, errs)
	}
	p := printed.Error
	code, out, errs = w.Try(args...)
	if code != exit {
		w.T.Errorf("outlast %q: exit code %d without --json, want %d\n%s%s", args, code, exit, out, errs)
	}
	for _, f := range p.Fields {
		if !strings.Contains(errs, f.Field) || !strings.Contains(errs, f.Limit) || !strings.Contains(errs, f.Given) {
			w.T.Errorf("outlast %q does not tell a person of %+v:\n%s", args, f, errs)
		}
	}
	if !strings.Contains(errs, p.Hint) {
		w.T.Errorf("outlast %q does not give a person the hint %q:\n%s", args, p.Hint, errs)
	}
	return p
}

// Process is the program while it runs.
type Process struct {
	w    *World
	args []string
	cmd  *exec.Cmd
	log  logBuffer
	done chan error
}

// logBuffer is written by the program and read by the test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Start starts the program; it is killed when the test ends.
func (w *World) Start(args ...string) *Process {
	w.T.Helper()
	p := &Process{w: w, args: args, cmd: w.command(context.Background(), args...), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		w.T.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	w.T.Cleanup(func() {
		p.Kill()
		w.silent(args, p.Log())
		if w.T.Failed() {
			w.T.Logf("%q printed:\n%s", args, p.Log())
		}
	})
	return p
}

// Relay starts a relay for the service "orders".
func (w *World) Relay(args ...string) *Process {
	w.T.Helper()
	return w.Start(append([]string{"relay", "--source", "orders"}, args...)...)
}

// Log is what the program has printed so far.
func (p *Process) Log() string { return p.log.String() }

// Kill ends the program as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	err := <-p.done
	p.done <- err
}

// Signal sends a signal to the program.
func (p *Process) Signal(sig syscall.Signal) {
	p.w.T.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.w.T.Fatal(err)
	}
}

// End asks the program to end and wants a clean exit.
func (p *Process) End() {
	p.w.T.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.w.T.Fatal(err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			p.w.T.Errorf("%q after SIGTERM: %v", p.args, err)
		}
	case <-time.After(Patience):
		p.w.T.Fatalf("%q does not end on SIGTERM", p.args)
	}
}

// Exec runs one statement.
func (w *World) Exec(query string, args ...any) {
	w.T.Helper()
	if _, err := w.DB.ExecContext(w.T.Context(), query, args...); err != nil {
		w.T.Fatalf("%s: %v", query, err)
	}
}

// Number returns the one number that a query finds.
func (w *World) Number(query string, args ...any) (n int) {
	w.T.Helper()
	if err := w.DB.QueryRowContext(w.T.Context(), query, args...).Scan(&n); err != nil {
		w.T.Fatalf("%s: %v", query, err)
	}
	return n
}

// Text returns the one text that a query finds.
func (w *World) Text(query string, args ...any) (s string) {
	w.T.Helper()
	if err := w.DB.QueryRowContext(w.T.Context(), query, args...).Scan(&s); err != nil {
		w.T.Fatalf("%s: %v", query, err)
	}
	return s
}

// Waiting is how many messages are pending or held.
func (w *World) Waiting() int {
	w.T.Helper()
	return w.Number("SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held)")
}

// Fill writes n messages over some keys, as a program in any language would.
func (w *World) Fill(keys, n int) {
	w.T.Helper()
	w.Exec(`INSERT INTO outlast_outbox (type, ordering_key, body)
		SELECT 'order.placed.v1', 'k' || (i % $1::int), '{"n":' || i || '}' FROM generate_series(1, $2::int) i`, keys, n)
}

// Bind makes the queues of a group that handles order.placed.v1: GROUP.0.
func (w *World) Bind(group string) {
	w.T.Helper()
	w.Run("topology", "apply", "--group", group, "--handles", "order.placed.v1")
}

// Psql runs a statement as any user would, and returns what psql printed.
func (w *World) Psql(statement string) (string, error) {
	w.T.Helper()
	out, err := exec.CommandContext(w.T.Context(), "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", statement, w.Database).CombinedOutput()
	return string(out), err
}

// Eventually polls until f is true. Only liveness depends on the limit.
func (w *World) Eventually(what string, f func() bool) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), Patience)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			w.T.Fatalf("%s: not within %s", what, Patience)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
