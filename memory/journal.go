package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// sent is a row of the sent log.
type sent struct {
	msg  outlast.Message // without its body once that was dropped
	fate outlast.Fate
	at   time.Time
	body bool
}

type hearerKey struct{ group, typ string }

type journal struct{ s *Store }

// log notes a row that is about to leave; it is called with mu held.
func (s *Store) log(v *outlast.Row, fate outlast.Fate, now time.Time) {
	if r, ok := s.stored(v); ok && s.version >= tracked {
		s.sent = append(s.sent, &sent{msg: *clone(&r.msg), fate: fate, at: now, body: true})
	}
}

// wholeAfter notes that of what was sent up to an instant the sent log may lack something; it
// is called with mu held.
func (s *Store) wholeAfter(t time.Time) {
	if t = t.Add(time.Nanosecond); s.version >= tracked && t.After(s.whole) {
		s.whole = t
	}
}

// logFailure notes a row that failed by itself; it is called with mu held.
func (s *Store) logFailure(h *outlast.Hold, now time.Time) {
	if h.Reason != outlast.HeldBackoff && h.Reason != outlast.HeldRefused || s.version < tracked {
		return
	}
	s.facts = append(s.facts, outlast.Fact{Kind: outlast.FactFailed, ID: h.Row.ID, Source: s.source, At: now,
		Attempt: h.Attempts, Code: string(h.Reason), Detail: h.Error})
}

// note keeps a fact; it is called with mu held.
func (s *Store) note(kind outlast.FactKind, group string, m *outlast.Message, attempt int, code, detail string) {
	if s.version < tracked {
		return
	}
	f := outlast.Fact{Kind: kind, ID: m.ID, Source: m.Source, Group: group, At: time.Now(), Attempt: attempt, Code: code, Detail: detail}
	if group == "" {
		f.Source = s.source
	}
	s.facts = append(s.facts, f)
}

func (j journal) Tracking(ctx context.Context) error {
	return j.s.enter(ctx, "track messages", RoleJournal)
}

func (j journal) Facts(ctx context.Context, q outlast.FactQuery) (page outlast.FactPage, err error) {
	s := j.s
	if err := s.enter(ctx, "find messages", RoleJournal); err != nil {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	page.Service, page.Tracked, page.Since = s.source, s.version >= tracked, s.whole
	found := map[string][][]outlast.Fact{}
	add := func(place string, facts ...outlast.Fact) { found[place] = append(found[place], facts) }
	row := func(r *row) {
		e := s.ours(&r.msg)
		f := outlast.Fact{Kind: outlast.FactCommitted, ID: e.ID, Source: e.Source, At: e.EnqueuedAt, Envelope: e, Now: !r.held}
		if !r.held {
			add("pending", f)
			return
		}
		add("held", f, outlast.Fact{Kind: outlast.FactHeld, ID: e.ID, Source: e.Source, At: r.since, Attempt: r.attempts,
			Code: string(r.reason), Detail: r.err, Until: r.next, Now: true})
	}
	for i := range s.outbox {
		for _, r := range s.outbox[i] {
			if asks(&q, &r.msg.Envelope) {
				row(r)
			}
		}
	}
	for _, r := range s.held {
		if asks(&q, &r.msg.Envelope) {
			row(r)
		}
	}
	for _, r := range s.sent {
		if asks(&q, &r.msg.Envelope) {
			e := s.ours(&r.msg)
			add("sent", outlast.Fact{Kind: outlast.FactCommitted, ID: e.ID, Source: e.Source, At: e.EnqueuedAt, Envelope: e},
				outlast.Fact{Kind: r.fate.Kind(), ID: e.ID, Source: e.Source, At: r.at, Code: r.msg.RoutingKey})
		}
	}
	j.received(&q, add)
	for _, place := range slices.Sorted(maps.Keys(found)) {
		list := found[place]
		slices.SortStableFunc(list, newest)
		if limit := q.Limited(); len(list) > limit {
			list, page.More = list[:limit], true
		}
		page.Facts = append(page.Facts, slices.Concat(list...)...)
	}
	return page, nil
}

func (j journal) IDs(ctx context.Context, q outlast.FactQuery, before string) ([]string, error) {
	s := j.s
	if err := s.enter(ctx, "find messages", RoleJournal); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]bool{}
	add := func(e *outlast.Envelope) {
		if asks(&q, e) && (before == "" || e.ID < before) {
			found[e.ID] = true
		}
	}
	for i := range s.outbox {
		for _, r := range s.outbox[i] {
			add(&r.msg.Envelope)
		}
	}
	for _, r := range s.held {
		add(&r.msg.Envelope)
	}
	for _, r := range s.sent {
		add(&r.msg.Envelope)
	}
	for _, w := range s.retries {
		add(&w.Message.Envelope)
	}
	for _, d := range s.dead {
		add(&d.Message.Envelope)
	}
	ids := slices.Sorted(maps.Keys(found))
	slices.Reverse(ids)
	return ids[:min(len(ids), q.Limited())], nil
}

