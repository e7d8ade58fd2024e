package outlast

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure an [Error] is, so that a program can act on it
// without reading the text.
type Code string

const (
	// CodeInvalid: something given breaks a limit or a rule; Fields names each.
	CodeInvalid Code = "invalid"
	// CodeUnavailable: a server or the network is down or overloaded. Nothing is
	// wrong with the message or the settings; the same call may succeed later.
	CodeUnavailable Code = "unavailable"
	// CodeUnknown: the outcome of a COMMIT, a publish or an acknowledgement could
	// not be learnt. It may have happened or not, and must be treated as both.
	CodeUnknown Code = "unknown outcome"
	// CodeDenied: wrong credentials or a missing right.
	CodeDenied Code = "denied"
	// CodeNotFound: what the call names is not there.
	CodeNotFound Code = "not found"
	// CodeConflict: something exists already in another shape: a queue with other
	// arguments, a second handler for a type, an outbox owned by another service.
	CodeConflict Code = "conflict"
	// CodeSchema: Outlast's tables are missing, older or newer than this build.
	CodeSchema Code = "schema"
	// CodeLeaseLost: a write came from a relay or a consumer whose lease has passed
	// to another one. The write did nothing.
	CodeLeaseLost Code = "lease lost"
	// CodeRefused: the broker refused this very message or its route.
	CodeRefused Code = "refused"
	// CodeInternal: a bug in Outlast or a server's answer that it does not know.
	CodeInternal Code = "internal"
)

// FieldError is one bad field: its name, the limit it breaks and what was given.
// Given never holds a secret or a message body.
type FieldError struct {
	Field string `json:"field"`
	Limit string `json:"limit"`
	Given string `json:"given"`
}

func (f FieldError) String() string {
	return fmt.Sprintf("%s %s: must be %s", f.Field, f.Given, f.Limit)
}

// Error is the one error type of Outlast. It always unwraps to its cause.
type Error struct {
	// Op is what was being done: "publish order.placed.v1", "open relay".
	Op string
	// Code is the kind of failure.
	Code Code
	// Fields are the bad fields of a CodeInvalid, all of them at once.
	Fields []FieldError
	// Err is the cause; nil when Fields or Code say it all.
	Err error
	// Hint is what a person can do about it; empty when there is nothing to say.
	Hint string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	sep := ": "
	for _, f := range e.Fields {
		b.WriteString(sep)
		b.WriteString(f.String())
		sep = "; "
	}
	if e.Err != nil {
		b.WriteString(sep)
		b.WriteString(e.Err.Error())
	} else if len(e.Fields) == 0 {
		b.WriteString(sep)
		b.WriteString(string(e.Code))
	}
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteString(")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the outermost *Error in err's chain: CodeUnavailable
// for a bare context error or anything else that carries no code but ended by
// its context, CodeInternal for other errors, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return CodeUnavailable
	}
	return CodeInternal
}

// Retryable reports whether the same call may succeed later with nothing changed
// by a person.
func Retryable(err error) bool {
	switch CodeOf(err) {
	case CodeUnavailable:
		return true // the server comes back
	case CodeUnknown:
		return true // ids make a repeat harmless
	case CodeLeaseLost:
		return true // the lease will be taken again
	default:
		// invalid, denied, not found, conflict, schema, refused, internal:
		// the same call fails the same way until somebody changes something.
		return false
	}
}

// fieldErrors collects bad fields so that one error can name them all.
type fieldErrors []FieldError

func (f *fieldErrors) add(field, limit string, given any) {
	*f = append(*f, FieldError{Field: field, Limit: limit, Given: fmt.Sprint(given)})
}

// err returns nil when nothing was added.
func (f fieldErrors) err(op, hint string) error {
	if len(f) == 0 {
		return nil
	}
	return &Error{Op: op, Code: CodeInvalid, Fields: f, Hint: hint}
}
