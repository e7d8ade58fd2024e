package journey_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/lab/proxy"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

// stage is two services on PostgreSQL and RabbitMQ, the relay, the console and the
// commands as processes: what they say is compared with what happened.
type stage struct {
	*testing.T
	world    *rig.World // orders
	billing  *service
	broker   string       // straight
	link     *proxy.Proxy // to the broker, for whoever is to lose it
	database *proxy.Proxy // to billing's database, for those who only look
	console  string       // address
	process  *rig.Process // of the console
	audit    string
}

func through(t *testing.T, address string) (*proxy.Proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	p, err := proxy.New(u.Host)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	u.Host = p.Address()
	return p, u.String()
}

func newStage(t *testing.T, console ...string) *stage {
	t.Helper()
	s := &stage{T: t, broker: servers.NewVHost(t).URL(), audit: filepath.Join(t.TempDir(), "audit.jsonl")}
	link, broker := through(t, s.broker)
	billingURL := servers.Database(t)
	s.billing = openAt(t, "billing", billingURL)
	s.billing.exec(t, "CREATE TABLE effect (grp text NOT NULL, id text NOT NULL)")
	s.link = link
	database, looked := through(t, billingURL)
	s.database = database
	s.world = rig.New(t, servers.Database(t), broker)
	s.world.T = t
	t.Setenv("OUTLAST_DATABASES", looked)
	s.open(console...)
	return s
}

// open starts a console; the next one on the same files when one ran before.
func (s *stage) open(args ...string) {
	s.Helper()
	s.process = s.world.Start(append([]string{"console", "--listen", "127.0.0.1:0", "--audit", s.audit}, args...)...)
	s.world.Eventually("the console listens", func() bool {
		s.console = regexp.MustCompile(`http://[0-9.:]+/`).FindString(s.process.Log())
		return s.console != ""
	})
}

func (s *stage) answer(req *http.Request, err error) (int, string, http.Header) {
	s.Helper()
	must(s, err)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	must(s, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(s, err)
	return res.StatusCode, string(text), res.Header
}

var (
	tags   = regexp.MustCompile(`<[^>]*>`)
	blanks = regexp.MustCompile(`\s+`)
)

// page is what a person reads on a page of the console.
func (s *stage) page(path string) string {
	s.Helper()
	code, text, _ := s.answer(http.NewRequestWithContext(s.Context(), http.MethodGet, s.console+path, nil))
	_, main, _ := strings.Cut(text, "<main")
	if code != http.StatusOK {
		s.Fatalf("%s answers %d: %s", path, code, main)
	}
	return blanks.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString("<main"+main, " ")), " ")
}

// says wants a text to hold some words, and to lack others, which begin with "!".
func (s *stage) says(where, text string, words ...string) {
	s.Helper()
	for _, word := range words {
		if lacks, not := strings.CutPrefix(word, "!"); not == strings.Contains(text, lacks) {
			s.Errorf("%s: %q is wrong of\n%s", where, word, text)
		}
	}
}

// shows is says of a page of counts, which are up to two seconds old: it waits for them.
func (s *stage) shows(path string, words ...string) {
	s.Helper()
	wrong := func(text string) bool {
		for _, word := range words {
			if lacks, not := strings.CutPrefix(word, "!"); not == strings.Contains(text, lacks) {
				return true
			}
		}
		return false
	}
	text := ""
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if text = s.page(path); !wrong(text) || time.Now().After(end) {
			s.says("page "+path, text, words...)
			return
		}
	}
}

// tell wants the same words of the console's page of a message and of outlast find.
func (s *stage) tell(id string, words ...string) {
	s.Helper()
	s.says("find page", s.page("find?q="+id), words...)
	s.says("flow page", s.page("flow?id="+id), words...)
	s.says("outlast find", s.find(id), words...)
}

