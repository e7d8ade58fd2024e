package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	pageFile    = "docs/failures.md"
	resultsFile = "docs/proof/failures.tsv"
)

// result is how a test ended: pass, fail or skip, and on which day.
type result struct{ outcome, day string }

// catalogue is all that the page is made of.
type catalogue struct {
	root    string
	rows    []row
	tests   []test
	results map[string]result
	noted   map[string]bool // in this run
}

func read(root string) (*catalogue, error) {
	c := &catalogue{root: root, results: map[string]result{}, noted: map[string]bool{}}
	var err error
	if c.rows, err = parseRows(rowsText); err != nil {
		return nil, err
	}
	if c.tests, err = findTests(root); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, resultsFile))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(strings.TrimSpace(line), "\t"); len(cells) == 3 {
			c.results[cells[0]] = result{cells[1], cells[2]}
		}
	}
	return c, nil
}

// of returns the tests that carry an ID.
func (c *catalogue) of(id string) []test {
	var of []test
	for _, t := range c.tests {
		if slices.Contains(t.ids, id) {
			of = append(of, t)
		}
	}
	return of
}

// gaps are rows with neither a test nor a reason why there is none.
func (c *catalogue) gaps() []string {
	var gaps []string
	for _, r := range c.rows {
		if len(c.of(r.id)) == 0 && r.why == "" {
			gaps = append(gaps, r.id)
		}
	}
	return gaps
}

// problems are rows with a test and a reason why there is none, and IDs of tests that
// are no rows.
func (c *catalogue) problems() []string {
	var bad []string
	known := map[string]bool{}
	for _, r := range c.rows {
		known[r.id] = true
		if len(c.of(r.id)) > 0 && r.why != "" {
			bad = append(bad, r.id+" has a test, and a reason why there is none")
		}
	}
	for _, t := range c.tests {
		for _, id := range t.ids {
			if !known[id] {
				bad = append(bad, fmt.Sprintf("%s in %s is no row", id, t.file))
			}
		}
	}
	return bad
}

// apart are the folders of tests that are skipped unless a target of their own runs them.
var apart = map[string]string{"lab/planted": "make planted"}

// status is the last result of a row: pass only when all its tests passed, but for those
// that were skipped, because they run by a target of their own: they are counted apart.
func (c *catalogue) status(r row) string {
	if kind, _, ok := strings.Cut(r.why, ":"); ok {
		return map[string]string{"unbuilt": "not yet built", "untestable": "not testable here"}[kind]
	}
	tests := c.of(r.id)
	if len(tests) == 0 {
		return "no test"
	}
	outcome, day := "skip", ""
	skipped := map[string]int{}
	for _, t := range tests {
		res, ok := c.results[t.name]
		switch {
		case !ok:
			return "not run"
		case res.outcome == "skip":
			skipped[apart[filepath.ToSlash(filepath.Dir(t.file))]]++
		case res.outcome == "fail" || outcome == "skip":
			outcome = res.outcome
		}
		day = max(day, res.day)
	}
	status := outcome + " " + day
	for _, target := range slices.Sorted(maps.Keys(skipped)) {
		switch {
		case target != "":
			status += fmt.Sprintf(", %d by `%s`", skipped[target], target)
		case outcome != "skip":
			status += fmt.Sprintf(", %d skipped", skipped[target])
		}
	}
	return status
}

func (c *catalogue) page() string {
	var b strings.Builder
	b.WriteString(`# Failures

Real failures and bad inputs, what Outlast does about each, and the tests that show it. The IDs are stable and begin the
tests' names. This page is made by ` + "`make failures`" + `, which runs the tests; rows are in
[lab/catalogue/rows.txt](../lab/catalogue/rows.txt).

`)
	counts := map[string]int{}
	for _, r := range c.rows {
		kind, _, _ := strings.Cut(c.status(r), " 2")
		counts[kind]++
	}
	tested := len(c.rows) - counts["not yet built"] - counts["not testable here"] - counts["no test"]
	fmt.Fprintf(&b, "%d rows: %d tested, of which %d passed when they were last run; %d without a test yet, %d not testable here, %d not yet built.\n",
		len(c.rows), tested, counts["pass"], counts["no test"], counts["not testable here"], counts["not yet built"])
	chapter := ""
	for _, r := range c.rows {
		if r.chapter != chapter {
			chapter = r.chapter
			fmt.Fprintf(&b, "\n## %s\n\n| ID | failure | what Outlast does | test | last result |\n|---|---|---|---|---|\n", chapter)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.id, r.failure, r.does, c.links(r), c.status(r))
	}
	return b.String()
}

func (c *catalogue) links(r row) string {
	var links []string
	for _, t := range c.of(r.id) {
		links = append(links, fmt.Sprintf("[`%s`](../%s)", t.name, t.file))
	}
	if len(links) == 0 {
		_, why, _ := strings.Cut(r.why, ": ")
		return why
	}
	slices.Sort(links)
	return strings.Join(slices.Compact(links), "<br>")
}

func (c *catalogue) write() error {
	for _, p := range c.problems() {
		fmt.Fprintln(os.Stderr, "catalogue:", p)
	}
	if gaps := c.gaps(); len(gaps) > 0 {
		fmt.Fprintln(os.Stderr, "catalogue: neither a test nor a reason:", strings.Join(gaps, " "))
	}
	var kept strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.results)) {
		if slices.ContainsFunc(c.tests, func(t test) bool { return t.name == name }) {
			fmt.Fprintf(&kept, "%s\t%s\t%s\n", name, c.results[name].outcome, c.results[name].day)
		}
	}
	if err := os.MkdirAll(filepath.Join(c.root, filepath.Dir(resultsFile)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.root, resultsFile), []byte(kept.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.root, pageFile), []byte(c.page()), 0o644)
}
