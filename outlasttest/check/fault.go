package check

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/history"
)

// faults follows what is broken, and what should work again.
type faults struct {
	on       map[string]int64
	last     int64 // when the last one ended or struck
	n        int
	links    map[linkOf]*linkState
	business [2]latency // of commits: in peace, and while the broker is down
}

type linkOf struct {
	process *history.Process
	name    string
}

type linkState struct {
	up      bool
	stopped bool
	changed int64
}

func newFaults() faults {
	return faults{on: map[string]int64{}, links: map[linkOf]*linkState{}}
}

func (f *faults) strike(at int64) {
	f.n++
	f.last = max(f.last, at)
}

func (f *faults) forget(p *history.Process, atRest bool) {
	if atRest {
		return // what did not come back has not
	}
	for l := range f.links {
		if l.process == p {
			delete(f.links, l)
		}
	}
}

func (f *faults) has(what string) bool {
	for name := range f.on {
		if strings.HasPrefix(name, what) {
			return true
		}
	}
	return false
}

func (c *checker) fault(e *history.Entry) {
	if c.quiesced != 0 {
		return // the processes are ended
	}
	f := &c.faults
	f.strike(e.T)
	c.clockSet = c.clockSet || strings.HasPrefix(e.Name, "clock")
	switch e.O {
	case history.On:
		f.on[e.Name] = e.T
	case history.Off:
		delete(f.on, e.Name)
	}
}

func (c *checker) link(e *history.Entry) {
	if e.Name == outlast.WakeUpsLink {
		return // nothing waits for it
	}
	key := linkOf{e.Process, e.Name}
	l := c.faults.links[key]
	if l == nil {
		l = &linkState{}
		c.faults.links[key] = l
	}
	if e.O == "blocked" {
		c.rare[rareBlocked]++
	}
	l.up, l.stopped, l.changed = e.O == "up", e.Why == "stopped", e.T
}

// committed takes the end of a business transaction.
func (f *faults) committed(c *checker, e *history.Entry, t *transaction) {
	down := f.has("broker")
	switch {
	case t.commit == ok && t.began != 0:
		at := 0
		if down {
			at = 1
			c.tested[14]++
		}
		f.business[at].add(e.T - t.began)
	case e.O == history.Fail && down && !f.has("database") && !f.has("producer"):
		c.violated(14, Example{tx: idOf(e.Tx), at: e.T}, "the commit of a business transaction failed while only the broker was down: %s", e.Error)
	}
}

// latency counts by powers of two of a microsecond.
type latency [40]int

func (l *latency) add(ns int64) { l[min(bits.Len64(uint64(max(ns, 0)/1000)), len(l)-1)]++ }

func (l *latency) n() (n int) {
	for _, k := range l {
		n += k
	}
	return n
}

// p99 is the bound below which 99 in 100 are.
func (l *latency) p99() time.Duration {
	n, sum := l.n(), 0
	for i, k := range l {
		if sum += k; sum*100 >= n*99 {
			return time.Duration(1<<i) * time.Microsecond
		}
	}
	return 0
}

// liveness judges how the system came to rest.
func (c *checker) liveness() {
	f := &c.faults
	if c.quiesced == 0 {
		c.notes[13] = "the history has no quiesce: nobody waited for the end"
		return
	}
	if f.n == 0 {
		c.notes[13] = "there was no fault to recover from"
		return
	}
	took := time.Duration(c.quiesced - f.last)
	c.tested[13]++
	c.notes[13] = fmt.Sprintf("at rest %v after the last fault", took.Round(time.Millisecond))
	switch {
	case c.quiesce != history.OK:
		c.violated(13, Example{at: c.quiesced}, "it did not come to rest within the %v after the last fault that it was given", took.Round(time.Millisecond))
	case took > c.opt.Recover:
		c.violated(13, Example{at: c.quiesced}, "it took %v after the last fault to come to rest; the limit is %v", took.Round(time.Millisecond), c.opt.Recover)
	}
	for l, s := range f.links {
		if !s.up && !s.stopped && s.changed < c.quiesced {
			c.violated(13, Example{at: c.quiesced}, "%s %d never came back to %s", l.process.Name, l.process.PID, l.name)
		}
	}
}

// gauge is the first and the last value of a number.
type gauge struct {
	first, last float64
	n           int
	at          int64
}

func (c *checker) gauge(e *history.Entry) {
	key := fmt.Sprintf("%s of %s %d", e.Name, e.Process.Name, e.Process.PID)
	g := c.gauges[key]
	if g == nil {
		g = &gauge{first: e.Value}
		c.gauges[key] = g
	}
	g.last, g.at = e.Value, e.T
	g.n++
}

// mayGrow is what a number may be in the end: half as much again, and ten for what comes and
// goes with the moment. A leak that is smaller shows only in a longer run.
func mayGrow(first float64) float64 { return 1.5*first + 10 }

// resources compares the last value of each number with its first. What it was in between
// is not judged.
func (c *checker) resources() {
	var most string
	for _, name := range slices.Sorted(maps.Keys(c.gauges)) {
		g := c.gauges[name]
		if g.n < 2 {
			continue
		}
		c.tested[18]++
		if most == "" || g.last-g.first > c.gauges[most].last-c.gauges[most].first {
			most = name
		}
		if g.last > mayGrow(g.first) {
			c.violated(18, Example{at: g.at}, "%s: %g at first, %g in the end; the limit is %g", name, g.first, g.last, mayGrow(g.first))
		}
	}
	if most == "" {
		c.notes[18] = "no process told a number of its resources twice"
		return
	}
	c.notes[18] = fmt.Sprintf("%d numbers compared; the one that grew most, %s, was %g at first and %g in the end", c.tested[18], most, c.gauges[most].first, c.gauges[most].last)
}