func (s *stage) find(args ...string) string {
	s.Helper()
	_, out, errs := s.world.Try(append([]string{"find"}, args...)...)
	return out + errs
}

// publish enqueues n messages and returns their ids.
func (s *stage) publish(n int, ago time.Duration) (ids []string) {
	s.Helper()
	for range n {
		ids = append(ids, s.world.Text(`INSERT INTO outlast_outbox (type, ordering_key, body, enqueued_at)
			VALUES ('order.placed.v1', gen_random_uuid()::text, '{}', clock_timestamp() - $1::bigint * interval '1 microsecond') RETURNING id::text`, ago.Microseconds()))
	}
	return ids
}

func (s *stage) relay(broker string, args ...string) *rig.Process {
	s.Helper()
	return s.world.With(s.world.Database, broker).Relay(append([]string{"--lease", "2s", "--interval", "100ms", "--confirm-deadline", "1m"}, args...)...)
}

// group handles what it hears with one row for each message. It has subscribed, and so its
// binding is there, when group returns.
func (s *stage) group(name, broker string, fail func(string) error) (stop func()) {
	s.Helper()
	return s.consume(groupOf(name, s.billing.store, broker, fail))
}

func (s *stage) consume(conf outlast.ConsumerConfig) (stop func()) {
	s.Helper()
	c, err := outlast.NewConsumer(conf)
	must(s, err)
	stop = run(s, c.Run)
	eventually(s, conf.Group+" has subscribed", func() bool {
		subscriptions := c.Health().Subscriptions
		up := func(h outlast.SubscriptionHealth) bool { return !h.Standby && h.Link.State == outlast.LinkUp }
		return slices.ContainsFunc(subscriptions, up)
	})
	return stop
}

func groupOf(name string, store outlast.Store, broker string, fail func(id string) error) outlast.ConsumerConfig {
	return outlast.ConsumerConfig{Group: name, Store: store, Broker: rabbitmq.Broker(broker), Handlers: []outlast.Handler{
		outlast.Handle(orderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			if fail != nil {
				if err := fail(m.ID); err != nil {
					return err
				}
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO effect (grp, id) VALUES ($1, $2)", name, m.ID)
			return err
		})}}
}

// effects counts what a group did, and fails when it did something twice.
func (s *stage) effects(group string) int64 {
	s.Helper()
	var n, once int64
	must(s, s.billing.db.QueryRowContext(s.Context(), "SELECT count(*), count(DISTINCT id) FROM effect WHERE grp = $1", group).Scan(&n, &once))
	if once != n {
		s.Errorf("%s: %d effects of %d messages", group, n, once)
	}
	return n
}

func (s *stage) handles(group string, n int) {
	s.Helper()
	eventually(s, fmt.Sprintf("%s has handled %d", group, n), func() bool { return s.effects(group) == int64(n) })
}

// hears waits until a group has said what it hears, and lets the books expect of it what
// was enqueued before, too.
func (s *stage) hears(groups int64) {
	s.Helper()
	eventually(s, "the groups hear", func() bool { return s.billing.number(s, "SELECT count(*) FROM outlast_hearer") == groups })
	s.billing.exec(s, "UPDATE outlast_hearer SET since = since - interval '1 day'")
}

// settled waits until nothing is left to send.
func (s *stage) settled() {
	s.Helper()
	s.world.Eventually("everything is settled", func() bool { return s.world.Waiting() == 0 })
}

