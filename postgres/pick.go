package postgres

import (
	"context"
	"math"
	"sort"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/planted"
)

// pick is one call of Pick.
type pick struct {
	r        *reader
	ctx      context.Context
	conn     *pgx.Conn
	maxRows  int
	maxBytes int64
	slots    []pickSlot

	now     snapshot
	found   int // rows above the cursors, before the limit of bytes
	fresh   []*outlast.Row
	late    []lateRow
	guesses map[*view]int64 // late rows of slots with that view were looked for above it
	all     bool            // or everywhere: a sweep
	most    bool            // of the slots: not just those that a wake-up is about
	limit   int             // of late rows
	partial bool            // some late rows were left for the next time
}

type pickSlot struct {
	*slotReader
	slot   int
	byTurn bool // see arrange
	// got rows above the cursor in this pick; visited entirely when whole.
	got   int
	whole bool
}

type lateRow struct {
	slot int
	seq  int64
	id   [16]byte
}

func (p *pick) run() ([]*outlast.Row, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	started := time.Now()
	p.all = p.most && p.r.sweep.due(started)
	if err := p.query(); err != nil {
		return nil, err
	}
	if p.r.last != nil && p.now.xmax < p.r.last.at.xmax {
		p.setBack()
		return nil, outlast.ErrSetBack
	}
	if err := p.widen(); err != nil {
		return nil, err
	}
	rows, err := p.fetchLate()
	if err != nil {
		return nil, err
	}
	if p.partial {
		// The snapshot of before stays, so that the next pick looks there again.
		p.keepLate(rows)
		return rows, nil
	}
	if p.all {
		p.r.sweep.done(time.Now(), time.Since(started), time.Second)
	}
	p.keepLate(rows)
	rows = p.keepFresh(rows)
	p.complete()
	p.raiseLow()
	return rows, nil
}

// setBack begins anew when the database lost transactions that were seen, as a
// failover does: seqs and xids may then come again.
func (p *pick) setBack() {
	p.r.s.facts.forget()
	p.r.mu.Lock()
	for _, s := range p.r.slots {
		s.loaded, s.backlog, s.cursor, s.low, s.stored, s.view = false, false, 0, 0, 0, nil
	}
	p.r.mu.Unlock()
	p.r.last = nil
}

// load reads the low-water marks of slots that are new to the reader.
func (p *pick) load() error {
	var fresh []int32
	bySlot := map[int]*slotReader{}
	for _, s := range p.slots {
		if !s.loaded {
			fresh = append(fresh, int32(s.slot))
			bySlot[s.slot] = s.slotReader
		}
	}
	if fresh == nil {
		return nil
	}
	rows, err := p.conn.Query(p.ctx, p.r.s.sql.Get("low"), fresh)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var slot int
		var low int64
		if err := rows.Scan(&slot, &low); err != nil {
			return err
		}
		bySlot[slot].low, bySlot[slot].stored, bySlot[slot].cursor = low, low, low
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, s := range bySlot {
		s.loaded = true
	}
	return nil
}

// query reads fresh rows, probable places of late ones, and the snapshot of both.
func (p *pick) query() error {
	r := p.r
	if r.quota == 0 {
		r.quota = max(64, p.maxRows/16)
	}
	p.guesses = map[*view]int64{}
	p.limit = 4*p.maxRows + 1000
	slots := make([]int16, len(p.slots))
	lates := make([]int64, len(p.slots))
	cursors := make([]int64, len(p.slots))
	for i, s := range p.slots {
		slots[i], cursors[i] = int16(s.slot), s.cursor
		lates[i] = p.lateAbove(s)
	}
	p.limit += r.knownRows() // so that a pick always gets past them
	args := []any{slots, lates, cursors, min(r.quota, p.maxRows), p.maxRows, p.maxBytes, p.limit}
	var rows pgx.Rows
	var err error
	if time.Since(r.full) > quiet {
		rows, err = p.conn.Query(p.ctx, r.s.sql.Get("pick"), anew(p.conn, args...)...)
	} else {
		rows, err = r.s.query(p.ctx, p.conn, "pick", args...)
	}
	if err != nil {
		return err
	}
	defer rows.Close()
	var part, n int
	var snap string
	var row rowScan
	dest := row.dest(&part, &snap, &n)
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		switch part {
		case 0:
			if row.seq != 0 {
				return errStandby
			}
			p.found = n
			if p.now, err = parseSnapshot(snap); err != nil {
				return err
			}
		case 1:
			p.late = append(p.late, lateRow{int(row.slot), row.seq, row.id})
		default:
			p.fresh = append(p.fresh, row.row())
		}
	}
	p.partial = len(p.late) >= p.limit
	if p.found+len(p.late) > 0 {
		r.full = time.Now()
	}
	return rows.Err()
}

// lateAbove is where late rows of a slot are looked for: above the low-water mark in
// a sweep, and when the slot was not read before.
func (p *pick) lateAbove(s pickSlot) int64 {
	if p.all || s.view == nil {
		return s.low
	}
	guess, known := p.guesses[s.view]
	if !known {
		guess = p.r.s.facts.below(guessFinished(s.view.before, s.view.at))
		p.guesses[s.view] = guess
	}
	return max(guess, s.low)
}

