package postgres

import (
	"testing"
	"time"
)

func TestMarksThatHaveMovedFarAreStoredSooner(t *testing.T) {
	for _, c := range []struct {
		since, pause time.Duration
		want         int64
	}{
		{time.Hour, 0, 1},
		{2 * time.Second, 3 * time.Second, 0},
		{3 * time.Second, 3 * time.Second, 1},
		{19 * time.Second, longestPause, 0},
		{20 * time.Second, longestPause, lowLag},
		{longestPause - time.Second, longestPause, lowLag},
		{longestPause, longestPause, 1},
	} {
		if got := storeFrom(c.since, c.pause); got != c.want {
			t.Errorf("%v after the last time, with a pause of %v: %d, want %d", c.since, c.pause, got, c.want)
		}
	}
}