// TestTruthBrokerDown cuts the broker off for long, as relay and group count: for several
// leases and attempts to connect. Meanwhile everything is pending, and nothing is called
// sent, lost or fine; afterwards everything is handled. OUTLAST_TEST_OUTAGE makes the cut longer.
func TestTruthBrokerDown(t *testing.T) {
	s := newStage(t, "--grace", "2s")
	relay := s.relay(s.world.Broker, "--listen", "127.0.0.1:0")
	s.group("billing", s.world.Broker, nil)
	s.hears(1)
	before := s.publish(5, 0)
	s.handles("billing", 5)
	s.settled()
	s.tell(before[0], "orders: sent", "billing: handled", "!unknown", "!STUCK", "!LOST")

	s.link.Cut()
	during := s.publish(20, 0)
	health := regexp.MustCompile(`health endpoints"? address=(\S+)`).FindStringSubmatch(relay.Log())
	s.world.Eventually("the relay tells of the broker", func() bool {
		code, body, _ := s.answer(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+health[1]+"/readyz", nil))
		return code == http.StatusServiceUnavailable && strings.Contains(body, "broker: no connection")
	})
	outage := 12 * time.Second // six leases
	if text := os.Getenv("OUTLAST_TEST_OUTAGE"); text != "" {
		var err error
		if outage, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for limit := time.Now().Add(outage); time.Now().Before(limit); time.Sleep(2400 * time.Millisecond) {
		s.shows("", "20 messages order.placed.v1 of orders to be sent, the oldest for", "does the broker take them?", "pending order.placed.v1 20", "!Nothing needs a person")
		s.shows("outbox", "pending order.placed.v1 20", "Relay Slots", " 256 ")
		s.tell(during[0], "orders: pending", "!orders: sent", "!billing:", "!LOST", "!ORPHAN", "!unknown")
	}
	for where, text := range map[string]string{"find page": s.page("find?q=" + during[19]), "outlast find": s.find(during[19], "--grace", "2s")} {
		s.says(where, text, "STUCK: pending since", "!LOST")
	}
	s.says("status", s.world.Run("status"), "20 to send", "not shrinking")
	s.tell(before[0], "orders: sent", "billing: handled")

	must(t, s.link.Restore())
	s.handles("billing", 25)
	s.settled()
	for _, id := range []string{during[0], during[19]} {
		s.tell(id, "orders: sent", "billing: handled", "!STUCK", "!LOST", "!DOUBLED", "!unknown")
	}
	s.shows("", "Nothing waits")
}

// TestTruthRelayKilledInABatch kills a relay when the broker has messages of it that are
// not confirmed: they are pending, also those that the group has handled, and nobody is
// there to send them. The next relay sends them again; nothing happens twice.
func TestTruthRelayKilledInABatch(t *testing.T) {
	s := newStage(t)
	relay := s.relay(s.world.Broker)
	s.group("billing", s.broker, nil)
	s.hears(1)
	s.publish(1, 0)
	s.handles("billing", 1)
	s.settled()

	s.link.Deafen() // what it sends arrives, and no confirm comes back
	ids := s.publish(50, 0)
	eventually(t, "the broker has some of the batch", func() bool { return s.effects("billing") > 1 })
	relay.Kill()
	if left := s.world.Waiting(); left != 50 {
		t.Fatalf("%d messages wait, of 50: the kill did not come before their confirms", left)
	}
	var handled string
	must(t, s.billing.db.QueryRowContext(t.Context(), "SELECT id FROM effect WHERE id = ANY($1) LIMIT 1", ids).Scan(&handled))
	s.tell(handled, "orders: pending", "billing: handled", "!orders: sent", "!LOST", "!ORPHAN", "!DOUBLED", "!unknown")
	s.shows("", "50 messages of orders wait and no relay is there to send them.")
	s.shows("outbox", "No relay is alive here", "50 messages")
	_, out, errs := s.world.Try("status")
	s.says("status", out+errs, "no relay", "50")

	s.relay(s.broker)
	s.settled()
	s.handles("billing", 51)
	for _, id := range []string{ids[0], handled, ids[49]} {
		s.tell(id, "orders: sent", "billing: handled", "!DOUBLED", "!LOST", "!unknown")
	}
	s.shows("", "Nothing waits", "!no relay is there")
}

