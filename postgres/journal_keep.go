package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

// keepParts bounds the parts that one call of Keep looks into.
const keepParts = 32

// part is a partition of the sent log.
type part struct {
	parent, name string
	from         time.Time
	bytes        int64
	now          time.Time
}

const (
	headWidth = 6 * time.Hour
	bodyWidth = time.Hour
)

// Keep makes partitions ahead and drops old ones whole, each in a statement of its
// own: what is locked is locked for a moment.
func (s journal) Keep(ctx context.Context, r outlast.Retention) (kept outlast.Kept, err error) {
	r = r.Filled()
	err = s.conn(ctx, "keep the sent log", false, func(c *pgx.Conn) error {
		if missing, err := s.tracked(ctx, c); err != nil || missing != nil {
			return err
		}
		if _, err := c.Exec(ctx, s.sql.Get("keep_ahead")); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, s.sql.Get("log_begun")); err != nil {
			return err
		}
		if !r.Books {
			if err := c.QueryRow(ctx, s.sql.Get("keep_books")).Scan(&r.Books); err != nil {
				return err
			}
		}
		rows, err := c.Query(ctx, s.sql.Get("parts"))
		parts, err := collect(func(row pgx.CollectableRow, p *part) error {
			return row.Scan(&p.parent, &p.name, &p.from, &p.bytes, &p.now)
		})(rows, err)
		if err != nil {
			return err
		}
		if err := s.keepDefaults(ctx, c, r); err != nil {
			return err
		}
		return s.dropParts(ctx, c, parts, r, &kept)
	})
	return kept, err
}

func (s journal) dropParts(ctx context.Context, c *pgx.Conn, parts []part, r outlast.Retention, kept *outlast.Kept) error {
	left := int64(0)
	for _, p := range parts {
		left += p.bytes
	}
	kept.Bytes = left
	looked := 0
	for _, p := range parts {
		if !s.old(p, r, left) {
			continue
		}
		if looked++; looked > keepParts {
			return nil
		}
		free, err := s.free(ctx, c, p, r)
		if err != nil {
			return err
		}
		if !free {
			kept.Due++
			continue
		}
		if p.parent == s.conf.prefix+"sent" {
			if _, err := c.Exec(ctx, s.sql.Get("log_dropped"), p.from.Add(headWidth)); err != nil {
				return err
			}
		}
		var done bool
		if err := c.QueryRow(ctx, s.sql.Get("drop_part"), p.name).Scan(&done); err != nil {
			return err
		}
		if done {
			kept.Dropped++
			left -= p.bytes
			kept.Bytes = left
		}
	}
	return nil
}

// old reports whether the part is past its age, or the oldest of too much.
func (s journal) old(p part, r outlast.Retention, bytes int64) bool {
	if p.parent == s.conf.prefix+"sent_body" {
		age := p.now.Sub(p.from.Add(bodyWidth))
		return age > r.BodyAge || age > time.Hour && bytes > r.Bytes
	}
	age := p.now.Sub(p.from.Add(headWidth))
	return age > r.Age || age > time.Hour && bytes > r.Bytes
}

// free reports whether nothing of the part is needed any more: every minute of it is
// balanced or signed off, and no deadline is ahead.
func (s journal) free(ctx context.Context, c *pgx.Conn, p part, r outlast.Retention) (free bool, err error) {
	name := "part_free"
	switch p.parent {
	case s.conf.prefix + "sent_body":
		name = "part_free_body"
	case s.conf.prefix + "sent_key": // goes with its headers: one is nothing without the other
		name = "part_free_key"
	}
	t := pgx.Identifier{s.conf.schema, p.name}.Sanitize()
	head := pgx.Identifier{s.conf.schema, s.conf.prefix + "sent" + p.name[len(p.name)-len("_p2006010215"):]}.Sanitize()
	switch name {
	case "part_free_key":
		err = c.QueryRow(ctx, "SELECT to_regclass($1::text) IS NULL", head).Scan(&free)
		return free, err
	}
	deadline := ""
	if name == "part_free" {
		deadline = fmt.Sprintf(" AND NOT EXISTS (SELECT FROM %s WHERE deadline > clock_timestamp())", t)
	}
	err = c.QueryRow(ctx, fmt.Sprintf(`SELECT (NOT $1::boolean OR NOT EXISTS (
		SELECT FROM (SELECT DISTINCT date_trunc('minute', enqueued_at, 'UTC') AS minute FROM %s) x
		WHERE NOT EXISTS (SELECT FROM %sminute m WHERE m.minute = x.minute AND m.state IN ('balanced', 'signed')))) %s`,
		t, s.conf.names()["t"], deadline), r.Books).Scan(&free)
	if err != nil || free || !r.Books {
		return free, err
	}
	// A writer that set the time of its enqueue back, or a clock that was, leaves
	// minutes behind those that the books have passed: they are opened for them.
	_, err = c.Exec(ctx, fmt.Sprintf(`INSERT INTO %[2]sminute (minute, state, sent)
		SELECT DISTINCT date_trunc('minute', enqueued_at, 'UTC'), 'open', 0 FROM %[1]s
		WHERE date_trunc('minute', enqueued_at, 'UTC') < (SELECT max(minute) FROM %[2]sminute) ON CONFLICT DO NOTHING`,
		t, s.conf.names()["t"]))
	return false, err
}

// keepDefaults deletes old rows where no partition fitted, and old facts, a few at a time.
func (s journal) keepDefaults(ctx context.Context, c *pgx.Conn, r outlast.Retention) error {
	for _, name := range []string{"keep_default", "keep_default_key"} {
		if _, err := c.Exec(ctx, s.sql.Get(name), micros(r.Age), r.Books); err != nil {
			return err
		}
	}
	if _, err := c.Exec(ctx, s.sql.Get("keep_default_body"), micros(r.BodyAge), r.Books); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, s.sql.Get("keep_facts"), micros(r.Age)); err != nil {
		return err
	}
	_, err := c.Exec(ctx, s.sql.Get("keep_marks"))
	return err
}
