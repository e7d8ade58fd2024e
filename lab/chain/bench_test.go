package chain

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

// TestBenchLeavesNothing: `outlast bench` on a user's own servers removes its schema
// and its queues, after an interrupt too; what a killed run left, the next one removes.
func TestBenchLeavesNothing(t *testing.T) {
	t.Parallel()
	vhost := servers.NewVHost(t)
	w := rig.New(t, servers.Database(t), vhost.URL())
	schemas := func() int { return w.Number(`SELECT count(*) FROM pg_namespace WHERE nspname ~ 'outlast_bench'`) }
	queues := func() (names []string) {
		t.Helper()
		all, err := vhost.Queues(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			names = append(names, q.Name)
		}
		return names
	}
	small := []string{"bench", "--messages", "1000", "--for", "3s"}

	killed := w.Start("bench", "--progress", "--for", "500ms", "--messages", "100000")
	w.Eventually("it measures the relay", func() bool { return strings.Contains(killed.Log(), "measuring the relay") })
	killed.Kill()
	if schemas() != 1 || len(queues()) == 0 {
		t.Fatal("a killed run left no schema and no queue: this test proves nothing")
	}

	interrupted := w.Start("bench", "--progress", "--messages", "2000", "--for", "2s")
	w.Eventually("it measures the relay", func() bool { return strings.Contains(interrupted.Log(), "measuring the relay") })
	interrupted.Signal(syscall.SIGINT)
	w.Eventually("it says that it was interrupted", func() bool { return strings.Contains(interrupted.Log(), "its tables and queues are removed") })
	w.Eventually("nothing of both is left", func() bool { return schemas() == 0 && len(queues()) == 0 })

	var result struct {
		Rates  struct{ Lines []struct{ Case string } }
		Advice []string
	}
	out := w.Run(append(small, "--json")...)
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Rates.Lines) != 6 || len(result.Advice) < 3 {
		t.Errorf("%v: %s", err, out)
	}
	if n, q := schemas(), queues(); n != 0 || len(q) != 0 {
		t.Errorf("%d schemas and the queues %q are left", n, q)
	}
}
