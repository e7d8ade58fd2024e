package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type books struct{ *store }

// Closed draws candidates as SettledBefore does, from the same clock.
func (s books) Closed(ctx context.Context) (time.Time, error) {
	return s.settledBefore(ctx, "look for pending rows", "closed_look")
}

func (s books) Due(ctx context.Context, before time.Time, limit int) (list []outlast.DueMinute, err error) {
	err = s.conn(ctx, "look for minutes to balance", false, func(c *pgx.Conn) error {
		list, err = collect(func(row pgx.CollectableRow, m *outlast.DueMinute) error {
			err := row.Scan(&m.Minute, &m.Held)
			m.Minute = m.Minute.UTC()
			return err
		})(c.Query(ctx, s.sql.Get("books_due"), before.UTC().Truncate(time.Minute), max(limit, 1)))
		return err
	})
	return list, err
}

func (s books) Sent(ctx context.Context, minute time.Time, yield func(outlast.SentMessage) error) error {
	return s.conn(ctx, "read what was sent", false, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql.Get("books_sent"), minute.UTC())
		if err != nil {
			return err
		}
		var m outlast.SentMessage
		_, err = pgx.ForEachRow(rows, []any{&m.ID, &m.Type, &m.Fate}, func() error { return yield(m) })
		return err
	})
}

func (s journal) Seen(ctx context.Context, group, source string, minute time.Time, yield func(id string) error) error {
	return s.conn(ctx, "read what group "+group+" has seen", false, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql.Get("books_seen"), group, source, minute.UTC())
		if err != nil {
			return err
		}
		var id string
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error { return yield(id) })
		return err
	})
}

func (s journal) Known(ctx context.Context, group, source string, ids []string) (known []string, err error) {
	err = s.conn(ctx, "look what group "+group+" has seen", false, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, s.sql.Get("books_known"), group, source, notNil(ids))
		if err != nil {
			return err
		}
		known, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return known, err
}

func (s books) Write(ctx context.Context, m outlast.BookMinute, lines []outlast.BookLine) error {
	return s.tx(ctx, "write the books", func(tx pgx.Tx) error {
		var minute time.Time
		err := tx.QueryRow(ctx, s.sql.Get("books_minute"), m.Minute.UTC(), string(m.State), m.Sent).Scan(&minute)
		if err == pgx.ErrNoRows {
			return nil // signed off meanwhile
		}
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		batch.Queue(s.sql.Get("books_clear"), m.Minute.UTC())
		for _, l := range lines {
			missing, err := json.Marshal(notNil(l.Missing))
			if err != nil {
				return err
			}
			var received any
			if l.Received >= 0 {
				received = l.Received
			}
			batch.Queue(s.sql.Get("books_line"), m.Minute.UTC(), l.Type, l.Group, l.Sent, received, string(missing), l.More)
		}
		return tx.SendBatch(ctx, batch).Close()
	})
}

func (s books) Minutes(ctx context.Context, q outlast.MinuteQuery) (list []outlast.BookMinute, err error) {
	err = s.ask(ctx, "read the books", func(tx pgx.Tx) error {
		list, err = collect(func(row pgx.CollectableRow, m *outlast.BookMinute) error {
			err := row.Scan(&m.Minute, &m.State, &m.Sent, &m.At, &m.Who, &m.Reason)
			m.Minute, m.At = m.Minute.UTC(), m.At.UTC()
			return err
		})(tx.Query(ctx, s.sql.Get("books_minutes"), string(q.State), instant(q.Before), q.Limited()))
		return err
	})
	return list, err
}

func (s books) Lines(ctx context.Context, minute time.Time) (list []outlast.BookLine, err error) {
	err = s.ask(ctx, "read the books of a minute", func(tx pgx.Tx) error {
		list, err = collect(func(row pgx.CollectableRow, l *outlast.BookLine) error {
			var missing string
			if err := row.Scan(&l.Type, &l.Group, &l.Sent, &l.Received, &missing, &l.More); err != nil {
				return err
			}
			return json.Unmarshal([]byte(missing), &l.Missing)
		})(tx.Query(ctx, s.sql.Get("books_lines"), minute.UTC()))
		return err
	})
	return list, err
}

func (s books) SignOff(ctx context.Context, minutes []time.Time, by outlast.Action) (int, error) {
	at := make([]time.Time, len(minutes))
	for i, m := range minutes {
		at[i] = m.UTC()
	}
	return s.act(ctx, "books sign-off", minutesText(minutes), by, func(tx pgx.Tx) (int, error) {
		tag, err := tx.Exec(ctx, s.sql.Get("books_sign"), at, by.Who, by.Reason)
		return int(tag.RowsAffected()), err
	})
}

func (s books) Reopen(ctx context.Context, since, until time.Time, by outlast.Action) (int, error) {
	return s.act(ctx, "books reopen", rangeText(since, until), by, func(tx pgx.Tx) (int, error) {
		tag, err := tx.Exec(ctx, s.sql.Get("books_reopen"), since.UTC(), instant(until))
		return int(tag.RowsAffected()), err
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

func (s books) Resend(ctx context.Context, ids []string, by outlast.Action) (r outlast.Resent, err error) {
	valid := []string{}
	for _, id := range ids {
		if u, err := uuid.Parse(id); err == nil {
			valid = append(valid, u.String())
		} else {
			r.Unknown = append(r.Unknown, id)
		}
	}
	_, err = s.act(ctx, "books resend", target(outlast.Filter{IDs: valid}), by, func(tx pgx.Tx) (int, error) {
		what := map[string]string{}
		rows, err := tx.Query(ctx, s.sql.Get("books_resend"), valid, micros(outlast.ResendAge))
		if err != nil {
			return 0, err
		}
		var id, kind string
		if _, err := pgx.ForEachRow(rows, []any{&id, &kind}, func() error { what[id] = kind; return nil }); err != nil {
			return 0, err
		}
		var acted []factOf
		for _, id := range valid {
			switch what[id] {
			case "sent":
				r.Sent = append(r.Sent, id)
				acted = append(acted, factOf{id: id})
			case "bodiless":
				r.Bodiless = append(r.Bodiless, id)
			case "old":
				r.TooOld = append(r.TooOld, id)
			default:
				r.Unknown = append(r.Unknown, id)
			}
		}
		return len(r.Sent), s.addActed(ctx, tx, outlast.FactResent, acted, by)
	})
	if err != nil {
		return outlast.Resent{}, err
	}
	return r, nil
}
