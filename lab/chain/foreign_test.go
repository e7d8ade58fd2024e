package chain

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
)

// python is the distribution's own, which has its packages.
const python = "/usr/bin/python3"

type tally struct{ Distinct, Repeats, Disorder int }

// reader runs the foreign consumer to its end.
func (w *world) reader(queue string, n int) <-chan tally {
	w.t.Helper()
	if out, err := exec.Command(python, "-c", "import pika").CombinedOutput(); err != nil {
		w.t.Fatalf("the foreign client is missing: apt-get install python3-pika\n%s", out)
	}
	result := make(chan tally, 1)
	cmd := exec.CommandContext(w.t.Context(), python, "reader.py", w.broker, queue, fmt.Sprint(n))
	cmd.Stderr = os.Stderr
	go func() {
		defer close(result)
		out, err := cmd.Output()
		var t tally
		if err != nil || json.Unmarshal(out, &t) != nil {
			w.t.Errorf("reader.py: %v: %s", err, out)
			return
		}
		result <- t
	}()
	return result
}

// TestForeignWriterAndReader: rows written by psql alone arrive at a client that
// knows nothing of Outlast, whatever is killed on the way.
func TestForeignWriterAndReader(t *testing.T) {
	cluster, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	w := newWorld(t, servers.Database(t), cluster.URL())
	w.run("topology", "apply", "--group", "reader", "--handles", "order.placed.v1")
	if err := cluster.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	got := w.reader("reader.0", n)
	w.psql(fill(100, n))
	for round := range 3 {
		relay := w.relay("--lease", "2s")
		w.eventually("some rows are sent", time.Minute, func() bool {
			return w.number("SELECT count(*) FROM outlast_outbox") < n-(round+1)*1500
		})
		if round == 1 {
			if err := cluster.Node(0).Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		relay.kill()
	}
	w.relay("--lease", "2s")
	w.wait("everything is sent")
	r := <-got
	t.Logf("the foreign client counted %d distinct ids, %d repeats, %d out of order", r.Distinct, r.Repeats, r.Disorder)
	if r.Distinct != n || r.Disorder != 0 {
		t.Errorf("the foreign client got %+v, want %d distinct and none out of order", r, n)
	}
}
