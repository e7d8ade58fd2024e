package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

type books struct{ s *store }

// Closed holds the write lock while it reads, as SettledBefore does.
func (b books) Closed(ctx context.Context) (time.Time, error) {
	const op = "look for pending rows"
	w, err := b.s.begin(ctx, op)
	if err != nil {
		return time.Time{}, err
	}
	defer w.rollback()
	var t sql.NullInt64
	if err := w.tx.QueryRowContext(ctx, b.s.sql.Get("closed")).Scan(&t); err != nil {
		return time.Time{}, mapped(op, err)
	}
	return instant(t), nil
}

// read calls one for each row of a named statement.
func (s *store) read(ctx context.Context, op, name string, args []any, one func(scan scanner) error) error {
	if s.err != nil {
		return s.err
	}
	return mapped(op, each(ctx, s.db, s.sql.Get(name), args, one))
}

func (b books) Due(ctx context.Context, before time.Time, limit int) (list []outlast.DueMinute, err error) {
	args := []any{before.UTC().Truncate(time.Minute).UnixMicro(), max(limit, 1)}
	err = b.s.read(ctx, "look for minutes to balance", "books_due", args, func(scan scanner) error {
		var m outlast.DueMinute
		var minute int64
		err := scan(&minute, &m.Held)
		m.Minute = time.UnixMicro(minute).UTC()
		list = append(list, m)
		return err
	})
	return list, err
}

func (b books) Sent(ctx context.Context, minute time.Time, yield func(outlast.SentMessage) error) error {
	return b.s.read(ctx, "read what was sent", "books_sent", []any{minute.UnixMicro()}, func(scan scanner) error {
		var m outlast.SentMessage
		if err := scan(&m.ID, &m.Type, &m.Fate); err != nil {
			return err
		}
		return yield(m)
	})
}

func (j journal) Seen(ctx context.Context, group, source string, minute time.Time, yield func(id string) error) error {
	return j.s.read(ctx, "read what a group has seen", "books_seen", []any{group, source, minute.UnixMicro()}, func(scan scanner) error {
		var id string
		if err := scan(&id); err != nil {
			return err
		}
		return yield(id)
	})
}

func (j journal) Known(ctx context.Context, group, source string, ids []string) (known []string, err error) {
	err = j.s.read(ctx, "look what a group has seen", "books_known", []any{group, source, jsonList(ids)}, func(scan scanner) error {
		var id string
		err := scan(&id)
		known = append(known, id)
		return err
	})
	return known, err
}

func (b books) Write(ctx context.Context, m outlast.BookMinute, lines []outlast.BookLine) error {
	w, err := b.s.begin(ctx, "write the books")
	if err != nil {
		return err
	}
	defer w.rollback()
	minute := m.Minute.UnixMicro()
	n, err := w.count(ctx, b.s.sql.Get("books_minute"), minute, string(m.State), m.Sent)
	if err != nil || n == 0 { // 0: signed off meanwhile
		return err
	}
	if err := w.exec(ctx, b.s.sql.Get("books_clear"), minute); err != nil {
		return err
	}
	for _, l := range lines {
		var received any
		if l.Received >= 0 {
			received = l.Received
		}
		if err := w.exec(ctx, b.s.sql.Get("books_line"), minute, l.Type, l.Group, l.Sent, received, jsonList(l.Missing), l.More); err != nil {
			return err
		}
	}
	return w.commit(ctx)
}

func (b books) Minutes(ctx context.Context, q outlast.MinuteQuery) (list []outlast.BookMinute, err error) {
	err = b.s.read(ctx, "read the books", "books_minutes", []any{string(q.State), micros(q.Before), q.Limited()}, func(scan scanner) error {
		var m outlast.BookMinute
		var minute, at int64
		err := scan(&minute, &m.State, &m.Sent, &at, &m.Who, &m.Reason)
		m.Minute, m.At = time.UnixMicro(minute).UTC(), time.UnixMicro(at).UTC()
		list = append(list, m)
		return err
	})
	return list, err
}

func (b books) Lines(ctx context.Context, minute time.Time) (list []outlast.BookLine, err error) {
	err = b.s.read(ctx, "read the books of a minute", "books_lines", []any{minute.UnixMicro()}, func(scan scanner) error {
		var l outlast.BookLine
		var missing string
		if err := scan(&l.Type, &l.Group, &l.Sent, &l.Received, &missing, &l.More); err != nil {
			return err
		}
		list = append(list, l)
		return json.Unmarshal([]byte(missing), &list[len(list)-1].Missing)
	})
	return list, err
}

func (b books) SignOff(ctx context.Context, minutes []time.Time, by outlast.Action) (int, error) {
	return b.s.act(ctx, "books sign-off", minutesText(minutes), by, func(w *writeTx) (int, error) {
		count := 0
		for _, m := range minutes {
			n, err := w.count(ctx, b.s.sql.Get("books_sign"), m.UnixMicro(), by.Who, text(by.Reason))
			if err != nil {
				return 0, err
			}
			count += int(n)
		}
		return count, nil
	})
}

func (b books) Reopen(ctx context.Context, since, until time.Time, by outlast.Action) (int, error) {
	return b.s.act(ctx, "books reopen", rangeText(since, until), by, func(w *writeTx) (int, error) {
		n, err := w.count(ctx, b.s.sql.Get("books_reopen"), since.UnixMicro(), micros(until))
		return int(n), err
	})
}

func rangeText(since, until time.Time) string {
	text := "since " + since.UTC().Format(time.RFC3339)
	if !until.IsZero() {
		text += " until " + until.UTC().Format(time.RFC3339)
	}
	return text
}

func minutesText(minutes []time.Time) string {
	if len(minutes) == 0 {
		return "none"
	}
	first, last := slices.MinFunc(minutes, time.Time.Compare), slices.MaxFunc(minutes, time.Time.Compare)
	return fmt.Sprintf("%d minutes, %s to %s", len(minutes), first.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))
}

func (b books) Resend(ctx context.Context, ids []string, by outlast.Action) (r outlast.Resent, err error) {
	_, err = b.s.act(ctx, "books resend", target(outlast.Filter{IDs: ids}), by, func(w *writeTx) (int, error) {
		r = outlast.Resent{}
		for _, id := range ids {
			if err := b.resend(ctx, w, id, by, &r); err != nil {
				return 0, err
			}
		}
		return len(r.Sent), nil
	})
	if err != nil {
		return outlast.Resent{}, err
	}
	return r, nil
}

func (b books) resend(ctx context.Context, w *writeTx, id string, by outlast.Action, r *outlast.Resent) error {
	var seq int64
	var what string
	found, err := first(w.tx.QueryRowContext(ctx, b.s.sql.Get("resend_look"), id, outlast.ResendAge.Microseconds()), &seq, &what)
	switch {
	case err != nil:
		return err
	case !found:
		r.Unknown = append(r.Unknown, id)
		return nil
	case what == "old":
		r.TooOld = append(r.TooOld, id)
		return nil
	case what == "bodiless":
		r.Bodiless = append(r.Bodiless, id)
		return nil
	}
	r.Sent = append(r.Sent, id)
	if err := w.exec(ctx, b.s.sql.Get("resend"), seq); err != nil {
		return err
	}
	return w.addFact(ctx, outlast.Fact{Kind: outlast.FactResent, ID: id, Code: by.Who, Detail: by.Reason})
}
