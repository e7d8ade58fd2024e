package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes, the same for every command.
const (
	exitOK      = 0 // done; for a check: all is well
	exitFailure = 1 // it could not be done, or a check found something
	exitUsage   = 2 // the command line or a setting is wrong; nothing was done
)

// usageError marks an error of the command line or a setting.
type usageError struct{ cause *outlast.Error }

func (u usageError) Error() string { return u.cause.Error() }
func (u usageError) Unwrap() error { return u.cause }

// usage returns an error for exit code 2: the field, what it must be, what was given.
func usage(op, field, limit, given, hint string) error {
	return usageError{&outlast.Error{
		Op: op, Code: outlast.CodeInvalid, Hint: hint,
		Fields: []outlast.FieldError{{Field: field, Limit: limit, Given: given}},
	}}
}

// inUsage marks an adapter's word about a setting as a wrong command line.
func inUsage(op string, err error) error {
	if outlast.CodeOf(err) != outlast.CodeInvalid {
		return err
	}
	var e *outlast.Error
	if !errors.As(err, &e) {
		e = &outlast.Error{Op: op, Code: outlast.CodeInvalid, Err: err}
	}
	return usageError{e}
}

// withHint adds advice to an *outlast.Error that has none.
func withHint(err error, hint string) error {
	var e *outlast.Error
	if errors.As(err, &e) && e.Hint == "" {
		e.Hint = hint
	}
	return err
}

// interrupted is the end of a long command by Ctrl-C: done says how far it came.
func interrupted(op, done string) error {
	return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: errors.New("interrupted; " + done)}
}

// flagError renders cobra's errors about flags in our words. A value is echoed only
// when it looks like a number that went wrong, as it may be a misplaced secret.
func flagError(c *cobra.Command, err error) error {
	command := c.CommandPath()
	var (
		unknown  *pflag.NotExistError
		noValue  *pflag.ValueRequiredError
		badValue *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &badValue):
		given := "another text"
		if v := badValue.GetValue(); len(v) <= 20 && v != "" && strings.Contains("-+.0123456789", v[:1]) {
			given = fmt.Sprintf("%q", v)
		}
		return usage(command, "--"+badValue.GetFlag().Name, flagLimit(badValue), given, "")
	case errors.As(err, &noValue):
		return usage(command, "--"+noValue.GetFlag().Name, "followed by its value", "without one", "")
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if len(name) > 32 || strings.ContainsAny(name, "@:/ ") {
			name = "..."
		}
		return usage(command, "flag "+dashed(name), "one of those in --help", "unknown", nearestFlag(c, unknown.GetSpecifiedName()))
	default:
		return usage(command, "flags", "as in --help", "something else", "")
	}
}

// nearestFlag is a hint at the flag of a command that may have been meant.
func nearestFlag(c *cobra.Command, name string) string {
	best, least := "", 1+len(name)/4
	look := func(f *pflag.Flag) {
		if d := edits(name, f.Name); !f.Hidden && (d <= least && (best == "" || d < least) || best == "" && len(name) > 2 && strings.HasPrefix(f.Name, name)) {
			best, least = f.Name, min(d, least)
		}
	}
	c.Flags().VisitAll(look)
	if best == "" {
		return "see " + c.CommandPath() + " --help"
	}
	return "did you mean --" + best + "?"
}

// edits counts the letters to insert, delete or replace until a is b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			other := before
			if a[i] != b[j] {
				other++
			}
			before, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, other)
		}
	}
	return row[len(b)]
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func flagLimit(err *pflag.InvalidValueError) string {
	switch err.GetFlag().Value.Type() {
	case "int", "int64", "uint":
		return "a whole number"
	case "float64":
		return "a number"
	case "duration":
		return `a duration like "500ms", "10s" or "1h30m"`
	case "bool":
		return "true or false"
	case "bytes":
		return `a size like "65536", "500MiB" or "2GiB"`
	default:
		return "of type " + err.GetFlag().Value.Type()
	}
}

// exitCode tells what a run ends with. Whatever fails before a command starts is a
// wrong command line.
func exitCode(err error, started bool) int {
	var u usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u), !started:
		return exitUsage
	default:
		return exitFailure
	}
}

// explain renders an error for people: the error, then its hint on a line of its own.
func explain(err error) string {
	var e *outlast.Error
	text := err.Error()
	if errors.As(err, &e) && e.Hint != "" {
		if head, ok := strings.CutSuffix(text, " ("+e.Hint+")"); ok {
			text = head + "\n  hint: " + e.Hint
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		text += "\n  hint: --timeout allows more time"
	}
	return text
}

// explainJSON renders an error for programs, as one line.
func explainJSON(err error, hide func(string) string) string {
	out := struct {
		Error struct {
			Op     string               `json:"op,omitempty"`
			Code   outlast.Code         `json:"code"`
			Text   string               `json:"text"`
			Fields []outlast.FieldError `json:"fields,omitempty"`
			Hint   string               `json:"hint,omitempty"`
		} `json:"error"`
	}{}
	out.Error.Code = outlast.CodeOf(err)
	out.Error.Text = hide(err.Error())
	var e *outlast.Error
	if errors.As(err, &e) {
		out.Error.Op, out.Error.Hint = hide(e.Op), hide(e.Hint)
		for _, f := range e.Fields {
			out.Error.Fields = append(out.Error.Fields, outlast.FieldError{Field: hide(f.Field), Limit: hide(f.Limit), Given: hide(f.Given)})
		}
	}
	line, jsonErr := json.Marshal(out)
	if jsonErr != nil {
		return `{"error":{"code":"internal"}}`
	}
	return string(line)
}
