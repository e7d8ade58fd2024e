package check

import (
	"fmt"
	"io"
)

// Write tells a person what the report says.
func (r *Report) Write(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	line("%d events of %d messages by %d processes in %.1f s, in %d files", r.Events, r.Messages, r.Processes, r.Span, r.Files)
	if r.Killed > 0 {
		line("%d processes were killed; %d lines are torn", r.Killed, r.Torn)
	}
	line("")
	for _, v := range r.Verdicts {
		text := v.Note
		if v.State == Violated {
			text = fmt.Sprintf("%d times", v.Violations)
		}
		line("%-4s %-22s %-14s %s", v.ID, v.Name, v.State, text)
	}
	for _, v := range r.Verdicts {
		for _, x := range v.Examples {
			line("")
			line("%s %s is violated: %s", v.ID, v.Name, x.Text)
			if x.Message != "" {
				line("message %s", x.Message)
			}
			for _, s := range x.Story {
				line("  %s", s)
			}
		}
		if more := v.Violations - len(v.Examples); more > 0 && len(v.Examples) > 0 {
			line("")
			line("%s: %d violations more", v.ID, more)
		}
	}
	return err
}
