package postgres

import (
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// raiseLow moves the low-water marks of the reader, seldom: its sweeps then need not walk over
// what was deleted long ago.
func (p *pick) raiseLow() {
	r := p.r
	if !p.most || !r.lows.due(time.Now()) {
		return
	}
	started := time.Now()
	// Whatever was drawn up to here has committed or never will.
	final := r.s.facts.below(p.now.xmin)
	for _, s := range p.slots {
		low := final
		if !s.whole {
			low = min(low, s.cursor)
		}
		if lowest, n := r.lowestKnown(s.slotReader); n > 0 {
			low = min(low, lowest-1)
		}
		if low > s.low {
			s.low = low
			s.cursor = max(s.cursor, low)
		}
	}
	p.storeLow()
	r.lows.done(time.Now(), time.Since(started), 3*time.Second)
}

// A stored mark lags: every settlement looks at all versions of its slots' rows that the oldest
// transaction of the database can still see, so that they must be few however long that is
// open. What a takeover walks over are the rows that were deleted since.
const (
	lowPause     = 3 * time.Second // after the first time, and twice as long after each
	longestPause = 5 * time.Minute
	lowLag       = 100_000 // a mark that has moved so far is stored sooner,
	lowLagPause  = 20 * time.Second
)

// storeFrom is how far a mark must have moved to be stored now, since the last time and with the
// pause until all are; 0: none is.
func storeFrom(since, pause time.Duration) int64 {
	switch {
	case since >= pause:
		return 1
	case since >= lowLagPause:
		return lowLag
	default:
		return 0
	}
}

// storeLow writes down the marks that have moved, or those that have moved far.
func (p *pick) storeLow() {
	r := p.r
	lag := storeFrom(time.Since(r.stored), r.storePause)
	if lag == 0 {
		return
	}
	var slots []int32
	var epochs, lows []int64
	for _, s := range p.slots {
		if s.low-s.stored >= lag {
			slots, epochs, lows = append(slots, int32(s.slot)), append(epochs, s.epoch), append(lows, s.low)
		}
	}
	if slots == nil {
		return
	}
	r.stored = time.Now()
	if lag == 1 {
		r.storePause = min(max(2*r.storePause, lowPause), longestPause)
	}
	// What fails is left to the next time: rows that were picked must not be lost for a chore.
	rows, _ := p.conn.Query(p.ctx, r.s.sql.Get("raise_low"), slots, epochs, lows)
	written, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return
	}
	for _, s := range p.slots {
		if slices.Contains(written, int32(s.slot)) {
			s.stored = s.low
		}
	}
}
