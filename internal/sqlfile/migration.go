package sqlfile

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Migration is one numbered step of a schema, in both directions.
type Migration struct {
	Version int
	// File is the name of the file, without its folder.
	File string
	// Up and Down are the statements, each ready to run by itself.
	Up, Down []string
	// Text is the whole file, with names expanded.
	Text string
}

// LoadMigrations reads all migrations of a folder, in order of their versions.
// Files are named like 00001_create.sql, and versions count from 1 without a gap.
func LoadMigrations(fsys fs.FS, dir string, names Names) ([]Migration, error) {
	files, err := fs.Glob(fsys, path.Join(dir, "*.sql"))
	if err != nil {
		return nil, err
	}
	var out []Migration
	for i, file := range files {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, err
		}
		m, err := ParseMigration(path.Base(file), string(text), names)
		if err != nil {
			return nil, err
		}
		if m.Version != i+1 {
			return nil, fmt.Errorf("migration %s: expected version %d", m.File, i+1)
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no migrations in %q", dir)
	}
	return out, nil
}

// ParseMigration reads one file in goose's format: "-- +goose Up" and
// "-- +goose Down" begin the two parts, a statement ends with a semicolon at the
// end of a line, or with "-- +goose StatementEnd" when "-- +goose StatementBegin"
// came before it. Every step runs in a transaction: NO TRANSACTION is an error.
func ParseMigration(file, text string, names Names) (Migration, error) {
	m := Migration{File: file}
	number, _, ok := strings.Cut(file, "_")
	version, err := strconv.Atoi(number)
	if !ok || err != nil || version < 1 {
		return m, fmt.Errorf("migration %q: must be named like 00001_create.sql", file)
	}
	m.Version = version
	if m.Text, err = names.Expand(text); err != nil {
		return m, fmt.Errorf("migration %s: %w", file, err)
	}
	p := splitter{}
	for line := range strings.Lines(m.Text) {
		if err := p.line(strings.TrimRight(line, "\r\n")); err != nil {
			return m, fmt.Errorf("migration %s: %w", file, err)
		}
	}
	if err := p.end(); err != nil {
		return m, fmt.Errorf("migration %s: %w", file, err)
	}
	m.Up, m.Down = p.up, p.down
	if len(m.Up) == 0 || len(m.Down) == 0 {
		return m, fmt.Errorf("migration %s: needs statements in both directions", file)
	}
	return m, nil
}

// splitter cuts a goose file into statements.
type splitter struct {
	up, down []string
	part     *[]string
	current  []string
	block    bool
}

func (s *splitter) line(line string) error {
	trimmed := strings.TrimSpace(line)
	if mark, ok := strings.CutPrefix(trimmed, "-- +goose "); ok {
		return s.mark(strings.TrimSpace(mark))
	}
	if s.part == nil || !s.block && len(s.current) == 0 && (trimmed == "" || strings.HasPrefix(trimmed, "--")) {
		return nil
	}
	s.current = append(s.current, line)
	if !s.block && endsStatement(trimmed) {
		s.finish()
	}
	return nil
}

// endsStatement ignores a comment behind the semicolon, as goose does.
func endsStatement(line string) bool {
	if i := strings.Index(line, "--"); i >= 0 {
		line = strings.TrimSpace(line[:i])
	}
	return strings.HasSuffix(line, ";")
}

func (s *splitter) mark(mark string) error {
	switch mark {
	case "Up", "Down":
		if err := s.end(); err != nil {
			return err
		}
		s.part = &s.up
		if mark == "Down" {
			s.part = &s.down
		}
	case "StatementBegin":
		if s.part == nil || s.block || len(s.current) > 0 {
			return fmt.Errorf("StatementBegin in a wrong place")
		}
		s.block = true
	case "StatementEnd":
		if !s.block {
			return fmt.Errorf("StatementEnd without StatementBegin")
		}
		s.block = false
		s.finish()
	default:
		return fmt.Errorf("unknown mark %q", mark)
	}
	return nil
}

func (s *splitter) finish() {
	if stmt := strings.TrimSpace(strings.Join(s.current, "\n")); stmt != "" {
		*s.part = append(*s.part, stmt)
	}
	s.current = nil
}

func (s *splitter) end() error {
	if s.block {
		return fmt.Errorf("StatementBegin without StatementEnd")
	}
	if len(s.current) > 0 {
		return fmt.Errorf("a statement does not end with a semicolon: %q", cut(strings.Join(s.current, "\n")))
	}
	return nil
}

// Step is one migration in one direction.
type Step struct {
	Migration
	// Back is true on the way down. After is the version when the step is done.
	Back  bool
	After int
}

// Statements are those of the step's direction.
func (s Step) Statements() []string {
	if s.Back {
		return s.Down
	}
	return s.Up
}

// Plan returns the steps from one version to another, upwards or downwards. Both
// must be between 0 and the newest version.
func Plan(all []Migration, from, to int) ([]Step, error) {
	for _, v := range []int{from, to} {
		if v < 0 || v > len(all) {
			return nil, fmt.Errorf("version %d: must be 0 to %d", v, len(all))
		}
	}
	var steps []Step
	for v := from; v < to; v++ {
		steps = append(steps, Step{Migration: all[v], After: v + 1})
	}
	for v := from; v > to; v-- {
		steps = append(steps, Step{Migration: all[v-1], Back: true, After: v - 1})
	}
	return steps, nil
}

// Print writes the statements of the steps, with a comment line that names the
// file before those of each.
func Print(w io.Writer, steps []Step) error {
	for _, s := range steps {
		if _, err := fmt.Fprintf(w, "-- %s\n", s.File); err != nil {
			return err
		}
		for _, stmt := range s.Statements() {
			if _, err := fmt.Fprintf(w, "%s\n\n", stmt); err != nil {
				return err
			}
		}
	}
	return nil
}
