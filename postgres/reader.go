package postgres

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

// reader finds pending rows in order. Transactions commit in another order than
// they draw their seqs, so a cursor alone is not enough: a row may appear below it
// when a later one of its key is written next. Each Pick therefore compares its
// snapshot with that of the one before. Rows that are new were written by
// transactions that finished in between; let f be the smallest xid of them. With a
// checkpoint (xid <= f, seq) every new row lies above seq, so what appeared below the
// cursor lies between the two: few rows, read by name only. Those that were not
// returned before come first. Whatever a Pick looks for in a second statement, it sees
// by the snapshot of its first: rows of a transaction that commits in between would
// come without those that lie lower (TestF09_PickSchedules).
//
// Each slot remembers by which snapshot it was read last: a pick may be of a few slots alone, which
// leaves the chores and the turns to those of most.
//
// A transaction that stays open costs nothing until it ends. As a safety net, all
// rows below the cursor are looked through now and then.
type reader struct {
	s *store

	mu      sync.Mutex // guards what Forget and Drop touch while a Pick runs
	slots   map[int]*slotReader
	picking bool
	gone    []*outlast.Row // forgotten while a Pick runs, whose snapshot may show them

	last       *view // of the last complete pick; nil: none
	turns      int   // complete picks of most slots
	first      int   // the slot to begin with among those that are read by turns
	quota      int   // rows of one slot in one Pick
	sweep      pacer
	lows       pacer
	stored     time.Time     // when low-water marks were written last
	storePause time.Duration // how long they are not, unless they have moved far
	full       time.Time     // when a pick last found something
}

// slotReader is the memory of one leased slot.
type slotReader struct {
	epoch int64
	// low: nothing can appear at or below it any more.
	low int64
	// stored is low as its row has it.
	stored int64
	// cursor: in the view, every visible row up to it was known; nil: none yet.
	cursor int64
	view   *view
	loaded bool
	// backlog: the last visit left rows above cursor.
	backlog bool
	known   map[int64][16]byte // returned and not forgotten
}

// view is what a pick saw, and the pick before it: the slots of one pick share it.
type view struct{ at, before snapshot }

// quiet is how long nothing was found until a pick is planned anew each time: one statement
// where byIndex needs two.
const quiet = time.Second

func (r relay) Reader() outlast.OutboxReader {
	return &reader{s: r.store, slots: map[int]*slotReader{}}
}

func (r *reader) Forget(rows []*outlast.Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.picking {
		r.gone = append(r.gone, rows...)
		return
	}
	r.forget(rows)
}

func (r *reader) forget(rows []*outlast.Row) {
	for _, row := range rows {
		if s := r.slots[row.Slot]; s != nil {
			delete(s.known, row.Seq)
		}
	}
}

func (r *reader) Drop(slots []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, slot := range slots {
		delete(r.slots, slot)
	}
}

func (r *reader) Pick(ctx context.Context, held []outlast.Lease, maxRows, maxBytes int) ([]*outlast.Row, error) {
	if len(held) == 0 || maxRows < 1 {
		return nil, nil
	}
	p := &pick{r: r, ctx: ctx, maxRows: maxRows, maxBytes: int64(max(maxBytes, 1))}
	r.begin(p, held)
	defer r.end()
	var rows []*outlast.Row
	err := r.s.conn(ctx, "read the outbox", false, func(c *pgx.Conn) (err error) {
		p.conn = c
		rows, err = p.run()
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// begin takes the slots' memories into the pick, in the order of this turn.
func (r *reader) begin(p *pick, held []outlast.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.picking = true
	sorted := append([]outlast.Lease(nil), held...)
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].Slot != sorted[j].Slot {
			return sorted[i].Slot < sorted[j].Slot
		}
		return sorted[i].Epoch > sorted[j].Epoch
	})
	sorted = slices.CompactFunc(sorted, func(a, b outlast.Lease) bool { return a.Slot == b.Slot }) // the newest counts
	start := sort.Search(len(sorted), func(i int) bool { return sorted[i].Slot >= r.first })
	slots := make([]pickSlot, 0, len(sorted))
	for i := range sorted {
		l := sorted[(start+i)%len(sorted)]
		s := r.slots[l.Slot]
		if s == nil || s.epoch != l.Epoch {
			s = &slotReader{epoch: l.Epoch, known: map[int64][16]byte{}}
			r.slots[l.Slot] = s
		}
		slots = append(slots, pickSlot{slotReader: s, slot: l.Slot})
	}
	p.most = 2*len(slots) >= len(r.slots)
	p.slots = arrange(slots, r.turns%2 == 1)
}

