package sqlfile

import (
	"fmt"
	"io/fs"
	"strings"
)

// Queries are statements by name.
type Queries map[string]string

const nameMark = "-- name:"

// ParseQueries reads the named statements of text, with names expanded. A statement
// starts behind a line "-- name: some_name" and ends at the next one or at the end;
// comment lines between the mark and the SQL stay out of the statement, and so
// does the semicolon at its end. Text before the first mark is a comment of the file.
func ParseQueries(text string, names Names) (Queries, error) {
	out := Queries{}
	var name string
	var body []string
	finish := func() error {
		if name == "" {
			return nil
		}
		stmt := strings.TrimSuffix(strings.TrimSpace(strings.Join(body, "\n")), ";")
		if stmt == "" {
			return fmt.Errorf("statement %q is empty", name)
		}
		expanded, err := names.Expand(stmt)
		if err != nil {
			return fmt.Errorf("statement %q: %w", name, err)
		}
		out[name] = expanded
		return nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, nameMark); ok {
			if err := finish(); err != nil {
				return nil, err
			}
			name, body = strings.TrimSpace(rest), nil
			if name == "" {
				return nil, fmt.Errorf("a statement has no name")
			}
			if _, twice := out[name]; twice {
				return nil, fmt.Errorf("statement %q is there twice", name)
			}
			continue
		}
		if len(body) == 0 && strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		body = append(body, line)
	}
	if err := finish(); err != nil {
		return nil, err
	}
	return out, nil
}

// LoadQueries reads the named statements of all files of fsys that match pattern.
// A name may be there once in all of them.
func LoadQueries(fsys fs.FS, pattern string, names Names) (Queries, error) {
	files, err := fs.Glob(fsys, pattern)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no file matches %q", pattern)
	}
	out := Queries{}
	for _, file := range files {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, err
		}
		part, err := ParseQueries(string(text), names)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for name, stmt := range part {
			if _, twice := out[name]; twice {
				return nil, fmt.Errorf("%s: statement %q is there twice", file, name)
			}
			out[name] = stmt
		}
	}
	return out, nil
}

// Get returns the statement of that name. A missing one is a mistake in the
// program, and panics: every adapter's test runs through all names.
func (q Queries) Get(name string) string {
	stmt, ok := q[name]
	if !ok {
		panic(fmt.Sprintf("sqlfile: no statement %q", name))
	}
	return stmt
}
