package outlast

import "testing"

// A try that nobody listens to costs no allocation.
func TestStepsAllocateNothingWithoutHooks(t *testing.T) {
	c := &Consumer{}
	m := &Message{}
	err := &Error{Code: CodeUnknown}
	n := testing.AllocsPerRun(100, func() {
		c.recorded(m, fate{result: HandledOK}, err)
		c.known(m, SeenHandled)
	})
	if n != 0 {
		t.Errorf("%v allocations for a step that nobody hears; want none", n)
	}
}

type deafHook struct{}

func BenchmarkHooks(b *testing.B) {
	row, lease := &Row{}, Lease{}
	for name, list := range map[string][]Hook{"none": nil, "one that hears other things": {deafHook{}}} {
		b.Run(name, func(b *testing.B) {
			h := &hooks{list: list}
			b.ReportAllocs()
			for b.Loop() {
				if !h.none() {
					eachHook(h, func(h HookSending) { h.OnSending(Try{row, lease, 1}, 0) })
				}
			}
		})
	}
}
