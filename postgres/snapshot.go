package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// snapshot is what pg_current_snapshot() says: transactions below xmax that are not
// among xip had finished when it was taken.
type snapshot struct {
	xmin, xmax uint64
	xip        []uint64 // ascending
	text       string   // as the server wrote it
}

// parseSnapshot reads "xmin:xmax:xip,xip,...".
func parseSnapshot(text string) (snapshot, error) {
	s := snapshot{text: text}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("snapshot %q: want xmin:xmax:xip", text)
	}
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return s, fmt.Errorf("snapshot %q: %w", text, err)
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, fmt.Errorf("snapshot %q: %w", text, err)
	}
	if parts[2] == "" {
		return s, nil
	}
	for x := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return s, fmt.Errorf("snapshot %q: %w", text, err)
		}
		s.xip = append(s.xip, xid)
	}
	slices.Sort(s.xip)
	return s, nil
}

func (s snapshot) running(xid uint64) bool {
	_, found := slices.BinarySearch(s.xip, xid)
	return found
}

// firstFinished returns the smallest xid of the transactions that had not finished
// at prev and have at now: what is new at now was written by it or by later ones.
// ok is false when none finished.
func firstFinished(prev, now snapshot) (xid uint64, ok bool) {
	for _, x := range prev.xip {
		if !now.running(x) {
			return x, true // xip lies below xmax
		}
	}
	for x := prev.xmax; x < now.xmax; x++ {
		if !now.running(x) {
			return x, true
		}
	}
	return 0, false
}

// guessFinished is a likely firstFinished of prev and a snapshot yet to be taken: it
// leaves out transactions that were running at old already, as they may go on for long.
func guessFinished(old, prev snapshot) uint64 {
	for _, x := range prev.xip {
		if !old.running(x) {
			return x
		}
	}
	return prev.xmax
}

// checkpoint says that every seq drawn by a transaction with an xid of at least xid
// is above seq. It holds when xid was assigned after seq had been seen: an outbox
// row's transaction gets its xid before it draws its seq, and xids and seqs only grow.
type checkpoint struct {
	xid uint64
	seq int64
}

const maxCheckpoints = 1024

// checkpoints are ascending in both xid and seq.
type checkpoints struct{ list []checkpoint }

// add keeps c unless another one says as much. When there are too many, every second
// one of the older half goes, so that they reach far back.
func (r *checkpoints) add(c checkpoint) {
	i, found := slices.BinarySearchFunc(r.list, c, func(a, b checkpoint) int {
		switch {
		case a.xid < b.xid:
			return -1
		case a.xid > b.xid:
			return 1
		}
		return 0
	})
	if found {
		r.list[i].seq = max(r.list[i].seq, c.seq)
	} else {
		if i > 0 && r.list[i-1].seq >= c.seq {
			return
		}
		r.list = slices.Insert(r.list, i, c)
	}
	last := i + 1
	for last < len(r.list) && r.list[last].seq <= r.list[i].seq {
		last++
	}
	r.list = slices.Delete(r.list, i+1, last)
	if len(r.list) <= maxCheckpoints {
		return
	}
	kept := r.list[:0]
	for j, old := range r.list {
		if j >= maxCheckpoints/2 || j%2 == 0 {
			kept = append(kept, old)
		}
	}
	r.list = kept
}

// below returns a seq that every seq drawn by a transaction with an xid of at least
// xid is above: 0 when nothing better is known.
func (r *checkpoints) below(xid uint64) int64 {
	i, found := slices.BinarySearchFunc(r.list, xid, func(c checkpoint, xid uint64) int {
		switch {
		case c.xid < xid:
			return -1
		case c.xid > xid:
			return 1
		}
		return 0
	})
	if found {
		return r.list[i].seq
	}
	if i == 0 {
		return 0
	}
	return r.list[i-1].seq
}
