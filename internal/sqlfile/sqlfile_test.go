package sqlfile

import (
	"strings"
	"testing"
	"testing/fstest"
)

var names = Names{"p": "app_", "schema": ""}

func TestS01_Names(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{"outlast_", "_x9", "a", strings.Repeat("a", MaxIdentifier)} {
		if err := CheckIdentifier(ok); err != nil {
			t.Errorf("CheckIdentifier(%q) = %v", ok, err)
		}
	}
	for _, bad := range []string{"", "9a", "A", "a b", "a;", `a"`, "a-b", "ä", "a\n", strings.Repeat("a", MaxIdentifier+1)} {
		if CheckIdentifier(bad) == nil {
			t.Errorf("CheckIdentifier(%q) passed", bad)
		}
	}
	got, err := names.Expand("SELECT '{}' FROM {{schema}}{{p}}outbox, {{ p }}held")
	if err != nil || got != "SELECT '{}' FROM app_outbox, app_held" {
		t.Errorf("Expand = %q, %v", got, err)
	}
	if _, err := names.Expand("{{prefix}}x"); err == nil || !strings.Contains(err.Error(), "{{prefix}}") {
		t.Errorf("an unknown name gave %v", err)
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	text := "-- about the file\nignored\n-- name: one\n-- why\nSELECT 1\n  -- inner stays\nFROM {{p}}t;\n\n-- name: two\r\nSELECT ';';\r\n"
	q, err := ParseQueries(text, names)
	if err != nil {
		t.Fatal(err)
	}
	if len(q) != 2 || q.Get("one") != "SELECT 1\n  -- inner stays\nFROM app_t" || q.Get("two") != "SELECT ';'" {
		t.Errorf("ParseQueries = %q", q)
	}
	for what, bad := range map[string]string{
		"twice": "-- name: a\nSELECT 1\n-- name: a\nSELECT 2", "empty": "-- name: a\n-- only why\n", "no name": "-- name:\nSELECT 1",
		"unknown name": "-- name: a\nSELECT {{x}}",
	} {
		if _, err := ParseQueries(bad, names); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	fsys := fstest.MapFS{"q/a.sql": {Data: []byte("-- name: a\nSELECT 1")}, "q/b.sql": {Data: []byte("-- name: b\nSELECT 2")}}
	if q, err := LoadQueries(fsys, "q/*.sql", names); err != nil || len(q) != 2 {
		t.Errorf("LoadQueries = %q, %v", q, err)
	}
	fsys["q/c.sql"] = &fstest.MapFile{Data: []byte("-- name: a\nSELECT 3")}
	if _, err := LoadQueries(fsys, "q/*.sql", names); err == nil {
		t.Error("a name in two files passed")
	}
	defer func() {
		if recover() == nil {
			t.Error("Get of a missing name did not panic")
		}
	}()
	q.Get("none")
}

const migrationText = `-- What it does.
-- +goose Up
-- a table
CREATE TABLE {{p}}a (
    x TEXT DEFAULT ';' -- ends here: no;
);
-- +goose StatementBegin
CREATE TRIGGER {{p}}t AFTER INSERT ON {{p}}a BEGIN
    DELETE FROM {{p}}a;
END;
-- +goose StatementEnd
CREATE INDEX {{p}}i ON {{p}}a (x); -- why

-- +goose Down
DROP TABLE {{p}}a;
`

func TestMigration(t *testing.T) {
	t.Parallel()
	m, err := ParseMigration("00001_create.sql", migrationText, names)
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != 1 || len(m.Up) != 3 || len(m.Down) != 1 {
		t.Fatalf("ParseMigration = %+v", m)
	}
	if want := "CREATE TRIGGER app_t AFTER INSERT ON app_a BEGIN\n    DELETE FROM app_a;\nEND;"; m.Up[1] != want {
		t.Errorf("Up[1] = %q, want %q", m.Up[1], want)
	}
	for what, bad := range map[string][2]string{
		"file name":    {"create.sql", migrationText},
		"version 0":    {"00000_x.sql", migrationText},
		"no down":      {"00001_x.sql", "-- +goose Up\nSELECT 1;\n"},
		"open end":     {"00001_x.sql", "-- +goose Up\nSELECT 1\n-- +goose Down\nSELECT 1;\n"},
		"open block":   {"00001_x.sql", "-- +goose Up\n-- +goose StatementBegin\nSELECT 1;\n-- +goose Down\nSELECT 1;\n"},
		"stray end":    {"00001_x.sql", "-- +goose Up\nSELECT 1;\n-- +goose StatementEnd\n-- +goose Down\nSELECT 1;\n"},
		"unknown mark": {"00001_x.sql", "-- +goose NO TRANSACTION\n" + migrationText},
	} {
		if _, err := ParseMigration(bad[0], bad[1], names); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	file := func(table string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE " + table + " (x);\n-- +goose Down\nDROP TABLE " + table + ";\n")}
	}
	fsys := fstest.MapFS{"m/00001_a.sql": file("a"), "m/00002_b.sql": file("b"), "m/00003_c.sql": file("c")}
	all, err := LoadMigrations(fsys, "m", nil)
	if err != nil {
		t.Fatal(err)
	}
	show := func(from, to int) string {
		steps, err := Plan(all, from, to)
		if err != nil {
			return "error"
		}
		var b strings.Builder
		if err := Print(&b, steps); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	for _, c := range []struct {
		from, to int
		want     string
	}{
		{1, 3, "-- 00002_b.sql CREATE TABLE b (x); -- 00003_c.sql CREATE TABLE c (x);"},
		{2, 0, "-- 00002_b.sql DROP TABLE b; -- 00001_a.sql DROP TABLE a;"},
		{2, 2, ""}, {0, 4, "error"}, {-1, 2, "error"},
	} {
		if got := show(c.from, c.to); got != c.want {
			t.Errorf("Plan(%d, %d) = %q, want %q", c.from, c.to, got, c.want)
		}
	}
	delete(fsys, "m/00002_b.sql")
	if _, err := LoadMigrations(fsys, "m", nil); err == nil {
		t.Error("a gap in the versions passed")
	}
}

// FuzzS01_Identifier: what passes can stand in any statement as it is.
func FuzzS01_Identifier(f *testing.F) {
	for _, seed := range []string{"outlast_", `x"; DROP TABLE y; --`, "a\x00", "ａ", "public.x", "x'", "pg_\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckIdentifier(s) != nil {
			return
		}
		if s == "" || len(s) > MaxIdentifier || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || s[0] >= '0' && s[0] <= '9' {
			t.Errorf("%q passed", s)
		}
	})
}
