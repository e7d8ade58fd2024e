package outlast

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Health answers whether a service lives and whether it is ready. It is safe for
// concurrent use.
//
// Live means only that the process answers: a broker or a database that is down is
// no reason to restart it. Ready means that every queue is subscribed or served by
// another instance, that the relay has its link, that the last calls of the
// database went well, and that the oldest message that could be sent waits less
// than MaxAge.
type Health struct {
	service *Service
	conf    HealthConfig

	mu      sync.Mutex
	asked   time.Time
	overdue string
}

// HealthConfig refines health. The zero value is the default.
type HealthConfig struct {
	// MaxAge is how long the oldest pending message may wait before the service is not
	// ready. Range 1s to 24h; default 1min.
	MaxAge time.Duration
	// Every is how often the database is asked for that age at most, however often
	// readiness is asked for. Range 1s to 1h; default 15s.
	Every time.Duration
}

// Readiness is the answer to whether a service is ready.
type Readiness struct {
	Ready bool `json:"ready"`
	// Problems says what stands in the way, one sentence each.
	Problems  []string         `json:"problems,omitempty"`
	Consumers []ConsumerHealth `json:"consumers,omitempty"`
}

// NewHealth returns the health of a service.
func NewHealth(s *Service, conf HealthConfig) (*Health, error) {
	setDefault(&conf.MaxAge, time.Minute)
	setDefault(&conf.Every, 15*time.Second)
	var bad fieldErrors
	inRange(&bad, "HealthConfig.MaxAge", conf.MaxAge, time.Second, 24*time.Hour)
	inRange(&bad, "HealthConfig.Every", conf.Every, time.Second, time.Hour)
	if err := bad.err("new health", ""); err != nil {
		return nil, err
	}
	return &Health{service: s, conf: conf}, nil
}

// Ready returns whether the service is ready, and what stands in the way.
func (h *Health) Ready(ctx context.Context) Readiness {
	var r Readiness
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	for _, c := range h.service.consumers {
		state := c.Health()
		r.Consumers = append(r.Consumers, state)
		state.problems(problem)
	}
	if relay := h.service.relay; relay != nil {
		state := relay.Health()
		if state.Link.State != LinkUp {
			problem("the relay's link is %s: %s", state.Link.State, state.Link.Reason)
		}
		if state.StoreError != "" {
			problem("the relay's database: %s", state.StoreError)
		}
	}
	if late := h.late(ctx); late != "" {
		problem("%s", late)
	}
	r.Ready = len(r.Problems) == 0
	return r
}

func (h *ConsumerHealth) problems(problem func(string, ...any)) {
	if !h.Running {
		problem("group %q does not run", h.Group)
		return
	}
	if h.StoreError != "" {
		problem("the database of group %q: %s", h.Group, h.StoreError)
	}
	for _, s := range h.Subscriptions {
		if !s.Standby && !h.Paused && s.Link.State != LinkUp {
			problem("queue %q is not subscribed: %s", s.Queue, s.Link.Reason)
		}
	}
}

// late returns a sentence when pending messages wait too long. The database is
// asked rarely, and by one caller at a time.
func (h *Health) late(ctx context.Context) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.asked.IsZero() && time.Since(h.asked) < h.conf.Every {
		return h.overdue
	}
	status, err := h.service.conf.Store.Operator().Status(ctx)
	if err != nil {
		return "the age of the oldest message is not known: " + err.Error()
	}
	h.asked, h.overdue = time.Now(), ""
	for _, p := range status.Pending {
		if p.Oldest > h.conf.MaxAge {
			h.overdue = fmt.Sprintf("%q waits for %v to be sent: more than %v", p.Type, p.Oldest.Round(time.Second), h.conf.MaxAge)
		}
	}
	return h.overdue
}

// ServeHTTP answers GET /livez with 200 while the process lives, and GET /readyz
// with 200 or 503 and a [Readiness] as JSON. Anything else is not found. It tells
// names of queues and the last errors, no secrets: serve it inside.
func (h *Health) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	switch req.URL.Path {
	case "/livez":
		_, _ = w.Write([]byte("ok\n"))
	case "/readyz":
		ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
		defer cancel()
		ready := h.Ready(ctx)
		w.Header().Set("Content-Type", "application/json")
		if !ready.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(ready) // the client may be gone: nobody to tell
	default:
		http.NotFound(w, req)
	}
}
