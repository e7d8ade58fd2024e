package console

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// events tells the script, as server-sent events, when something has changed: the page
// then asks for itself anew. An event holds no data but a number of what there is, so a
// browser that comes back with the number that it saw last is told only of news. A page
// that shows more than the counts names itself: see pageStamp.
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
		text := ": \n\n"
		if now := x.stamp(r); now != last {
			last = now
			text = fmt.Sprintf("event: change\nid: %s\ndata: %s\n\n", now, now)
		}
		// A server with a write timeout would cut the stream: the deadline moves along.
		_ = control.SetWriteDeadline(time.Now().Add(10 * time.Second))
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

// looked is the stamp of a page when somebody last looked.
type looked struct {
	at    time.Time
	stamp uint64
}

// lookAgain is how long the stamp of a page is used again: however many people have it
// open, databases and broker are asked once.
const lookAgain = 5 * time.Second

// pageStamp is a number of what a page shows beyond the counts, where that costs little.
// There is none for a message or a flow: that one was handled changes no count, and to
// find out whether it was takes the page's own questions, for each who has it open.
func (x *Console) pageStamp(ctx context.Context, page string) uint64 {
	read := map[string]func(context.Context, io.Writer){"queues": x.stampQueues, "books": x.stampBooks}[page]
	if read == nil {
		return 0
	}
	x.looking.Lock()
	defer x.looking.Unlock()
	was := x.looked[page]
	if time.Since(was.at) < lookAgain {
		return was.stamp
	}
	h := fnv.New64a()
	read(ctx, h)
	if ctx.Err() != nil { // half an answer is none
		return was.stamp
	}
	x.looked[page] = looked{time.Now(), h.Sum64()}
	return h.Sum64()
}

func (x *Console) stampQueues(ctx context.Context, w io.Writer) {
	if x.c.Broker == nil {
		return
	}
	known, gaps := x.knownGroups(ctx)
	o := x.observe(ctx, slices.Sorted(maps.Keys(known)))
	for _, group := range slices.Sorted(maps.Keys(known)) {
		fmt.Fprint(w, group, ";")
		for _, q := range o.Groups[group].Queues {
			fmt.Fprint(w, q.Queue, q.Messages, " ", q.Consumers, q.Missing, q.Unknown != nil, ";")
		}
	}
	fmt.Fprint(w, len(gaps))
}

// stampBooks looks at the newest minutes and at the newest that are not balanced.
func (x *Console) stampBooks(ctx context.Context, w io.Writer) {
	pages := make([][]outlast.BookMinute, len(x.places))
	unknown := make([]bool, len(x.places))
	x.each(ctx, func(ctx context.Context, i int, p *place) error {
		for _, state := range []outlast.MinuteState{"", outlast.MinuteUnbalanced} {
			list, err := p.Store.Books().Minutes(ctx, outlast.MinuteQuery{State: state, Limit: booksSize})
			if err != nil {
				return err
			}
			pages[i] = append(pages[i], list...)
		}
		return nil
	}, func(i int, _ error) { unknown[i] = true })
	for i, list := range pages {
		fmt.Fprint(w, i, unknown[i], ";")
		for _, m := range list {
			if !unknown[i] {
				fmt.Fprint(w, m.Minute.Unix(), m.State, m.Sent, ";")
			}
		}
	}
}

// stamp is a number of all counts and operations, and of what the page shows beyond them.
func (x *Console) stamp(r *http.Request) string {
	h := fnv.New64a()
	fmt.Fprint(h, x.pageStamp(r.Context(), r.FormValue("page")), ";")
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
