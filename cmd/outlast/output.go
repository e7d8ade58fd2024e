package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
)

// printf writes to stdout.
func (p *program) printf(format string, args ...any) {
	fmt.Fprintf(p.out, format, args...)
}

// notNil makes a list that JSON shows as [], which readers can walk, and not as null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// printJSON writes v as indented JSON to stdout.
func (p *program) printJSON(v any) error { return p.encodeJSON(v, "  ") }

// printJSONLine writes v as one line of JSON to stdout.
func (p *program) printJSONLine(v any) error { return p.encodeJSON(v, "") }

func (p *program) encodeJSON(v any, indent string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := p.out.Write(asciiControls(b.Bytes()))
	return err
}

// asciiControls escapes what JSON may hold as it is and a terminal obeys: above all the
// characters that turn the direction of writing. They can only be within strings.
func asciiControls(text []byte) []byte {
	unsafe := func(r rune) bool { return r >= 0x7f && !safeRune(r) }
	if bytes.IndexFunc(text, unsafe) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) {
		if !unsafe(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// table is aligned columns. A column whose name ends in '>' is aligned right.
type table struct {
	names []string
	right []bool
	rows  [][]string
}

func newTable(names ...string) *table {
	t := &table{}
	for _, name := range names {
		plain := strings.TrimSuffix(name, ">")
		t.names = append(t.names, plain)
		t.right = append(t.right, plain != name)
	}
	return t
}

// add appends a row. Cells come from databases that others write to, so they are
// made safe for a terminal.
func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = printable(cells[i])
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.names))
	for i, name := range t.names {
		widths[i] = utf8.RuneCountInString(name)
	}
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	t.writeRow(w, widths, t.names)
	for _, row := range t.rows {
		t.writeRow(w, widths, row)
	}
}

func (t *table) writeRow(w io.Writer, widths []int, cells []string) {
	var b strings.Builder
	for i, cell := range cells {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if t.right[i] {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
		b.WriteString("  ")
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// printable makes text of others safe for one line of a terminal: control and
// direction-changing characters are escaped.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !safeRune(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if safeRune(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

func safeRune(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }

// cut shortens text for a table; --json and show have it whole.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// countText renders a count, and says when counting stopped at its limit.
func countText(n int) string {
	if n >= outlast.CountLimit {
		return "more than " + grouped(outlast.CountLimit)
	}
	return grouped(n)
}

// grouped renders 1234567 as "1,234,567".
func grouped(n int) string {
	s := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// plural renders "1 message", "2,000 messages".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// durationText renders a duration with the two units that matter: "3m12s", "2d4h".
func durationText(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return sign + strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < 10*time.Second:
		return sign + strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < time.Minute:
		return fmt.Sprintf("%s%ds", sign, d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%s%dm%02ds", sign, d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%s%dh%02dm", sign, d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%s%dd%dh", sign, d/day, d%day/time.Hour)
	}
}

// sizeText renders bytes: "512 B", "1.5 GiB".
func sizeText(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value /= 1024; value < 1024 {
			break
		}
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + unit
}

// timeText renders an instant to the second, in UTC so that two people see the same.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// oneLine joins the lines of an error, as drivers write them.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