// TestTruthBindingRemoved takes the binding of one of two groups away behind their backs.
// The broker confirms, and the pages name group and ids that are missing; sent again they
// arrive. Without any binding the messages are held, and the page says why.
func TestTruthBindingRemoved(t *testing.T) {
	s := newStage(t)
	s.relay(s.world.Broker)
	s.group("stock", s.broker, nil)
	stop := s.group("billing", s.broker, nil)
	s.hears(2)
	seen := s.publish(3, 10*time.Minute)
	s.handles("billing", 3)
	ch := channel(t, s.broker)
	const exchange, key = "outlast.events", "order.placed.v1.*"
	must(t, ch.QueueUnbind("billing.0", key, exchange, nil))
	lost := s.publish(4, 10*time.Minute)
	s.handles("stock", 7)
	s.settled()
	for _, table := range []string{"outlast_sent", "outlast_sent_body"} { // as if the time had gone by
		s.world.Exec("UPDATE " + table + " SET sent_at = sent_at - interval '10 minutes'")
	}
	for _, id := range lost {
		s.tell(id, "orders: sent", "stock: handled", "LOST: sent ", `group "billing" has never seen it`, "!billing: handled", "!unknown")
	}
	s.tell(seen[0], "orders: sent", "billing: handled", "stock: handled", "!LOST")

	s.closeBooks(1, "1 unbalanced")
	const lacks = "1 minute of orders is unbalanced: 4 messages are missing"
	s.shows("", lacks, "!Nothing needs a person")
	s.says("health as JSON", s.raw("?format=json"), lacks)
	_, out, _ := s.world.Try("status")
	s.says("status", out, lacks)
	_, out, _ = s.world.Try("doctor")
	s.says("doctor", out, lacks)
	books := s.page("books?state=unbalanced")
	s.says("books", books, "unbalanced")
	minute := regexp.MustCompile(`minute\?[^"]*`).FindString(s.raw("books?state=unbalanced"))
	page := s.page(html.UnescapeString(minute))
	s.says("minute", page, append([]string{"billing 7 3", "stock 7 7", "!" + seen[0]}, lost...)...)
	s.says("books show", s.world.Run("books", "show", s.minute()), append([]string{"missing in billing: " + lost[0], "!missing in stock"}, lost...)...)

	must(t, ch.QueueBind("billing.0", key, exchange, false, nil))
	code, text, _ := s.post("resend", "db", regexp.MustCompile(`db=([0-9a-f]+)`).FindStringSubmatch(minute)[1], "at", atOf(minute), "reason", "the binding was removed")
	if code != http.StatusSeeOther {
		t.Fatalf("sent again: %d %s", code, text)
	}
	s.handles("billing", 7)
	s.settled()
	s.closeBooks(0, "1 balanced")
	s.shows("", "!unbalanced", "!missing", "Nothing needs a person")
	s.says("books", s.page("books"), "balanced", "!unbalanced ")
	for _, id := range lost {
		s.tell(id, "orders: sent", "billing: handled", "stock: handled", "!LOST", "!DOUBLED", "!unknown")
	}

	stop()
	for _, queue := range []string{"billing.0", "stock.0"} {
		must(t, ch.QueueUnbind(queue, key, exchange, nil))
	}
	held := s.publish(2, 0)
	s.world.Eventually("they are held", func() bool { return s.world.Number("SELECT count(*) FROM outlast_held") == 2 })
	s.shows("", "2 messages order.placed.v1 of orders: no queue is bound for them.")
	s.tell(held[0], "orders: held (unroutable)", "!orders: sent", "!LOST", "!unknown")
	_, out, _ = s.world.Try("status")
	s.says("status", out, "unroutable")
	for _, queue := range []string{"billing.0", "stock.0"} {
		must(t, ch.QueueBind(queue, key, exchange, false, nil))
	}
	s.group("billing", s.broker, nil)
	s.handles("billing", 9)
	s.settled()
	s.handles("stock", 9)
	s.tell(held[0], "orders: sent", "billing: handled", "stock: handled", "!unroutable")
}

