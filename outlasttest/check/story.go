package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outlastmq/outlast/outlasttest/history"
)

// storyLines bounds a story; what is in its middle is left out.
const storyLines = 40

// text is a message's id as people read it. The text of an id that is no UUID comes
// from the files.
func (c *checker) text(i int32) string { return uuid.UUID(c.messages.at(i).id).String() }

// teller collects the lines of an example.
type teller struct {
	x     *Example
	m     id
	g     string
	lines []string
	last  string
	again int
}

// tellers are those of all examples, by what they listen to.
type tellers struct {
	all             []*teller
	byMessage, byTx map[id][]*teller
	others          []*teller
}

// listen makes a teller for each example.
func (c *checker) listen() *tellers {
	ts := &tellers{byMessage: map[id][]*teller{}, byTx: map[id][]*teller{}}
	for n := range c.report.Verdicts {
		list := c.report.Verdicts[n].Examples
		for k := range list {
			t := &teller{x: &list[k]}
			ts.all = append(ts.all, t)
			if g := t.x.g; g != 0 {
				t.g = c.groups.text(g)
				t.x.Group = t.g
			}
			c.listenTo(ts, t)
		}
	}
	return ts
}

func (c *checker) listenTo(ts *tellers, t *teller) {
	if t.x.tx != (id{}) {
		ts.byTx[t.x.tx] = append(ts.byTx[t.x.tx], t)
	}
	if t.x.m == 0 {
		if t.x.tx == (id{}) {
			ts.others = append(ts.others, t)
		}
		return
	}
	m := c.messages.at(t.x.m)
	t.m, t.x.Message = m.id, c.text(t.x.m)
	ts.byMessage[m.id] = append(ts.byMessage[m.id], t)
	if m.tx != 0 {
		c.followTx(ts.byTx, m.tx, t)
	}
}

// tell reads the files again and lets each example tell its story.
func (c *checker) tell(ctx context.Context, paths []string) error {
	ts := c.listen()
	if len(ts.all) == 0 {
		return nil
	}
	r, err := history.NewReader(paths...)
	if err != nil {
		return err
	}
	defer r.Close()
	for ctx.Err() == nil {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		ts.hear(&e, c.began)
	}
	for _, t := range ts.all {
		t.flush()
		t.x.Story = t.lines
	}
	return context.Cause(ctx)
}

func (ts *tellers) hear(e *history.Entry, began int64) {
	if e.M != "" {
		for _, t := range ts.byMessage[idOf(e.M)] {
			t.x.Message = e.M
			t.hear(e, began)
		}
	} else if e.Tx != "" {
		for _, t := range ts.byTx[idOf(e.Tx)] {
			t.hear(e, began)
		}
	}
	for _, t := range ts.others {
		if t.concerns(e) {
			t.hear(e, began)
		}
	}
}

// followTx adds a transaction to those that a teller hears of.
func (c *checker) followTx(byTx map[id][]*teller, tx int32, t *teller) {
	for key, i := range c.txIDs {
		if i == tx {
			byTx[key] = append(byTx[key], t)
			return
		}
	}
}

// concerns tells whether an event belongs to a story that is not about a message.
func (t *teller) concerns(e *history.Entry) bool {
	if t.x.scope != "" {
		if e.E != history.Lease || e.Scope != t.x.scope || e.T > t.x.at {
			return false
		}
		if e.O == "renewed" {
			return t.x.at-e.T < int64(30*time.Second)
		}
		for _, s := range e.Slots {
			if s[0] == t.x.slot {
				return true
			}
		}
		return false
	}
	switch e.E {
	case history.Fault, history.Link, history.Killed, history.Quiesce, history.Left:
		return t.x.at-e.T < int64(time.Minute)
	}
	return false
}

func (t *teller) hear(e *history.Entry, began int64) {
	if t.g != "" && e.G != "" && e.G != t.g {
		return // of another group
	}
	line := sentence(e, t.m != id{})
	if line == "" {
		return
	}
	if line == t.last {
		t.again++
		return
	}
	t.flush()
	t.last = line
	t.lines = append(t.lines, fmt.Sprintf("%10.6f  %-14s %s", time.Duration(e.T-began).Seconds(), fmt.Sprintf("%.20s", e.Process.Name), line))
	if len(t.lines) > storyLines {
		head := storyLines / 4
		if !strings.HasPrefix(t.lines[head], "  ...") {
			t.lines[head] = "  ..."
		}
		t.lines = append(t.lines[:head+1], t.lines[head+2:]...)
	}
}

func (t *teller) flush() {
	if t.again > 0 && len(t.lines) > 0 {
		t.lines[len(t.lines)-1] += fmt.Sprintf(" (%d times more)", t.again)
	}
	t.again = 0
}

