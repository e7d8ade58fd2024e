package report

import (
	"fmt"
	"io"
	"strings"
)

// Bars writes the main metric as bars for a terminal.
func (t *Table) Bars(w io.Writer) error {
	columns := t.columns()
	if len(columns) == 0 {
		return nil
	}
	name, most := 0, 0.0
	for _, l := range t.Lines {
		if m := l.metric(columns[0]); m != nil {
			name, most = max(name, len(l.Case)), max(most, m.Median())
		}
	}
	if most <= 0 {
		most = 1
	}
	const width = 40
	var b strings.Builder
	for _, l := range t.Lines {
		m := l.metric(columns[0])
		if m == nil {
			continue
		}
		fmt.Fprintf(&b, "  %-*s  %-*s  %s\n", name, l.Case, width, strings.Repeat("#", int(m.Median()/most*width+0.5)), cell(m, true))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
