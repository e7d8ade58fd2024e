// Package settings checks the settings of a part, all of them before it says what is wrong.
package settings

import (
	"cmp"
	"fmt"

	"github.com/outlastmq/outlast"
)

// Default sets a setting that was left out.
func Default[T comparable](v *T, standard T) {
	if *v == *new(T) {
		*v = standard
	}
}

// Bad collects the settings that are wrong.
type Bad []outlast.FieldError

// Unless notes a field of a Config, unless it is as it should be.
func (b *Bad) Unless(ok bool, field, limit string, given any) {
	if !ok {
		*b = append(*b, outlast.FieldError{Field: "Config." + field, Limit: limit, Given: fmt.Sprint(given)})
	}
}

// Within notes a field of a Config that is outside lo..hi.
func Within[T cmp.Ordered](b *Bad, field string, v, lo, hi T) {
	b.Unless(v >= lo && v <= hi, field, fmt.Sprintf("%v..%v", lo, hi), v)
}

// Err names all that was noted, with CodeInvalid; nil when nothing was.
func (b Bad) Err(op string) error {
	if len(b) == 0 {
		return nil
	}
	return &outlast.Error{Op: op, Code: outlast.CodeInvalid, Fields: b}
}
