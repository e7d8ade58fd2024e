package postgres

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// history is a run of transactions: each takes an xid, draws seqs, and ends.
type history struct {
	next    uint64
	running []uint64
	ended   []uint64
}

func (h *history) snapshot() snapshot {
	// xmax is one past the highest xid that ended, as in PostgreSQL, not the next one.
	s := snapshot{xmax: 1}
	for _, x := range h.ended {
		s.xmax = max(s.xmax, x+1)
	}
	for _, x := range h.running {
		if x < s.xmax {
			s.xip = append(s.xip, x)
		}
	}
	slices.Sort(s.xip)
	s.xmin = s.xmax
	if len(s.xip) > 0 {
		s.xmin = s.xip[0]
	}
	return s
}

func TestFirstFinishedIsTheOldestThatEndedBetween(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := history{next: 1}
		step := func() {
			if len(h.running) == 0 || rapid.Bool().Draw(t, "begin") {
				h.running = append(h.running, h.next)
				h.next++
				return
			}
			i := rapid.IntRange(0, len(h.running)-1).Draw(t, "end")
			h.ended = append(h.ended, h.running[i])
			h.running = slices.Delete(h.running, i, i+1)
		}
		for range rapid.IntRange(0, 30).Draw(t, "before") {
			step()
		}
		prev, before := h.snapshot(), len(h.ended)
		for range rapid.IntRange(0, 30).Draw(t, "between") {
			step()
		}
		got, ok := firstFinished(prev, h.snapshot())
		between := h.ended[before:]
		if ok != (len(between) > 0) || ok && got != slices.Min(between) {
			t.Fatalf("firstFinished = %d, %v; ended between: %v", got, ok, between)
		}
	})
}

func TestCheckpointsSayTheBestThatIsKnown(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var ring checkpoints
		var all []checkpoint
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			c := checkpoint{xid: uint64(rapid.IntRange(1, 60).Draw(t, "xid")), seq: int64(rapid.IntRange(1, 60).Draw(t, "seq"))}
			ring.add(c)
			all = append(all, c)
		}
		xid := uint64(rapid.IntRange(0, 70).Draw(t, "of"))
		var want int64
		for _, c := range all {
			if c.xid <= xid {
				want = max(want, c.seq)
			}
		}
		if got := ring.below(xid); got != want {
			t.Fatalf("below(%d) = %d, want %d, of %v", xid, got, want, ring.list)
		}
	})
}

func TestCheckpointsReachFarBack(t *testing.T) {
	t.Parallel()
	var ring checkpoints
	const n = 100_000
	for i := range n {
		ring.add(checkpoint{xid: uint64(i + 1), seq: int64(i + 1)})
	}
	if len(ring.list) > maxCheckpoints {
		t.Errorf("%d checkpoints are kept", len(ring.list))
	}
	for _, xid := range []uint64{n, n - 100, n / 2} {
		if got := ring.below(xid); got > int64(xid) || got == 0 && xid > n/2 {
			t.Errorf("below(%d) = %d", xid, got)
		}
	}
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	s, err := parseSnapshot("10:20:10,14,15")
	if err != nil || s.xmin != 10 || s.xmax != 20 || !slices.Equal(s.xip, []uint64{10, 14, 15}) {
		t.Errorf("parseSnapshot = %+v, %v", s, err)
	}
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:2:c"} {
		if _, err := parseSnapshot(bad); err == nil {
			t.Errorf("parseSnapshot(%q) gave no error", bad)
		}
	}
}
