package telemetry_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

// deploy returns the absolute path of a file in deploy/.
func deploy(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "deploy"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("find promtool; install it with: apt-get install -y prometheus: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = deploy(t, "prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsFireOnWhatTheyAreAboutAlone(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "outlast.rules.yml")
	promtool(t, "test", "rules", "outlast.rules.test.yml")
	promtool(t, "check", "config", "prometheus.yml")
}

// alertNames are those of the rules file, as text.
func alertNames(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(deploy(t, "prometheus", file))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`alert(?:name)?: (\w+)`).FindAllStringSubmatch(string(data), -1) {
		names = append(names, m[1])
	}
	return names
}

func TestEachAlertHasItsRunbookAndItsTest(t *testing.T) {
	t.Parallel()
	alerts := alertNames(t, "outlast.rules.yml")
	if len(alerts) < 10 {
		t.Fatalf("only %d alerts", len(alerts))
	}
	served := newServedConsole(t)
	tests := strings.Join(alertNames(t, "outlast.rules.test.yml"), " ")
	for _, name := range alerts {
		page, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbooks", name+".md"))
		if err != nil {
			t.Errorf("%s has no runbook: %v", name, err)
			continue
		}
		for _, part := range []string{"# " + name, "## What it means", "## How to look", "## What to do"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("the runbook of %s lacks %q", name, part)
			}
		}
		if !strings.Contains(tests, name) {
			t.Errorf("%s is in no unit test", name)
		}
		checkConsolePages(t, name, string(page), served)
	}
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "runbooks", "*.md"))
	if err != nil || len(pages) != len(alerts) {
		t.Errorf("%d runbooks for %d alerts: %v", len(pages), len(alerts), err)
	}
}

