package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

//go:embed rows.txt
var rowsText string

// row is one failure of the catalogue.
type row struct {
	chapter, id, failure, does string
	// why says that there can be no test: "untestable: ..." or "unbuilt: ...".
	why string
}

var idPattern = regexp.MustCompile(`^[FS][0-9]{2}$`)

func parseRows(text string) ([]row, error) {
	var rows []row
	chapter, seen := "", map[string]bool{}
	for n, line := range strings.Split(text, "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "== "):
			chapter = line[3:]
			continue
		}
		cells := strings.Split(line, "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		r := row{chapter: chapter}
		switch len(cells) {
		case 4:
			r.why = cells[3]
			fallthrough
		case 3:
			r.id, r.failure, r.does = cells[0], cells[1], cells[2]
		default:
			return nil, fmt.Errorf("rows.txt line %d: %d cells, want 3 or 4", n+1, len(cells))
		}
		known := strings.HasPrefix(r.why, "untestable: ") || strings.HasPrefix(r.why, "unbuilt: ")
		if !idPattern.MatchString(r.id) || seen[r.id] || r.failure == "" || r.why != "" && !known {
			return nil, fmt.Errorf("rows.txt line %d: %q", n+1, line)
		}
		seen[r.id] = true
		rows = append(rows, r)
	}
	return rows, nil
}