// newest orders the facts of rows: a limit leaves out the oldest.
func newest(a, b []outlast.Fact) int {
	return cmp.Or(b[0].At.Compare(a[0].At), cmp.Compare(b[0].ID, a[0].ID), cmp.Compare(a[0].Group, b[0].Group))
}

// ours is a copy of an envelope of this outbox.
func (s *Store) ours(m *outlast.Message) *outlast.Envelope {
	e := clone(m).Envelope
	e.Source = s.source
	return &e
}

// received adds the facts of the receiving side, and those that were kept.
func (j journal) received(q *outlast.FactQuery, add func(place string, facts ...outlast.Fact)) {
	s := j.s
	for _, w := range s.retries {
		if asks(q, &w.Message.Envelope) {
			add("retry", outlast.Fact{Kind: outlast.FactWaiting, ID: w.Message.ID, Source: w.Message.Source, Group: w.Group, At: w.last,
				Attempt: w.Attempts, Replays: w.Replays, Code: w.Reason, Detail: w.Error, Until: w.next, Now: true, Envelope: &clone(w.Message).Envelope})
		}
	}
	for _, d := range s.dead {
		if asks(q, &d.Message.Envelope) {
			add("dead", outlast.Fact{Kind: outlast.FactDead, ID: d.Message.ID, Source: d.Message.Source, Group: d.Group, At: d.lastAt,
				Attempt: d.Attempts, Replays: d.Replays, Code: d.Reason, Detail: d.Error, Now: true, Envelope: &clone(d.Message).Envelope})
		}
	}
	for k, m := range s.marks {
		if m.by != nil || !slices.Contains(q.IDs, k.id) && !slices.Contains(q.Flows, k.id) {
			continue
		}
		f := outlast.Fact{ID: k.id, Source: k.source, Group: k.group, At: m.handledAt, EnqueuedAt: m.enqueuedAt}
		switch m.state {
		case outlast.SeenHandled:
			f.Kind, f.Now = outlast.FactHandled, true
		case outlast.SeenDead:
			f.Kind = outlast.FactDead
		default:
			continue
		}
		add("inbox", f)
	}
	for _, f := range s.facts {
		if slices.Contains(q.IDs, f.ID) || slices.Contains(q.Flows, f.ID) {
			add("fact", f)
		}
	}
}

// asks reports whether q selects a message.
func asks(q *outlast.FactQuery, e *outlast.Envelope) bool {
	if slices.Contains(q.IDs, e.ID) || slices.Contains(q.Flows, e.ID) || e.CorrelationID != "" && slices.Contains(q.Flows, e.CorrelationID) {
		return true
	}
	for _, key := range q.Keys {
		if key != "" && key == e.Key {
			return true
		}
		for _, value := range e.Find {
			if value == key {
				return true
			}
		}
	}
	return false
}