// closeBooks balances until the minute is looked at, and wants the last word to be that.
func (s *stage) closeBooks(code int, words string) {
	s.Helper()
	s.world.Eventually("the books say "+words, func() bool {
		got, out, _ := s.world.Try("books", "close")
		return got == code && strings.Contains(out, words)
	})
}

// minute is the one minute that the books have a line of.
func (s *stage) minute() string {
	s.Helper()
	return s.world.Text("SELECT to_char(minute AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"') FROM outlast_book ORDER BY minute DESC LIMIT 1")
}

func atOf(link string) string {
	u, err := url.Parse(html.UnescapeString(link))
	if err != nil {
		return ""
	}
	return u.Query().Get("at")
}

func (s *stage) raw(path string) string {
	s.Helper()
	_, text, _ := s.answer(http.NewRequestWithContext(s.Context(), http.MethodGet, s.console+path, nil))
	return text
}

func (s *stage) post(path string, pairs ...string) (int, string, http.Header) {
	s.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, s.console+path, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return s.answer(req, err)
}

// killed is the consumer of TestTruthConsumerKilledBeforeTheAck: a process that kills itself
// when a message's effects have committed and its delivery is not acknowledged.
type killed struct {
	Database, Broker string
}

func (killed) OnRecorded(r outlast.Recorded) {
	if r.Err == nil && r.Result == outlast.HandledOK {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it does not come back
	}
}

const killedEnv = "OUTLAST_TEST_KILLED_CONSUMER"

// run is the process.
func (k killed) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db, err := postgres.Open(ctx, k.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	config := groupOf("billing", postgres.Store(db), k.Broker, nil)
	config.Hooks = []outlast.Hook{k}
	c, err := outlast.NewConsumer(config)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// TestTruthConsumerKilledBeforeTheAck: the message is handled, though the broker has it
// still; the next consumer finds a duplicate, and nothing is called doubled.
func TestTruthConsumerKilledBeforeTheAck(t *testing.T) {
	s := newStage(t)
	s.relay(s.world.Broker)
	text, err := json.Marshal(killed{Database: s.billingURL(), Broker: s.broker})
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedEnv+"="+string(text))
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s.hears(1)
	id := s.publish(1, 0)[0]
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the consumer lives")
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("the consumer ended with %v", cmd.ProcessState)
	}
	s.settled()
	ch := channel(t, s.broker)
	s.world.Eventually("the broker has the message again", func() bool { return rig.Depth(t, ch, "billing.0") == 1 })
	if n := s.effects("billing"); n != 1 {
		t.Fatalf("%d effects", n)
	}
	s.tell(id, "orders: sent", "billing: handled", "!DOUBLED", "!LOST", "!unknown")

	acked := make(acks, 10)
	config := groupOf("billing", s.billing.store, s.broker, nil)
	config.Hooks = []outlast.Hook{acked}
	c, err := outlast.NewConsumer(config)
	must(t, err)
	stop := run(t, c.Run)
	select {
	case got := <-acked:
		if got != id {
			t.Errorf("%s is acknowledged, want %s", got, id)
		}
	case <-time.After(time.Minute):
		t.Fatal("the duplicate is not acknowledged")
	}
	stop()
	s.world.Eventually("the queue is empty", func() bool { return rig.Depth(t, ch, "billing.0") == 0 })
	if n := s.effects("billing"); n != 1 {
		t.Errorf("%d effects after the duplicate", n)
	}
	s.tell(id, "orders: sent", "billing: handled", "!DOUBLED", "!LOST", "!unknown")
	s.shows("", "Nothing waits", "Nothing needs a person")
}

// billingURL is the address of billing's database, straight.
func (s *stage) billingURL() string {
	s.Helper()
	var name string
	must(s, s.billing.db.QueryRowContext(s.Context(), "SELECT current_database()").Scan(&name))
	u, err := url.Parse(s.world.Database)
	must(s, err)
	u.Path = "/" + name
	return u.String()
}

