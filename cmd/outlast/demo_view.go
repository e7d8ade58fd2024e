package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// demoView shows what happens: events as they come, and the state of the shop as a
// board that is redrawn on a terminal, else as one line a second.
type demoView struct {
	out      io.Writer
	terminal bool
	begin    time.Time

	mu    sync.Mutex
	board string // what stands below the events now
	last  *snapshot
	at    time.Time
	was   int // orders accepted at the last show
	most  int // the longest backlog shown
}

// newDemoView writes to stdout, which with --json belongs to the report alone.
func newDemoView(p *program) *demoView {
	v := &demoView{out: p.out, begin: time.Now()}
	if p.json {
		v.out = p.errs
	}
	if f, ok := v.out.(*os.File); ok {
		v.terminal = isTerminal(f)
	}
	return v
}

// say writes a line above the board.
func (v *demoView) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	board := v.board
	v.erase()
	fmt.Fprintf(v.out, format+"\n", args...)
	v.draw(board)
}

// event writes what happened, with the time.
func (v *demoView) event(format string, args ...any) {
	v.say("%s  %s", v.clock(), fmt.Sprintf(format, args...))
}

func (v *demoView) clock() string {
	s := int(time.Since(v.begin).Seconds())
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// show shows the state of the shop.
func (v *demoView) show(s *snapshot, accepted, refused int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	rate := func(n, before int) string {
		if v.last == nil {
			return "0/s"
		}
		return fmt.Sprintf("%.0f/s", float64(n-before)/now.Sub(v.at).Seconds())
	}
	v.most = max(v.most, s.backlog)
	orders := fmt.Sprintf("orders accepted %s (%s)", grouped(accepted), rate(accepted, v.was))
	if refused > 0 {
		orders += fmt.Sprintf(", refused %s", grouped(refused))
	}
	if v.terminal {
		v.erase()
		v.draw(v.boardOf(s, orders, rate))
	} else {
		fmt.Fprintf(v.out, "%s  %s; outbox %s; handled: %s\n", v.clock(), orders, grouped(s.backlog), servicesLine(s))
	}
	v.last, v.at, v.was = s, now, accepted
}

func (v *demoView) boardOf(s *snapshot, orders string, rate func(n, before int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s  %s\n", v.clock(), orders)
	fmt.Fprintf(&b, "outbox backlog %8s  %s\n", grouped(s.backlog), bar(s.backlog, v.most, 40))
	for i, c := range s.services {
		before := 0
		if v.last != nil {
			before = v.last.services[i].handled
		}
		fmt.Fprintf(&b, "  %-14s %8s handled %8s", c.name, grouped(c.handled), rate(c.handled, before))
		if c.retry > 0 {
			fmt.Fprintf(&b, "   %d to retry", c.retry)
		}
		if c.dead > 0 {
			fmt.Fprintf(&b, "   %d dead", c.dead)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func servicesLine(s *snapshot) string {
	var parts []string
	retry, dead := 0, 0
	for _, c := range s.services {
		parts = append(parts, c.name+" "+grouped(c.handled))
		retry += c.retry
		dead += c.dead
	}
	return fmt.Sprintf("%s; to retry %d; dead %d", strings.Join(parts, ", "), retry, dead)
}

// bar draws n of most.
func bar(n, most, width int) string {
	full := 0
	if most > 0 {
		full = (n*width + most - 1) / most
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// finish leaves the board where it is.
func (v *demoView) finish() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.board = ""
}

func (v *demoView) draw(board string) {
	if board != "" {
		fmt.Fprint(v.out, board)
	}
	v.board = board
}

// erase removes the board: up by its lines, then everything below the cursor.
func (v *demoView) erase() {
	if v.board != "" {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", strings.Count(v.board, "\n"))
	}
	v.board = ""
}
