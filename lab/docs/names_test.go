package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A test is named as `TestX/its_case` ([file](path)). The link leads to the file that
// holds the case; of a conformance suite, to the suite.
var (
	testName  = regexp.MustCompile("`(Test[A-Za-z0-9_]+)((?:/[^`/]+)*)`")
	namedTest = regexp.MustCompile("`(Test[A-Za-z0-9_]+)((?:/[^`/]+)*)` \\(\\[[^\\]]*\\]\\(([^)]+)\\)\\)")
)

func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	declared := declaredTests(t)
	for name, text := range documents(t) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !declared[m[1]] {
				t.Errorf("%s: there is no test %s", name, m[1])
			}
		}
	}
	const guarantees = "docs/guarantees.md"
	text := read(t, guarantees)
	all, linked := testName.FindAllString(text, -1), namedTest.FindAllStringSubmatch(text, -1)
	if len(all) != len(linked) || len(all) < 30 {
		t.Errorf("%s names %d tests, %d of them with a link to their file", guarantees, len(all), len(linked))
	}
	for _, m := range linked {
		file := filepath.ToSlash(filepath.Join("docs", m[3]))
		source := read(t, file)
		if cases := strings.Split(m[2], "/")[1:]; len(cases) > 0 {
			if last := cases[len(cases)-1]; !strings.Contains(source, `"`+last+`"`) && !strings.Contains(source, `"`+strings.ReplaceAll(last, "_", " ")+`"`) {
				t.Errorf("%s: %s has no case %q", guarantees, file, last)
			}
		} else if !strings.Contains(source, "func "+m[1]+"(") {
			t.Errorf("%s: %s has no %s", guarantees, file, m[1])
		}
	}
}

// declaredTests are the test functions of all modules.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go", "*/*/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range function.FindAllStringSubmatch(string(data), -1) {
				declared[m[1]] = true
			}
		}
	}
	return declared
}

var (
	codeSpan  = regexp.MustCompile("(?ms)^```go\n.*?^```$|`[^`\n]+`")
	qualified = regexp.MustCompile(`\b(outlast|postgres|sqlite|rabbitmq|nats|memory|embedded|outlasttest)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	configs   = regexp.MustCompile("`(Relay|Consumer|Service|Outbox|Health)Config\\.(\\w+)`|`(RetryPolicy)\\.(\\w+)`")
)

// Every exported name of ours that a document uses is there.
func TestNamesExist(t *testing.T) {
	t.Parallel()
	packages := map[string]exported{}
	for _, dir := range []string{".", "postgres", "sqlite", "rabbitmq", "nats", "memory", "embedded", "outlasttest"} {
		name := dir
		if dir == "." {
			name = "outlast"
		}
		packages[name] = exportedNames(t, dir)
	}
	seen := 0
	for name, text := range documents(t) {
		for _, span := range codeSpan.FindAllString(foreignCode.ReplaceAllString(text, ""), -1) {
			for _, m := range qualified.FindAllStringSubmatch(span, -1) {
				seen++
				names := packages[m[1]]
				if !names.top[m[2]] {
					t.Errorf("%s: %s has no %s", name, m[1], m[2])
				} else if m[3] != "" && len(names.members[m[2]]) > 0 && !names.members[m[2]][m[3]] {
					t.Errorf("%s: %s.%s has no %s", name, m[1], m[2], m[3])
				}
			}
		}
		for _, m := range configs.FindAllStringSubmatch(text, -1) {
			typ, field := m[3], m[4]
			if m[1] != "" {
				typ, field = m[1]+"Config", m[2]
			}
			if !packages["outlast"].members[typ][field] {
				t.Errorf("%s: %s has no field %s", name, typ, field)
			}
		}
	}
	if seen < 50 {
		t.Errorf("found %d names of ours in the documents: the pattern has gone blind", seen)
	}
}

// foreignCode is code of other libraries, quoted for comparison.
var foreignCode = regexp.MustCompile("(?ms)^<!-- foreign -->\n```go\n.*?^```$")
