package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// stuckAfter is how long a relay with both servers there may settle nothing of
// what it has in hand before /livez asks for a restart.
const stuckAfter = 5 * time.Minute

// repeatAfter is when a problem that lasts is logged again.
const repeatAfter = 10 * time.Minute

// digits are left out when a problem is compared with what was said: the same one
// with another count is no news.
var digits = regexp.MustCompile(`[0-9]+`)

// relayWatch looks at a running relay and at what waits, tells problems in words,
// and answers the health endpoints. It changes nothing.
type relayWatch struct {
	every time.Duration
	warn  thresholds
	log   *slog.Logger

	mu       sync.Mutex
	health   func() outlast.RelayHealth
	db       *database      // nil while it is waited for
	held     map[string]int // messages that wait for a route, by type
	warnings []string

	logged map[string]time.Time // what was said, and when
}

func newRelayWatch(f *relayFlags) *relayWatch {
	began := time.Now()
	w := &relayWatch{every: f.every, warn: f.warn, log: f.conf.Logger, logged: map[string]time.Time{}}
	w.health = func() outlast.RelayHealth {
		return outlast.RelayHealth{StoreError: "not connected yet", Link: outlast.Link{State: outlast.LinkDown, Since: began, Reason: "not started"}}
	}
	return w
}

// starting notes why the database cannot be opened yet.
func (w *relayWatch) starting(err error) {
	text := err.Error()
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.health()
	before.StoreError = text
	w.health = func() outlast.RelayHealth { return before }
}

// attach gives it the relay to look at.
func (w *relayWatch) attach(relay *outlast.Relay, db *database) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.health, w.db = relay.Health, db
}

func (w *relayWatch) current() (outlast.RelayHealth, *database) {
	w.mu.Lock()
	health, db := w.health, w.db
	w.mu.Unlock()
	return health(), db
}

// relayReport is the body of the health endpoints.
type relayReport struct {
	Ready    bool     `json:"ready"`
	Problems []string `json:"problems"`
	Warnings []string `json:"warnings"`
	Slots    int      `json:"slots"`
	Relays   int      `json:"relays"`
	Buffered int      `json:"buffered"`
}

// run watches until ctx ends.
func (w *relayWatch) run(ctx context.Context, listener net.Listener) {
	var served sync.WaitGroup
	if listener != nil {
		server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
		served.Go(func() { _ = server.Serve(listener) })
		defer served.Wait()
		defer server.Close()
	}
	for first := true; pause(ctx, w.wait(first)); first = false {
		w.look(ctx)
		w.tell(time.Now())
	}
}

// wait lets the first look come soon, when the relay has had time to connect.
func (w *relayWatch) wait(first bool) time.Duration {
	if first {
		return min(w.every, 2*time.Second)
	}
	return w.every
}

// look asks the database what waits. An outage of it is the relay's own to tell.
func (w *relayWatch) look(ctx context.Context) {
	_, db := w.current()
	if db == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, w.every)
	defer cancel()
	s, err := db.Operator().Status(ctx)
	if err != nil {
		return
	}
	size, err := db.outboxBytes(ctx)
	if err != nil {
		size = 0
	}
	held := map[string]int{}
	for _, h := range s.Held {
		if h.Reason.OfRoute() {
			held[h.Type] += h.Count
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held, w.warnings = held, w.warn.warnings(s, size)
}

// report puts into words what is wrong now. It is ready while both servers are
// there: a route that takes nothing is a problem of that route only.
func (w *relayWatch) report() relayReport {
	h, _ := w.current()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := relayReport{
		Ready: true, Slots: h.Slots, Relays: h.Relays, Buffered: h.Buffered,
		Problems: []string{}, Warnings: append([]string{}, w.warnings...),
	}
	if h.StoreError != "" {
		r.Ready = false
		r.Problems = append(r.Problems, "database: "+h.StoreError)
	}
	switch h.Link.State {
	case outlast.LinkDown:
		r.Ready = false
		r.Problems = append(r.Problems, "broker: no connection: "+h.Link.Reason)
	case outlast.LinkBlocked:
		r.Ready = false
		r.Problems = append(r.Problems, "broker: takes no messages: "+h.Link.Reason)
	}
	var routes []string
	for route, reason := range h.Closed {
		text := fmt.Sprintf("route %s: %s", route, strings.TrimSuffix(reason, " to "+route.String()))
		if n := w.held[route.Type]; n > 0 {
			text += fmt.Sprintf("; %s held", plural(n, "message"))
		}
		routes = append(routes, text)
	}
	slices.Sort(routes)
	r.Problems = append(r.Problems, routes...)
	return r
}

// stuck reports whether the relay has settled nothing for long although nothing
// outside keeps it from doing so.
func stuck(h outlast.RelayHealth, now time.Time) bool {
	return h.StoreError == "" && h.Link.State == outlast.LinkUp && now.Sub(h.Link.Since) > stuckAfter &&
		h.Buffered > 0 && len(h.Closed) == 0 && now.Sub(h.Progress) > stuckAfter
}

// tell logs problems and warnings when they appear and again after a while, and
// once when all are gone.
func (w *relayWatch) tell(now time.Time) {
	r := w.report()
	current := map[string]bool{}
	say := func(text string) {
		name := digits.ReplaceAllString(text, "")
		current[name] = true
		if said, ok := w.logged[name]; !ok || now.Sub(said) >= repeatAfter {
			w.logged[name] = now
			w.log.Warn(text)
		}
	}
	for _, text := range r.Problems {
		say(text)
	}
	for _, text := range r.Warnings {
		say(text)
	}
	before := len(w.logged)
	for name := range w.logged {
		if !current[name] {
			delete(w.logged, name)
		}
	}
	if before > 0 && len(w.logged) == 0 {
		w.log.Info("all is well again")
	}
}

func (w *relayWatch) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(out http.ResponseWriter, _ *http.Request) {
		r := w.report()
		answer(out, r.Ready, r)
	})
	mux.HandleFunc("GET /livez", func(out http.ResponseWriter, _ *http.Request) {
		h, _ := w.current()
		alive := !stuck(h, time.Now())
		answer(out, alive, struct {
			Alive bool `json:"alive"`
		}{alive})
	})
	return mux
}

func answer(out http.ResponseWriter, ok bool, body any) {
	out.Header().Set("Content-Type", "application/json")
	out.Header().Set("Cache-Control", "no-store")
	if !ok {
		out.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(out).Encode(body)
}
