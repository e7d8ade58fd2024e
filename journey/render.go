package journey

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
)

// label is what a person reads of a track: "billing: waiting (failed), attempt 3".
func (t Track) label() string {
	var b strings.Builder
	if t.Group != "" {
		b.WriteString(t.Group + ": ")
	}
	b.WriteString(string(t.State))
	if t.State == NotAsked {
		b.WriteString(", its database was not named")
	}
	if t.Code != "" && !t.State.Final() && t.State != Sent {
		b.WriteString(" (" + t.Code + ")")
	}
	if t.Attempt > 0 && t.State != Handled {
		fmt.Fprintf(&b, ", %d failed", t.Attempt)
	}
	if !t.AsOf.IsZero() {
		b.WriteString(", by the collector as of " + t.AsOf.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// lines are the tracks of a message as people read them, and what is not known.
func (s *Story) lines() []string {
	source := s.Source
	if source == "" {
		source = "?"
	}
	lines := []string{source + ": " + s.Send.label()}
	for _, g := range s.Groups {
		lines = append(lines, g.label())
		if past := s.deaths(g.Group); past != "" {
			lines = append(lines, g.Group+": "+past)
		}
	}
	for _, group := range s.Awaited {
		lost := func(v Verdict) bool { return v.Group == group && v.Kind == Lost }
		if !slices.ContainsFunc(s.Verdicts, lost) {
			lines = append(lines, group+": not seen yet: it is on its way, or in the group's queue")
		}
	}
	for _, v := range s.Verdicts {
		lines = append(lines, strings.ToUpper(string(v.Kind))+": "+v.Text)
	}
	if len(s.Gaps) > 0 {
		lines = append(lines, "unknown: "+strings.Join(s.Gaps, ", ")+" could not be asked")
	}
	if s.Cut != "" {
		lines = append(lines, "unknown: "+s.Cut)
	}
	return lines
}

// deaths tells of the deaths of a message in a group that a person has undone, by the
// facts that are kept; empty when there are none. Each replay is of a dead letter.
func (s *Story) deaths(group string) string {
	var died, last, replayed *outlast.Fact
	n := 0
	for i := range s.Facts { // in order of time
		switch f := &s.Facts[i]; {
		case f.Group != group:
		case f.Kind == outlast.FactFailed:
			died = f
		case f.Kind == outlast.FactReplayed:
			n, last, replayed = n+1, died, f
		}
	}
	if n == 0 {
		return ""
	}
	text := "died once before"
	if n > 1 {
		text = fmt.Sprintf("died %d times before", n)
	}
	if last != nil && last.Detail != "" {
		text += " (last: " + clipped(strings.Join(strings.Fields(last.Detail), " "), 80) + ")"
	}
	return text + ", replayed " + replayed.At.UTC().Format(time.RFC3339)
}

// tone is how bad it is: "ok", "open", "bad" or "unknown". A gap is never ok.
func (s *Story) tone() string {
	tone := "ok"
	open := s.Send.State == Pending || s.Send.State == Held || len(s.Awaited) > 0
	for _, g := range s.Groups {
		switch g.State {
		case Dead:
			return "bad"
		case Handled, Discarded:
		default:
			open = true
		}
	}
	switch {
	case len(s.Verdicts) > 0:
		tone = "bad"
	case !s.Send.State.known() || len(s.Gaps) > 0 || s.Cut != "":
		tone = "unknown"
	case open || len(s.Groups) == 0 && s.Send.State == Sent:
		tone = "open"
	}
	return tone
}

func (s *Story) title() string {
	typ := s.Type()
	if typ == "" {
		typ = "unknown message"
	}
	return typ
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "time unknown"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// WriteMermaid draws the flow as a Mermaid flowchart.
func (f *Flow) WriteMermaid(w io.Writer) error {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	names := map[*Node]string{}
	f.Walk(func(n *Node, _ int) {
		name := fmt.Sprintf("m%d", len(names))
		names[n] = name
		parts := append([]string{n.title(), short(n.ID), clock(n.EnqueuedAt())}, n.lines()...)
		for i := range parts {
			parts[i] = mermaidText(parts[i])
		}
		fmt.Fprintf(&b, "  %s[\"%s\"]:::%s\n", name, strings.Join(parts, "<br/>"), n.tone())
	})
	f.Walk(func(n *Node, _ int) {
		for _, c := range n.Caused {
			fmt.Fprintf(&b, "  %s --> %s\n", names[n], names[c])
		}
	})
	for i, gap := range f.gaps() {
		fmt.Fprintf(&b, "  gap%d[/\"%s: unknown\"/]:::unknown\n", i, mermaidText(gap))
	}
	if f.More {
		fmt.Fprintf(&b, "  more[\"%s\"]:::unknown\n", mermaidText(f.RestText()))
	}
	b.WriteString("  classDef ok fill:#e6f4ea,stroke:#1e7e34\n  classDef open fill:#fff8e1,stroke:#b26a00\n" +
		"  classDef bad fill:#fdecea,stroke:#b00020\n  classDef unknown fill:#eeeeee,stroke:#616161,stroke-dasharray: 4 3\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// mermaidText leaves nothing that Mermaid or HTML could take for its own.
func mermaidText(s string) string {
	var b strings.Builder
	for _, r := range clipped(s, 80) {
		switch {
		case r == '"' || r == '<' || r == '>' || r == '&' || r == '#' || r == '`' || r == '\\' || r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func short(id string) string { return clipped(id, 36) }

func clipped(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

const (
	svgWidth  = 900
	svgIndent = 36
	svgLine   = 17
	svgGap    = 14
)

var tones = map[string][2]string{ // fill and stroke
	"ok": {"#e6f4ea", "#1e7e34"}, "open": {"#fff8e1", "#b26a00"}, "bad": {"#fdecea", "#b00020"}, "unknown": {"#eeeeee", "#616161"},
}

// WriteSVG draws the flow as a picture: a box for each message, below its cause. Boxes
// of which not everything is known are dashed.
func (f *Flow) WriteSVG(w io.Writer) error {
	var body strings.Builder
	y := 34
	bottoms := map[int]int{} // of the last box of each depth
	f.Walk(func(n *Node, depth int) {
		depth = min(depth, 12)
		lines := append([]string{n.title() + "   " + clock(n.EnqueuedAt()), n.ID}, n.lines()...)
		height := svgLine*len(lines) + 12
		x := 16 + svgIndent*depth
		if depth > 0 {
			px := x - svgIndent/2
			fmt.Fprintf(&body, `<path d="M%d %d V%d H%d" fill="none" stroke="#616161"/>`+"\n", px, bottoms[depth-1], y+height/2, x)
		}
		fmt.Fprint(&body, svgBox(x, y, svgWidth-x-16, height, n.tone(), lines))
		bottoms[depth] = y + height
		y += height + svgGap
	})
	for _, gap := range f.gaps() {
		fmt.Fprint(&body, svgBox(16, y, svgWidth-32, svgLine+12, "unknown", []string{gap + ": unknown, it could not be asked"}))
		y += svgLine + 12 + svgGap
	}
	if f.More {
		fmt.Fprint(&body, svgBox(16, y, svgWidth-32, svgLine+12, "unknown", []string{f.RestText()}))
		y += svgLine + 12 + svgGap
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" role="img" aria-label="%s">`+"\n"+
		`<rect width="%d" height="%d" fill="#ffffff"/>`+"\n"+`<text x="16" y="22" font-weight="bold">%s</text>`+"\n%s</svg>\n",
		svgWidth, y, svgText("Flow "+f.ID), svgWidth, y, svgText(fmt.Sprintf("Flow %s: %d messages", clipped(f.ID, 60), f.Count)), body.String())
	return err
}

func svgBox(x, y, width, height int, tone string, lines []string) string {
	var b strings.Builder
	dash := ""
	if tone == "unknown" {
		dash = ` stroke-dasharray="5 3"`
	}
	fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="%s"%s/>`+"\n", x, y, width, height, tones[tone][0], tones[tone][1], dash)
	for i, line := range lines {
		weight := ""
		if i == 0 {
			weight = ` font-weight="bold"`
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d"%s>%s</text>`+"\n", x+8, y+svgLine*(i+1), weight, svgText(clipped(line, 120)))
	}
	return b.String()
}

// svgText is text in XML: escaped, without what XML forbids.
func svgText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == 0xFFFE || r == 0xFFFF {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return html.EscapeString(s)
}

// AsFlow shows found messages, of any flows, as the drawings show a flow.
func (f *Found) AsFlow() *Flow {
	flow := &Flow{ID: f.Asked, At: f.At, Places: f.Places, Count: len(f.Stories), Rest: f.Rest}
	flow.Roots = tree(f.Stories, f.Gaps(), nil)
	return flow
}

// Lines are the tracks of a message in words, with its verdicts and gaps.
func (s *Story) Lines() []string { return s.lines() }
