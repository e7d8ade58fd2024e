package console_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

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
