// Package chain proves the whole chain on real servers: the program, PostgreSQL,
// RabbitMQ, and clients in other languages.
package chain

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

func TestMain(m *testing.M) { servers.Main(m) }

// program builds the program once and returns its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outlast-chain-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outlast")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = filepath.Join("..", "..", "cmd", "outlast")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
})

// world is a database, a virtual host and the program for them.
type world struct {
	t        *testing.T
	database string
	broker   string
	db       *sql.DB
	path     string
}

func newWorld(t *testing.T, database, broker string) *world {
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
	w := &world{t: t, database: database, broker: broker, db: db, path: path}
	w.run("migrate", "up", "--service", "orders")
	return w
}

func shared(t *testing.T) *world {
	t.Helper()
	return newWorld(t, servers.Database(t), servers.NewVHost(t).URL())
}

func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.path, args...)
	cmd.Env = append(os.Environ(), "OUTLAST_DATABASE_URL="+w.database, "OUTLAST_BROKER_URL="+w.broker)
	return cmd
}

// run runs a command to its end and returns what it printed.
func (w *world) run(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	out, err := w.command(ctx, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("outlast %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// output is what a program has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// daemon is a running program that a test may kill.
type daemon struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *output
	done chan error
}

func (w *world) start(args ...string) *daemon {
	w.t.Helper()
	d := &daemon{t: w.t, cmd: w.command(context.Background(), args...), log: &output{}, done: make(chan error, 1)}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	w.t.Cleanup(func() {
		d.kill()
		if w.t.Failed() {
			w.t.Logf("%v printed:\n%s", args, d.log)
		}
	})
	return d
}

func (w *world) relay(args ...string) *daemon {
	w.t.Helper()
	return w.start(append([]string{"relay", "--source", "orders"}, args...)...)
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	err := <-d.done
	d.done <- err
}

func (d *daemon) signal(sig os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// end asks the program to end and wants a clean exit.
func (d *daemon) end() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	select {
	case err := <-d.done:
		d.done <- err
		if err != nil {
			d.t.Errorf("SIGTERM: %v", err)
		}
	case <-time.After(time.Minute):
		d.t.Fatal("the program does not end on SIGTERM")
	}
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
}

func (w *world) number(query string, args ...any) (n int) {
	w.t.Helper()
	if err := w.db.QueryRowContext(w.t.Context(), query, args...).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (w *world) text(query string) (s string) {
	w.t.Helper()
	if err := w.db.QueryRowContext(w.t.Context(), query).Scan(&s); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return s
}

// psql runs a statement as any user would.
func (w *world) psql(statement string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), "psql", "-v", "ON_ERROR_STOP=1", "-c", statement, w.database).CombinedOutput()
	if err != nil {
		w.t.Fatalf("psql: %v\n%s", err, out)
	}
}

var errLate = errors.New("not in time")

// eventually polls until f is true. Only liveness depends on the limit.
func (w *world) eventually(what string, limit time.Duration, f func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), limit, errLate)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: %v after %s\n%s", what, context.Cause(ctx), limit, w.run("status"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *world) wait(what string) {
	w.t.Helper()
	w.eventually(what, 3*time.Minute, func() bool {
		return w.number("SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held)") == 0
	})
}

// fill inserts n messages over keys, as psql would: the body tells the number.
const fillSQL = `INSERT INTO outlast_outbox (type, ordering_key, body)
	SELECT 'order.placed.v1', 'k' || (i %% %d), json_build_object('key', 'k' || (i %% %d), 'n', i)::text FROM generate_series(1, %d) i`

func fill(keys, n int) string { return fmt.Sprintf(fillSQL, keys, keys, n) }
