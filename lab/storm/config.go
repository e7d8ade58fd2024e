// Package storm runs a whole system of Outlast services, as processes of their own on real
// servers, under load and under faults drawn from a seed; heals everything, waits until
// nothing moves any more, and asks what became of every message.
package storm

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/outlastmq/outlast/lab/fault"
)

// Config says how long and how hard. The zero value of a field is its default.
type Config struct {
	// Seed decides which faults come and when. What the processes make of them is not
	// decided by it: the same seed is the same weather, not the same run.
	Seed uint64
	// Length is how long messages are written and faults come. Default 3 min.
	Length time.Duration
	// Rate is the messages written in a second, by all producers together. Default 60.
	Rate float64
	// Messages, when set, is how many are written; Rate then follows from Length.
	Messages int
	// Nodes is the size of the RabbitMQ cluster: 1 or 3. Default 3.
	Nodes int
	// Namespaces gives every server and every process a network namespace of its own, so that
	// the network between them can be broken. The process must be isolated: network.Isolate.
	Namespaces bool
	// Pause is the mean time between two faults and Most how many are on at once.
	// Defaults 3 s and 4.
	Pause time.Duration
	Most  int
	// Only, when set, allows only these kinds of faults.
	Only []string
	// Trouble is how many of a thousand handlings fail by themselves. Default 15.
	Trouble int
	// Batch is how many messages a consumer may handle in one transaction. Default 1.
	Batch int
	// Earlier is a program with the roles of a storm on an earlier commit of the library, for
	// some of the relays and consumers: see BuildEarlier. Empty: none.
	Earlier string
	// Skewed is this program with a clock of its own, for the clocks of the processes to jump:
	// see BuildSkewed. It goes with WithoutHistory, as a history needs one clock. Empty: none.
	Skewed string
	// WithoutHistory leaves the ledgers alone to judge. A history takes about 5 kB for each
	// message.
	WithoutHistory bool
	// Folder receives the logs and histories of all processes. Default: a temporary one,
	// removed when the run was good.
	Folder string
	// Patience bounds the wait for rest after the last fault. Default 10 min.
	Patience time.Duration
	// Out receives what happens as it happens. Default: standard output.
	Out io.Writer
	// Progress, when set, is told of the state now and then.
	Progress func(Progress)
}

func (c *Config) setDefaults() error {
	def(&c.Length, 3*time.Minute)
	def(&c.Rate, 60)
	def(&c.Nodes, 3)
	def(&c.Pause, 3*time.Second)
	def(&c.Most, 4)
	def(&c.Trouble, 15)
	def(&c.Patience, 10*time.Minute)
	if c.Out == nil {
		c.Out = os.Stdout
	}
	if c.Messages > 0 {
		c.Rate = float64(c.Messages) / (0.9 * c.Length.Seconds())
	}
	if c.Skewed != "" && !c.WithoutHistory {
		return fmt.Errorf("storm.Config.Skewed: needs WithoutHistory, as a history needs one clock")
	}
	if c.Nodes != 1 && c.Nodes != 3 {
		return fmt.Errorf("storm.Config.Nodes %d: must be 1 or 3", c.Nodes)
	}
	if c.Folder != "" {
		return os.MkdirAll(c.Folder, 0o755)
	}
	folder, err := os.MkdirTemp("", "outlast-storm-")
	c.Folder = folder
	return err
}

func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Progress is what a run has come to.
type Progress struct {
	Seconds   int `json:"seconds"`
	Committed int `json:"committed"`
	Effects   int `json:"effects"`
	Waiting   int `json:"waiting"`
}

// Run carries out one storm. The error is of the lab, not of what is under test: see
// [Report.Problems] for that.
func Run(ctx context.Context, c Config) (_ *Report, err error) {
	temporary := c.Folder == ""
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	s := &storm{Config: c, timeline: fault.NewTimeline(c.Out), used: map[string]Usage{}}
	report := &Report{Seed: c.Seed, Began: s.timeline.Start(), Folder: c.Folder}
	fmt.Fprintf(c.Out, "seed %d, %s of load at %.0f messages a second; logs in %s\n", c.Seed, c.Length, c.Rate, c.Folder)
	defer func() {
		if temporary && err == nil && len(report.Problems()) == 0 {
			_ = os.RemoveAll(c.Folder)
		}
	}()
	if s.stage, err = raise(ctx, c, s.timeline); err != nil {
		return nil, err
	}
	defer func() { err = firstOf(err, s.stage.close()) }()
	if err := s.run(ctx, report); err != nil {
		return nil, err
	}
	report.Length = time.Since(report.Began).Round(time.Second)
	report.SVG = s.timeline.SVG(fmt.Sprintf("seed %d", c.Seed))
	return report, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
