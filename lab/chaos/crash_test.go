// Package chaos kills real processes on real servers and asks the tables what
// became of every message.
package chaos

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
)

// TestMain runs the tests, or, as a child process of one, a role of the shop.
func TestMain(m *testing.M) {
	if name := os.Getenv(envRole); name != "" {
		if err := runRole(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	servers.Main(m)
}

// crashRig is two services, each with its own database, as processes that a test
// kills: orders writes and hears what was billed, two instances of billing handle.
type crashRig struct {
	t               *testing.T
	orders, billing string // databases
	ordersDB        *sql.DB
	billingDB       *sql.DB
	broker          string
	procs           map[string]*proc
}

type proc struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func newCrashRig(t *testing.T) *crashRig {
	t.Helper()
	g := &crashRig{t: t, orders: servers.Database(t), billing: servers.Database(t), broker: servers.NewVHost(t).URL(), procs: map[string]*proc{}}
	g.ordersDB = g.open(g.orders, ordersTables)
	g.billingDB = g.open(g.billing, billingTables)
	t.Cleanup(func() {
		for name := range g.procs {
			g.kill(name)
		}
	})
	return g
}

func (g *crashRig) open(url, tables string) *sql.DB {
	g.t.Helper()
	db, err := postgres.Open(g.t.Context(), url)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = db.Close() })
	if err := postgres.Store(db).Migrations().Up(g.t.Context(), 0); err != nil {
		g.t.Fatal(err)
	}
	if _, err := db.ExecContext(g.t.Context(), tables); err != nil {
		g.t.Fatal(err)
	}
	return db
}

func (g *crashRig) start(name, role string) {
	g.t.Helper()
	if g.procs[name] != nil {
		return
	}
	p := &proc{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), envRole+"="+role, envOrders+"="+g.orders, envBilling+"="+g.billing, envBroker+"="+g.broker)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	g.procs[name] = p
}

// kill ends a process as a power cut would.
func (g *crashRig) kill(name string) {
	if p := g.procs[name]; p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		delete(g.procs, name)
	}
}

