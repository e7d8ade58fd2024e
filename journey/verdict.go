package journey

import (
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// VerdictKind says what is wrong with a message.
type VerdictKind string

const (
	// Overdue: its deadline has passed, and a group has neither handled it nor given it up.
	Overdue VerdictKind = "overdue"
	// Stuck: it should have moved by itself and has not.
	Stuck VerdictKind = "stuck"
	// Lost: it was sent, and a group that hears its type has never seen it.
	Lost VerdictKind = "lost"
	// Orphan: a group has it, and the database of its source knows nothing of it.
	Orphan VerdictKind = "orphan"
	// Doubled: a group has handled it twice.
	Doubled VerdictKind = "doubled"
	// Stranded: it is not at an end, and nothing and nobody will move it: a mistake in
	// Outlast.
	Stranded VerdictKind = "stranded"
)

// Verdict is what is wrong, with whom, and since when.
type Verdict struct {
	Kind  VerdictKind `json:"kind"`
	Group string      `json:"group,omitempty"`
	Since time.Time   `json:"since,omitzero"`
	Text  string      `json:"text"`
}

// Bench is what is known beside the facts when messages are judged.
type Bench struct {
	Now time.Time
	// Hearers are the groups that hear types, of all databases that were asked. What a group
	// may have forgotten, or was enqueued more than [Trusted] ago when it has not said what,
	// is not missing in it.
	Hearers []outlast.Hearer
	// Complete says that every database was asked: what nobody knows is not there.
	Complete bool
	// Sources are the services whose sent logs were asked, each with the instant from which
	// its log is whole: see [outlast.FactPage]. Zero: nobody knows, and nothing of the
	// service is called an orphan.
	Sources map[string]time.Time
	// Grace is how long what should happen may take. Default: five minutes.
	Grace time.Duration
}

// Judge computes the verdicts on a message. What could not be asked, or was cut off by
// a limit, is never held against it: a gap is drawn as unknown, and judged when it closes.
func (s *Story) Judge(b Bench) {
	if b.Grace == 0 {
		b.Grace = 5 * time.Minute
	}
	s.Verdicts = nil
	say := func(kind VerdictKind, group string, since time.Time, format string, args ...any) {
		s.Verdicts = append(s.Verdicts, Verdict{kind, group, since, fmt.Sprintf(format, args...)})
	}
	s.judgeSend(b, say)
	for i := range s.Groups {
		s.judgeGroup(b, &s.Groups[i], say)
	}
	s.judgeMissing(b, say)
}

type sayer func(kind VerdictKind, group string, since time.Time, format string, args ...any)

func (s *Story) judgeSend(b Bench, say sayer) {
	t := &s.Send
	if !t.AsOf.IsZero() {
		return // it was so: nobody knows what became of it
	}
	if t.State.known() && len(reapersOf(t)) != 1 && !t.State.Final() {
		say(Stranded, "", t.Since, "nothing moves a message that is %s %s", t.State, t.Code)
	}
	switch {
	case t.State == Pending && b.Now.Sub(t.Since) > b.Grace:
		say(Stuck, "", t.Since, "pending since %s: does a relay run?", age(b, t.Since))
	case t.State == Held && !t.Until.IsZero() && b.Now.Sub(t.Until) > b.Grace:
		say(Stuck, "", t.Until, "held (%s), and its time came %s ago", t.Code, age(b, t.Until))
	case t.State == Unknown && len(s.Groups) > 0 && s.Cut == "" && s.shouldBeKnown(b):
		say(Orphan, "", s.Groups[0].Since, "a group has it, and %q knows nothing of it", s.Source)
	}
	if e := s.Envelope; e != nil && (t.State == Pending || t.State == Held) {
		if d := e.Deadline(); !d.IsZero() && d.Before(b.Now) {
			say(Overdue, "", d, "not sent yet, %s after its deadline", age(b, d))
		}
	}
}

// shouldBeKnown reports whether the source's sent log would know the message, had it been
// there: it was enqueued after the log became whole, and so long ago that whoever has it
// has it from there.
func (s *Story) shouldBeKnown(b Bench) bool {
	since, at := b.Sources[s.Source], s.EnqueuedAt()
	sent := func(f outlast.Fact) bool { return f.Group == "" }
	if since.IsZero() || at.IsZero() || slices.ContainsFunc(s.Facts, sent) {
		return false
	}
	return !at.Before(since) && b.Now.Sub(at) > b.Grace
}

func (s *Story) judgeGroup(b Bench, t *Track, say sayer) {
	if !t.AsOf.IsZero() {
		return
	}
	if !t.State.Final() && t.State != Unknown && len(reapersOf(t)) != 1 {
		say(Stranded, t.Group, t.Since, "nothing moves a message that is %s %s", t.State, t.Code)
	}
	if t.State == Waiting && t.Code != outlast.WaitBehind && !t.Until.IsZero() && b.Now.Sub(t.Until) > b.Grace {
		say(Stuck, t.Group, t.Until, "its retry was due %s ago", age(b, t.Until))
	}
	if t.State == Waiting && s.Envelope != nil {
		if d := s.Envelope.Deadline(); !d.IsZero() && d.Before(b.Now) {
			say(Overdue, t.Group, d, "not handled, %s after its deadline", age(b, d))
		}
	}
	handled := map[time.Time]bool{}
	for i := range s.Facts {
		if f := &s.Facts[i]; f.Kind == outlast.FactHandled && f.Group == t.Group {
			handled[f.At] = true
		}
	}
	if len(handled) > 1 {
		say(Doubled, t.Group, t.Since, "handled %d times", len(handled))
	}
}

// judgeMissing looks for groups that should have the message and do not.
func (s *Story) judgeMissing(b Bench, say sayer) {
	s.Awaited = nil
	if s.Send.State != Sent || s.Envelope == nil || s.Cut != "" {
		return
	}
	for _, h := range b.Hearers {
		if !expects(h, s.Envelope.Type, s.Envelope.EnqueuedAt) || !remembers(h, s.Envelope.EnqueuedAt, b) || slices.ContainsFunc(s.Groups, func(t Track) bool { return t.Group == h.Group && t.State != Unknown }) {
			continue
		}
		deadline := s.Envelope.Deadline()
		s.Awaited = append(s.Awaited, h.Group)
		switch {
		case !b.Complete:
		case b.Now.Sub(s.Send.Since) > b.Grace:
			say(Lost, h.Group, s.Send.Since, "sent %s ago, and group %q has never seen it (it may still be in its queue)", age(b, s.Send.Since), h.Group)
		case !deadline.IsZero() && deadline.Before(b.Now):
			say(Overdue, h.Group, deadline, "not handled, %s after its deadline", age(b, deadline))
		}
	}
}

// Trusted is how long an inbox that has not said what it forgot is taken to remember what it
// handled: the default of [outlast.ConsumerConfig].DedupWindow.
const Trusted = 7 * 24 * time.Hour

// remembers reports whether the inbox of a group would surely have a message, had the group
// handled it: it does not forget what was enqueued, and so handled, after that.
func remembers(h outlast.Hearer, at time.Time, b Bench) bool {
	if h.Forgot.IsZero() {
		return b.Now.Sub(at) <= Trusted
	}
	return !at.Before(h.Forgot.Add(b.Grace)) // clocks of two databases
}

// expects reports whether a hearer should get a message of a type enqueued at an instant.
func expects(h outlast.Hearer, typ string, at time.Time) bool {
	return h.Type == typ && !at.Before(h.Since) && (h.Until.IsZero() || at.Before(h.Until))
}

func age(b Bench, t time.Time) time.Duration { return b.Now.Sub(t).Truncate(time.Second) }

// Reaper is what moves messages on that are in a certain state. Every state that is not
// final belongs to exactly one (TestEveryOpenStateHasOneReaper); what belongs to none
// would lie there for ever, which is the verdict Stranded.
type Reaper struct {
	Name string
	// Person: no machine moves it.
	Person bool
	owns   func(t *Track) bool
}

func onSend(state State, codes ...outlast.HeldReason) func(t *Track) bool {
	return func(t *Track) bool {
		return t.Group == "" && t.State == state && (len(codes) == 0 || slices.Contains(codes, outlast.HeldReason(t.Code)))
	}
}

func onGroup(state State, codes ...string) func(t *Track) bool {
	return func(t *Track) bool {
		return t.Group != "" && t.State == state && (len(codes) == 0 || slices.Contains(codes, t.Code))
	}
}

// Reapers are all that move messages on.
var Reapers = []Reaper{
	{Name: "relay: sweep", owns: onSend(Pending)},
	{Name: "relay: due rows", owns: onSend(Held, outlast.HeldDue, outlast.HeldBackoff)},
	{Name: "relay: route probe", owns: onSend(Held, outlast.HeldUnroutable, outlast.HeldRoute)},
	{Name: "relay: drain of the key", owns: onSend(Held, outlast.HeldBehind)},
	{Name: "outlast outbox release or withdraw", Person: true, owns: onSend(Held, outlast.HeldRefused)},
	{Name: "books", owns: onSend(Sent)},
	{Name: "group: scheduler", owns: onGroup(Waiting, outlast.WaitFailed, outlast.WaitSnoozed, outlast.WaitUnavailable, outlast.WaitReplay, outlast.WaitEdited)},
	{Name: "group: next of the key", owns: onGroup(Waiting, outlast.WaitBehind)},
	{Name: "group: an instance that knows the type", owns: onGroup(Waiting, outlast.WaitUnknownType)},
	{Name: "outlast retry now", Person: true, owns: onGroup(Waiting, outlast.WaitSpent)},
	{Name: "outlast dead replay or discard", Person: true, owns: onGroup(Dead)},
}

// reapersOf returns who moves a message on from where it is.
func reapersOf(t *Track) (names []string) {
	for _, r := range Reapers {
		if r.owns(t) {
			names = append(names, r.Name)
		}
	}
	return names
}

// MovedBy names what or who moves a message on from a track; empty at its end.
func (t *Track) MovedBy() string {
	if names := reapersOf(t); len(names) > 0 {
		return names[0]
	}
	return ""
}
