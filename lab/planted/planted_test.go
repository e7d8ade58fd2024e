package planted

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast/outlasttest/check"
)

// bugs are what is planted, with the invariants of which at least one must catch it.
var bugs = []struct {
	name     string
	caughtBy []string
	// atRest: only the end tells, when nothing moves any more.
	atRest bool
	// memory: it bites in memory too, so that every test run may see it.
	memory bool
}{
	{"ack-before-commit", []string{"I6"}, false, true},
	{"mark-before-confirm", []string{"I7"}, false, true},
	{"max-id-cursor", []string{"I1"}, true, false},
	{"no-epoch-in-mark", []string{"I9"}, false, false},
	{"app-clock-lease", []string{"I9"}, false, false},
	{"no-mandatory", []string{"I1"}, true, false},
	{"raw-tag-after-reconnect", []string{"I8"}, false, false},
	{"delete-by-age", []string{"I16"}, false, true},
	{"attempts-burnt-by-outage", []string{"I12"}, false, true},
	{"check-then-insert-inbox", []string{"I4"}, false, false},
}

// all is set by make planted.
func all() bool { return os.Getenv("OUTLAST_TEST_PLANTED") == "all" }

const rounds = 4 // of storms, at most

// caught returns the first of some invariants that is violated, or nil.
func caught(r *check.Report, by []string) *check.Verdict {
	for _, id := range by {
		if v := r.Verdict(id); v.State == check.Violated {
			return v
		}
	}
	return nil
}

// TestF85_PlantedBugsAreCaughtInMemory: bugs of the core, in a system in one process whose
// broker dies now and then; and no violation without a bug.
func TestF85_PlantedBugsAreCaughtInMemory(t *testing.T) {
	t.Parallel()
	role := roleProgram(t)
	run := func(t *testing.T, bug string) *check.Report {
		t.Helper()
		folder := t.TempDir()
		cmd := exec.CommandContext(t.Context(), role)
		cmd.Env = append(os.Environ(), "ROLE=memory", "NAME=memory", "HISTORY="+folder, "OUTLAST_PLANTED="+bug)
		if bug == "delete-by-age" {
			cmd.Env = append(cmd.Env, "OUTAGE=2s") // longer than the age
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r, err := check.Files(t.Context(), check.Options{}, filepath.Join(folder, "memory.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, b := range bugs {
		if !b.memory {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			v := caught(run(t, b.name), b.caughtBy)
			if v == nil {
				t.Fatalf("not caught by any of %v", b.caughtBy)
			}
			t.Logf("caught by %s: %s\n%s", v.ID, v.Examples[0].Text, strings.Join(v.Examples[0].Story, "\n"))
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		for _, v := range run(t, "").Verdicts {
			if v.State == check.Violated {
				t.Errorf("%s without a bug: %+v", v.ID, v.Examples)
			}
		}
	})
}

// TestF85_PlantedBugsAreCaught: each bug in turn, alone, until the checker sees it.
func TestF85_PlantedBugsAreCaught(t *testing.T) {
	if !all() {
		t.Skip("make planted runs it: it takes minutes")
	}
	var table strings.Builder
	lines := 0
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			g := newRig(t, b.name)
			g.run()
			var verdict *check.Verdict
			for range rounds {
				g.storm()
				if b.atRest {
					g.pause(3 * time.Second) // leases change hands no more
					g.rest(10 * time.Second)
				}
				report := g.check()
				if verdict = caught(report, b.caughtBy); verdict != nil || b.atRest {
					break
				}
			}
			if verdict == nil {
				t.Fatalf("not caught by any of %v after %v", b.caughtBy, time.Since(g.began).Round(time.Second))
			}
			took := time.Since(g.began).Round(100 * time.Millisecond)
			x := verdict.Examples[0]
			t.Logf("caught by %s after %v: %s\n%s\n%s", verdict.ID, took, x.Text, x.Message, strings.Join(x.Story, "\n"))
			fmt.Fprintf(&table, "| %s | %s | %.1f s | %d | %d | %s |\n", strings.ReplaceAll(b.name, "-", " "), verdict.ID, took.Seconds(), g.storms, verdict.Violations, idsInText.ReplaceAllString(x.Text, "..."))
			lines++
		})
	}
	if lines == len(bugs) {
		writeSection(t, "times", "| bug | caught by | after | storms | violations | the first |\n|---|---|---|---|---|---|\n"+table.String())
	}
}

