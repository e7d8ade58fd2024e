// Package sqlfile reads the SQL that Outlast embeds: files of named statements,
// migrations in goose's format, and the identifiers that a user may choose in both.
package sqlfile

import (
	"fmt"
	"regexp"
	"strings"
)

// Names are the identifiers that stand for {{name}} in an SQL file, such as a
// table prefix or a schema. The empty string is allowed and stands for nothing.
type Names map[string]string

// MaxIdentifier is the greatest length of a name in bytes: with the longest of
// our table and index names behind it, it stays below PostgreSQL's 63.
const MaxIdentifier = 24

var identifier = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// CheckIdentifier returns nil when s can stand in SQL without quotes: lower-case
// letters, digits and '_', not starting with a digit, at most MaxIdentifier bytes.
// It is an allow-list, so that no identifier can carry SQL.
func CheckIdentifier(s string) error {
	if len(s) > MaxIdentifier || !identifier.MatchString(s) {
		return fmt.Errorf("identifier %q: must be 1 to %d of a-z, 0-9 and '_', not starting with a digit", cut(s), MaxIdentifier)
	}
	return nil
}

func cut(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}

var placeholder = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// Expand replaces every {{name}} of text. A name that is not among names is an
// error, so that a typing error cannot reach a database. Values may be anything
// that the caller has checked: a schema with its dot, for example.
func (n Names) Expand(text string) (string, error) {
	var unknown []string
	out := placeholder.ReplaceAllStringFunc(text, func(p string) string {
		value, ok := n[strings.TrimSpace(p[2:len(p)-2])]
		if !ok {
			unknown = append(unknown, p)
		}
		return value
	})
	if unknown != nil {
		return "", fmt.Errorf("unknown names %s", strings.Join(unknown, ", "))
	}
	return out, nil
}
