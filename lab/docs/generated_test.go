package docs_test

import (
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	quoted    = regexp.MustCompile("(?ms)^<!-- code: ([^ ]+)((?: \\w+)*) -->\n\n?```go\n(.*?)^```$")
	generated = regexp.MustCompile("(?ms)^<!-- (columns|fields|options): ([^ ]+) (\\w+) -->\n(.*?)^<!-- end -->$")
)

const examplesPath = "github.com/outlastmq/outlast/examples/"

// asOwnModule is code of the examples as the README's reader has it: in a module
// named quickstart.
func asOwnModule(t *testing.T, code string) string {
	t.Helper()
	formatted, err := format.Source([]byte(strings.ReplaceAll(code, examplesPath, "")))
	if err != nil {
		t.Fatal(err)
	}
	return string(formatted)
}

func TestQuotedAndGeneratedPartsFollowTheCode(t *testing.T) {
	t.Parallel()
	pieces := 0
	for name, text := range documents(t) {
		fresh := quoted.ReplaceAllStringFunc(text, func(part string) string {
			pieces++
			m := quoted.FindStringSubmatch(part)
			want := code(t, m[1], strings.Fields(m[2]))
			if name == "README.md" {
				want = asOwnModule(t, want)
			}
			return strings.Replace(part, "```go\n"+m[3], "```go\n"+want, 1)
		})
		fresh = generated.ReplaceAllStringFunc(fresh, func(part string) string {
			pieces++
			m := generated.FindStringSubmatch(part)
			var want string
			switch m[1] {
			case "columns":
				want = columnTable(t, m[2], m[3])
			case "fields":
				want = fieldTable(t, m[2], m[3])
			case "options":
				want = optionTable(t, m[2], m[3])
			}
			first, _, _ := strings.Cut(part, "\n")
			return first + "\n\n" + want + "\n<!-- end -->"
		})
		if fresh == text {
			continue
		}
		if os.Getenv("OUTLAST_UPDATE_DOCS") == "" {
			t.Errorf("%s differs from the code that it quotes; OUTLAST_UPDATE_DOCS=1 go test ./docs writes it anew", name)
			continue
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if pieces < 20 {
		t.Errorf("found %d quoted or generated parts: the pattern has gone blind", pieces)
	}
}