// TestF85_WithoutABugNothingIsViolated: the same processes and the same storms.
func TestF85_WithoutABugNothingIsViolated(t *testing.T) {
	if !all() {
		t.Skip("make planted runs it: it takes half a minute")
	}
	g := newRig(t, "")
	g.run()
	for g.storms < 2 || g.storms < rounds && tooWeak(g.check().Verdict("I24").Note) {
		g.storm()
	}
	g.rest(time.Minute)
	report := g.check()
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	if report.Violated() {
		t.Error("a violation without a bug")
	}
	for _, v := range report.Verdicts {
		if slices.Contains([]string{"I1", "I2", "I3", "I4", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I17"}, v.ID) && v.State != check.Holds {
			t.Errorf("%s: %s (%s)", v.ID, v.State, v.Note)
		}
	}
	if note := report.Verdict("I24").Note; tooWeak(note) {
		t.Errorf("the storms were too weak: %s", note)
	}
	held := 0
	for _, v := range report.Verdicts {
		if v.State == check.Holds {
			held++
		}
	}
	writeSection(t, "control", fmt.Sprintf("Without a bug, through %d storms: %d messages, %d events of %d processes, %d invariants put to the test, none violated; %s.\n",
		g.storms, report.Messages, report.Events, report.Processes, held, report.Verdict("I13").Note))
}

// tooWeak tells whether the note of I24 misses something that storms are for.
func tooWeak(note string) bool {
	return slices.ContainsFunc([]string{"confirm unknown", "return", "lease expiry", "stale mark", "redelivery", "stale settle"},
		func(what string) bool { return strings.Contains(note, what) })
}

// idsInText are ids in what a violation says, which tell a reader nothing.
var idsInText = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|outlast-[0-9A-Z]{26}`)

// writeSection puts text between the marks of a section of the document, when make planted
// names it.
func writeSection(t *testing.T, name, text string) {
	t.Helper()
	path := os.Getenv("OUTLAST_TEST_PLANTED_PAGE")
	if path == "" || t.Failed() {
		return
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mark := "<!-- written: " + name + " -->\n"
	head, rest, found := strings.Cut(string(page), mark)
	_, tail, ended := strings.Cut(rest, "<!-- end -->")
	if !found || !ended {
		t.Fatalf("%s has no section %q", path, name)
	}
	if err := os.WriteFile(path, []byte(head+mark+text+made()+"<!-- end -->"+tail), 0o600); err != nil {
		t.Fatal(err)
	}
}

// made says when a section was written, and of which commit; "-dirty" when files differ
// from it, other than those that proofs are written to.
func made() string {
	commit := "an unknown commit"
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		commit = "commit " + strings.TrimSpace(string(out))
		if changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs/proof").Output(); err != nil || len(changed) > 0 {
			commit += "-dirty"
		}
	}
	return fmt.Sprintf("\nMade on %s, of %s.\n", time.Now().UTC().Format(time.DateOnly), commit)
}

// TestSectionsSayWhenAndOfWhat: a page of a proof that names no commit proves nothing.
func TestSectionsSayWhenAndOfWhat(t *testing.T) {
	t.Parallel()
	if text := made(); !regexp.MustCompile(`^\nMade on \d{4}-\d\d-\d\d, of (commit [0-9a-f]{7,}(-dirty)?|an unknown commit)\.\n$`).MatchString(text) {
		t.Errorf("it says %q", text)
	}
}

// run starts everything.
func (g *rig) run() {
	g.began = time.Now()
	for _, name := range []string{"consumer-1", "consumer-2", "relay-1"} {
		g.start(name)
	}
	g.leased("relay-1") // so that relay 2, whose clock may be wrong, has something to take
	g.start("relay-2")
	g.pause(time.Second) // the queue is there
	g.start("writer")
	g.pause(500 * time.Millisecond)
}
