package telemetry_test

import (
	"database/sql"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
	_ "modernc.org/sqlite"
)

// servedConsole is a console that has all its pages, and what its navigation calls them.
type servedConsole struct {
	url   string
	paths map[string]string // of pages by name
}

var (
	navigation  = regexp.MustCompile(`(?s)<nav aria-label="Pages">.*?</nav>`)
	pageLink    = regexp.MustCompile(`<a href="([^"]*)"[^>]*>([^<]+)</a>`)
	consolePage = regexp.MustCompile("(\\w+)\\s\\(`(/[^`]*)`")
)

func newServedConsole(t *testing.T) *servedConsole {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "collector.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	collected, err := collector.Open(db, collector.SQLite, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := collected.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := console.New(console.Config{Places: []journey.Place{{Name: "shop", Store: memory.NewStore()}}, Loopback: true,
		Collector: collected, Broker: memory.NewBroker()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	s := &servedConsole{url: server.URL, paths: map[string]string{}}
	for _, link := range pageLink.FindAllStringSubmatch(navigation.FindString(s.page(t, "/")), -1) {
		s.paths[link[2]] = "/" + strings.TrimPrefix(link[1], "./")
	}
	return s
}

// page returns what the console answers, which must be a page.
func (s *servedConsole) page(t *testing.T, path string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("the console answers %d to %s: %v", answer.StatusCode, path, err)
	}
	return string(body)
}

// checkConsolePages holds a runbook to name a page of the console at least, and each by
// the name and the path that it has.
func checkConsolePages(t *testing.T, alert, runbook string, c *servedConsole) {
	t.Helper()
	if !strings.Contains(runbook, "[console](../console.md#pages)") {
		t.Errorf("the runbook of %s does not lead to the console's pages", alert)
	}
	named := consolePage.FindAllStringSubmatch(runbook, -1)
	if len(named) == 0 {
		t.Errorf("the runbook of %s names no page of the console", alert)
	}
	for _, page := range named {
		name, link := page[1], page[2]
		path, _, _ := strings.Cut(link, "?")
		if c.paths[name] != path {
			t.Errorf("the runbook of %s names the page %s at %s; the console has %v", alert, name, path, c.paths)
		} else if !strings.Contains(c.page(t, link), ` aria-current="page">`+name+"</a>") {
			t.Errorf("the runbook of %s: %s is not the page %s", alert, link, name)
		}
	}
}
