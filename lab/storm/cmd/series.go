package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast/lab/storm"
)

// series is a number of runs, kept in a file, so that a series that was interrupted goes on
// where it stopped.
type series struct {
	Runs  int      `json:"runs"`
	First uint64   `json:"first"` // seed; the others follow
	Done  []record `json:"done"`

	path string
}

// record is what is kept of a run.
type record struct {
	Seed   uint64        `json:"seed"`
	Commit string        `json:"commit"`
	Began  time.Time     `json:"began"`
	Length time.Duration `json:"length"`
	Faults int           `json:"faults"`
	// Kinds are the faults by their kinds, Events the lines of the history; 0: it had none.
	Kinds    map[string]int `json:"kinds,omitempty"`
	Events   int            `json:"events,omitempty"`
	Totals   storm.Account  `json:"totals"`
	Rest     time.Duration  `json:"rest"`
	Problems []string       `json:"problems,omitempty"`
	Most     storm.Usage    `json:"most"`
}

// openSeries returns the series at path if it is unfinished and of so many runs, and a new
// one otherwise.
func openSeries(path string, runs int, seed uint64) (*series, error) {
	fresh := &series{Runs: runs, First: seed, path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, err
	}
	s := &series{path: path}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read the series: %w; remove %s to begin a new one", err, path)
	}
	if s.Runs != runs || len(s.Done) >= s.Runs {
		return fresh, nil
	}
	fmt.Printf("going on with a series of %d runs from seed %d: %d are done\n", s.Runs, s.First, len(s.Done))
	return s, nil
}

func (s *series) unfinished() bool { return len(s.Done) < s.Runs }

// seed is that of the next run.
func (s *series) seed() uint64 { return s.First + uint64(len(s.Done)) }

// add keeps a run. The file is replaced, so that it is whole at any moment.
func (s *series) add(r *storm.Report) (record, error) {
	done := record{Seed: r.Seed, Commit: commit(), Began: r.Began, Length: r.Length, Faults: r.Made(), Totals: r.Totals(),
		Rest: r.Rest.Took, Problems: r.Problems(), Most: r.MostUsed()}
	done.Totals.Stories = nil
	done.Kinds = r.Kinds()
	if r.History != nil {
		done.Events = r.History.Events
	}
	s.Done = append(s.Done, done)
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return done, err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return done, err
	}
	if err := os.WriteFile(s.path+".new", data, 0o644); err != nil {
		return done, err
	}
	return done, os.Rename(s.path+".new", s.path)
}

func (s *series) good() bool {
	for _, r := range s.Done {
		if len(r.Problems) > 0 {
			return false
		}
	}
	return true
}

// commit names what was tested; "-dirty" when files differ from it, other than those that
// proofs are written to.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs/proof").Output()
	if err != nil || len(changed) > 0 {
		return strings.TrimSpace(string(out)) + "-dirty"
	}
	return strings.TrimSpace(string(out))
}

const tableHead = `| seed | commit | when | load and faults | faults | events | committed | effects | dead | lost | lost by our hand | ghosts | doubled | out of order | result |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

// row is a line of the table; the number of faults links to picture, if there is one.
func (r record) row(picture string) string {
	result := "good"
	if len(r.Problems) > 0 {
		result = "**" + strings.ReplaceAll(strings.Join(r.Problems, "; "), "|", "/") + "**"
	}
	events := "ledgers alone"
	if r.Events > 0 {
		events = fmt.Sprint(r.Events)
	}
	faults := fmt.Sprint(r.Faults)
	if picture != "" {
		faults = fmt.Sprintf("[%s](%s)", faults, picture)
	}
	t := r.Totals
	return fmt.Sprintf("| %d | %s | %s | %s | %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %s |\n", r.Seed, r.Commit, r.Began.UTC().Format("2006-01-02 15:04"),
		r.Length, faults, events, t.Committed, t.Effects, t.Dead, t.Lost, t.Explained, t.Ghosts, t.Doubled, t.Inverted, result)
}

const chaosHead = `# Chaos

Runs of ` + "`make chaos`" + `: a whole system under load and under faults drawn from a seed. Afterwards the ledgers of the services
are compared, which they keep in the transactions that the ledgers tell of, apart from Outlast's own tables. The counts are
sums over the groups. *Events* are the lines of the history by which the invariants were judged besides; a run beside an
earlier commit has none. *Lost by our hand* were written before the end of a time in which the run itself had deleted a
queue, bindings or the exchange: a confirm means "routed to one queue", see [guarantees](../guarantees.md#no-loss).
` + "`make chaos SEED=n`" + ` repeats the faults of a run. The number of its faults links to its timeline; this is the one of the last run.

![timeline](chaos.svg)

`

// appendRow writes a run into a Markdown file, which it begins when there is none, and the
// picture of the run beside it.
func appendRow(path string, r record, svg string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(chaosHead+tableHead), os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err != nil {
		return err
	}
	last := strings.TrimSuffix(path, ".md")
	own := fmt.Sprintf("%s-%d.svg", last, r.Seed)
	text = append(bytes.TrimRight(text, "\n"), '\n')
	if err := os.WriteFile(path, append(text, r.row(filepath.Base(own))...), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(own, []byte(svg), 0o644); err != nil {
		return err
	}
	return os.WriteFile(last+".svg", []byte(svg), 0o644)
}

// writeKinds writes how often each kind of fault was on in a series, beside its rows.
func writeKinds(path string, s *series) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Kinds of faults\n\nHow often each was on in the %d runs from seed %d in [chaos](%s).\n\n| kind | times |\n|---|---:|\n", len(s.Done), s.First, filepath.Base(path))
	all := map[string]int{}
	for _, r := range s.Done {
		for kind, n := range r.Kinds {
			all[kind] += n
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "| %s | %d |\n", kind, all[kind])
	}
	return os.WriteFile(strings.TrimSuffix(path, ".md")+"-kinds.md", []byte(b.String()), 0o644)
}

// writeSoak writes what a whole series came to.
func writeSoak(path string, s *series, svg string) error {
	var b strings.Builder
	var all storm.Account
	var length time.Duration
	var most storm.Usage
	faults := 0
	for _, r := range s.Done {
		length, faults = length+r.Length, faults+r.Faults
		all.Add(r.Totals)
		most.Raise(r.Most)
	}
	fmt.Fprintf(&b, "# Soak\n\nA long run of `make soak`, in %d legs on fresh servers each, ended at %s: %s in all, %d faults, %d messages committed\n"+
		"(summed over the groups that hear them), %d effects, %d dead letters, **%d lost, %d ghosts, %d doubled, %d out of order**; %d lost by our own\n"+
		"hand (see [chaos](chaos.md)). The largest of Outlast's processes used %d MiB and had %d files open.\n\nThe picture is the timeline of the last leg.\n\n![timeline](soak.svg)\n\n%s",
		len(s.Done), time.Now().UTC().Format("2006-01-02 15:04"), length, faults, all.Committed, all.Effects, all.Dead, all.Lost, all.Ghosts, all.Doubled, all.Inverted,
		all.Explained, most.Memory>>20, most.Files, tableHead)
	for _, r := range s.Done {
		b.WriteString(r.row(""))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(strings.TrimSuffix(path, ".md")+".svg", []byte(svg), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
