// Package linklog decides when the state of a connection is worth a line in the log.
package linklog

import (
	"time"

	"github.com/outlastmq/outlast"
)

// again is how long a state lasts until it is told again: an outage of hours must not
// look like silence.
const again = time.Minute

// Log remembers what was told last. Its zero value has told nothing.
type Log struct {
	state outlast.LinkState
	at    time.Time
}

// Due reports whether to tell of a state now: when it has changed or, while a connection
// is down, once a minute. The reason alone is no news: that of a refused connection
// names another port each time.
func (l *Log) Due(state outlast.LinkState) bool {
	if state == l.state && (state == outlast.LinkUp || time.Since(l.at) < again) {
		return false
	}
	l.state, l.at = state, time.Now()
	return true
}
