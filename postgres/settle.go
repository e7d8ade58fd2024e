package postgres

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outlastmq/outlast"
)

// refs are rows by name, as statements take them.
type refs struct {
	slots  []int16
	epochs []int64
	seqs   []int64
	ids    []pgtype.UUID
}

func (r *refs) add(row *outlast.Row, epochs map[int]int64) {
	r.slots = append(r.slots, int16(row.Slot))
	r.epochs = append(r.epochs, epochs[row.Slot])
	r.seqs = append(r.seqs, row.Seq)
	r.ids = append(r.ids, pgtype.UUID{Bytes: uuid.MustParse(row.ID), Valid: true})
}

func (r *refs) args() []any { return []any{r.slots, r.epochs, r.seqs, r.ids} }

// sentRows are rows that leave, with what the sent log must know of them.
type sentRows struct {
	refs
	fates   []int16
	withins []int64
	finds   []*string // nil when no row has any
	keySeqs []int64
	keys    []string
}

func (r *sentRows) add(row *outlast.Row, fate outlast.Fate, epochs map[int]int64) {
	r.refs.add(row, epochs)
	r.fates = append(r.fates, int16(fate))
	r.withins = append(r.withins, micros(row.Within))
	if len(row.Find) == 0 {
		return
	}
	if text, err := json.Marshal(row.Find); err == nil {
		// As long as up to this row: the server takes what is missing at the end for NULL.
		r.finds = append(append(r.finds, make([]*string, len(r.seqs)-1-len(r.finds))...), new(string(text)))
	}
	for _, value := range row.Find {
		r.keySeqs, r.keys = append(r.keySeqs, row.Seq), append(r.keys, value)
	}
}

func (r *sentRows) tracked() []any {
	return append(r.args(), r.fates, r.withins, r.finds, r.keySeqs, r.keys)
}

// holds are rows with the reason why they wait.
type holds struct {
	refs
	reasons, exchanges, types, errors []string
	waits                             []int64
	attempts                          []int32
}

func (h *holds) add(hold outlast.Hold, epochs map[int]int64) {
	h.refs.add(hold.Row, epochs)
	route := hold.Row.Route()
	wait := int64(-1)
	if hold.Wait >= 0 {
		wait = micros(hold.Wait)
	}
	h.reasons = append(h.reasons, string(hold.Reason))
	h.exchanges = append(h.exchanges, route.Exchange)
	h.types = append(h.types, route.Type)
	h.waits = append(h.waits, wait)
	h.attempts = append(h.attempts, int32(min(hold.Attempts, 1<<30)))
	h.errors = append(h.errors, outlast.CleanErrorText(hold.Error))
}

func (h *holds) args() []any {
	return append(h.refs.args(), h.reasons, h.exchanges, h.types, h.waits, h.attempts, h.errors)
}

// failures are the rows that failed by themselves: that is a fact of the message, and
// the next try overwrites it. Waiting for a route, a time or another message is none.
func (all *holds) failures() (slots []int32, epochs []int64, ids []string, attempts []int32, reasons, errors []string) {
	for i, reason := range all.reasons {
		switch outlast.HeldReason(reason) {
		case outlast.HeldBackoff, outlast.HeldRefused:
			slots, epochs, ids = append(slots, int32(all.slots[i])), append(epochs, all.epochs[i]), append(ids, all.ids[i].String())
			attempts, reasons, errors = append(attempts, all.attempts[i]), append(reasons, reason), append(errors, all.errors[i])
		}
	}
	return
}

// Settle sends all its statements at once, and they commit together: one way to the
// server and back.
func (s relay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	seen := s.facts.seen() // before our transaction has its xid
	var locked []int
	var xid string
	err := s.conn(ctx, "settle", true, func(c *pgx.Conn) error {
		track, err := s.tracks(ctx, c, set)
		if err != nil {
			return definite{err}
		}
		batch := s.settlement(set, track)
		results := c.SendBatch(ctx, batch)
		if _, err = results.Exec(); err == nil {
			err = results.QueryRow().Scan(&locked, &xid)
		}
		for i := 2; err == nil && i < batch.Len(); i++ {
			_, err = results.Exec()
		}
		if closing := results.Close(); err == nil {
			err = closing
		}
		return err
	})
	if err != nil {
		s.journal.doubt(err)
		return nil, err
	}
	if x, err := strconv.ParseUint(xid, 10, 64); err == nil {
		s.facts.learn(x, seen)
	}
	current := make(map[int]bool, len(locked))
	for _, slot := range locked {
		current[slot] = true
	}
	var stale []outlast.Lease
	for _, l := range set.Leases {
		if !current[l.Slot] {
			stale = append(stale, l)
		}
	}
	return stale, nil
}

func (s relay) settlement(set *outlast.Settlement, track bool) *pgx.Batch {
	epochs := make(map[int]int64, len(set.Leases))
	slots := make([]int32, len(set.Leases))
	numbers := make([]int64, len(set.Leases))
	for i, l := range set.Leases {
		epochs[l.Slot], slots[i], numbers[i] = l.Epoch, int32(l.Slot), l.Epoch
	}
	var sent, sentHeld sentRows
	var release refs
	var hold, holdAgain holds
	fenced := func(row *outlast.Row) bool { _, ok := epochs[row.Slot]; return ok }
	for i, row := range set.Sent {
		fate := outlast.FateSent
		if i < len(set.Fates) {
			fate = set.Fates[i]
		}
		switch {
		case !fenced(row):
		case row.InHeld:
			sentHeld.add(row, fate, epochs)
		default:
			sent.add(row, fate, epochs)
		}
	}
	for _, h := range set.Hold {
		if !fenced(h.Row) {
			continue
		}
		holdAgain.add(h, epochs) // it may be held already without InHeld: a repeat
		if !h.Row.InHeld {
			hold.add(h, epochs)
		}
	}
	for _, row := range set.Release {
		if fenced(row) {
			release.add(row, epochs)
		}
	}
	batch := &pgx.Batch{}
	s.byIndex(batch, "settle_lock", slots, numbers)
	queue := func(name string, n int, args []any) {
		if n > 0 {
			batch.Queue(s.sql.Get(name), args...)
		}
	}
	if track {
		queue("settle_sent_tracked", len(sent.ids), sent.tracked())
		queue("settle_sent_tracked", len(sentHeld.ids), sentHeld.tracked())
	} else {
		queue("settle_sent", len(sent.ids), sent.args())
		queue("settle_sent_held", len(sentHeld.ids), sentHeld.args())
	}
	queue("settle_hold_again", len(holdAgain.ids), holdAgain.args())
	queue("settle_hold", len(hold.ids), hold.args())
	if track {
		slots, epochs, ids, attempts, reasons, errors := holdAgain.failures()
		queue("fact_hold", len(ids), []any{slots, epochs, ids, attempts, reasons, errors})
	}
	queue("settle_release", len(release.ids), release.args())
	return batch
}
