package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's programs build in a directory of their own, with nothing but what the
// README shows and a checkout.
func TestReadmeQuickstartBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := 0
	for _, m := range quoted.FindAllStringSubmatch(read(t, "README.md"), -1) {
		name, ok := strings.CutPrefix(m[1], "examples/quickstart/")
		if !ok {
			continue
		}
		files++
		write(t, filepath.Join(dir, name), m[3])
	}
	if files != 3 {
		t.Fatalf("the README shows %d files of the quickstart, want 3", files)
	}
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	module := strings.Replace(read(t, "examples/go.mod"), "module github.com/outlastmq/outlast/examples", "module quickstart", 1)
	module = regexp.MustCompile(`=> \.\.`).ReplaceAllLiteralString(module, "=> "+filepath.ToSlash(checkout))
	write(t, filepath.Join(dir, "go.mod"), module)
	write(t, filepath.Join(dir, "go.sum"), read(t, "examples/go.sum"))
	build := exec.Command("go", "build", "-buildvcs=false", "-mod=mod", "-o", t.TempDir(), "./orders", "./billing")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "PWD="+dir)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
