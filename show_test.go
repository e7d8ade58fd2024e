package outlast

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

type shownLine struct {
	SKU   string `json:"sku" outlast:"show"`
	Price string
	Of    *shownOrder `json:"of"`
}

type shownBase struct {
	Region string `json:"region" outlast:"find, show"`
	Tax    string `json:"tax"`
}

type shownOrder struct {
	shownBase
	ID     string      `json:"id" outlast:"key,show"`
	Card   string      `json:"card"`
	Lines  []shownLine `json:"lines"`
	Paid   *shownBase  `json:"paid"`
	At     time.Time   `outlast:"show"`
	Local  string      `json:"-"`
	hidden string
}

// What is tagged is shown, wherever it is; all else is masked.
func TestShow_is_what_the_contract_tags(t *testing.T) {
	order := Event[shownOrder]("order.placed", 1)
	body := shownOrder{shownBase: shownBase{Region: "north", Tax: "secret-1"}, ID: "o-1", Card: "secret-2", Local: "secret-3", hidden: "secret-4",
		Lines: []shownLine{{SKU: "a", Price: "secret-5"}, {SKU: "<b>", Of: &shownOrder{ID: "secret-6"}}}}
	m := order.Message(body)
	if m.err != nil {
		t.Fatal(m.err)
	}
	if want := []string{"At", "id", "lines.sku", "paid.region", "region"}; !slices.Equal(m.Show, want) {
		t.Fatalf("paths %q, want %q", m.Show, want)
	}
	got := fmt.Sprintf("%s", m.Envelope.Shown(m.Body))
	if want := `[{At ["0001-01-01T00:00:00Z"]} {id ["o-1"]} {lines.sku ["a" "\u003cb\u003e"]} {paid.region []} {region ["north"]}]`; got != want {
		t.Errorf("shown %s\nwant  %s", got, want)
	}
	if strings.Contains(got, "secret") || !strings.Contains(string(m.Body), "secret-5") {
		t.Errorf("%s of %s", got, m.Body)
	}
}

// Numbers are shown as they were written, lists of lists are passed through, and what is no
// JSON stays masked.
func TestShow_of_other_bodies(t *testing.T) {
	e := Envelope{Show: []string{"n", "a.b"}}
	for body, want := range map[string]string{
		`{"n":12345678901234567890.10,"a":[[{"b":1},{"b":null}],{"c":2},7,{"b":{"x":[1]}}]}`: `[{n [12345678901234567890.10]} {a.b [1 null {"x":[1]}]}]`,
		`[{"n":1},{"n":2}]`: `[{n [1 2]} {a.b []}]`,
		`"n"`:               `[{n []} {a.b []}]`,
		"\x08\x01":          `[]`,
		``:                  `[]`,
	} {
		if got := fmt.Sprintf("%s", e.Shown([]byte(body))); got != want {
			t.Errorf("%q: %s, want %s", body, got, want)
		}
	}
	many, err := json.Marshal(map[string]any{"n": slices.Repeat([]int{1}, 3), "a": slices.Repeat([]map[string]int{{"b": 1}}, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Shown(many); len(s[0].Values) != 1 || len(s[1].Values) != 100 {
		t.Errorf("%d and %d values", len(s[0].Values), len(s[1].Values))
	}
	none := Envelope{}
	if s := none.Shown([]byte(`{"n":1}`)); s != nil {
		t.Errorf("a contract that shows nothing shows %s", s)
	}
}

func TestShow_refuses_what_cannot_be_a_path(t *testing.T) {
	type comma struct {
		A string `json:"a b" outlast:"show"`
		B string `json:"x.y" outlast:"show"`
	}
	type private struct {
		a string `outlast:"show"`
	}
	type left struct {
		A string `json:"-" outlast:"show"`
	}
	_ = private{}.a
	type inner struct {
		C string `outlast:"show"`
	}
	type above struct {
		A inner `json:"a.b"`
	}
	type shadowed struct {
		inner
		C string // what the body has under this name
	}
	for name, err := range map[string]error{
		"a dot":        Event[comma]("a", 1).c.err,
		"not exported": Event[private]("a", 1).c.err,
		"a dot above":  Event[above]("a", 1).c.err,
		"shadowed":     Event[shadowed]("a", 1).c.err,
		"left out":     Event[left]("a", 1).c.err,
	} {
		if CodeOf(err) != CodeInvalid || !strings.Contains(err.Error(), "show") {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := Message{Envelope: Envelope{ID: NewID(), Type: "a.v1", Show: append(slices.Repeat([]string{"long"}, MaxShow), "a,b")}}
	if err := m.Validate(0); err == nil || !strings.Contains(err.Error(), "at most 32 paths") || !strings.Contains(err.Error(), `"a,b"`) {
		t.Errorf("at the door: %v", err)
	}
}

// Whatever a stranger writes there shows nothing, or what it names; the message is good.
func TestShow_travels(t *testing.T) {
	for text, want := range map[string][]string{
		"a,b.c": {"a", "b.c"}, " a , b ": {"a", "b"}, "a..b": nil, "a,": nil, "": nil, "a\x01": nil, ".": nil,
		strings.Repeat("a,", MaxShow) + "a": nil, strings.Repeat("a", 200): nil,
	} {
		if got := parseShow(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		m := Message{}
		m.SetStoredHeaders(Headers{headerShow: text, "own": "1"})
		if !slices.Equal(m.Show, want) || len(m.Headers) != 1 {
			t.Errorf("stored %q: %q beside %v", text, m.Show, m.Headers)
		}
	}
}
