package report

import (
	"fmt"
	"html"
	"io"
	"strings"
)

const (
	svgLabel  = 300 // width of the names
	svgBars   = 420 // width of the greatest value
	svgNumber = 180
	svgLine   = 22
	svgHead   = 44
)

// SVG writes the main metric of every table as horizontal bars with the range of the
// rounds, one chart below the other.
func SVG(w io.Writer, tables []*Table) error {
	var b strings.Builder
	y := 0
	for _, t := range tables {
		y = t.draw(&b, y)
	}
	const width = svgLabel + svgBars + svgNumber
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+
		"\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n%s</svg>\n", width, y+10, &b)
	return err
}

// draw draws one table from y on and returns where it ends.
func (t *Table) draw(b *strings.Builder, y int) int {
	columns := t.columns()
	if len(columns) == 0 {
		return y
	}
	fmt.Fprintf(b, `<text x="10" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n", y+20, html.EscapeString(t.Title))
	fmt.Fprintf(b, `<text x="%d" y="%d" fill="#666">%s</text>`+"\n", svgLabel, y+38, html.EscapeString(columns[0]))
	y += svgHead
	most := 0.0
	for _, l := range t.Lines {
		if m := l.metric(columns[0]); m != nil {
			most = max(most, m.High())
		}
	}
	if most <= 0 {
		most = 1
	}
	for _, l := range t.Lines {
		m := l.metric(columns[0])
		if m == nil {
			continue
		}
		at := func(v float64) float64 { return svgLabel + v/most*svgBars }
		mid := float64(y) + svgLine/2
		fill := "#9db4c0"
		if strings.Contains(l.Case, "outlast") {
			fill = "#2a7f62"
		}
		fmt.Fprintf(b, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`, svgLabel-8, mid+4, html.EscapeString(l.Case))
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, svgLabel, y+3, at(m.Median())-svgLabel, svgLine-6, fill)
		fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#222"/>`, at(m.Low()), mid, at(m.High()))
		fmt.Fprintf(b, `<text x="%.1f" y="%.0f">%s</text>`+"\n", at(m.High())+6, mid+4, html.EscapeString(cell(m, true)))
		y += svgLine
	}
	return y + 16
}
