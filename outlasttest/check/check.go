// Package check reads the history of a system under test and says of every
// invariant of Outlast whether it held, was violated, or was not exercised.
package check

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/outlastmq/outlast/outlasttest/history"
)

// Options refine a check. The zero value of a field is its default.
type Options struct {
	// Recover is how long after the last fault everything may take to come to rest (I13).
	// Default 2 minutes.
	Recover time.Duration
	// TriesPerMinute bounds how often one message may be handled in a minute (I12).
	// Default 120.
	TriesPerMinute int
	// Examples is how many violations of an invariant are told with their story; the
	// others are counted. Default 3.
	Examples int
}

// State of an invariant after a check.
type State string

const (
	Holds        State = "holds"
	Violated     State = "violated"
	NotExercised State = "not exercised"
)

// Verdict is what a history says of one invariant.
type Verdict struct {
	ID    string `json:"id"` // I1 to I24
	Name  string `json:"name"`
	State State  `json:"state"`
	// Note says how often it was put to the test, or why not at all.
	Note string `json:"note,omitempty"`
	// Violations is how many there are; Examples the first of them.
	Violations int       `json:"violations,omitempty"`
	Examples   []Example `json:"examples,omitempty"`
}

// Example is one violation.
type Example struct {
	Text    string `json:"text"`
	Message string `json:"message,omitempty"`
	Group   string `json:"group,omitempty"`
	// Story is what happened to the message, or to what the violation is about: the
	// fewest lines that tell it.
	Story []string `json:"story"`

	m, g  int32
	scope string
	slot  int64
	tx    id
	at    int64 // Unix nanoseconds; 0: the end
}

// Report is what a history says.
type Report struct {
	Files     int       `json:"files"`
	Processes int       `json:"processes"`
	Killed    int       `json:"killed"` // processes that ended without a word
	Torn      int       `json:"torn"`   // lines that they left unfinished
	Events    int       `json:"events"`
	Messages  int       `json:"messages"`
	Span      float64   `json:"seconds"`
	Verdicts  []Verdict `json:"invariants"`
	// Rare counts the rare events without which a run proves little (I24); 0 for one that
	// did not occur.
	Rare map[string]int `json:"rare"`
}

// Violated reports whether any invariant is.
func (r *Report) Violated() bool {
	for _, v := range r.Verdicts {
		if v.State == Violated {
			return true
		}
	}
	return false
}

// Verdict returns that of one invariant, such as "I4", or nil.
func (r *Report) Verdict(name string) *Verdict {
	for i := range r.Verdicts {
		if r.Verdicts[i].ID == name {
			return &r.Verdicts[i]
		}
	}
	return nil
}

// Files checks a history of some files. It reads them once, merged by time, and
// again for the stories when there are violations. A message that one group handled,
// with its two transactions, takes about 650 bytes of memory and 50 microseconds of a
// core: a million of them 0.65 GB and less than a minute (TestMemoryOfManyMessages).
// Errors name the file and line that is no history.
func Files(ctx context.Context, opt Options, paths ...string) (*Report, error) {
	if len(paths) == 0 {
		return nil, errors.New("check: no history files")
	}
	if opt.Recover == 0 {
		opt.Recover = 2 * time.Minute
	}
	if opt.TriesPerMinute == 0 {
		opt.TriesPerMinute = 120
	}
	if opt.Examples == 0 {
		opt.Examples = 3
	}
	c := newChecker(opt)
	if err := c.read(ctx, paths); err != nil {
		return nil, err
	}
	c.end()
	if err := c.tell(ctx, paths); err != nil {
		return nil, err
	}
	c.report.Files = len(paths)
	return &c.report, nil
}

func (c *checker) read(ctx context.Context, paths []string) error {
	r, err := history.NewReader(paths...)
	if err != nil {
		return err
	}
	defer r.Close()
	for ctx.Err() == nil {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			c.report.Torn = r.Torn
			return nil
		}
		if err != nil {
			return err
		}
		c.apply(&e)
	}
	return context.Cause(ctx)
}