// TestTruthCollectorWiped: while a database is away the pages show the collector's copy and
// its age; wiped, they show that nothing is known; and services do not notice any of it.
func TestTruthCollectorWiped(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "collector.db")
	s := newStage(t)
	s.process.End()
	collector := s.world.Start("collector", "--store", store, "--every", "1s")
	s.world.Eventually("it collects", func() bool { code, _, _ := s.world.Try("collector", "status", "--store", store); return code == 0 })
	s.open("--collector", store)
	s.relay(s.world.Broker)
	poison := make(chan string, 1)
	bad := ""
	s.group("billing", s.broker, func(id string) error {
		select {
		case bad = <-poison:
		default:
		}
		if id == bad {
			return outlast.DeadLetter(fmt.Errorf("card expired"))
		}
		return nil
	})
	s.hears(1)
	id := outlast.NewID()
	poison <- id
	s.world.Exec("INSERT INTO outlast_outbox (id, type, body) VALUES ($1::uuid, 'order.placed.v1', '{}')", id)
	eventually(t, "it is dead", func() bool { return s.billing.number(t, "SELECT count(*) FROM outlast_dead") == 1 })
	s.settled()
	s.tell(id, "orders: sent", "billing: dead", "!by the collector", "!unknown")
	s.world.Eventually("the collector has it", func() bool {
		_, out, _ := s.world.Try("collector", "list", "--store", store, "--why", "dead")
		return strings.Contains(out, id) && strings.Contains(out, "orders: sent")
	})

	s.database.Cut() // for those who look: the group's own way is another
	s.says("find page", s.page("find?q="+id), "billing: dead (verdict), 1 failed, by the collector as of", "the collector's copy of", "unknown: ")
	_, out, _ := s.world.Try("find", id, "--collector", store)
	s.says("outlast find", out, "billing: dead (verdict), 1 failed, by the collector as of", "the collector's copy of", "unknown: ")
	s.shows("", "does not answer: what is shown of it is the collector's copy", "dead in billing: 1 message")
	s.world.Eventually("the collector notices", func() bool { return strings.Contains(s.page("collected"), "has not answered the collector since") })
	s.says("collected", s.page("collected"), id)
	s.world.Run("collector", "wipe", "--yes", "--store", store)
	s.world.Eventually("a round was done after the wipe", func() bool {
		_, out, _ := s.world.Try("collector", "status", "--store", store)
		return strings.Contains(out, "unknown") && strings.Count(out, "postgres://") == 2
	})
	s.says("find page", s.page("find?q="+id), "!by the collector", "!billing:", "unknown: ")
	s.shows("", "The collector does not know it either.")
	_, out, _ = s.world.Try("find", id, "--collector", store)
	s.says("outlast find", out, "!by the collector", "!billing:", "unknown: ")
	after := s.publish(10, 0)
	s.handles("billing", 10)

	must(t, s.database.Restore())
	s.world.Eventually("it has everything again", func() bool {
		_, out, _ := s.world.Try("collector", "list", "--store", store, "--why", "dead")
		return strings.Contains(out, id) && strings.Contains(out, "billing: dead (verdict), 1 failed\n")
	})
	s.tell(id, "orders: sent", "billing: dead", "!by the collector", "!unknown")

	// Without a collector, and with its database in pieces, nothing changes.
	collector.Kill()
	for _, log := range []string{"-wal", "-shm"} {
		must(t, os.Truncate(strings.TrimPrefix(store, "sqlite:")+log, 0))
	}
	must(t, os.WriteFile(strings.TrimPrefix(store, "sqlite:"), []byte(strings.Repeat("no database ", 4096)), 0o600))
	more := s.publish(10, 0)
	s.handles("billing", 20)
	s.settled()
	for _, id := range []string{after[0], more[0]} {
		s.tell(id, "orders: sent", "billing: handled", "!unknown")
	}
	s.shows("", "1 dead letter order.placed.v1 in billing.")
	code, out, errs := s.world.Try("find", more[0], "--collector", store)
	if code != 0 || !strings.Contains(errs, "the collector is left out") || !strings.Contains(out, "billing: handled") {
		t.Errorf("find with a broken collector: exit code %d\n%s%s", code, out, errs)
	}
}

