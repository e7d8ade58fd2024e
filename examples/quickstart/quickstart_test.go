// Package quickstart_test runs the two services as the README says.
package quickstart_test

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/outlastmq/outlast/sqlite"
)

func build(t *testing.T, dir, service string) string {
	t.Helper()
	file := filepath.Join(dir, service)
	if output, err := exec.Command("go", "build", "-buildvcs=false", "-o", file, "./"+service).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", service, err, output)
	}
	return file
}

// start runs a service in dir; what it prints comes by the channel.
func start(t *testing.T, file, dir string) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(file)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go hear(out, lines)
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
	return cmd, lines
}

func hear(out io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		lines <- s.Text()
	}
}

// expect waits for a line; in between may be others.
func expect(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the service ended without saying %q", want)
			}
			if line == want {
				return
			}
		case <-limit:
			t.Fatalf("waited in vain for %q", want)
		}
	}
}

func TestQuickstart_charges_every_order_though_billing_starts_late_and_is_killed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ordersFile, billingFile := build(t, dir, "orders"), build(t, dir, "billing")
	orders, placed := start(t, ordersFile, dir)
	expect(t, placed, "placed order-2")

	billing, charged := start(t, billingFile, dir)
	expect(t, charged, "charged order-1")
	expect(t, charged, "charged order-2")
	if err := billing.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = billing.Wait() // killed

	expect(t, placed, "placed order-5")
	again, charged := start(t, billingFile, dir)
	expect(t, placed, "placed order-8")
	expect(t, charged, "charged order-8")
	for _, service := range []*exec.Cmd{again, orders} {
		if err := service.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := service.Wait(); err != nil {
			t.Errorf("%s ended with %v", service.Path, err)
		}
	}
	checkCharges(t, filepath.Join(dir, "billing.db"), 8)
}

// checkCharges checks that each of the first n orders was charged once.
func checkCharges(t *testing.T, file string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", sqlite.DSN(file))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := 1; i <= n; i++ {
		id, charges := fmt.Sprintf("order-%d", i), 0
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM charges WHERE order_id = $1`, id).Scan(&charges); err != nil {
			t.Fatal(err)
		}
		if charges != 1 {
			t.Errorf("%s was charged %d times", id, charges)
		}
	}
}
