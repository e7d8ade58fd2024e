package main

import (
	"fmt"
	"io"
	"time"
)

// progressLine tells on stderr how far long work has come: rewritten in place on a
// terminal, or a line every ten seconds with --progress elsewhere.
type progressLine struct {
	w        io.Writer
	inPlace  bool
	deed     string // "published"
	total    int    // 0 when unknown
	began    time.Time
	next     time.Time
	pause    time.Duration
	rendered bool
}

// newProgress returns nil, which is silent, when nobody is there to look.
func (p *program) newProgress(deed string, total int) *progressLine {
	if !p.terminal && !p.progress {
		return nil
	}
	l := &progressLine{w: p.errs, inPlace: p.terminal, deed: deed, total: total, began: time.Now(), pause: 10 * time.Second}
	if l.inPlace {
		l.pause = 200 * time.Millisecond
	}
	l.next = l.began.Add(l.pause)
	return l
}

// update shows how many are done, if it is time to.
func (l *progressLine) update(done int) {
	if l == nil || time.Now().Before(l.next) {
		return
	}
	l.next = time.Now().Add(l.pause)
	l.render(done)
}

func (l *progressLine) render(done int) {
	rate := float64(done) / time.Since(l.began).Seconds()
	text := fmt.Sprintf("%s %s", l.deed, grouped(done))
	if l.total > 0 {
		text += " of " + grouped(l.total)
	}
	text += fmt.Sprintf(", %s/s", grouped(int(rate)))
	if l.total > done && rate > 0 {
		text += ", " + durationText(time.Duration(float64(l.total-done)/rate*float64(time.Second))) + " left"
	}
	if l.inPlace {
		fmt.Fprintf(l.w, "\r\033[K%s", text)
		l.rendered = true
		return
	}
	fmt.Fprintln(l.w, text)
}

// end clears the line, so that the result stands alone; without a terminal it
// leaves the last count.
func (l *progressLine) end(done int) {
	switch {
	case l == nil:
	case l.inPlace && l.rendered:
		fmt.Fprint(l.w, "\r\033[K")
	case !l.inPlace:
		l.render(done)
	}
}
