package main

import (
	"bytes"
	"cmp"
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
	"github.com/outlastmq/outlast/outlasttest/check"
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
	// Kinds are the faults by their kinds; 0: it could have been made.
	Kinds map[string]int `json:"kinds,omitempty"`
	// Events are the lines of the history, 0: it had none; Invariants what it says of each,
	// and Rare how often each rare event occurred.
	Events     int                    `json:"events,omitempty"`
	Invariants map[string]check.State `json:"invariants,omitempty"`
	Rare       map[string]int         `json:"rare,omitempty"`
	Totals     storm.Account          `json:"totals"`
	Rest       time.Duration          `json:"rest"`
	Problems   []string               `json:"problems,omitempty"`
	Most       storm.Usage            `json:"most"`
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
		done.Events, done.Rare, done.Invariants = r.History.Events, r.History.Rare, map[string]check.State{}
		for _, v := range r.History.Verdicts {
			done.Invariants[v.ID+" "+v.Name] = v.State
		}
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
	return len(s.Done) < enough || len(s.absent()) == 0
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
sums over the groups. *Events* are the lines of the history by which the [invariants](chaos-kinds.md) were judged besides. *Lost by our hand* were written before the end of a time in which the run itself had deleted a
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
	last, own := strings.TrimSuffix(path, ".md"), picture(path, r.Seed)
	text = append(bytes.TrimRight(text, "\n"), '\n')
	if err := os.WriteFile(path, append(text, r.row(filepath.Base(own))...), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(own, []byte(svg), 0o644); err != nil {
		return err
	}
	return os.WriteFile(last+".svg", []byte(svg), 0o644)
}

// picture is the timeline of a run, beside the file that tells of it.
func picture(path string, seed uint64) string {
	return fmt.Sprintf("%s-%d.svg", strings.TrimSuffix(path, ".md"), seed)
}

// enough is how many runs make a series of which everything is expected: one run has no time
// for all that is rare.
const enough = 10

// absent names the kinds of faults that struck in no run, and the rare events that no history saw.
func (s *series) absent() (names []string) {
	kinds, rare := map[string]int{}, map[string]int{}
	for _, r := range s.Done {
		addTo(kinds, r.Kinds)
		addTo(rare, r.Rare)
	}
	for _, counts := range []map[string]int{kinds, rare} {
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			if counts[name] == 0 {
				names = append(names, name)
			}
		}
	}
	return names
}

func addTo(sum, counts map[string]int) {
	for name, n := range counts {
		sum[name] += n
	}
}

const kindsHead = `# What was exercised

For each series of runs in [chaos](%s): how often each kind of fault was really on, how often each rare event occurred, without
which a run proves little (I24), and what the histories say of the invariants. A fault that waited for its moment in vain is
not counted. A series of ten and more in which a kind or a rare event is missing has failed.
`

// writeKinds writes what a series exercised, below those before.
func writeKinds(path string, s *series) error {
	own := strings.TrimSuffix(path, ".md") + "-kinds.md"
	text, err := os.ReadFile(own)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = fmt.Appendf(nil, kindsHead, filepath.Base(path)), nil
	}
	if err != nil {
		return err
	}
	b := bytes.NewBuffer(text)
	fmt.Fprintf(b, "\n## %d runs from seed %d on %s\n\n", len(s.Done), s.First, s.Done[0].Commit)
	kinds, rare, judged := map[string]int{}, map[string]int{}, map[string]map[check.State]int{}
	for _, r := range s.Done {
		addTo(kinds, r.Kinds)
		addTo(rare, r.Rare)
		for name, state := range r.Invariants {
			if judged[name] == nil {
				judged[name] = map[check.State]int{}
			}
			judged[name][state]++
		}
	}
	table := func(title string, counts map[string]int) {
		if len(counts) == 0 {
			return
		}
		fmt.Fprintf(b, "| %s | times |\n|---|---:|\n", title)
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(b, "| %s | %d |\n", name, counts[name])
		}
		fmt.Fprintln(b)
	}
	table("kind of fault", kinds)
	table("rare event", rare)
	if len(judged) > 0 {
		fmt.Fprint(b, "| invariant | holds in | violated in | not exercised in |\n|---|---:|---:|---:|\n")
	}
	for _, name := range slices.SortedFunc(maps.Keys(judged), byNumber) {
		n := judged[name]
		fmt.Fprintf(b, "| %s | %d | %d | %d |\n", name, n[check.Holds], n[check.Violated], n[check.NotExercised])
	}
	return os.WriteFile(own, append(bytes.TrimRight(b.Bytes(), "\n"), '\n'), 0o644)
}

// byNumber orders the names of invariants: I2 before I10.
func byNumber(a, b string) int {
	var m, n int
	_, _ = fmt.Sscanf(a, "I%d", &m)
	_, _ = fmt.Sscanf(b, "I%d", &n)
	return cmp.Compare(m, n)
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
		"hand (see [chaos](chaos.md)). The largest of Outlast's processes used %d MiB and had %d files open.\n\nThe command: `go run ./storm/cmd %s` in `lab`. The picture is the timeline of the last leg; the number of its faults links to that of each.\n\n![timeline](soak.svg)\n\n%s",
		len(s.Done), time.Now().UTC().Format("2006-01-02 15:04"), length, faults, all.Committed, all.Effects, all.Dead, all.Lost, all.Ghosts, all.Doubled, all.Inverted,
		all.Explained, most.Memory>>20, most.Files, strings.Join(os.Args[1:], " "), tableHead)
	for _, r := range s.Done {
		b.WriteString(r.row(filepath.Base(picture(path, r.Seed))))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(strings.TrimSuffix(path, ".md")+".svg", []byte(svg), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
