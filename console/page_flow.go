package console

import (
	"context"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// flowData is one flow, and the pictures of it.
type flowData struct {
	ID       string
	As       string // "timeline", "sequence" or "graph"
	Before   string // the page
	Flow     *journey.Flow
	Rows     []flowRow
	Hidden   int // by the person's permissions
	Aside    int // causes that are on other pages
	Width    int
	Height   int
	Lanes    []lane
	Arrows   []arrow
	Lines    []line
	From, To time.Time
}

// flowRow is one message of the flow: a line of the table and a box of the pictures.
type flowRow struct {
	*journey.Story
	Depth   int
	Aside   bool
	X, Y, W int
	Marks   []mark
	Tone    string
}

type mark struct {
	X     int
	Tone  string
	Label string
}

type lane struct {
	X    int
	Name string
}

type arrow struct {
	X1, X2, Y int
	Back      bool
	Tone      string
	Label, ID string
}

type line struct{ X1, Y1, X2, Y2 int }

const (
	flowSize  = 100 // messages of a page; with the cause of each a picture still holds them
	drawWidth = 960
	rowHeight = 34
)

func (x *Console) flow(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	d := &flowData{ID: r.FormValue("id"), As: r.FormValue("as"), Width: drawWidth}
	if d.As == "" {
		d.As = "timeline"
	}
	if d.As != "timeline" && d.As != "sequence" && d.As != "graph" {
		return nil, invalid("as", "timeline, sequence or graph", "another text")
	}
	if d.ID == "" || len(d.ID) > outlast.MaxAttribute || !utf8.ValidString(d.ID) {
		return nil, invalid("id", "the id of a flow or a message", "another text")
	}
	a, err := x.paged(r, flowSize)
	if err != nil {
		return nil, err
	}
	d.Before = a.Before
	flow, err := a.Flow(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	x.redact(flow.Places)
	d.Flow = flow
	flow.Walk(func(n *journey.Node, depth int) {
		if !seen(n.Story, who) {
			d.Hidden++
			return
		}
		d.Rows = append(d.Rows, flowRow{Story: n.Story, Depth: depth, Aside: n.Aside, Tone: toneOf(n.Story)})
		if n.Aside {
			d.Aside++
		}
	})
	switch d.As {
	case "timeline":
		d.timeline()
	case "sequence":
		d.sequence()
	case "graph":
		d.graph()
	}
	return &view{Title: "Flow", Template: "flow", Data: d}, nil
}

func trackTone(s journey.State) string {
	switch s {
	case journey.Handled, journey.Sent, journey.Unheard:
		return "ok"
	case journey.Dead:
		return "bad"
	case journey.Unknown, journey.NotAsked:
		return "unknown"
	}
	return "open"
}

// toneOf is how bad it is. What is not known is never fine.
func toneOf(s *journey.Story) string {
	tone := trackTone(s.Send.State)
	for _, g := range s.Groups {
		if t := trackTone(g.State); t == "bad" || tone == "ok" {
			tone = t
		}
	}
	switch {
	case len(s.Verdicts) > 0:
		return "bad"
	case (len(s.Gaps) > 0 || s.Cut != "") && tone == "ok":
		return "unknown"
	case s.Send.State == journey.Sent && len(s.Groups) == 0 && tone == "ok":
		return "open"
	}
	return tone
}

// timeline puts each message on a line of its own, from its enqueue to what became of it.
func (d *flowData) timeline() {
	const left = 300
	for _, row := range d.Rows {
		for _, t := range append([]time.Time{row.EnqueuedAt(), row.Send.Since}, times(row.Groups)...) {
			if !t.IsZero() && (d.From.IsZero() || t.Before(d.From)) {
				d.From = t
			}
			if t.After(d.To) {
				d.To = t
			}
		}
	}
	span := max(d.To.Sub(d.From), time.Millisecond)
	at := func(t time.Time) int {
		if t.IsZero() {
			return left
		}
		return left + int(float64(drawWidth-left-20)*float64(t.Sub(d.From))/float64(span))
	}
	for i := range d.Rows {
		row := &d.Rows[i]
		row.Y = 30 + i*rowHeight
		row.X = at(row.EnqueuedAt())
		last := max(row.X, at(row.Send.Since))
		row.Marks = append(row.Marks, mark{at(row.Send.Since), trackTone(row.Send.State), row.Source + ": " + string(row.Send.State) + " " + clock(row.Send.Since)})
		for _, g := range row.Groups {
			row.Marks = append(row.Marks, mark{at(g.Since), trackTone(g.State), g.Group + ": " + string(g.State) + " " + clock(g.Since)})
			last = max(last, at(g.Since))
		}
		row.W = max(2, last-row.X)
	}
	d.Height = 30 + len(d.Rows)*rowHeight + 10
}

func times(tracks []journey.Track) (list []time.Time) {
	for _, t := range tracks {
		list = append(list, t.Since)
	}
	return list
}

// sequence draws services and groups as lanes, and each message as arrows between them.
func (d *flowData) sequence() {
	const top = 50
	var names []string
	of := func(name string) int {
		if name == "" {
			name = "?"
		}
		i := slices.Index(names, name)
		if i < 0 {
			i = len(names)
			names = append(names, name)
		}
		return i
	}
	type step struct {
		from, to int
		at       time.Time
		tone     string
		row      *flowRow
	}
	var steps []step
	for i := range d.Rows {
		row := &d.Rows[i]
		from := of(row.Source)
		if len(row.Groups) == 0 {
			steps = append(steps, step{from, from, row.EnqueuedAt(), toneOf(row.Story), row})
		}
		for _, g := range row.Groups {
			steps = append(steps, step{from, of(g.Group), g.Since, trackTone(g.State), row})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return a.at.Compare(b.at) })
	apart := max(150, drawWidth/max(1, len(names)))
	for i, name := range names {
		d.Lanes = append(d.Lanes, lane{apart/2 + i*apart, name})
	}
	for i, s := range steps {
		a := arrow{X1: d.Lanes[s.from].X, X2: d.Lanes[s.to].X, Y: top + 30 + i*rowHeight, Tone: s.tone, Label: s.row.Type(), ID: s.row.ID}
		if a.X1 == a.X2 {
			a.X2 += 60
		}
		a.Back = a.X2 < a.X1
		d.Arrows = append(d.Arrows, a)
	}
	d.Width = max(drawWidth, apart*len(names))
	d.Height = top + 30 + len(steps)*rowHeight
}

// graph draws each message as a box below and to the right of its cause.
func (d *flowData) graph() {
	const height, indent = 56, 40
	bottoms := map[int]int{}
	y := 10
	for i := range d.Rows {
		row := &d.Rows[i]
		depth := min(row.Depth, 12)
		row.X, row.Y = 10+indent*depth, y
		row.W = drawWidth - row.X - 10
		if bottom, ok := bottoms[depth-1]; ok && depth > 0 {
			px := row.X - indent/2
			d.Lines = append(d.Lines, line{px, bottom, px, y + height/2}, line{px, y + height/2, row.X, y + height/2})
		}
		bottoms[depth] = y + height
		y += height + 14
	}
	d.Height = y
}

// Summary is a row in words.
func (r flowRow) Summary() string {
	text := ""
	for i, l := range r.Lines() {
		if i > 0 {
			text += " · "
		}
		text += l
	}
	return text
}
