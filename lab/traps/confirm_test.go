package traps

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/lab/rig"
	"github.com/outlastmq/outlast/lab/servers"
)

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	return u
}

// TestF32_RowsWithoutAConfirmOutliveTheRelay: a relay that settles on its way out all that
// it has read, and not only what was confirmed, loses rows without a word.
func TestF32_RowsWithoutAConfirmOutliveTheRelay(t *testing.T) {
	t.Parallel()
	const n = 500
	end := map[string]func(*rig.Process){"ended": (*rig.Process).End, "killed": (*rig.Process).Kill}
	for name, stop := range end {
		t.Run("the broker has them and its word is lost, "+name, func(t *testing.T) {
			t.Parallel()
			w := rig.Shared(t)
			w.Bind("reader")
			far, p := behind(t, w, "")
			relay := far.Relay("--grace", "1s", "--confirm-deadline", "1m")
			w.Fill(10, 10)
			w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
			p.Deafen()
			w.Fill(n, n)
			ch := rig.Channel(t, w.Broker)
			w.Eventually("the broker has all", func() bool { return rig.Depth(t, ch, "reader.0") >= n+10 })
			stop(relay)
			if waiting := w.Waiting(); waiting != n {
				t.Errorf("%d rows are left without a confirm, want %d", waiting, n)
			}
			w.Relay()
			w.Eventually("everything is sent", func() bool { return w.Waiting() == 0 })
			rig.Drain(t, ch, "reader.0", n+10)
		})
		t.Run("nothing goes through, "+name, func(t *testing.T) {
			t.Parallel()
			w := rig.Shared(t)
			w.Bind("reader")
			far, p := behind(t, w, "")
			health := freeAddress(t)
			relay := far.Relay("--grace", "1s", "--confirm-deadline", "1m", "--listen", health)
			w.Fill(10, 10)
			w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
			p.Stall()
			w.Fill(n, n)
			w.Eventually("the relay has all in hand", func() bool { return buffered(t, health) == n })
			stop(relay)
			if waiting := w.Waiting(); waiting != n {
				t.Errorf("%d rows are left without a confirm, want %d", waiting, n)
			}
			must(t, p.Restore())
			far.Relay()
			w.Eventually("everything is sent", func() bool { return w.Waiting() == 0 })
			rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", n+10)
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// buffered is how many rows a relay has read and not settled.
func buffered(t *testing.T, health string) int {
	t.Helper()
	answer, err := http.Get("http://" + health + "/readyz")
	must(t, err)
	defer answer.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var report struct {
		Buffered int `json:"buffered"`
	}
	must(t, json.NewDecoder(answer.Body).Decode(&report))
	return report.Buffered
}

// TestF35_AConfirmWaitHasADeadline: a relay that waits for a confirm without an end
// delivers nothing any more, and its health stays green.
func TestF35_AConfirmWaitHasADeadline(t *testing.T) {
	t.Parallel()
	const n = 200
	t.Run("on a connection that is deaf for ever", func(t *testing.T) {
		t.Parallel()
		w := rig.Shared(t)
		w.Bind("reader")
		far, p := behind(t, w, "heartbeat=4")
		relay := far.Relay("--confirm-deadline", "1s")
		w.Fill(10, 10)
		w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
		p.Deafen()
		w.Fill(n, n)
		w.Eventually("the relay goes on by itself", func() bool { return w.Waiting() == 0 })
		if log := relay.Log(); !strings.Contains(log, "no confirm") {
			t.Error("the log says nothing of missing confirms")
		}
		rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", n+10)
	})
	t.Run("on a connection that stalls", func(t *testing.T) {
		t.Parallel()
		w := rig.Shared(t)
		w.Bind("reader")
		far, p := behind(t, w, "heartbeat=60")
		health := freeAddress(t)
		relay := far.Relay("--confirm-deadline", "1s", "--listen", health, "--report-interval", "1s")
		w.Fill(10, 10)
		w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
		p.Stall()
		w.Fill(n, n)
		w.Eventually("the log tells of the missing confirms", func() bool { return strings.Contains(relay.Log(), "no confirm") })
		if waiting := w.Waiting(); waiting != n {
			t.Errorf("%d rows wait, want %d", waiting, n)
		}
		must(t, p.Restore())
		w.Eventually("the relay goes on by itself", func() bool { return w.Waiting() == 0 })
		rig.Drain(t, rig.Channel(t, w.Broker), "reader.0", n+10)
	})
}

// TestChannelsAreNotOpenedPerPublish. It is not parallel: the broker's counter of
// opened channels is for all tests together.
func TestChannelsAreNotOpenedPerPublish(t *testing.T) {
	const n = 10_000
	w := rig.Shared(t)
	w.Bind("reader")
	vhost := strings.TrimPrefix(parse(t, w.Broker).Path, "/")
	w.Relay("--lanes", "4")
	w.Fill(10, 10)
	w.Eventually("the relay works", func() bool { return w.Waiting() == 0 })
	before := opened(t)
	most := 0
	for range 2 {
		w.Fill(500, n/2)
		most = max(most, channels(t, vhost))
	}
	w.Eventually("everything is sent", func() bool { return w.Waiting() == 0 })
	after := opened(t)
	t.Logf("%d messages: %d channels opened, at most %d at once", n, after-before, most)
	if most == 0 || most > 8 {
		t.Errorf("%d channels at once with 4 lanes, want 1 to 8", most)
	}
	if after-before > 16 {
		t.Errorf("%d channels were opened for %d messages", after-before, n)
	}
}

// channels is how many are open in a virtual host now.
func channels(t *testing.T, vhost string) int {
	t.Helper()
	var list []struct{ VHost string }
	must(t, servers.SharedRabbitMQ(t).CtlJSON(t.Context(), &list, "list_channels", "vhost"))
	n := 0
	for _, c := range list {
		if c.VHost == vhost {
			n++
		}
	}
	return n
}

// opened is how many channels the broker has ever opened.
func opened(t *testing.T) (n int) {
	t.Helper()
	out, err := servers.SharedRabbitMQ(t).Ctl(t.Context(), "eval",
		"[{_, _, _, Created, _, _, _, _}] = ets:lookup(connection_churn_metrics, node()), Created.")
	must(t, err)
	if _, err := fmt.Sscan(out, &n); err != nil || n == 0 {
		t.Fatalf("channels opened: %q", out)
	}
	return n
}
