package storm

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
	"github.com/outlastmq/outlast/outlasttest/check"
)

// Report is what a run came to.
type Report struct {
	Seed   uint64        `json:"seed"`
	Began  time.Time     `json:"began"`
	Length time.Duration `json:"length"`
	Folder string        `json:"-"`
	Faults []fault.Line  `json:"faults"`
	// Possible are the names of all kinds of faults that could be made here.
	Possible []string  `json:"possible"`
	Gaps     []gap     `json:"gaps,omitempty"`
	Rest     Rest      `json:"rest"`
	Accounts []Account `json:"accounts"`
	// Deaths are processes that ended by themselves, or did not end when asked to.
	Deaths []string `json:"deaths,omitempty"`
	// Used is the most that each process held at any moment.
	Used map[string]Usage `json:"used,omitempty"`
	// NotExercised says what could not be done here, and why.
	NotExercised []string `json:"not_exercised,omitempty"`
	// History is what the checker of histories says; nil when none was recorded.
	History *check.Report `json:"history,omitempty"`
	SVG     string        `json:"-"`
}

// Problems are what is wrong with the system under test; none is good.
func (r *Report) Problems() []string {
	var problems []string
	if !r.Rest.Reached {
		text := "no rest: " + r.Rest.State
		if len(r.Rest.Earlier) > 0 {
			text += "; of the earlier commit are " + strings.Join(r.Rest.Earlier, ", ")
		}
		problems = append(problems, text)
	}
	committed := 0
	for _, a := range r.Accounts {
		problems = append(problems, a.Broken()...)
		committed += a.Committed
	}
	if r.History != nil {
		for _, v := range r.History.Verdicts {
			if v.State == check.Violated {
				problems = append(problems, fmt.Sprintf("%s %s: %d times", v.ID, v.Name, v.Violations))
			}
		}
	}
	for _, death := range r.Deaths {
		first, _, _ := strings.Cut(death, "\n")
		problems = append(problems, first)
	}
	if committed == 0 {
		problems = append(problems, "nothing was committed: the run was not real")
	}
	return problems
}

// Totals are sums over the groups.
func (r *Report) Totals() (t Account) {
	for _, a := range r.Accounts {
		t.Add(a)
	}
	return t
}

// MostUsed is the most that any process held.
func (r *Report) MostUsed() (most Usage) {
	for _, u := range r.Used {
		most.Raise(u)
	}
	return most
}

// Made counts the faults that were really on.
func (r *Report) Made() (n int) {
	for _, made := range r.Kinds() {
		n += made
	}
	return n
}

// Kinds counts the faults of each kind that were really on; 0 for one that could have been.
func (r *Report) Kinds() map[string]int {
	kinds := map[string]int{}
	for _, kind := range r.Possible {
		kinds[kind] = 0
	}
	for _, l := range r.Faults {
		if l.Err == "" {
			kinds[cmp.Or(l.Kind, l.Name)]++
		}
	}
	return kinds
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\nseed %d: %d faults in %s; at rest %s after the last\n", r.Seed, r.Made(), r.Length, r.Rest.Took.Round(time.Second))
	fmt.Fprintf(w, "%-8s %10s %8s %6s %6s %10s %7s %8s %9s %9s %13s\n", "group", "committed", "effects", "dead", "lost", "(by hand)", "ghosts", "doubled", "disorder", "(delayed)", "(other type)")
	for _, a := range r.Accounts {
		fmt.Fprintf(w, "%-8s %10d %8d %6d %6d %10d %7d %8d %9d %9d %13d\n", a.Group, a.Committed, a.Effects, a.Dead, a.Lost, a.Explained, a.Ghosts, a.Doubled, a.Inverted, a.Delayed, a.Across)
	}
	for _, a := range r.Accounts {
		for _, story := range a.Stories {
			fmt.Fprintf(w, "%s: %s\n", a.Group, story)
		}
	}
	for _, death := range r.Deaths {
		fmt.Fprintln(w, death)
	}
	for _, text := range r.NotExercised {
		fmt.Fprintf(w, "not exercised: %s\n", text)
	}
	if r.Rest.State != "" {
		fmt.Fprintf(w, "at the end: %s\n", r.Rest.State)
	}
	if r.History != nil {
		fmt.Fprintln(w, "the checker of histories:")
		_ = r.History.Write(w)
	}
	problems := r.Problems()
	if len(problems) == 0 {
		fmt.Fprintln(w, "no promise was broken")
		return
	}
	for _, p := range problems {
		fmt.Fprintf(w, "BROKEN: %s\n", p)
	}
	fmt.Fprintf(w, "logs and histories are in %s\n", r.Folder)
}
