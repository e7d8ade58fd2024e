package postgres

import (
	"database/sql/driver"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// textArray is one column of several rows. pgx sends it in binary, without a copy;
// any other driver is given the array's literal by Value. A nil pointer is NULL, and so
// is an array in which nothing was set.
type textArray []*arrayText

type arrayText string

// TextValue makes pgx encode a pointer without allocating.
func (t *arrayText) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(*t), Valid: true}, nil
}

// put sets the i-th of n places.
func (a *textArray) put(i, n int, s *string) {
	if *a == nil {
		*a = make(textArray, n)
	}
	(*a)[i] = (*arrayText)(s)
}

// set is put, for a text in which "" stands for NULL.
func (a *textArray) set(i, n int, s *string) {
	if *s != "" {
		a.put(i, n, s)
	}
}

func (a *textArray) setTime(i, n int, t time.Time) {
	if !t.IsZero() {
		a.put(i, n, new(t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)))
	}
}

func (a *textArray) setMicros(i, n int, d time.Duration) {
	a.put(i, n, new(strconv.FormatInt(micros(d), 10)))
}

// arg is the parameter: NULL, or the array.
func (a textArray) arg() any {
	if a == nil {
		return nil
	}
	return a
}

func (a textArray) Dimensions() []pgtype.ArrayDimension { return dimensions(len(a)) }
func (a textArray) Index(i int) any                     { return a[i] }
func (a textArray) IndexType() any                      { return (*arrayText)(nil) }

func (a textArray) Value() (driver.Value, error) {
	return arrayLiteral(len(a), func(i int) (string, bool) {
		if a[i] == nil {
			return "", false
		}
		return string(*a[i]), true
	}), nil
}

// bytesArray is the same of bytea.
type bytesArray [][]byte

func (a *bytesArray) put(i, n int, b []byte) {
	if *a == nil {
		*a = make(bytesArray, n)
	}
	(*a)[i] = b
}

func (a bytesArray) arg() any {
	if a == nil {
		return nil
	}
	return a
}

func (a bytesArray) Dimensions() []pgtype.ArrayDimension { return dimensions(len(a)) }
func (a bytesArray) Index(i int) any                     { return a[i] }
func (a bytesArray) IndexType() any                      { return []byte(nil) }

func (a bytesArray) Value() (driver.Value, error) {
	return arrayLiteral(len(a), func(i int) (string, bool) { return `\x` + hex.EncodeToString(a[i]), a[i] != nil }), nil
}

func dimensions(n int) []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(n), LowerBound: 1}}
}

var arrayQuoting = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func arrayLiteral(n int, element func(i int) (text string, set bool)) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte("{,"[min(i, 1)])
		if text, set := element(i); set {
			b.WriteByte('"')
			_, _ = arrayQuoting.WriteString(&b, text) // a Builder never fails
			b.WriteByte('"')
		} else {
			b.WriteString("NULL")
		}
	}
	b.WriteByte('}')
	return b.String()
}