// sentence tells an event to a person.
func sentence(e *history.Entry, ofMessage bool) string {
	switch e.E {
	case history.Begin:
		if e.G != "" {
			return e.G + ": begin transaction"
		}
		return "begin transaction"
	case history.Committing:
		return "the commit is asked for"
	case history.Commit:
		return "commit: " + e.O + because(e.Error)
	case history.Enqueue:
		s := "enqueue " + e.Type
		if e.Key != "" {
			s += fmt.Sprintf(" of key %q, number %d", e.Key, e.KeySeq)
		}
		return s
	case history.Withdraw:
		return "withdrawn by its producer"
	case history.Claim:
		return fmt.Sprintf("claimed, slot %d under epoch %d%s", e.Slot, e.Epoch, because(e.Why))
	case history.Publish:
		return fmt.Sprintf("publish, try %d under epoch %d", e.Try, e.Epoch)
	case history.Return:
		return fmt.Sprintf("try %d under epoch %d was returned: no queue is bound", e.Try, e.Epoch)
	case history.Confirm:
		return fmt.Sprintf("the broker's word on try %d under epoch %d: %s%s", e.Try, e.Epoch, e.O, because(e.Error))
	case history.Mark:
		return fmt.Sprintf("row deleted as sent, under epoch %d: %s%s", e.Epoch, e.O, because(e.Why+e.Error))
	case history.Hold:
		return fmt.Sprintf("row held (%s, %d attempts), under epoch %d: %s", e.Why, e.N, e.Epoch, e.O)
	case history.Release:
		return fmt.Sprintf("row back in the outbox, under epoch %d: %s", e.Epoch, e.O)
	}
	return groupSentence(e, ofMessage)
}

func groupSentence(e *history.Entry, ofMessage bool) string {
	switch e.E {
	case history.Deliver:
		s := fmt.Sprintf("%s: delivered from %s, session %s, tag %d", e.G, e.Queue, short(e.Session), e.Tag)
		if e.Redelivered {
			s += ", again"
		}
		return s + because(e.Error)
	case history.Start:
		return fmt.Sprintf("%s: handler begins, attempt %d", e.G, e.N)
	case history.Tried:
		return fmt.Sprintf("%s: handler returned: %s%s", e.G, e.O, because(e.Why))
	case history.Effect:
		return fmt.Sprintf("%s: commit of its effects: %s%s", e.G, e.O, because(e.Why+e.Error))
	case history.Park:
		return fmt.Sprintf("%s: waits for %v (%s, %d attempts): commit %s", e.G, time.Duration(e.Wait), e.Why, e.N, e.O)
	case history.Dead:
		return fmt.Sprintf("%s: dead letter (%s, %d attempts): commit %s%s", e.G, e.Why, e.N, e.O, because(e.Error))
	case history.Known:
		return fmt.Sprintf("%s: the inbox knows it: %s", e.G, e.Why)
	case history.Settle:
		return fmt.Sprintf("%s: settled, session %s, tag %d: %s", e.G, short(e.Session), e.Tag, e.O)
	case history.Purge:
		return fmt.Sprintf("%s: the inbox forgot %d messages of %s enqueued before %s", e.G, e.N, e.Source, clock(e.At*1000))
	case history.Operator:
		return fmt.Sprintf("a person: %s%s", e.Name, because(e.Why))
	case history.LedgerRow:
		return fmt.Sprintf("afterwards: the ledger of %s has row %d of its transaction, at %s", e.Name, e.Seq, clock(e.At*1000))
	case history.Left:
		return leftSentence(e, ofMessage)
	}
	return systemSentence(e)
}

func leftSentence(e *history.Entry, ofMessage bool) string {
	if !ofMessage {
		return ""
	}
	return fmt.Sprintf("afterwards: it is %s%s", e.Name, because(e.Why))
}

func systemSentence(e *history.Entry) string {
	switch e.E {
	case history.Lease:
		s := fmt.Sprintf("leases of %s %s by %s", e.Scope, e.O, e.Owner)
		if e.At != 0 {
			s += fmt.Sprintf(" at %s until %s, by the database's clock", clock(e.At*1000), clock(e.Exp*1000))
		}
		return s
	case history.Fault:
		return fmt.Sprintf("fault %s %s%s", e.Name, e.O, because(e.Why))
	case history.Link:
		return fmt.Sprintf("connection of %s: %s%s", e.Name, e.O, because(e.Why))
	case history.Killed:
		return "ended without a word: killed"
	case history.Quiesce:
		return "at rest: " + e.O
	}
	return ""
}

func because(why string) string {
	if why == "" {
		return ""
	}
	if len(why) > 160 {
		why = why[:160] + "..."
	}
	return " (" + strings.ReplaceAll(why, "\n", " ") + ")"
}

func short(session string) string {
	if len(session) > 20 {
		return "..." + session[len(session)-8:]
	}
	return session
}
