package docs_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// migrations are the files that make the tables.
var migrations = map[string]string{
	"postgres": "postgres/migrations/*.sql",
	"sqlite":   "sqlite/migrations/*.sql",
}

var (
	column = regexp.MustCompile(`^    ([a-z_]+) (.+?),?$`)
	// changes of a table, and those that leave its columns alone.
	changes     = regexp.MustCompile(`\b(ADD|ALTER|DROP|RENAME)\b`)
	constraints = regexp.MustCompile(`\b(ADD|DROP) CONSTRAINT\b|\bALTER COLUMN \w+ SET STORAGE\b`)

	like = regexp.MustCompile(`^    LIKE \{\{t\}\}(\w+)`)
)

// columnTable is one row for each column of a table as the migrations make it. It
// knows only tables whose columns later migrations leave alone but for their storage; one that adds some must
// teach it so first.
func columnTable(t *testing.T, engine, table string) string {
	t.Helper()
	source := migrationSource(t, engine)
	for _, alter := range regexp.MustCompile(`ALTER TABLE \{\{[tp]\}\}`+table+`\b([^;]*)`).FindAllStringSubmatch(source, -1) {
		if !changes.MatchString(constraints.ReplaceAllString(alter[1], "")) {
			continue
		}
		t.Fatalf("a migration of %s alters %q: read its columns from a database instead", engine, table)
	}
	var out strings.Builder
	out.WriteString("| column | type and default | meaning |\n|---|---|---|\n")
	writeColumns(t, &out, source, table)
	return out.String()
}

func migrationSource(t *testing.T, engine string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, migrations[engine]))
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations of %s: %v", engine, err)
	}
	var source strings.Builder
	for _, f := range files {
		rel, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		source.WriteString(read(t, rel))
	}
	return source.String()
}

func writeColumns(t *testing.T, out *strings.Builder, source, table string) {
	t.Helper()
	_, after, ok := strings.Cut(source, "CREATE TABLE {{t}}"+table+" (\n")
	if !ok {
		_, after, ok = strings.Cut(source, "CREATE TABLE {{p}}"+table+" (\n")
	}
	if !ok {
		t.Fatalf("the migrations make no table %q", table)
	}
	comments := migrationSource(t, "postgres")
	body, _, _ := strings.Cut(after, "\n)")
	for line := range strings.SplitSeq(body, "\n") {
		if m := like.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(out, "| | all columns of `outlast_%s` | |\n", m[1])
			continue
		}
		m := column.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		rule := strings.NewReplacer("{{t}}", "outlast_", "{{p}}", "outlast_", "{{now}}", "(now, in microseconds)", "({{uuid7}})", "(a UUIDv7)", "|", "\\|").Replace(m[2])
		fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", m[1], rule, meaning(comments, table, m[1]))
	}
}

// meaning is the column's comment in PostgreSQL; SQLite has none, and its columns of
// the same name mean the same.
func meaning(comments, table, name string) string {
	comment := regexp.MustCompile(`COMMENT ON COLUMN \{\{t\}\}` + table + `\.` + name + ` IS '((?:[^']|'')*)';`)
	if m := comment.FindStringSubmatch(comments); m != nil {
		return strings.ReplaceAll(oneLine(m[1]), "''", "'")
	}
	return ""
}
