package console

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outlastmq/outlast/journey"
)

// functions are what templates call. All of them return plain text: the templates escape it.
var functions = template.FuncMap{
	"link":    link,
	"clock":   clock,
	"exact":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") },
	"machine": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"age":     func(d time.Duration) string { return age(d) },
	"ago":     func(t time.Time) string { return age(time.Since(t)) },
	"plural":  plural,
	"num":     grouped,
	"upper":   strings.ToUpper,
	"minute":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
	"dict":    dict,
	"shown":   shownValue,
	"movedBy": func(t journey.Track) string { return t.MovedBy() },
	"partOf":  partOf,
	"add":     func(a, b int) int { return a + b },
}

// link is a path with its query, by pairs of names and values; empty values are left out.
func link(path string, pairs ...any) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := fmt.Sprint(pairs[i+1]); v != "" {
			q.Set(fmt.Sprint(pairs[i]), v)
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// age is a duration as people say it: two units at most.
func age(d time.Duration) string {
	switch d = d.Truncate(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

func grouped(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// partOf says which part of all messages a page holds; empty when it holds all.
func partOf(p *journey.Page) string {
	of := grouped(p.Total)
	if p.AtLeast {
		of = "at least " + of
	}
	switch {
	case p.First == 1 && p.Last == p.Total:
		return ""
	case p.First > 0:
		return fmt.Sprintf("Messages %s–%s of %s, counted from the newest.", grouped(p.First), grouped(p.Last), of)
	case p.Newest:
		return ""
	case p.Earlier != "" || p.AtLeast:
		return fmt.Sprintf("What comes after the newest %s has no numbers.", grouped(p.Total))
	}
	return fmt.Sprintf("Nothing comes after this one: all %s are later.", of)
}

// form is the form of what is said of one or of many.
func form(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ry"):
		return grouped(n) + " " + strings.TrimSuffix(noun, "y") + "ies"
	}
	return grouped(n) + " " + noun + "s"
}

// shownValue is a value of a body as a page shows it; its end is cut off when it is long.
func shownValue(v json.RawMessage) string {
	const most = 200
	if len(v) <= most {
		return string(v)
	}
	return strings.ToValidUTF8(string(v[:most]), "") + "…"
}
