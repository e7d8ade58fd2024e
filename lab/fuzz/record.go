package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const head = `# Fuzzing

What ` + "`make fuzz`" + ` has executed, one row for each target and day. The inputs that reached new code are kept in
` + "`testdata/fuzz`" + ` beside each target (the shortest of them), and every ` + "`go test`" + ` runs them. So are those that broke a target; they
are mended when all tests pass.

The aim is 10,000,000 executions of each target: ` + "`make fuzz EXECS=10000000`" + ` goes on from what stands here.

| folder | target | date | executions | crashes |
|---|---|---|---|---|
`

// record is the table of what was executed. It is read anew for every row, so that it may
// be edited or committed meanwhile.
type record struct{ path string }

type row struct {
	folder, name, date string
	execs              int
	crashes            string
}

func (r *record) rows() ([]row, error) {
	text, err := os.ReadFile(r.path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var all []row
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(cells[i], " `")
		}
		execs, err := strconv.Atoi(strings.ReplaceAll(cells[4], ",", ""))
		if err == nil {
			all = append(all, row{cells[1], cells[2], cells[3], execs, cells[5]})
		}
	}
	return all, err
}

// executions of a target on all days.
func (r *record) executions(t target) (int, error) {
	rows, err := r.rows()
	n := 0
	for _, row := range rows {
		if row.folder == t.folder && row.name == t.name {
			n += row.execs
		}
	}
	return n, err
}

// add notes executions, and the input that broke the target, if one did.
func (r *record) add(t target, execs int, crash string) error {
	rows, err := r.rows()
	if err != nil {
		return err
	}
	today := time.Now().UTC().Format(time.DateOnly)
	at := -1
	for i, row := range rows {
		if row.folder == t.folder && row.name == t.name && row.date == today {
			at = i
		}
	}
	if at < 0 {
		at = len(rows)
		rows = append(rows, row{t.folder, t.name, today, 0, "none"})
	}
	rows[at].execs += execs
	if crash != "" {
		rows[at].crashes = strings.TrimPrefix(rows[at].crashes+", "+crash, "none, ")
	}
	var out strings.Builder
	out.WriteString(head)
	for _, row := range rows {
		fmt.Fprintf(&out, "| `%s` | `%s` | %s | %s | %s |\n", row.folder, row.name, row.date, grouped(row.execs), row.crashes)
	}
	return os.WriteFile(r.path, []byte(out.String()), 0o644)
}

func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
