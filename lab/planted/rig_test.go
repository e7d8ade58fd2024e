// Package planted proves the checker of histories: it builds the processes with known
// bugs, lets each meet the faults that make it bite, and sees that it is caught.
package planted

import (
	"bytes"
	"cmp"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/outlastmq/outlast/outlasttest/history"
	"github.com/outlastmq/outlast/postgres"
)

func TestMain(m *testing.M) { servers.Main(m) }

// program builds the role once, with the bugs in it, and returns what it is.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "outlast-planted-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "role")
	out, err := exec.Command("go", "build", "-tags", "outlast_planted", "-o", path, "./role").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// roleProgram returns the path of the role for one test.
func roleProgram(t *testing.T) string {
	t.Helper()
	data, err := program()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "role")
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// rig is a writer, two relays and two consumers. Relay 1 and consumer 1 reach their
// servers through proxies.
type rig struct {
	t          *testing.T
	bug        string
	role       string // the program
	histories  string
	rec        *history.Recorder
	orders     string
	billing    string
	ordersDB   *sql.DB
	billingDB  *sql.DB
	broker     string
	relayDB    *proxy.Proxy // of relay 1
	relayMQ    *proxy.Proxy // of both relays
	consumerMQ *proxy.Proxy // of consumer 1
	procs      map[string]*process
	began      time.Time
	storms     int
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// historyFolder is one that goes with the test, or stays when OUTLAST_TEST_PLANTED_KEEP names a folder.
func historyFolder(t *testing.T, bug string) string {
	t.Helper()
	keep := os.Getenv("OUTLAST_TEST_PLANTED_KEEP")
	if keep == "" {
		return t.TempDir()
	}
	folder := filepath.Join(keep, cmp.Or(bug, "none"))
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

func newRig(t *testing.T, bug string) *rig {
	t.Helper()
	var err error
	g := &rig{t: t, bug: bug, role: roleProgram(t), histories: historyFolder(t, bug), procs: map[string]*process{},
		orders: servers.Database(t), billing: servers.Database(t), broker: servers.NewVHost(t).URL()}
	if g.rec, err = history.NewRecorder(filepath.Join(g.histories, "test.jsonl"), "test"); err != nil {
		t.Fatal(err)
	}
	g.ordersDB, g.billingDB = g.open(g.orders), g.open(g.billing)
	g.relayDB, g.relayMQ, g.consumerMQ = g.proxy(g.orders), g.proxy(g.broker), g.proxy(g.broker)
	t.Cleanup(func() {
		for name := range g.procs {
			g.kill(name)
		}
	})
	return g
}

func (g *rig) open(address string) *sql.DB {
	g.t.Helper()
	db, err := postgres.Open(g.t.Context(), address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = db.Close() })
	if err := postgres.Store(db).Migrations().Up(g.t.Context(), 0); err != nil {
		g.t.Fatal(err)
	}
	if err := (&history.Ledger{Engine: "postgres"}).Create(g.t.Context(), db); err != nil {
		g.t.Fatal(err)
	}
	return db
}

func (g *rig) proxy(address string) *proxy.Proxy {
	g.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		g.t.Fatal(err)
	}
	p, err := proxy.New(u.Host)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = p.Close() })
	return p
}

// through is an address with the host of a proxy.
func (g *rig) through(address string, p *proxy.Proxy) string {
	u, err := url.Parse(address)
	if err != nil {
		g.t.Fatal(err)
	}
	u.Host = p.Address()
	return u.String()
}

func (g *rig) start(name string) {
	g.t.Helper()
	role, number, _ := strings.Cut(name, "-")
	database, broker := g.orders, g.broker
	switch name {
	case "relay-1":
		database, broker = g.through(g.orders, g.relayDB), g.through(g.broker, g.relayMQ)
	case "relay-2":
		broker = g.through(g.broker, g.relayMQ)
	case "consumer-1":
		database, broker = g.billing, g.through(g.broker, g.consumerMQ)
	case "consumer-2":
		database = g.billing
	}
	p := &process{cmd: exec.Command(g.role), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "ROLE="+role, "NAME="+name, "DATABASE="+database, "BROKER="+broker, "HISTORY="+g.histories, "OUTLAST_PLANTED="+g.bug)
	if number == "2" {
		p.cmd.Env = append(p.cmd.Env, "OUTLAST_PLANTED_SKEW=5 minutes")
	}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	g.procs[name] = p
}

func (g *rig) kill(name string) {
	if p := g.procs[name]; p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		delete(g.procs, name)
	}
}

// stop ends a process in good order, or kills it after ten seconds.
func (g *rig) stop(name string) {
	p := g.procs[name]
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		delete(g.procs, name)
	case <-time.After(10 * time.Second):
		g.kill(name)
	}
}