func (g *crashRig) number(db *sql.DB, query string, args ...any) (n int) {
	g.t.Helper()
	if err := db.QueryRowContext(g.t.Context(), query, args...).Scan(&n); err != nil {
		g.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// settle waits until nothing is on its way any more.
func (g *crashRig) settle() {
	g.t.Helper()
	const waiting = `SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held) + (SELECT count(*) FROM outlast_retry)`
	for limit := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		sent := g.number(g.ordersDB, `SELECT count(*) FROM sent`)
		billed := g.number(g.billingDB, `SELECT count(DISTINCT id) FROM effect`)
		heard := g.number(g.ordersDB, `SELECT count(DISTINCT id) FROM effect`)
		left := g.number(g.ordersDB, waiting) + g.number(g.billingDB, waiting)
		if left == 0 && billed == sent && heard == sent {
			return
		}
		if time.Now().After(limit) {
			g.t.Fatalf("not settled: %d sent, %d billed, %d heard back, %d waiting", sent, billed, heard, left)
		}
	}
}

// check reads only the tables.
func (g *crashRig) check() {
	g.t.Helper()
	sent := g.number(g.ordersDB, `SELECT count(*) FROM sent`)
	for name, db := range map[string]*sql.DB{"billing": g.billingDB, "orders": g.ordersDB} {
		doubled := g.number(db, `SELECT count(*) FROM (SELECT id FROM effect GROUP BY id HAVING count(*) > 1) d`)
		disorder := g.number(db, `SELECT count(*) FROM (SELECT n - lag(n) OVER (PARTITION BY key ORDER BY seq) AS step FROM effect) s WHERE step <= 0`)
		dead := g.number(db, `SELECT count(*) FROM outlast_dead`)
		g.t.Logf("%s: %d effects, %d doubled, %d out of order, %d dead", name, g.number(db, `SELECT count(*) FROM effect`), doubled, disorder, dead)
		if doubled+disorder+dead > 0 {
			g.t.Errorf("%s: %d doubled, %d out of order, %d dead; want none", name, doubled, disorder, dead)
			g.story(name, db)
		}
	}
	ids := g.strings(g.ordersDB, `SELECT id FROM sent ORDER BY id`)
	got := g.strings(g.billingDB, `SELECT DISTINCT id FROM effect ORDER BY id`)
	if len(ids) != len(got) {
		g.t.Fatalf("%d messages were committed and %d took effect", len(ids), len(got))
	}
	for i := range ids {
		if ids[i] != got[i] {
			g.t.Fatalf("committed and effected ids differ at %q, %q", ids[i], got[i])
		}
	}
	if sent == 0 {
		g.t.Error("nothing was sent: the test was not real")
	}
}

// story shows the effects around each one that is out of order.
func (g *crashRig) story(name string, db *sql.DB) {
	g.t.Helper()
	for _, line := range g.strings(db, `
		WITH e AS (SELECT *, lag(n) OVER w AS before, row_number() OVER w AS r FROM effect WINDOW w AS (PARTITION BY key ORDER BY seq))
		SELECT format('%s: seq %s key %s n %s attempt %s pid %s at %s; inbox %s %s', to_char(e.at, 'HH24:MI:SS.US'), e.seq, e.key, e.n, e.attempt, e.pid,
			e.at, (SELECT state FROM outlast_inbox i WHERE i.id = e.id LIMIT 1), (SELECT at FROM outlast_inbox i WHERE i.id = e.id LIMIT 1))
		FROM e JOIN e x ON x.key = e.key AND x.n <= x.before AND e.r BETWEEN x.r - 4 AND x.r + 3 ORDER BY e.key, e.seq`) {
		g.t.Logf("%s %s", name, line)
	}
}

func (g *crashRig) strings(db *sql.DB, query string) (list []string) {
	g.t.Helper()
	rows, err := db.QueryContext(g.t.Context(), query)
	if err != nil {
		g.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			g.t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		g.t.Fatal(err)
	}
	return list
}

// TestCrash kills processes at random moments. OUTLAST_TEST_SEED repeats a run,
// OUTLAST_TEST_ROUNDS makes it longer.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("OUTLAST_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 20
	if s := os.Getenv("OUTLAST_TEST_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d: repeat with OUTLAST_TEST_SEED=%d", seed, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	g := newCrashRig(t)
	roles := map[string]string{"writer": "writer", "orders": "orders", "billing-1": "billing", "billing-2": "billing"}
	names := []string{"writer", "orders", "billing-1", "billing-2"}
	kills := 0
	for range rounds {
		for _, name := range names {
			g.start(name, roles[name])
		}
		time.Sleep(time.Duration(200+rng.IntN(1500)) * time.Millisecond)
		for _, name := range names {
			if rng.IntN(2) == 0 {
				g.kill(name)
				kills++
			}
		}
	}
	g.kill("writer")
	for _, name := range names[1:] {
		g.start(name, roles[name])
	}
	g.settle()
	g.check()
	t.Logf("%d processes were killed; %d messages went to billing and their answers back", kills, g.number(g.ordersDB, `SELECT count(*) FROM sent`))
}

// TestF68_OrderedGroupKilledAndDrained: two instances of an ordered group, one killed,
// one drained, while messages come: order kept, one effect each.
func TestF68_OrderedGroupKilledAndDrained(t *testing.T) {
	g := newCrashRig(t)
	g.start("writer", "writer")
	g.start("orders", "orders")
	g.start("billing-1", "billing")
	g.start("billing-2", "billing")
	g.effects(200)
	g.kill("billing-1")
	g.effects(200)
	g.start("billing-3", "billing")
	g.effects(200)
	p := g.procs["billing-2"]
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the drained instance ended with %d", code)
	}
	delete(g.procs, "billing-2")
	g.effects(200)
	g.kill("writer")
	g.settle()
	g.check()
}

// effects waits for n more effects.
func (g *crashRig) effects(n int) {
	g.t.Helper()
	want := g.number(g.billingDB, `SELECT count(*) FROM effect`) + n
	for limit := time.Now().Add(2 * time.Minute); g.number(g.billingDB, `SELECT count(*) FROM effect`) < want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			g.t.Fatalf("no %d effects more in 2 minutes", n)
		}
	}
}
