package fault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/outlastmq/outlast/lab/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds hit one of three things each.
func kinds(names ...string) []fault.Kind {
	var all []fault.Kind
	for _, name := range names {
		all = append(all, fault.Kind{Name: name, Shortest: time.Second, Longest: 10 * time.Second, Draw: func(r *rand.Rand) fault.Fault {
			thing := fmt.Sprintf("thing %d", r.IntN(3))
			return fault.Fault{Name: name + " " + thing, Hits: []string{thing}}
		}})
	}
	return all
}

type drawn struct {
	at, lasts time.Duration
	name      string
}

func outline(plan []fault.Step) []drawn {
	var all []drawn
	for _, s := range plan {
		all = append(all, drawn{s.At, s.For, s.Fault.Name})
	}
	return all
}

func TestPlan(t *testing.T) {
	t.Parallel()
	storm := fault.Storm{Length: 5 * time.Minute, Most: 3}
	t.Run("is_the_same_for_the_same_seed_and_another_for_another", func(t *testing.T) {
		t.Parallel()
		a, b := outline(fault.Plan(7, kinds("kill", "cut"), storm)), outline(fault.Plan(7, kinds("kill", "cut"), storm))
		if len(a) < 20 || !reflect.DeepEqual(a, b) {
			t.Errorf("two plans of one seed, %d and %d steps", len(a), len(b))
		}
		if reflect.DeepEqual(a, outline(fault.Plan(8, kinds("kill", "cut"), storm))) {
			t.Error("another seed gives the same plan")
		}
	})
	t.Run("never_hits_one_thing_twice_at_once_nor_too_many", func(t *testing.T) {
		t.Parallel()
		overlaps := 0
		for seed := range uint64(50) {
			plan := fault.Plan(seed, kinds("kill", "cut"), storm)
			for i, s := range plan {
				on := 0
				for _, before := range plan[:i] {
					if before.At+before.For <= s.At {
						continue
					}
					on++
					if before.Fault.Hits[0] == s.Fault.Hits[0] {
						t.Fatalf("seed %d: %s and %s overlap", seed, before.Fault.Name, s.Fault.Name)
					}
				}
				overlaps += on
				if on >= 3 || s.At+s.For > storm.Length {
					t.Fatalf("seed %d: %d are on when %s begins at %s for %s", seed, on, s.Fault.Name, s.At, s.For)
				}
			}
		}
		if overlaps == 0 {
			t.Error("nothing ever overlapped")
		}
	})
	t.Run("brings_every_kind_that_can_be_made_here", func(t *testing.T) {
		t.Parallel()
		all := kinds("a", "b", "c", "d", "e")
		all[4].Lacks = "no such server"
		var names []string
		for _, s := range fault.Plan(3, all, storm) {
			names = append(names, s.Fault.Name[:1])
		}
		for i, want := range []string{"a", "b", "c", "d", "e"} {
			if slices.Contains(names, want) != (i < 4) {
				t.Errorf("plan has %q: %v", want, i >= 4)
			}
		}
	})
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("undoes_what_it_did_and_tries_until_it_is_undone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			var calls []string
			tries := 0
			f := fault.Fault{Name: "kill it", Hits: []string{"it"},
				On: func(context.Context) error { calls = append(calls, "on"); return nil },
				Off: func(context.Context) error {
					if tries++; tries < 3 {
						return errors.New("not yet")
					}
					calls = append(calls, "off")
					return nil
				}}
			line := fault.NewTimeline(&log)
			if err := fault.Run(t.Context(), []fault.Step{{At: time.Second, For: 5 * time.Second, Fault: f}}, line, time.Minute); err != nil {
				t.Fatal(err)
			}
			got := line.Lines()
			if !slices.Equal(calls, []string{"on", "off"}) || len(got) != 1 || got[0].On != time.Second || got[0].Off != 8*time.Second {
				t.Errorf("calls %v, lines %+v", calls, got)
			}
			if svg := line.SVG("seed 1"); !strings.Contains(log.String(), "off  kill it") || !strings.Contains(svg, "kill it, 1s to 8s") {
				t.Errorf("log %q", log.String())
			}
		})
	})
	t.Run("undoes_everything_at_once_when_its_context_ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var mu sync.Mutex
			on := 0
			change := func(by int) func(context.Context) error {
				return func(context.Context) error { mu.Lock(); defer mu.Unlock(); on += by; return nil }
			}
			f := fault.Fault{Name: "stall", On: change(1), Off: change(-1)}
			line := fault.NewTimeline(&bytes.Buffer{})
			plan := []fault.Step{{0, time.Hour, f}, {time.Second, time.Hour, f}, {time.Minute, time.Hour, f}}
			if err := fault.Run(ctx, plan, line, time.Minute); err != nil || on != 0 || len(line.Lines()) != 2 {
				t.Errorf("%v; %d are on, %d were made; want 0 and 2", err, on, len(line.Lines()))
			}
		})
	})
	t.Run("waits_for_what_is_still_being_undone_or_leaves_the_fault_out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			slow := func(context.Context) error { time.Sleep(20 * time.Second); return nil }
			quick := func(context.Context) error { return nil }
			step := func(at, lasts time.Duration, off func(context.Context) error) fault.Step {
				return fault.Step{At: at, For: lasts, Fault: fault.Fault{Name: at.String(), Hits: []string{"it"}, On: quick, Off: off}}
			}
			line := fault.NewTimeline(&bytes.Buffer{})
			plan := []fault.Step{step(0, time.Second, slow), step(5*time.Second, 10*time.Second, quick), step(6*time.Second, time.Minute, quick)}
			if err := fault.Run(t.Context(), plan, line, time.Minute); err != nil {
				t.Fatal(err)
			}
			if got := line.Lines(); len(got) != 2 || got[1].Name != "6s" || got[1].On != 21*time.Second {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("tells_of_a_fault_that_cannot_be_undone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			never := func(context.Context) error { return errors.New("never") }
			line := fault.NewTimeline(&bytes.Buffer{})
			err := fault.Run(t.Context(), []fault.Step{{0, time.Second, fault.Fault{Name: "x", On: never, Off: never}}}, line, time.Minute)
			if err == nil || line.Lines()[0].Err == "" {
				t.Errorf("%v, %+v", err, line.Lines())
			}
		})
	})
}