func (j journal) Failures(ctx context.Context, q outlast.FailureQuery) ([]outlast.Failure, error) {
	s := j.s
	if err := s.enter(ctx, "group failures", RoleJournal); err != nil {
		return nil, err
	}
	if q.Limit < 1 || q.Limit > 1000 {
		q.Limit = 100
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []outlast.Failure
	for _, d := range s.dead {
		if q.Group != "" && d.Group != q.Group {
			continue
		}
		f := entry(&list, func(f *outlast.Failure) bool {
			return f.Fingerprint == d.Fingerprint && f.Group == d.Group && f.Type == d.Message.Type
		})
		if f.Count++; f.FirstSeen.IsZero() || d.FirstAt.Before(f.FirstSeen) {
			f.FirstSeen = d.FirstAt
		}
		if !d.lastAt.Before(f.LastSeen) {
			f.Fingerprint, f.Group, f.Type, f.Reason, f.Error, f.LastSeen = d.Fingerprint, d.Group, d.Message.Type, d.Reason, d.Error, d.lastAt
		}
	}
	if !q.Before.IsZero() {
		list = slices.DeleteFunc(list, func(f outlast.Failure) bool {
			behind := f.LastSeen.Equal(q.Before) && q.After.Group != "" && f.Key().Compare(q.After) > 0
			return !behind && !f.LastSeen.Before(q.Before)
		})
	}
	slices.SortFunc(list, outlast.Failure.Compare)
	return list[:min(len(list), q.Limit)], nil
}

func (j journal) Hear(ctx context.Context, group string, types []string) error {
	if err := j.s.enter(ctx, "record what a group hears", RoleJournal); err != nil {
		return err
	}
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	if j.s.version < tracked {
		return nil
	}
	for _, typ := range types {
		k := hearerKey{group, typ}
		if have, ok := j.s.hearers[k]; !ok || !have.Until.IsZero() {
			j.s.hearers[k] = outlast.Hearer{Group: group, Type: typ, Since: time.Now()}
		}
	}
	return nil
}

func (j journal) Unhear(ctx context.Context, group, typ string, by outlast.Action) error {
	if err := j.s.enter(ctx, "end what a group hears", RoleJournal); err != nil {
		return err
	}
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	n := 0
	if h, ok := j.s.hearers[hearerKey{group, typ}]; ok && h.Until.IsZero() {
		h.Until, n = time.Now(), 1
		j.s.hearers[hearerKey{group, typ}] = h
	}
	j.s.record(by, "books unhear", group+" "+typ, n)
	return nil
}

func (j journal) Hearers(ctx context.Context) ([]outlast.Hearer, error) {
	if err := j.s.enter(ctx, "read who hears what", RoleJournal); err != nil {
		return nil, err
	}
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	var list []outlast.Hearer
	for _, h := range j.s.hearers {
		h.Forgot = j.s.forgot[h.Group]
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b outlast.Hearer) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Type, b.Type))
	})
	return list, nil
}

// Keep drops what is old; this store counts the bytes of bodies alone.
func (j journal) Keep(ctx context.Context, r outlast.Retention) (kept outlast.Kept, err error) {
	s := j.s
	if err := s.enter(ctx, "keep the sent log", RoleJournal); err != nil {
		return kept, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r = r.Filled()
	r.Books = r.Books || len(s.books) > 0
	now := time.Now()
	if s.whole.IsZero() {
		s.wholeAfter(now)
	}
	for _, x := range s.sent {
		kept.Bytes += int64(len(x.msg.Body))
	}
	age := r.Age
	if kept.Bytes > r.Bytes {
		age = min(age, time.Hour)
	}
	s.sent = slices.DeleteFunc(s.sent, func(x *sent) bool {
		closed := !r.Books || s.closed(minuteOf(x.msg.EnqueuedAt))
		if closed && now.Sub(x.at) > r.BodyAge {
			x.msg.Body, x.body = nil, false
		}
		if now.Sub(x.at) <= age || x.msg.Deadline().After(now) {
			return false
		}
		if !closed {
			kept.Due++
			return false
		}
		s.wholeAfter(x.at)
		if x.at.After(s.dropped) {
			s.dropped = x.at
		}
		kept.Dropped++
		return true
	})
	return kept, nil
}

func minuteOf(t time.Time) time.Time { return t.UTC().Truncate(time.Minute) }
