package console_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// TestHealthTellsWhatTheBooksLack: while messages are missing Health says so, with a link to
// the books, to those who may see them; and no more when they have come.
func TestHealthTellsWhatTheBooksLack(t *testing.T) {
	f := newFixture(t)
	minute := time.Now().UTC().Truncate(time.Minute).Add(-10 * time.Minute)
	write := func(at time.Time, state outlast.MinuteState, lines ...outlast.BookLine) {
		f.must(f.orders.Books().Write(t.Context(), outlast.BookMinute{Minute: at, State: state, Sent: 3}, lines))
	}
	f.page("", "Nothing needs a person.")
	write(minute, outlast.MinuteUnbalanced, outlast.BookLine{Type: typ, Group: group, Sent: 3, Received: 1, Missing: []string{"a", "b"}},
		outlast.BookLine{Type: typ, Group: "stock", Sent: 3, Received: 2, Missing: []string{"a"}})
	write(minute.Add(time.Minute), outlast.MinuteUnbalanced, outlast.BookLine{Type: typ, Group: group, Sent: 1, Missing: []string{"c"}})
	const words = "2 minutes of orders are unbalanced: 3 messages are missing"
	page := f.page("", words)
	if strings.Contains(page.words(), "Nothing needs a person") || !strings.Contains(page.text, `href="books?db=`) {
		t.Errorf("the page is %s", page.text)
	}
	f.page("?format=json", words)
	f.who = "other"
	if text := f.page("").words(); strings.Contains(text, "unbalanced") {
		t.Errorf("who may not see orders reads %s", text)
	}
	f.who = "boss"
	write(minute, outlast.MinuteBalanced)
	f.page("", "1 minute of orders is unbalanced: 1 message is missing")
	write(minute.Add(time.Minute), outlast.MinuteBalanced)
	f.page("", "Nothing needs a person.")
	for i := range 102 {
		write(minute.Add(-time.Duration(i)*time.Minute), outlast.MinuteUnbalanced, outlast.BookLine{Type: typ, Group: group, Sent: 1, Missing: []string{"d"}})
	}
	f.page("", "more than 100 minutes of orders are unbalanced: at least 1 message is missing")
}

// TestHealthNamesWhatWaitsForAPerson: a message that holds its key until somebody acts is
// told, and no more once somebody has made it due.
func TestHealthNamesWhatWaitsForAPerson(t *testing.T) {
	f := newFixture(t)
	m := message()
	m.Envelope.Key = "ada"
	tx := f.mark(m)
	f.must(tx.Wait(t.Context(), &outlast.Waiting{Group: group, Message: m, Ordered: true, Attempts: 3, Wait: 10 * 366 * 24 * time.Hour, Reason: outlast.WaitSpent}))
	f.must(tx.Commit(t.Context()))
	const words = "1 message order.placed.v1 in billing cannot succeed and hold"
	f.page("", words)
	f.page("?format=json", words, `"spent":1`)
	if found := f.page("find?q=" + m.ID).words(); strings.Contains(found, "STRANDED") || !strings.Contains(found, "waiting (spent)") {
		t.Errorf("it is found as %s", found)
	}
}
