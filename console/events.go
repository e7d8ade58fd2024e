package console

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"time"
)

// events tells the script, as server-sent events, when something has changed: the page
// then asks for itself anew. An event holds no data but a number of what there is, so a
// browser that comes back with the number that it saw last is told only of news.
func (x *Console) events(w http.ResponseWriter, r *http.Request) {
	select {
	case x.streams <- struct{}{}:
		defer func() { <-x.streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = x.stamp(r)
	}
	tick := time.NewTicker(fresh)
	defer tick.Stop()
	for {
		// A server with a write timeout would cut the stream: the deadline moves along.
		_ = control.SetWriteDeadline(time.Now().Add(10 * time.Second))
		text := ": \n\n"
		if now := x.stamp(r); now != last {
			last = now
			text = fmt.Sprintf("event: change\nid: %s\ndata: %s\n\n", now, now)
		}
		if _, err := w.Write([]byte(text)); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// stamp is a number of all counts and operations.
func (x *Console) stamp(r *http.Request) string {
	h := fnv.New64a()
	for _, s := range x.status(r.Context()) {
		fmt.Fprint(h, s.Key, s.Unknown != "")
		if s.Status == nil {
			continue
		}
		for _, p := range s.Status.Pending {
			fmt.Fprint(h, p.Type, p.Count, ";")
		}
		for _, p := range s.Status.Held {
			fmt.Fprint(h, p.Type, p.Reason, p.Count, ";")
		}
		for _, p := range s.Status.Retry {
			fmt.Fprint(h, p.Group, p.Type, p.Count, p.Overdue, ";")
		}
		for _, p := range s.Status.Dead {
			fmt.Fprint(h, p.Group, p.Type, p.Count, ";")
		}
		_ = json.NewEncoder(h).Encode([]any{s.Status.Relays, s.Status.Groups, s.Status.RelaysPaused})
	}
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	for _, j := range x.jobs.list {
		v := j.now()
		fmt.Fprint(h, j.ID, v.State, v.Done)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
