package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func getMetrics(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// TestS37_RelayShowsMetricsOnAListenerOfItsOwn: health and metrics are there only when asked
// for, each on its own listener, and nothing shows the inside of the process.
func TestS37_RelayShowsMetricsOnAListenerOfItsOwn(t *testing.T) {
	s := withBroker(t, withTables(t))
	s.ok("topology", "apply", "--group", "billing", "--handles", "order.placed.v1")
	s.ok("publish", "--file", s.file("some", lines(40)))
	s.ok("publish", "--type", "unheard.of.v1", "--body", "{}")
	relay := s.startRelay("--source", "orders", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	address := func(what string) string {
		var found []string
		eventually(t, what+" are there", func() bool {
			found = regexp.MustCompile(what + `"? address=(\S+)`).FindStringSubmatch(relay.errs.String())
			return found != nil
		})
		return found[1]
	}
	metrics, health := address("metrics"), address("health endpoints")
	// The gauges are read anew when they are ten seconds old, the counters always.
	eventually(t, "the counters equal what was published", func() bool {
		code, body := getMetrics(t, "http://"+metrics+"/metrics")
		return code == http.StatusOK &&
			strings.Contains(body, `outlast_relay_settled_total{result="sent",service="orders",type="order.placed.v1"} 40`) &&
			strings.Contains(body, `outlast_relay_outcomes_total{outcome="returned",service="orders",type="unheard.of.v1"}`) &&
			strings.Contains(body, `outlast_outbox_never_attempted_messages{service="orders"} 0`) // the first look may come before the first lease
	})
	_, body := getMetrics(t, "http://"+metrics+"/metrics")
	contains(t, body, `outlast_link_up{link="relay",service="orders"} 1`, `outlast_relay_closed_routes{service="orders"} 1`,
		`outlast_sample_timestamp_seconds{service="orders"}`)
	if code, _ := getMetrics(t, "http://"+metrics+"/readyz"); code != http.StatusNotFound {
		t.Errorf("the metrics' listener answers /readyz: %d", code)
	}
	if code, _ := getMetrics(t, "http://"+health+"/metrics"); code != http.StatusNotFound {
		t.Errorf("the health endpoints answer /metrics: %d", code)
	}
	for _, listener := range []string{metrics, health} {
		for _, path := range []string{"/debug/pprof/", "/debug/vars", "/debug/pprof/heap"} {
			if code, _ := getMetrics(t, "http://"+listener+path); code != http.StatusNotFound {
				t.Errorf("%s answers %s: %d", listener, path, code)
			}
		}
	}
	if code := relay.stop(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, relay.errs.String())
	}
	quiet := s.startRelay("--source", "orders")
	s.ok("publish", "--file", s.file("more", lines(3)))
	eventually(t, "it delivers", func() bool { return !strings.Contains(s.ok("outbox", "list"), "order.placed") })
	if code := quiet.stop(); code != exitOK || strings.Contains(quiet.errs.String(), "127.0.0.1:") && strings.Contains(quiet.errs.String(), "address=") {
		t.Errorf("exit code %d, and it listens although nothing asked for that:\n%s", code, quiet.errs.String())
	}
	s.fails(exitUsage, []string{"--metrics"}, "relay", "--source", "orders", "--metrics", "nowhere:x")
}
