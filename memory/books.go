package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// book is the books of a minute with its lines.
type book struct {
	outlast.BookMinute
	lines []outlast.BookLine
}

type books struct{ s *Store }

func (b books) enter(ctx context.Context, op string) error { return b.s.enter(ctx, op, RoleJournal) }

func (b books) Closed(ctx context.Context) (time.Time, error) {
	if err := b.enter(ctx, "look for pending rows"); err != nil {
		return time.Time{}, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	oldest := time.Now()
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(oldest) {
			oldest = t
		}
	}
	for t := range b.s.open {
		earlier(t.inserted)
	}
	for i := range b.s.outbox {
		for _, r := range b.s.outbox[i] {
			earlier(r.msg.EnqueuedAt)
		}
	}
	return oldest, nil
}

func (b books) Due(ctx context.Context, before time.Time, limit int) ([]outlast.DueMinute, error) {
	if err := b.enter(ctx, "look for minutes to balance"); err != nil {
		return nil, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	held, minutes := map[time.Time]int{}, map[time.Time]bool{}
	add := func(at time.Time) bool {
		m := minuteOf(at)
		if !m.Before(minuteOf(before)) || b.s.closed(m) {
			return false
		}
		minutes[m] = true
		return true
	}
	for _, r := range b.s.sent {
		add(r.msg.EnqueuedAt)
	}
	for _, r := range b.s.held {
		if r.reason != outlast.HeldDue && add(r.msg.EnqueuedAt) {
			held[minuteOf(r.msg.EnqueuedAt)]++
		}
	}
	var list []outlast.DueMinute
	for m := range minutes {
		list = append(list, outlast.DueMinute{Minute: m, Held: held[m]})
	}
	slices.SortFunc(list, func(a, b outlast.DueMinute) int { return a.Minute.Compare(b.Minute) })
	return list[:min(len(list), max(limit, 1))], nil
}

// closed reports whether the books of a minute are done; it is called with mu held.
func (s *Store) closed(minute time.Time) bool {
	b := s.books[minute.UnixMicro()]
	return b != nil && b.State.Closed()
}

func (b books) Sent(ctx context.Context, minute time.Time, yield func(outlast.SentMessage) error) error {
	if err := b.enter(ctx, "read what was sent"); err != nil {
		return err
	}
	b.s.mu.Lock()
	var list []outlast.SentMessage
	for _, r := range b.s.sent {
		if minuteOf(r.msg.EnqueuedAt).Equal(minute) {
			list = append(list, outlast.SentMessage{ID: r.msg.ID, Type: r.msg.Type, Fate: r.fate})
		}
	}
	b.s.mu.Unlock()
	for _, m := range list {
		if err := yield(m); err != nil {
			return err
		}
	}
	return nil
}

func (j journal) Seen(ctx context.Context, group, source string, minute time.Time, yield func(id string) error) error {
	if err := j.s.enter(ctx, "read what a group has seen", RoleJournal); err != nil {
		return err
	}
	j.s.mu.Lock()
	var ids []string
	for k, m := range j.s.marks {
		if k.group == group && k.source == source && m.by == nil && minuteOf(m.enqueuedAt).Equal(minute) {
			ids = append(ids, k.id)
		}
	}
	j.s.mu.Unlock()
	for _, id := range ids {
		if err := yield(id); err != nil {
			return err
		}
	}
	return nil
}

func (j journal) Known(ctx context.Context, group, source string, ids []string) ([]string, error) {
	if err := j.s.enter(ctx, "look what a group has seen", RoleJournal); err != nil {
		return nil, err
	}
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	var known []string
	for _, id := range ids {
		if m := j.s.marks[markKey{group, source, id}]; m != nil && m.by == nil {
			known = append(known, id)
		}
	}
	return known, nil
}

func (b books) Write(ctx context.Context, m outlast.BookMinute, lines []outlast.BookLine) error {
	if err := b.enter(ctx, "write the books"); err != nil {
		return err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if have := b.s.books[m.Minute.UnixMicro()]; have != nil && have.State == outlast.MinuteSigned {
		return nil
	}
	m.At = time.Now()
	b.s.books[m.Minute.UnixMicro()] = &book{m, slices.Clone(lines)}
	return nil
}

func (b books) Minutes(ctx context.Context, q outlast.MinuteQuery) ([]outlast.BookMinute, error) {
	if err := b.enter(ctx, "read the books"); err != nil {
		return nil, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	var list []outlast.BookMinute
	for _, x := range b.s.books {
		if (q.State == "" || x.State == q.State) && (q.Before.IsZero() || x.Minute.Before(q.Before)) {
			list = append(list, x.BookMinute)
		}
	}
	slices.SortFunc(list, func(a, b outlast.BookMinute) int { return b.Minute.Compare(a.Minute) })
	return list[:min(len(list), q.Limited())], nil
}

func (b books) Lines(ctx context.Context, minute time.Time) ([]outlast.BookLine, error) {
	if err := b.enter(ctx, "read the books of a minute"); err != nil {
		return nil, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if x := b.s.books[minute.UnixMicro()]; x != nil {
		return slices.Clone(x.lines), nil
	}
	return nil, nil
}

func (b books) SignOff(ctx context.Context, minutes []time.Time, by outlast.Action) (int, error) {
	if err := b.enter(ctx, "books sign-off"); err != nil {
		return 0, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	n := 0
	for _, m := range minutes {
		if x := b.s.books[m.UnixMicro()]; x != nil && !x.State.Closed() {
			x.State, x.Who, x.Reason, x.At = outlast.MinuteSigned, by.Who, by.Reason, time.Now()
			n++
		}
	}
	b.s.record(by, "books sign-off", fmt.Sprintf("%d minutes", len(minutes)), n)
	return n, nil
}

func (b books) Reopen(ctx context.Context, since, until time.Time, by outlast.Action) (int, error) {
	if err := b.enter(ctx, "books reopen"); err != nil {
		return 0, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	n := 0
	for _, x := range b.s.books {
		if x.State != outlast.MinuteBalanced || x.Minute.Before(since) || !until.IsZero() && !x.Minute.Before(until) || x.Minute.Before(b.s.dropped) {
			continue
		}
		x.State, x.At = outlast.MinuteOpen, time.Now()
		n++
	}
	text := "since " + since.UTC().Format(time.RFC3339)
	if !until.IsZero() {
		text += " until " + until.UTC().Format(time.RFC3339)
	}
	b.s.record(by, "books reopen", text, n)
	return n, nil
}

func (b books) Resend(ctx context.Context, ids []string, by outlast.Action) (r outlast.Resent, err error) {
	if err := b.enter(ctx, "books resend"); err != nil {
		return r, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		var x *sent
		for _, have := range b.s.sent {
			if have.msg.ID == id {
				x = have
			}
		}
		switch {
		case x == nil:
			r.Unknown = append(r.Unknown, id)
		case now.Sub(x.msg.EnqueuedAt) > outlast.ResendAge:
			r.TooOld = append(r.TooOld, id)
		case !x.body:
			r.Bodiless = append(r.Bodiless, id)
		default:
			again := clone(&x.msg)
			again.Due = time.Time{}
			if again.Time.IsZero() {
				again.Time = again.EnqueuedAt
			}
			b.s.put(b.s.newRow(again, now))
			b.s.note(outlast.FactResent, "", again, 0, by.Who, by.Reason)
			r.Sent = append(r.Sent, id)
		}
	}
	b.s.record(by, "books resend", target(outlast.Filter{IDs: ids}), len(r.Sent))
	return r, nil
}