const (
	// lagging is how far behind the foremost backlog, in seqs, a slot is read by turns. A
	// visit takes 64 rows, which are 64,000 seqs of a slot with one key in a thousand.
	lagging = 131_072
	// glances is how many slots with nothing to read may come before one that has: a look
	// costs some microseconds.
	glances = 16
)

// arrange puts slots, given by turns, into the order in which a pick reads them until it is
// full. Where all have a backlog, the one whose next row is oldest comes first. Equal shares
// would let a slot with few rows run ahead through all of the table, and each vacuum would
// then find deleted rows on every page of it (TestABacklogIsReadInItsOrder). Two kinds of
// slots take turns between them, so that a full slot starves nobody
// (TestABacklogStarvesNobody): those that were read to their end, whose next rows are new;
// and those that lag although they always come first, as the slot of a busy key does.
func arrange(slots []pickSlot, turnsFirst bool) []pickSlot {
	foremost, full := int64(0), 0
	for i := range slots {
		s := &slots[i]
		s.byTurn = true
		if s.backlog {
			foremost = max(foremost, s.cursor)
			full++
		}
	}
	if full == 0 {
		return slots
	}
	aged, turns := make([]pickSlot, 0, full), make([]pickSlot, 0, len(slots))
	for _, s := range slots {
		if s.byTurn = !s.backlog || s.cursor < foremost-lagging; s.byTurn {
			turns = append(turns, s)
		} else {
			aged = append(aged, s)
		}
	}
	slices.SortStableFunc(aged, func(a, b pickSlot) int { return cmp.Compare(a.cursor, b.cursor) })
	arranged := slots[:0]
	for len(aged)+len(turns) > 0 {
		if !turnsFirst && len(aged) > 0 {
			arranged, aged = append(arranged, aged[0]), aged[1:]
		}
		turnsFirst = false
		for n := 0; len(turns) > 0 && n < glances; n++ {
			s := turns[0]
			arranged, turns = append(arranged, s), turns[1:]
			if s.backlog {
				break
			}
		}
	}
	return arranged
}

func (r *reader) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.picking = false
	r.forget(r.gone)
	r.gone = nil
}

// remember marks rows as returned. It reports false for one that was before.
func (r *reader) remember(s *slotReader, seq int64, id [16]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := s.known[seq]; ok && known == id {
		return false
	}
	s.known[seq] = id
	return true
}

func (r *reader) knows(s *slotReader, seq int64, id [16]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := s.known[seq]
	return ok && known == id
}

func (r *reader) lowestKnown(s *slotReader) (lowest int64, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq := range s.known {
		if lowest == 0 || seq < lowest {
			lowest = seq
		}
	}
	return lowest, len(s.known)
}

// pacer keeps a chore to a twentieth of the time, and to once in least at most.
type pacer struct{ next time.Time }

const maxPause = time.Minute

func (p *pacer) due(now time.Time) bool { return !now.Before(p.next) }

func (p *pacer) done(now time.Time, took, least time.Duration) {
	p.next = now.Add(min(max(20*took, least), maxPause))
}

func (r *reader) knownRows() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.slots {
		n += len(s.known)
	}
	return n
}
