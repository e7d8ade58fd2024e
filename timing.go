package outlast

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"
)

// jitter returns a random duration from 0 to d: "full jitter", which spreads
// retries best (AWS Architecture Blog, "Exponential Backoff And Jitter").
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// doubling returns first doubled n times, at most limit.
func doubling(first, limit time.Duration, n int) time.Duration {
	d := first
	for ; n > 0 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}

// inRange notes a field outside lo..hi.
func inRange[T cmp.Ordered](bad *fieldErrors, field string, v, lo, hi T) {
	if v < lo || v > hi {
		bad.add(field, fmt.Sprintf("%v..%v", lo, hi), v)
	}
}

// latest is the later of two times.
func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// earliest returns the earlier of two times, where a zero time is no time.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