// TestConsoleKilledInAnOperation kills the console again and again while it retries a group
// on PostgreSQL: in the end each dead letter was retried once, and the page counts right.
func TestConsoleKilledInAnOperation(t *testing.T) {
	const n = 60
	s := newStage(t)
	s.bury(n)
	form := s.raw("failures")
	link := html.UnescapeString(regexp.MustCompile(`failure\?[^"]*`).FindString(form))
	u, err := url.Parse(link)
	must(t, err)
	q := u.Query()
	code, text, header := s.post("operation-plan", "db", q.Get("db"), "group", "billing", "type", "order.placed.v1", "fingerprint", q.Get("fingerprint"), "deed", "retry", "rate", "8", "reason", "fixed")
	if code != http.StatusSeeOther {
		t.Fatalf("planned: %d %s", code, text)
	}
	page := header.Get("Location")
	s.says("operation", s.page(page), "planned", "0 of 60 done")
	if code, text, _ := s.post("operation-start", "id", strings.TrimPrefix(page, "operation?id="), "reason", "yes"); code != http.StatusSeeOther {
		t.Fatalf("started: %d %s", code, text)
	}
	left := func() int64 { return s.billing.number(t, "SELECT count(*) FROM outlast_dead") }
	for i := range int64(5) {
		eventually(t, "some are retried", func() bool { return left() < n-8*i })
		s.process.Kill()
		s.open()
	}
	s.world.Eventually("it ends", func() bool { return strings.Contains(s.page(page), "ended") })
	s.says("operation", s.page(page), "60 of 60 done", "60 to be tried", "!dead again 1")
	if left() != 0 || s.billing.number(t, "SELECT count(*) FROM outlast_retry WHERE replays = 1") != n || s.billing.number(t, "SELECT count(*) FROM outlast_fact WHERE kind = 'replayed'") != n {
		t.Error("not each dead letter was retried once")
	}
	s.says("audit", s.page("audit"), "goes on after a restart", "ended: 60 of 60")
	s.process.End()
	file, err := os.Open(s.audit)
	must(t, err)
	defer file.Close()
	if _, _, err := console.VerifyAudit(file); err != nil {
		t.Errorf("the log after the kills: %v", err)
	}
}

// bury makes dead letters of one cause.
func (s *stage) bury(n int) {
	s.Helper()
	for range n {
		m := &outlast.Message{Envelope: outlast.Envelope{ID: outlast.NewID(), Type: "order.placed.v1", Kind: outlast.KindEvent, Source: "orders", EnqueuedAt: time.Now()}, Body: []byte("{}")}
		tx, err := s.billing.store.Inbox().Begin(s.Context(), "billing", []outlast.Mark{{Source: "orders", ID: m.ID, EnqueuedAt: m.EnqueuedAt}})
		must(s, err)
		must(s, tx.Bury(s.Context(), &outlast.DeadLetterRecord{Group: "billing", Message: m, Reason: "verdict", Error: "no", Attempts: 1, Fingerprint: "f00d"}))
		must(s, tx.Commit(s.Context()))
	}
}

// acks receives the ids of messages that were acknowledged.
type acks chan string

func (a acks) OnAcked(_ string, d *outlast.Delivery, ok bool) {
	if ok {
		a <- d.Message.ID
	}
}

var (
	_ outlast.HookRecorded = killed{}
	_ outlast.HookAcked    = acks(nil)
)
