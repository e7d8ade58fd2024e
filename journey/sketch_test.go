package journey

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSketchRecovers(t *testing.T) {
	t.Parallel()
	failed := 0
	const rounds = 60
	for round := range rounds {
		left, right := &Sketch{}, &Sketch{}
		missing := map[uint64]bool{}
		for i := range 5000 {
			id := fmt.Sprintf("%d-%d", round, i)
			left.Add(id)
			if i%50 == 7 { // 100 ids
				missing[Hash(id)] = true
				continue
			}
			right.Add(id)
		}
		left.Subtract(right)
		in, out, ok := left.Decode()
		if !ok {
			failed++
			continue
		}
		if len(out) != 0 || len(in) != len(missing) {
			t.Fatalf("recovered %d and %d ids, %d are missing", len(in), len(out), len(missing))
		}
		for h := range missing {
			if !in[h] {
				t.Fatalf("the id with hash %x is not among the recovered", h)
			}
		}
	}
	if failed > 0 {
		t.Errorf("100 missing ids were not recovered in %d of %d rounds", failed, rounds)
	}
}

// TestSketchSubtracts: what is left of two sets is their difference, in both directions,
// or the sketch says that it cannot tell.
func TestSketchSubtracts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		common := rapid.SliceOfDistinct(rapid.String(), rapid.ID[string]).Draw(t, "common")
		onlyLeft := rapid.IntRange(0, 150).Draw(t, "left")
		onlyRight := rapid.IntRange(0, 150).Draw(t, "right")
		left, right := &Sketch{}, &Sketch{}
		for _, id := range common {
			left.Add(id)
			right.Add(id)
		}
		in, out := map[uint64]bool{}, map[uint64]bool{}
		for i := range onlyLeft {
			id := outlast.NewID() + fmt.Sprint("l", i)
			left.Add(id)
			in[Hash(id)] = true
		}
		for i := range onlyRight {
			id := outlast.NewID() + fmt.Sprint("r", i)
			right.Add(id)
			out[Hash(id)] = true
		}
		left.Subtract(right)
		if left.Empty() != (onlyLeft+onlyRight == 0) {
			t.Fatalf("empty is %v with %d and %d ids left", left.Empty(), onlyLeft, onlyRight)
		}
		gotIn, gotOut, ok := left.Decode()
		if !ok {
			if onlyLeft+onlyRight <= 60 {
				t.Fatalf("%d ids were not recovered", onlyLeft+onlyRight)
			}
			return
		}
		if len(gotIn) != len(in) || len(gotOut) != len(out) {
			t.Fatalf("recovered %d and %d, want %d and %d", len(gotIn), len(gotOut), len(in), len(out))
		}
		for h := range in {
			if !gotIn[h] {
				t.Fatal("an id is missing among the recovered")
			}
		}
		for h := range out {
			if !gotOut[h] {
				t.Fatal("a subtracted id is missing among the recovered")
			}
		}
	})
}

// TestSketchKnowsTwice: a message that was sent twice and seen once stays a suspect.
func TestSketchKnowsTwice(t *testing.T) {
	t.Parallel()
	left, right := &Sketch{}, &Sketch{}
	for _, id := range []string{"a", "b", "b"} {
		left.Add(id)
	}
	right.Add("a")
	right.Add("b")
	left.Subtract(right)
	if in, _, ok := left.Decode(); !ok || !in[Hash("b")] || len(in) != 1 {
		t.Errorf("recovered %v, %v", in, ok)
	}
}
