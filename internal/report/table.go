// Package report holds measurements and shows them: as text, as Markdown, as JSON and
// as a bar chart in SVG. The lab's benchmarks and `outlast bench` share it.
package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Table is a group of cases that were measured in the same way. The first metric of a
// case is its main one: it is shown with its spread, and drawn.
type Table struct {
	Name  string   `json:"name"`
	Title string   `json:"title"`
	Notes []string `json:"notes,omitempty"`
	Lines []*Line  `json:"lines"`
}

// Line is one case.
type Line struct {
	Case    string    `json:"case"`
	Metrics []*Metric `json:"metrics"`
}

// Metric is one number of a case, as measured in each round.
type Metric struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
}

// Value is one measurement.
type Value struct {
	Name  string
	Value float64
}

// Add notes what one round of a case gave.
func (t *Table) Add(name string, values ...Value) {
	i := slices.IndexFunc(t.Lines, func(l *Line) bool { return l.Case == name })
	if i < 0 {
		i = len(t.Lines)
		t.Lines = append(t.Lines, &Line{Case: name})
	}
	for _, v := range values {
		t.Lines[i].add(v)
	}
}

func (l *Line) add(v Value) {
	if m := l.metric(v.Name); m != nil {
		m.Values = append(m.Values, v.Value)
		return
	}
	l.Metrics = append(l.Metrics, &Metric{Name: v.Name, Values: []float64{v.Value}})
}

func (l *Line) metric(name string) *Metric {
	for _, m := range l.Metrics {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Median is the middle of the rounds.
func (m *Metric) Median() float64 { return Quantile(m.Values, 0.5) }

// Low and High bound the rounds.
func (m *Metric) Low() float64  { return slices.Min(m.Values) }
func (m *Metric) High() float64 { return slices.Max(m.Values) }

// Quantile returns the q-th quantile (0..1) of values in any order, interpolated
// between neighbours; NaN of nothing.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// columns are the names of the metrics, in the order in which they first came.
func (t *Table) columns() []string {
	var names []string
	for _, l := range t.Lines {
		for _, m := range l.Metrics {
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// cells are the lines of the table, its head first.
func (t *Table) cells() [][]string {
	columns := t.columns()
	rows := [][]string{append([]string{"case"}, columns...)}
	for _, l := range t.Lines {
		row := []string{l.Case}
		for i, c := range columns {
			row = append(row, cell(l.metric(c), i == 0))
		}
		rows = append(rows, row)
	}
	return rows
}

func cell(m *Metric, spread bool) string {
	if m == nil {
		return ""
	}
	if !spread || len(m.Values) == 1 {
		return Number(m.Median())
	}
	return fmt.Sprintf("%s (%s-%s)", Number(m.Median()), Number(m.Low()), Number(m.High()))
}

// Number prints three or more significant digits, thousands apart.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a == 0:
		return "0"
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Text writes the table for a terminal.
func (t *Table) Text(w io.Writer) error {
	rows := t.cells()
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len(c))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", t.Name, t.Title)
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-*s", widths[0], r[0])
		for i, c := range r[1:] {
			fmt.Fprintf(&b, "  %*s", widths[i+1], c)
		}
		b.WriteByte('\n')
	}
	for _, n := range t.Notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// Markdown writes the table for a document.
func (t *Table) Markdown(w io.Writer) error {
	var b strings.Builder
	for i, r := range t.cells() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r, " | "))
		if i == 0 {
			b.WriteString("|---|" + strings.Repeat("---:|", len(r)-1) + "\n")
		}
	}
	for _, n := range t.Notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
