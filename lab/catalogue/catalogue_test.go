package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIDsAndReasonsAgree(t *testing.T) {
	t.Parallel()
	c, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.problems() {
		t.Error(p)
	}
	for _, id := range c.gaps() {
		t.Errorf("%s has neither a test nor a reason why there is none", id)
	}
}

func TestThePageIsMadeOfTheTests(t *testing.T) {
	t.Parallel()
	c, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("../..", pageFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != c.page() {
		t.Errorf("%s is out of date: make failures, or go run ./catalogue in lab", pageFile)
	}
}

func TestIDsBeginNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"TestF04_F41_LimitsAtTheDoor": "F04 F41", "F12_TwoRelays": "F12", "FuzzS05_Headers": "S05",
		"TestF1_Short": "", "TestFoo": "", "F12_": "", "a F12_b": "",
	} {
		if got := strings.Join(idsOf(name), " "); got != want {
			t.Errorf("idsOf(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestRowsAreRefusedWhenBroken(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"F01 | x", "F1 | x | y", "F01 | x | y\nF01 | x | y", "F01 | x | y | because", "F01 |  | y"} {
		if _, err := parseRows(bad); err == nil {
			t.Errorf("parseRows(%q) gave no error", bad)
		}
	}
}

// One adapter that cannot run a test hides nothing that another shows, and what an earlier run
// said does not count any more.
func TestTheWeightiestResultOfARunCounts(t *testing.T) {
	const name = "F66_Prefetch_bounds_what_is_unsettled"
	event := func(action string) string {
		return `{"Action":"` + action + `","Test":"TestAdapter/` + name + `"}` + "\n"
	}
	for actions, want := range map[string]string{"skip pass skip": "pass", "pass fail pass": "fail", "skip": "skip", "pass": "pass"} {
		c := &catalogue{results: map[string]result{name: {"fail", "2026-01-02"}}, noted: map[string]bool{}}
		for _, action := range strings.Fields(actions) {
			c.note(strings.NewReader(event(action)), time.Now())
		}
		if got := c.results[name].outcome; got != want {
			t.Errorf("%s: %s, want %s", actions, got, want)
		}
	}
}

// A test that was skipped here is not among those that passed: its target is named.
func TestSkippedTestsAreCountedApart(t *testing.T) {
	t.Parallel()
	r := row{id: "F85"}
	test := func(name, file string) test { return test{ids: []string{"F85"}, name: name, file: file, top: name} }
	for name, want := range map[string]string{
		"pass":              "pass 2026-01-02",
		"pass planted":      "pass 2026-01-02, 1 by `make planted`",
		"planted fail":      "fail 2026-01-02, 1 by `make planted`",
		"planted planted":   "skip 2026-01-02, 2 by `make planted`",
		"skip pass planted": "pass 2026-01-02, 1 skipped, 1 by `make planted`",
		"skip":              "skip 2026-01-02",
	} {
		c := &catalogue{results: map[string]result{}}
		for i, outcome := range strings.Fields(name) {
			file := "memory/x_test.go"
			if outcome == "planted" {
				file, outcome = "lab/planted/x_test.go", "skip"
			}
			id := fmt.Sprint("TestF85_", i)
			c.tests = append(c.tests, test(id, file))
			c.results[id] = result{outcome, "2026-01-02"}
		}
		if got := c.status(r); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
