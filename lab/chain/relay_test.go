package chain

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/servers"
)

// arrivals reads n messages off a queue, and then whatever else comes within a
// moment, and checks the order of each key once repeats are dropped.
func (w *world) arrivals(queue string, n int) (distinct, repeats int) {
	w.t.Helper()
	conn, err := amqp.Dial(w.broker)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		w.t.Fatal(err)
	}
	deliveries, err := ch.ConsumeWithContext(w.t.Context(), queue, "", true, false, false, false, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	seen, last := map[string]bool{}, map[string]int{}
	limit := time.After(2 * time.Minute)
	var quiet <-chan time.Time
	for {
		select {
		case d := <-deliveries:
			var body struct {
				Key string
				N   int
			}
			if err := json.Unmarshal(d.Body, &body); err != nil {
				w.t.Fatal(err)
			}
			id := d.Headers["ce-id"].(string)
			if seen[id] {
				repeats++
				continue
			}
			seen[id] = true
			if body.N <= last[body.Key] {
				w.t.Errorf("key %s: %d came after %d", body.Key, body.N, last[body.Key])
			}
			last[body.Key] = body.N
			if len(seen) >= n {
				quiet = time.After(time.Second)
			}
		case <-quiet:
			return len(seen), repeats
		case <-limit:
			return len(seen), repeats
		}
	}
}

func (w *world) bind(group string) {
	w.t.Helper()
	w.run("topology", "apply", "--group", group, "--handles", "order.placed.v1")
}

func TestF12_TwoRelaysWithoutFaultsSendNothingTwice(t *testing.T) {
	t.Parallel()
	w := shared(t)
	w.bind("reader")
	w.relay()
	w.relay()
	w.eventually("both relays hold their share", time.Minute, func() bool {
		return w.number(`SELECT count(*) FROM (SELECT owner FROM outlast_slot WHERE scope = 'relay' GROUP BY owner HAVING count(*) = 128) o`) == 2
	})
	const n = 20_000
	for i := range 20 {
		w.exec(strings.Replace(fill(200, n/20), "generate_series(1, ", fmt.Sprintf("generate_series(%d, %d + ", i*n/20+1, i*n/20), 1))
	}
	w.wait("everything is sent")
	distinct, repeats := w.arrivals("reader.0", n)
	t.Logf("two relays sent %d distinct messages and %d repeats", distinct, repeats)
	if distinct != n || repeats != 0 {
		t.Errorf("%d distinct and %d repeats, want %d and 0", distinct, repeats, n)
	}
}

// TestF15_ZombieRelay: a relay that is stopped for three lease times, and then goes on, notices
// that its leases are gone, loses nothing and keeps the order. That what it still marks is
// refused by the epoch is shown by F15_Settle_does_nothing_for_a_stale_lease for every store.
func TestF15_ZombieRelay(t *testing.T) {
	t.Parallel()
	w := shared(t)
	w.bind("reader")
	first := w.relay("--lease", "2s", "--log-level", "debug")
	const n = 60_000
	w.exec(fill(100, n))
	w.eventually("some rows are sent", time.Minute, func() bool {
		return w.number("SELECT count(*) FROM outlast_outbox") < n-2000
	})
	first.signal(syscall.SIGSTOP)
	epoch := w.number("SELECT max(epoch) FROM outlast_slot WHERE scope = 'relay'")
	w.relay("--lease", "2s")
	w.eventually("the other relay takes over", time.Minute, func() bool {
		return w.number("SELECT min(epoch) FROM outlast_slot WHERE scope = 'relay'") > epoch
	})
	time.Sleep(6 * time.Second) // three lease times: the fault itself, not a wait for an effect
	first.signal(syscall.SIGCONT)
	w.eventually("the zombie finds out", time.Minute, func() bool {
		log := first.log.String()
		return strings.Contains(log, "leases ran out") || strings.Contains(log, "passed to another relay")
	})
	w.wait("everything is sent")
	distinct, repeats := w.arrivals("reader.0", n)
	t.Logf("%d distinct, %d repeats", distinct, repeats)
	if distinct != n {
		t.Errorf("%d distinct messages arrived, want %d", distinct, n)
	}
}