// widen looks further down when a transaction finished that is older than guessed.
func (p *pick) widen() error {
	if p.all {
		return nil
	}
	needs := map[*view]int64{} // what is new in slots with that view lies above
	for v := range p.guesses {
		needs[v] = math.MaxInt64 // nothing is new
		if first, ok := firstFinished(v.at, p.now); ok {
			needs[v] = p.r.s.facts.below(first)
		}
	}
	var slots []int16
	var lows, highs []int64
	for _, s := range p.slots {
		if s.view == nil {
			continue
		}
		low, high := max(needs[s.view], s.low), min(p.guesses[s.view], s.cursor)
		if low < high {
			slots, lows, highs = append(slots, int16(s.slot)), append(lows, low), append(highs, high)
		}
	}
	return p.queryLate(slots, lows, highs)
}

func (p *pick) queryLate(slots []int16, lows, highs []int64) error {
	if len(slots) == 0 {
		return nil
	}
	rows, err := p.r.s.query(p.ctx, p.conn, "late", slots, lows, highs, p.limit, p.now.text)
	if err != nil {
		return err
	}
	defer rows.Close()
	var older []lateRow
	for rows.Next() {
		var slot int16
		var l lateRow
		if err := rows.Scan(&slot, &l.seq, &l.id); err != nil {
			return err
		}
		l.slot = int(slot)
		older = append(older, l)
	}
	if len(older) >= p.limit {
		p.late, p.partial = nil, true // some slot may have more that goes before those
	}
	p.late = append(p.late, older...)
	return rows.Err()
}

// fetchLate returns the late rows that were not returned before, as far as the
// limits allow, in order of seq within each slot.
func (p *pick) fetchLate() ([]*outlast.Row, error) {
	bySlot := p.bySlot()
	var news []lateRow
	for _, l := range p.late {
		if !p.r.knows(bySlot[l.slot], l.seq, l.id) {
			news = append(news, l)
		}
	}
	if planted.On(planted.MaxIDCursor) {
		news, p.partial = nil, false
	}
	if news == nil {
		return nil, nil
	}
	sort.Slice(news, func(i, j int) bool {
		if news[i].slot != news[j].slot {
			return news[i].slot < news[j].slot
		}
		return news[i].seq < news[j].seq
	})
	if len(news) > p.maxRows {
		news, p.partial = news[:p.maxRows], true
	}
	slots := make([]int16, len(news))
	seqs := make([]int64, len(news))
	for i, l := range news {
		slots[i], seqs[i] = int16(l.slot), l.seq
	}
	rows, err := readRows(p.r.s.query(p.ctx, p.conn, "fetch", slots, seqs, p.maxBytes))
	if err != nil {
		return nil, err
	}
	// The query has no order of its own, and rows may be gone meanwhile.
	sort.Slice(rows, func(i, j int) bool {
		if rows[i].Slot != rows[j].Slot {
			return rows[i].Slot < rows[j].Slot
		}
		return rows[i].Seq < rows[j].Seq
	})
	if len(rows) < len(news) {
		p.partial = true
	}
	return rows, nil
}

func (p *pick) keepLate(rows []*outlast.Row) {
	bySlot := p.bySlot()
	for _, row := range rows {
		p.r.remember(bySlot[row.Slot], row.Seq, uuid.MustParse(row.ID))
	}
}

func (p *pick) bySlot() map[int]*slotReader {
	m := make(map[int]*slotReader, len(p.slots))
	for _, s := range p.slots {
		m[s.slot] = s.slotReader
	}
	return m
}

// keepFresh appends the rows above the cursors as far as the limits allow, and
// moves the cursors.
func (p *pick) keepFresh(rows []*outlast.Row) []*outlast.Row {
	index := make(map[int]int, len(p.slots))
	for i, s := range p.slots {
		index[s.slot] = i
	}
	sort.Slice(p.fresh, func(i, j int) bool {
		a, b := p.fresh[i], p.fresh[j]
		if a.Slot != b.Slot {
			return index[a.Slot] < index[b.Slot]
		}
		return a.Seq < b.Seq
	})
	var size int64
	for _, row := range rows {
		size += int64(len(row.Body))
	}
	last, kept := -1, 0
	for _, row := range p.fresh {
		size += int64(len(row.Body))
		if len(rows) > 0 && (len(rows) >= p.maxRows || size > p.maxBytes) {
			break
		}
		s := &p.slots[index[row.Slot]]
		s.cursor = row.Seq
		s.got++
		kept++
		last = index[row.Slot]
		if p.r.remember(s.slotReader, row.Seq, uuid.MustParse(row.ID)) {
			rows = append(rows, row)
		}
	}
	p.turn(last, kept)
	return rows
}

// turn notes which slots were visited entirely, and whose turn is next.
func (p *pick) turn(last, kept int) {
	r := p.r
	quota := min(r.quota, p.maxRows)
	cut := kept < p.found || p.found >= p.maxRows
	hit := false
	for i := range p.slots {
		s := &p.slots[i]
		if cut && i > last {
			break
		}
		hit = hit || s.got >= quota
		s.whole = s.got < quota && (!cut || i < last)
		s.backlog = !s.whole
		if s.byTurn && p.most {
			r.first = s.slot + 1
		}
	}
	switch {
	case cut:
		r.quota = max(64, p.maxRows/16, r.quota/2)
	case hit:
		r.quota = min(2*r.quota, max(p.maxRows, 64)) // room was left: few slots hold the backlog
	}
}

func (p *pick) complete() {
	r := p.r
	if p.most {
		r.turns++
	}
	before := p.now
	if r.last != nil {
		before = r.last.at
	}
	r.last = &view{at: p.now, before: before}
	var highest int64
	for _, s := range p.slots {
		s.view = r.last
		highest = max(highest, s.cursor)
	}
	r.s.facts.saw(highest)
}
