package outlast

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"time"
)

// task is one delivery on its way through this process.
type task struct {
	d       *Delivery
	sub     *subscription
	session int // of sub when the delivery came
	lane    *lane
	m       *Message
	mark    Mark
	h       *boundHandler // nil when this build does not know the type
	unfit   *unfit        // set when nothing may run for it

	// suspect: a process may have died with the message in hand. It runs alone.
	suspect bool
	// fate is what a try has decided and the inbox does not know yet.
	fate *fate
	// unsure: a commit's outcome was not learnt.
	unsure bool
	// settled: it was acknowledged.
	settled bool
	// transient counts failures of the database in the handler's hands.
	transient int
	began     time.Time
	trial     trial // of the last run of the handler
}

// unfit says why a delivery becomes a dead letter unseen.
type unfit struct {
	reason string
	text   string
}

// messageID names a message within a group.
type messageID struct{ source, id string }

func (t *task) id() messageID { return messageID{t.mark.Source, t.mark.ID} }

// batchable reports whether the task may share a transaction with others.
func (t *task) batchable() bool {
	return t.unfit == nil && t.h != nil && t.h.limit == nil && !t.suspect && t.fate == nil
}

// newTask turns a delivery into a task: it completes what foreign producers leave
// out, and finds what cannot be handled.
func (c *Consumer) newTask(d *Delivery, sub *subscription, foreign *ForeignQueue) *task {
	t := &task{d: d, sub: sub, m: d.Message}
	if t.m == nil {
		t.m = &Message{}
	}
	if foreign != nil {
		foreign.complete(t.m)
	}
	if t.m.Source == "" {
		t.m.Source = d.Queue
	}
	if t.unfit = inspect(t.m, d.Problem); t.unfit != nil {
		t.bury("content-", t.unfit)
		return t
	}
	t.h = c.handlers[t.m.Type]
	t.mark = Mark{Source: t.m.Source, ID: t.m.ID, Key: c.keyOf(t.m), Hash: contentHash(t.m), EnqueuedAt: t.m.EnqueuedAt,
		Redelivered: d.Redelivered}
	return t
}

// inspect returns why a message cannot be handled whatever the handlers are.
func inspect(m *Message, problem error) *unfit {
	switch {
	case problem != nil:
		return &unfit{DeadInvalid, problem.Error()}
	case m.ID == "":
		return &unfit{DeadNoID, "the message has no id: " + headerID + " is missing or empty"}
	case m.Type == "":
		return &unfit{DeadInvalid, "the message has no type: " + headerType + " is missing or empty"}
	case len(m.Body) > MaxBody:
		return &unfit{DeadInvalid, "the body is too large"}
	}
	return nil
}

// bury makes the task one that only records a dead letter, under a name derived
// from the content, because its own name is missing, bad or taken.
func (t *task) bury(prefix string, why *unfit) {
	m, note := nameless(prefix, t.m)
	t.unfit = &unfit{why.reason, why.text + note}
	t.m = m
	t.mark = Mark{Source: m.Source, ID: m.ID, Hash: contentHash(m), EnqueuedAt: m.EnqueuedAt}
}

// complete fills what an adapter could not take from its protocol's own fields.
func (f *ForeignQueue) complete(m *Message) {
	setDefault(&m.Type, f.Type)
	if f.IDHeader != "" {
		setDefault(&m.ID, m.Headers[f.IDHeader])
	}
	if f.KeyHeader != "" {
		setDefault(&m.Envelope.Key, m.Headers[f.KeyHeader])
	}
	setDefault(&m.Source, f.Source)
	setDefault(&m.Source, f.Queue)
	if f.DeriveID && m.ID == "" {
		m.ID = derivedID("content-", m)
	}
}

// contentHash tells another content under the same name from a duplicate.
func contentHash(m *Message) int64 {
	h := fnv.New64a()
	var size [8]byte
	for _, s := range []string{m.Type, m.Envelope.Key, m.ContentType} {
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		_, _ = h.Write(size[:])
		_, _ = io.WriteString(h, s)
	}
	_, _ = h.Write(m.Body)
	return int64(h.Sum64())
}

// expired reports whether the message has lost its worth, by this process's clock.
func expired(m *Message) bool {
	return !m.ExpiresAt.IsZero() && time.Now().After(m.ExpiresAt)
}

var errExpired = errors.New("the message expired before it was handled")