func TestF33_UnroutableIsHeldShownAndDeliveredByItself(t *testing.T) {
	t.Parallel()
	w := shared(t)
	w.relay()
	w.exec(fill(10, 100))
	w.eventually("the messages are held as unroutable", time.Minute, func() bool {
		return w.number("SELECT count(*) FROM outlast_held WHERE reason = 'unroutable'") == 100
	})
	if status := w.run("status"); !strings.Contains(status, "unroutable") {
		t.Errorf("status does not say unroutable:\n%s", status)
	}
	w.bind("late")
	bound := time.Now()
	w.wait("everything is delivered by itself")
	t.Logf("delivered %s after the binding appeared", time.Since(bound).Round(time.Millisecond))
	if distinct, _ := w.arrivals("late.0", 100); distinct != 100 {
		t.Errorf("%d messages arrived, want 100", distinct)
	}
}

// TestIdleRelayAsksLittle: at most two queries a second, and hardly any CPU.
func TestIdleRelayAsksLittle(t *testing.T) {
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true, Settings: map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	database, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, database, servers.NewVHost(t).URL())
	w.exec("CREATE EXTENSION pg_stat_statements")
	w.bind("reader")
	relay := w.relay("--report-interval", "1h")
	w.exec(fill(10, 100))
	w.wait("the relay works")
	time.Sleep(10 * time.Second) // let the quick sweeps after the work fade
	calls := `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%outlast%' OR query LIKE '%snapshot%'`
	w.exec("SELECT pg_stat_statements_reset()")
	before, cpu := w.number(calls), relay.cpu()
	const seconds = 20
	time.Sleep(seconds * time.Second)
	queries, used := w.number(calls)-before-1, relay.cpu()-cpu
	t.Logf("idle: %.2f queries and %.1f ms of CPU a second", float64(queries)/seconds, used.Seconds()*1000/seconds)
	if queries > 2*seconds {
		t.Log(w.text(`SELECT string_agg(format('%s x %s', calls, left(regexp_replace(query, '\s+', ' ', 'g'), 140)), E'\n' ORDER BY calls DESC)
			FROM pg_stat_statements`))
		t.Errorf("%d queries in %d s, want at most %d", queries, seconds, 2*seconds)
	}
	if used > seconds*time.Second/50 {
		t.Errorf("%s of CPU in %d s, want next to none", used, seconds)
	}
}

// cpu is the processor time that the program has used.
func (d *daemon) cpu() time.Duration {
	d.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// peak is the most memory that the program has had resident, in MiB.
func (d *daemon) peak() float64 {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kib) / 1024
}

// TestF31_MemoryStaysFlat drains a backlog. OUTLAST_TEST_BACKLOG sets its size; `make
// prove` drains a million rows.
func TestF31_MemoryStaysFlat(t *testing.T) {
	n := 100_000
	if s := os.Getenv("OUTLAST_TEST_BACKLOG"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	w := shared(t)
	w.bind("sink")
	w.exec(fill(1000, n))
	started := time.Now()
	relay := w.relay()
	w.eventually("the backlog is sent", 30*time.Minute, func() bool {
		return w.number("SELECT count(*) FROM (SELECT 1 FROM outlast_outbox LIMIT 1) o") == 0
	})
	took := time.Since(started)
	t.Logf("%d rows in %s (%.0f a second), %.1f MiB resident at most", n, took.Round(time.Second), float64(n)/took.Seconds(), relay.peak())
	if relay.peak() > 64 {
		t.Errorf("%.1f MiB resident, want at most 64", relay.peak())
	}
	relay.end()
	conn, err := amqp.Dial(w.broker)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if q, err := ch.QueueDeclarePassive("sink.0", true, false, false, false, nil); err != nil || q.Messages != n {
		t.Errorf("the queue holds %d messages (%v), want %d", q.Messages, err, n)
	}
}
