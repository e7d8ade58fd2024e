package outlast

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"time"
)

// Reasons of dead letters, as [DeadLetterRecord] holds them.
const (
	DeadSpent    = "attempts spent"    // the retry policy allows no more
	DeadVerdict  = "verdict"           // the handler said DeadLetter
	DeadKills    = "kills its process" // processes died while it was handled alone
	DeadConflict = "conflict"          // its source and id are known with other content
	DeadInvalid  = "invalid"           // its headers or its body break a limit
	DeadNoID     = "no id"             // nothing names it
)

// OnDead says what becomes of the ordering key of a message that cannot succeed.
type OnDead int

const (
	// DeadReleasesKey makes the message a dead letter: later messages of its key are
	// handled, and the skip is on record. The default.
	DeadReleasesKey OnDead = iota
	// DeadHoldsKey keeps a keyed message of an ordered group waiting, with the reason
	// "spent", and later messages of its key behind it, until a person acts.
	// Messages without a key become dead letters all the same.
	DeadHoldsKey
)

// holdForever is the due time of what only a person moves.
const holdForever = 10 * 366 * 24 * time.Hour

// history is what is known of a message from before this try.
type history struct {
	attempts int
	replays  int
	firstAt  time.Time
}

// deadRecord builds the record of a message that cannot succeed.
func (c *Consumer) deadRecord(m *Message, h history, reason, text string) *DeadLetterRecord {
	text = CleanErrorText(text)
	return &DeadLetterRecord{
		Group:       c.conf.Group,
		Message:     m,
		Ordered:     c.keyOf(m) != "",
		Reason:      reason,
		Error:       text,
		Attempts:    h.attempts,
		Replays:     h.replays,
		FirstAt:     h.firstAt,
		Fingerprint: Fingerprint(m.Type, reason, text),
	}
}

// What differs between two failures of one cause: ids, hex, quoted values, numbers.
var variableParts = regexp.MustCompile(`"[^"]*"|'[^']*'|\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b|\b0[xX][0-9a-fA-F]+\b|\b[0-9a-fA-F]*[0-9][0-9a-fA-F]*\b|[0-9]+`)

// Fingerprint returns a short hash that is the same for failures of one cause: of
// the type, the reason, and the error without its numbers, ids and quoted values.
func Fingerprint(typ, reason, errText string) string {
	normal := strings.Join(strings.Fields(variableParts.ReplaceAllString(errText, "?")), " ")
	sum := sha256.Sum256([]byte(typ + "\x00" + reason + "\x00" + normal))
	return hex.EncodeToString(sum[:6])
}

// derivedID names a message by its content, for messages that nothing else names
// for certain. The same delivery always gets the same name, so that burying it
// twice leaves one dead letter.
func derivedID(prefix string, m *Message) string {
	h := sha256.New()
	part := func(s string) { _, _ = fmt.Fprintf(h, "%d:", len(s)); _, _ = io.WriteString(h, s) }
	for _, s := range []string{m.Source, m.ID, m.Type, m.Envelope.Key, m.ContentType} {
		part(s)
	}
	names := make([]string, 0, len(m.Headers))
	for name := range m.Headers {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		part(name)
		part(m.Headers[name])
	}
	_, _ = h.Write(m.Body)
	return prefix + hex.EncodeToString(h.Sum(nil)[:16])
}

// nameless returns a copy of m that can be stored under a derived id: it has a
// type, and its body fits a table. What had to be cut is told in the note.
func nameless(prefix string, m *Message) (copied *Message, note string) {
	n := *m
	n.ID = derivedID(prefix, m)
	if !validName(n.Type, MaxType) {
		n.Type = "unknown"
	}
	if len(n.Body) > MaxBody {
		note = fmt.Sprintf(" (the body of %d bytes was cut to %d)", len(n.Body), MaxBody)
		n.Body = n.Body[:MaxBody]
	}
	return &n, note
}