// rebind takes the group's bindings away, or makes them again.
func (g *rig) rebind(on bool) {
	g.t.Helper()
	conn, err := amqp.Dial(g.broker)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		g.t.Fatal(err)
	}
	const queue, key, exchange = "billing.0", "order.placed.v1.*", "outlast.events"
	if on {
		err = ch.QueueBind(queue, key, exchange, false, nil)
		g.rec.Bound("billing", "order.placed.v1")
	} else {
		g.rec.Unbound("billing", "")
		err = ch.QueueUnbind(queue, key, exchange, nil)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// fault runs a fault for a while.
func (g *rig) fault(name string, lasts time.Duration, begin, end func()) {
	g.rec.Fault(name, history.On, "")
	begin()
	g.pause(lasts)
	end()
	g.rec.Fault(name, history.Off, "")
}

func (g *rig) pause(d time.Duration) {
	g.t.Helper()
	select {
	case <-g.t.Context().Done():
		g.t.FailNow()
	case <-time.After(d):
	}
}

func (g *rig) restore(p *proxy.Proxy) {
	if err := p.Restore(); err != nil {
		g.t.Fatal(err)
	}
}

// storm is about twelve seconds of every fault that a bug may need.
func (g *rig) storm() {
	g.storms++
	g.confirms("relay-1", 3)
	g.relayMQ.Delay(50 * time.Millisecond) // so that publishes are on their way
	g.pause(300 * time.Millisecond)
	g.fault("broker down for relays", 1500*time.Millisecond, g.relayMQ.Cut, func() { g.restore(g.relayMQ) })
	g.confirms("relay-1", 3)
	for range 3 {
		g.pause(300 * time.Millisecond)
		g.fault("relay loses its broker", 20*time.Millisecond, g.relayMQ.Cut, func() { g.restore(g.relayMQ) })
		g.pause(300 * time.Millisecond)
		g.fault("consumer loses its broker", 20*time.Millisecond, g.consumerMQ.Cut, func() { g.restore(g.consumerMQ) })
	}
	// Slow first: what was just confirmed is then on its way to be settled when nothing
	// passes any more, and arrives after the lease has passed to relay 2.
	g.confirms("relay-1", 3)
	g.relayDB.Delay(200 * time.Millisecond)
	g.pause(300 * time.Millisecond) // what was on its way has passed
	g.confirms("relay-1", 1)
	g.fault("relay loses its database", 4*time.Second, g.relayDB.Stall, func() { g.restore(g.relayDB) })
	g.fault("broker has no binding", 500*time.Millisecond, func() { g.rebind(false) }, func() { g.rebind(true) })
	g.rec.Fault("consumer killed", "", "")
	g.kill("consumer-1")
	g.start("consumer-1")
}

// confirms waits until a relay has got n more confirms, or for five seconds. One that has
// no slots, by a bug, gets none.
func (g *rig) confirms(name string, n int) {
	g.t.Helper()
	number := func() int {
		data, err := os.ReadFile(filepath.Join(g.histories, name+".jsonl"))
		if err != nil {
			g.t.Fatal(err)
		}
		return bytes.Count(data, []byte(`"e":"confirm","o":"ack"`))
	}
	before := number()
	for limit := time.Now().Add(5 * time.Second); number() < before+n && g.slots(name) > 0 && time.Now().Before(limit); {
		g.pause(10 * time.Millisecond)
	}
}

// leased waits until a relay has slots.
func (g *rig) leased(owner string) {
	g.t.Helper()
	for g.slots(owner) == 0 {
		g.pause(20 * time.Millisecond)
	}
}

// slots is how many a relay has.
func (g *rig) slots(owner string) int {
	g.t.Helper()
	return g.number(g.ordersDB, `SELECT count(*) FROM outlast_slot WHERE scope = 'relay' AND owner = $1`, owner)
}

// check judges what is recorded so far.
func (g *rig) check() *check.Report {
	g.t.Helper()
	files, err := filepath.Glob(filepath.Join(g.histories, "*.jsonl"))
	if err != nil {
		g.t.Fatal(err)
	}
	report, err := check.Files(g.t.Context(), check.Options{}, files...)
	if err != nil {
		g.t.Fatal(err)
	}
	return report
}

// rest ends the writer, waits until nothing moves any more, and records the facts.
func (g *rig) rest(patience time.Duration) {
	g.t.Helper()
	g.stop("writer")
	g.rec.Quiesce(g.settled(patience))
	for _, name := range []string{"relay-1", "relay-2", "consumer-1", "consumer-2"} {
		g.stop(name) // in good order: a kill would count as a fault
	}
	for name, db := range map[string]*sql.DB{"orders": g.ordersDB, "billing": g.billingDB} {
		if err := (&history.Ledger{Engine: "postgres", Name: name}).Read(g.t.Context(), db, g.rec); err != nil {
			g.t.Fatal(err)
		}
		if err := g.rec.Left(g.t.Context(), postgres.Store(db), name); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := g.rec.Close(); err != nil {
		g.t.Fatal(err)
	}
}

// settled waits until every committed message took effect and nothing waits, or until
// patience ends: with a bug it may never be so.
func (g *rig) settled(patience time.Duration) bool {
	g.t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); g.pause(100 * time.Millisecond) {
		written := g.number(g.ordersDB, `SELECT count(*) FROM outlast_ledger`)
		handled := g.number(g.billingDB, `SELECT count(DISTINCT id) FROM outlast_ledger`)
		waiting := g.number(g.ordersDB, `SELECT (SELECT count(*) FROM outlast_outbox) + (SELECT count(*) FROM outlast_held)`)
		if waiting == 0 && handled == written && g.number(g.billingDB, `SELECT count(*) FROM outlast_retry`) == 0 {
			return true
		}
	}
	return false
}

func (g *rig) number(db *sql.DB, query string, args ...any) (n int) {
	g.t.Helper()
	if err := db.QueryRowContext(g.t.Context(), query, args...).Scan(&n); err != nil {
		g.t.Fatalf("%s: %v", query, err)
	}
	return n
}
