package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/otel"
)

// The table of docs/metrics.md is that of the code.
func TestMetricsFollowTheCode(t *testing.T) {
	t.Parallel()
	const name = "docs/metrics.md"
	text := read(t, name)
	var want strings.Builder
	want.WriteString("| in Prometheus | in OpenTelemetry | kind, unit | labels | meaning |\n|---|---|---|---|---|\n")
	for _, i := range otel.Instruments() {
		labels := i.Labels
		if !strings.HasPrefix(i.Name, "messaging.") {
			labels = append([]string{"service"}, labels...)
		}
		fmt.Fprintf(&want, "| `%s` | `%s` | %s, %s | %s | %s |\n", i.Prometheus(), i.Name, i.Kind, i.Unit, strings.Join(labels, ", "), i.Description)
	}
	part := regexp.MustCompile(`(?s)<!-- metrics -->\n.*?<!-- end -->`)
	if !part.MatchString(text) {
		t.Fatalf("%s has no table of metrics", name)
	}
	fresh := part.ReplaceAllLiteralString(text, "<!-- metrics -->\n\n"+want.String()+"\n<!-- end -->")
	if fresh == text {
		return
	}
	if os.Getenv("OUTLAST_UPDATE_DOCS") == "" {
		t.Fatalf("%s differs from package otel; OUTLAST_UPDATE_DOCS=1 go test ./docs writes it anew", name)
	}
	if err := os.WriteFile(filepath.Join(root, name), []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}
