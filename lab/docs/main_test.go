// Package docs_test keeps the documents true: what they name exists, what they quote
// is quoted to the letter, and what can be taken from the code is taken from it.
//
// Parts of a document that follow the code stand behind a comment in the Markdown:
//
//	<!-- code: examples/shop/payments.go charge -->   a declaration, or a whole file
//	<!-- columns: postgres outbox -->                 a table of a migration
//	<!-- fields: . RelayConfig -->                    the settings of a struct
//	<!-- options: postgres Option -->                 the functions that return an option
//
// The last three end with <!-- end -->. OUTLAST_UPDATE_DOCS=1 go test ./docs writes
// them anew; without it the test fails when they differ. The documents are outside of
// this module, so run it with -count=1: a result from the cache would not know of them.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// documents returns the Markdown files of the repository by their path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "tmp") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			found[filepath.ToSlash(rel)] = read(t, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("found %d documents: looking in the wrong place", len(found))
	}
	return found
}

func read(t *testing.T, rel string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(rel)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var (
	fence = regexp.MustCompile("(?ms)^```[a-z]*\n.*?^```$")
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)|src="([^"]+)"`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			target, _, _ := strings.Cut(m[1]+m[2], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), target)); err != nil {
				t.Errorf("%s: the link to %q leads nowhere", name, target)
			}
		}
	}
}

// The tour of the rooms misses none: every folder with files of the project, and
// every file of the root package.
func TestLayoutNamesEveryRoom(t *testing.T) {
	t.Parallel()
	layout := read(t, "docs/layout.md")
	for _, pattern := range []string{"*.go", "*/*.go", "*/*/*.go"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			room := filepath.ToSlash(filepath.Dir(rel))
			switch {
			case strings.HasSuffix(rel, "_test.go") && room == ".", rel == "doc.go", strings.HasPrefix(rel, "."):
			case room == "." && !strings.Contains(layout, "(../"+rel+")"):
				t.Errorf("docs/layout.md does not name %s", rel)
			case room != "." && !strings.Contains(layout, "`"+room+"/`") && !strings.HasPrefix(room, "examples/quickstart/") && !strings.HasPrefix(room, "examples/shop/"):
				t.Errorf("docs/layout.md does not name the folder %s", room)
			}
		}
	}
}
