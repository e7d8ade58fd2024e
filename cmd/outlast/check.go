package main

import (
	"fmt"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/check"
	"github.com/spf13/cobra"
)

// checkFlags are those of check.
type checkFlags struct {
	recover  time.Duration
	tries    int
	examples int
	strict   bool
}

func (p *program) checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check HISTORY...",
		Short: "Check recorded histories of a test run: was any promise broken?",
		Long: `check reads the history files that the processes of a test run have recorded with
the package outlasttest/history, merges them by time, and says of each invariant
whether it held, was violated, or was not exercised. A violation comes with the
story of its message.

The exit code is 1 when an invariant is violated or a file is no history, and, with
--strict, when the run did not see all the rare events that make it a real test (I24).`,
		Example: `  outlast check history/*.jsonl
  outlast check --json history/*.jsonl`,
		Args: func(c *cobra.Command, given []string) error {
			if len(given) > 0 {
				return nil
			}
			return usage(c.CommandPath(), "arguments", "one or more history files", "none", "see "+c.CommandPath()+" --help")
		},
		RunE: func(cmd *cobra.Command, files []string) error { return p.check(cmd, f, files) },
	}
	cmd.Flags().DurationVar(&f.recover, "recover", 2*time.Minute, "longest time from the last fault until everything is at rest")
	cmd.Flags().IntVar(&f.tries, "tries", 120, "how often one message may be handled in a minute")
	cmd.Flags().IntVar(&f.examples, "examples", 3, "how many violations of each invariant are told in full")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "fail too when the run was not a real test (I24)")
	return cmd
}

func (p *program) check(cmd *cobra.Command, f checkFlags, files []string) error {
	for flag, bad := range map[string]bool{"--recover": f.recover <= 0, "--tries": f.tries < 1, "--examples": f.examples < 1} {
		if bad {
			return usage(cmd.CommandPath(), flag, "positive", "zero or less", "")
		}
	}
	report, err := check.Files(cmd.Context(), check.Options{Recover: f.recover, TriesPerMinute: f.tries, Examples: f.examples}, files...)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
	}
	if p.json {
		err = p.printJSON(report)
	} else {
		err = report.Write(p.out)
	}
	switch {
	case err != nil:
		return err
	case report.Violated():
		return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeConflict, Hint: "an invariant is violated"}
	case f.strict && report.Verdict("I24").State != check.Holds:
		return &outlast.Error{Op: cmd.CommandPath(), Code: outlast.CodeConflict, Hint: "the run was not a real test: " + report.Verdict("I24").Note}
	}
	return nil
}
