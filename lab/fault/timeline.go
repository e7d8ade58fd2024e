package fault

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Timeline is what really went wrong, and when. Its methods may be called concurrently.
type Timeline struct {
	log     io.Writer
	start   time.Time
	observe func(name string, on bool) // nil: nobody

	mu    sync.Mutex
	lines []*Line
	marks []mark
}

// Line is one fault that was made. Times count from the start of the timeline.
type Line struct {
	Name string
	Kind string
	Row  string
	// On is when it began to be made, Made when it was there, Ending when it began to be
	// undone, Off when it was gone; zero when that did not come.
	On, Made, Ending, Off time.Duration
	// Err is why it could not be made or undone, or that it struck nothing.
	Err string
}

type mark struct {
	at   time.Duration
	text string
}

// NewTimeline starts a timeline that tells log what happens as it happens.
func NewTimeline(log io.Writer) *Timeline { return &Timeline{log: log, start: time.Now()} }

// Observe has f told when a fault begins and when it has ended. Call it before the faults.
func (t *Timeline) Observe(f func(name string, on bool)) { t.observe = f }

// Start is the instant that a timeline counts from.
func (t *Timeline) Start() time.Time { return t.start }

// Mark notes an event that is no fault: load begins, all healed.
func (t *Timeline) Mark(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = append(t.marks, mark{t.now(), text})
	t.print("%s", text)
}

// Lines returns the faults so far in the order of their beginning.
func (t *Timeline) Lines() []Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := make([]Line, 0, len(t.lines))
	for _, l := range t.lines {
		lines = append(lines, *l)
	}
	return lines
}

// Active names the faults that are on.
func (t *Timeline) Active() []string {
	var names []string
	for _, l := range t.Lines() {
		if l.Off == 0 && l.Err == "" {
			names = append(names, l.Name)
		}
	}
	return names
}

func (t *Timeline) begin(f Fault) *Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &Line{Name: f.Name, Kind: f.Kind, Row: f.Name, On: t.now()}
	if len(f.Hits) > 0 {
		l.Row = f.Hits[0]
	}
	t.lines = append(t.lines, l)
	t.tell(l, true)
	t.print("on   %s", l.Name)
	return l
}

func (t *Timeline) on(l *Line, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.Made = t.now()
	if err != nil {
		l.Err = firstLine(err)
		t.print("     %s: could not be made: %v", l.Name, firstLine(err))
	}
}

func (t *Timeline) missed(l *Line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.Err = "its moment did not come"
	t.print("     %s: %s", l.Name, l.Err)
}

func (t *Timeline) ending(l *Line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.Ending == 0 {
		l.Ending = t.now()
	}
}

func (t *Timeline) off(l *Line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.Off = t.now()
	t.tell(l, false)
	t.print("off  %s", l.Name)
}

func (t *Timeline) failed(l *Line, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.Err = firstLine(err)
	t.print("     %s: could not be ended: %v", l.Name, firstLine(err))
}

func (t *Timeline) tell(l *Line, on bool) {
	if t.observe != nil {
		t.observe(l.Name, on)
	}
}

// firstLine leaves out what a program printed behind its error.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// now and print need t.mu.
func (t *Timeline) now() time.Duration { return time.Since(t.start).Round(time.Millisecond) }

func (t *Timeline) print(format string, args ...any) {
	fmt.Fprintf(t.log, "%8.1fs  %s\n", t.now().Seconds(), fmt.Sprintf(format, args...))
}

// colours by the first word of a fault's name; others are grey.
var colours = map[string]string{
	"kill": "#c0392b", "freeze": "#2980b9", "restart": "#8e44ad", "cut": "#d35400", "stall": "#16a085", "deafen": "#7f8c8d",
	"alarm": "#f39c12", "end": "#e84393", "delete": "#2c3e50", "partition": "#6c5ce7", "lose": "#00a8ff", "fill": "#b33939",
	"silence": "#218c74", "promote": "#cc8e35", "delay": "#227093", "clock": "#ff793f", "isolate": "#6c5ce7",
}

// SVG draws the timeline: a row for each thing that was hit, a bar for each fault.
func (t *Timeline) SVG(title string) string {
	lines := t.Lines()
	t.mu.Lock()
	marks, end := slices.Clone(t.marks), t.now()
	t.mu.Unlock()
	var rows []string
	for _, l := range lines {
		if !slices.Contains(rows, l.Row) {
			rows = append(rows, l.Row)
		}
	}
	slices.Sort(rows)
	const left, top, row, width = 170, 46, 16, 1000
	x := func(at time.Duration) float64 { return left + float64(at)/float64(max(end, time.Second))*width }
	height := top + row*len(rows) + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">`+"\n", left+width+20, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/><text x="8" y="16" font-size="13">%s</text>`+"\n", html.EscapeString(title))
	for i, name := range rows {
		y := top + row*i
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/><text x="8" y="%d">%s</text>`+"\n",
			left, y, width, row, []string{"#f7f7f7", "#efefef"}[i%2], y+row-4, html.EscapeString(name))
	}
	for _, l := range lines {
		drawLine(&b, l, x, top+row*slices.Index(rows, l.Row), row, end)
	}
	for _, m := range marks {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#444" stroke-dasharray="2 3"/><text x="%.1f" y="%d" fill="#444" transform="rotate(-12 %.1f %d)">%s</text>`+"\n",
			x(m.at), x(m.at), top-6, top+row*len(rows), x(m.at), top-9, x(m.at), top-9, html.EscapeString(m.text))
	}
	for _, s := range ticks(end) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#666">%s</text>`+"\n", x(s), height-10, s)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func drawLine(b *strings.Builder, l Line, x func(time.Duration) float64, y, row int, end time.Duration) {
	off := l.Off
	if off == 0 {
		off = end
	}
	word, _, _ := strings.Cut(l.Name, " ")
	colour, known := colours[word]
	if !known {
		colour = "#999999"
	}
	fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" rx="2"><title>%s, %s to %s %s</title></rect>`+"\n",
		x(l.On), y+2, max(x(off)-x(l.On), 2), row-4, colour, html.EscapeString(l.Name), l.On, off, html.EscapeString(l.Err))
	fmt.Fprintf(b, `<text x="%.1f" y="%d" fill="#000" font-size="8" opacity="0.75">%s</text>`+"\n", x(l.On)+1, y+row-5, html.EscapeString(word))
}

func ticks(end time.Duration) []time.Duration {
	step := 10 * time.Second
	for end/step > 12 {
		step *= 2
	}
	var at []time.Duration
	for t := time.Duration(0); t <= end; t += step {
		at = append(at, t)
	}
	return at
}