// scraped is a Prometheus that scrapes a shop and its broker often, with the rules.
func scraped(t *testing.T, s *shop, rabbit string, programs ...string) *servers.PrometheusServer {
	t.Helper()
	endpoint := httptest.NewServer(s.exporter)
	t.Cleanup(endpoint.Close)
	p, err := servers.Prometheus(t.Context(), fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: outlast, static_configs: [{targets: [%q]}]}
  - {job_name: outlast-programs, static_configs: [{targets: [%s]}]}
  - {job_name: rabbitmq, static_configs: [{targets: [%q]}]}
  - {job_name: rabbitmq-queues, metrics_path: /metrics/detailed, params: {family: [queue_coarse_metrics, queue_consumer_count]}, static_configs: [{targets: [%q]}]}
`, deploy(t, "prometheus", "outlast.rules.yml"), endpoint.Listener.Addr(), strings.Join(programs, ", "), rabbit, rabbit))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// rabbitWithMetrics starts a broker of its own with its exporter.
func rabbitWithMetrics(t *testing.T) (amqp, metrics string) {
	t.Helper()
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.Addr().(*net.TCPAddr).Port
	probe.Close()
	c, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{
		Plugins: []string{"rabbitmq_prometheus"},
		Config:  fmt.Sprintf("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %d\n", port),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.URL(), fmt.Sprintf("127.0.0.1:%d", port)
}

// selector is what an expression takes from the database of Prometheus.
var selector = regexp.MustCompile(`\b(?:outlast|messaging|rabbitmq)_[a-z_]+(?:\{[^}]*\})?|\bup\b(?:\{[^}]*\})?|\bprocess_start_time_seconds(?:\{[^}]*\})?`)

// dashboardQueries returns the queries of every panel and annotation, as Grafana would
// send them with All selected.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(deploy(t, "grafana", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	queries := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
			Annotations struct{ List []struct{ Name, Expr string } }
		}
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		filled := strings.NewReplacer("$__rate_interval", "1m", "$service", ".*", "$type", ".*")
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				queries[fmt.Sprintf("%s: %s [%d]", filepath.Base(file), p.Title, i)] = filled.Replace(target.Expr)
			}
		}
		for _, a := range d.Annotations.List {
			queries[filepath.Base(file)+": "+a.Name] = filled.Replace(a.Expr)
		}
	}
	return queries
}

// TestPrometheus fills a real one from a shop that was cut off and failed, and asks it
// everything that the alerts and the dashboards ask.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	amqp, metrics := rabbitWithMetrics(t)
	p, broker := through(t, amqp)
	s := newShop(t, broker)
	s.observe()
	running(t, s.conf)
	world := rig.Bare(t, s.url, amqp)
	prom := scraped(t, s, metrics,
		measured(world, "books", "close", "--every", "1s", "--metrics", "127.0.0.1:0"),
		measured(world, "collector", "--every", "1s", "--store", "sqlite:"+filepath.Join(t.TempDir(), "collector.db"), "--metrics", "127.0.0.1:0"))
	s.publish(unheard.Message(order{ID: "x"}))
	s.place(20)
	cutTwice(t, s, p)
	s.settled()
	if err := s.store.Operator().SetPaused(t.Context(), "shop", true, outlast.Action{Who: "a test"}); err != nil {
		t.Fatal(err)
	}
	wait := func(what, expr string) {
		t.Helper()
		last := ""
		eventually(t, what, func() bool {
			n, err := prom.Query(t.Context(), expr)
			if err != nil {
				last = err.Error()
			}
			return err == nil && n > 0
		})
		if last != "" {
			t.Log(last)
		}
	}
	wait("the pause is scraped", `outlast_consumer_paused == 1`)
	if err := s.store.Operator().SetPaused(t.Context(), "shop", false, outlast.Action{Who: "a test"}); err != nil {
		t.Fatal(err)
	}
	wait("the resumption is scraped", `outlast_consumer_paused == 0`)
	s.place(100) // what moves now is what rates are made of
	s.settled()
	wait("the queues are scraped", `rabbitmq_detailed_queue_consumers > 0`)
	// As an adapter tells of a connection by TLS (TestS26_DoctorAndLinksTellWhenCertificatesEnd).
	s.links.OnLink("over TLS", outlast.Link{State: outlast.LinkUp, Expires: time.Now().Add(7 * 24 * time.Hour)})
	wait("the certificate's end is scraped", `outlast_link_certificate_expiry_timestamp_seconds{link="over TLS"} - time() < 14 * 86400`)
	s.lose()
	wait("the missing message's alert fires", `ALERTS{alertname="MessagesMissing",alertstate="firing",service="shop"}`)
	wait("it is the only one, of one minute", `outlast_missing_messages == 1 and outlast_epochs_unbalanced == 1`)
	wait("the unheard message's alert fires", `ALERTS{alertname="MessagesUnroutable",alertstate="firing",type="order.unheard.v1"}`)
	wait("the new dead letters' alert fires", `ALERTS{alertname="DeadLettersNew",alertstate="firing"}`)

	for name, query := range dashboardQueries(t) {
		wait("an answer to "+name+": "+query, query)
	}
	checkRules(t, prom, wait)
}

// measured starts the program and returns where it shows its metrics, in quotes.
func measured(w *rig.World, args ...string) string {
	w.T.Helper()
	p := w.Start(args...)
	address := regexp.MustCompile(`metrics (?:at|address=)\s?(127\.0\.0\.1:\d+)`)
	var found []string
	w.Eventually("it says where its metrics are", func() bool {
		found = address.FindStringSubmatch(p.Log())
		return found != nil
	})
	w.T.Cleanup(p.Kill)
	return strconv.Quote(found[1])
}

// lose has an order of ten minutes ago handled, and takes it away from the inbox, as a
// database that is restored from a backup forgets it.
func (s *shop) lose() {
	s.t.Helper()
	const id = "0198c0de-7a11-7c3e-9d54-0f6c0c6f1a2b"
	exec := func(query string) int64 {
		s.t.Helper()
		r, err := s.db.ExecContext(s.t.Context(), query)
		if err != nil {
			s.t.Fatal(err)
		}
		n, err := r.RowsAffected()
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	exec(`UPDATE outlast_hearer SET since = since - interval '1 hour'`)
	exec(`INSERT INTO outlast_outbox (id, type, body, enqueued_at) VALUES ('` + id + `', 'order.placed.v1', '{"id":"9001"}', clock_timestamp() - interval '10 minutes')`)
	eventually(s.t, "the old order is handled", func() bool { return exec(`DELETE FROM outlast_inbox WHERE id = '`+id+`'`) == 1 })
}

// checkRules has every rule evaluated without an error and every series that one asks
// for in the database.
func checkRules(t *testing.T, prom *servers.PrometheusServer, wait func(what, expr string)) {
	t.Helper()
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError string }
			}
		}
	}
	evaluated := func() bool {
		if err := prom.API(t.Context(), "/api/v1/rules", &rules); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, g := range rules.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					return false
				}
				n++
			}
		}
		return n > 0
	}
	eventually(t, "every rule was evaluated", evaluated)
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
			}
			found := selector.FindAllString(r.Query, -1)
			if len(found) == 0 {
				t.Errorf("%s: no series in %s", r.Name, r.Query)
			}
			for _, series := range found {
				wait(r.Name+" has data of "+series, "last_over_time("+series+"[10m])")
			}
		}
	}
}
