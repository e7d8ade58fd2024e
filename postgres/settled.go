package postgres

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// settledClock finds instants before which nothing can be committed any more.
type settledClock struct {
	mu        sync.Mutex
	candidate time.Time
	xid       uint64 // assigned after candidate
	confirmed time.Time
}

// SettledBefore draws a candidate: an instant and then an xid. When every transaction
// with a smaller xid has finished, nothing enqueued before the instant can appear.
func (s relay) SettledBefore(ctx context.Context) (time.Time, error) {
	return s.settledBefore(ctx, "look for unsettled rows", "settled_look")
}

// settledBefore is the instant that the clock has confirmed, or the oldest row that the
// statement named look finds, if that is older.
func (s *store) settledBefore(ctx context.Context, op, look string) (time.Time, error) {
	clock := &s.settled
	clock.mu.Lock()
	defer clock.mu.Unlock()
	var oldest *time.Time
	err := s.conn(ctx, op, false, func(c *pgx.Conn) error {
		return clock.look(ctx, s, c, look, &oldest)
	})
	if err != nil || clock.confirmed.IsZero() {
		return time.Time{}, err
	}
	t := clock.confirmed
	if oldest != nil && oldest.Before(t) {
		t = *oldest
	}
	return t.UTC().Add(-s.conf.margin), nil
}

// look confirms the candidate when it can, and draws another one when there is none.
func (clock *settledClock) look(ctx context.Context, s *store, c *pgx.Conn, look string, oldest **time.Time) error {
	var text string
	if err := c.QueryRow(ctx, s.sql.Get(look), anew(c)...).Scan(&text, oldest); err != nil {
		return err
	}
	xmin, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return err
	}
	if clock.xid != 0 && xmin >= clock.xid {
		clock.confirmed, clock.xid = clock.candidate, 0
	}
	if clock.xid != 0 {
		return nil
	}
	if err := c.QueryRow(ctx, s.sql.Get("settled_draw")).Scan(&clock.candidate, &text); err != nil {
		return err
	}
	clock.xid, err = strconv.ParseUint(text, 10, 64)
	return err
}
