package outlast

import (
	"testing"
	"time"
)

// Without the first publish's answer a message is published again while the publisher may
// still read the first: whatever is known by then, the message stays as it was sent.
func TestAMessageIsNotWrittenAfterItsFirstPublish(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ first, second, want int64 }{{0, 5, 0}, {5, 9, 5}, {5, 0, 5}} {
		r := &relayRun{Relay: &Relay{}}
		r.flights.init(1)
		f := &flight{row: &Row{}, route: &routeState{}}
		for _, before := range []int64{c.first, c.second} {
			r.before.Store(before)
			r.send(time.Now(), f, 0)
		}
		want := time.Time{}
		if c.want != 0 {
			want = time.UnixMicro(c.want)
		}
		if got := f.row.SettledBefore; !got.Equal(want) {
			t.Errorf("first %d, then %d: it says %v, want %v", c.first, c.second, got, want)
		}
	}
}
