package outlast

import (
	"context"
	"time"
)

// BookStore is the role of the books, in the database of the service that sends. For
// each minute in which messages were enqueued, and each type and group, the books say
// whether the group has seen what was sent. Package journey keeps them.
type BookStore interface {
	// Closed returns an instant of the database's clock: nothing enqueued before it can
	// still be committed, and none of it is pending. What is held of it is not counted:
	// see Due. Zero when nothing is known yet: ask again.
	Closed(ctx context.Context) (time.Time, error)
	// Due returns the minutes before an instant that are not balanced or signed off, the
	// oldest first: those that have messages in the sent log or among the held.
	Due(ctx context.Context, before time.Time, limit int) ([]DueMinute, error)
	// Sent calls yield for everything in the sent log that was enqueued in the minute.
	Sent(ctx context.Context, minute time.Time, yield func(SentMessage) error) error
	// Write replaces a minute and its lines, unless it was signed off.
	Write(ctx context.Context, m BookMinute, lines []BookLine) error
	// Minutes lists minutes, the newest first.
	Minutes(ctx context.Context, q MinuteQuery) ([]BookMinute, error)
	// Lines returns the lines of a minute.
	Lines(ctx context.Context, minute time.Time) ([]BookLine, error)
	// SignOff takes unbalanced and open minutes as they are: what is missing in them is
	// not looked for any more.
	SignOff(ctx context.Context, minutes []time.Time, by Action) (int, error)
	// Reopen has balanced minutes looked at again, those that begin at since or later and,
	// unless it is zero, before until: a receiver may have lost what it had. Minutes that were
	// signed off stay so, and those of which the sent log has dropped something. It returns
	// how many it opened.
	Reopen(ctx context.Context, since, until time.Time, by Action) (int, error)
	// Resend enqueues messages of the sent log once more, with their ids: groups that
	// have seen them find duplicates.
	Resend(ctx context.Context, ids []string, by Action) (Resent, error)
}

// DueMinute is a minute to be looked at. Held messages of it keep it open.
type DueMinute struct {
	Minute time.Time
	Held   int
}

// SentMessage is a row of the sent log as the books need it.
type SentMessage struct {
	ID   string
	Type string
	Fate Fate
}

// MinuteState says how the books of a minute stand.
type MinuteState string

const (
	// MinuteOpen: too early to say, or messages of it are still held.
	MinuteOpen MinuteState = "open"
	// MinuteBalanced: every group has seen what it should.
	MinuteBalanced MinuteState = "balanced"
	// MinuteUnbalanced: messages are missing, and the lines name them.
	MinuteUnbalanced MinuteState = "unbalanced"
	// MinuteSigned: a person took it as it is.
	MinuteSigned MinuteState = "signed"
)

// Closed reports whether nothing is looked for any more.
func (s MinuteState) Closed() bool { return s == MinuteBalanced || s == MinuteSigned }

// BookMinute is the books of a minute in one line.
type BookMinute struct {
	Minute time.Time   `json:"minute"`
	State  MinuteState `json:"state"`
	// Sent counts what left the outbox and was enqueued in that minute.
	Sent int `json:"sent"`
	// At is when the books were looked at last.
	At     time.Time `json:"at,omitzero"`
	Who    string    `json:"who,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// BookLine is what a group has seen of a type's messages of a minute.
type BookLine struct {
	Type  string `json:"type"`
	Group string `json:"group"`
	Sent  int    `json:"sent"`
	// Received counts what the group has seen of it; negative when its database could
	// not be asked.
	Received int `json:"received"`
	// Missing are ids that the group has not seen, at most MaxMissing. More says that
	// there are others.
	Missing []string `json:"missing,omitempty"`
	More    bool     `json:"more,omitempty"`
}

// MaxMissing bounds the ids that a line of the books names.
const MaxMissing = 10_000

// MinuteQuery selects minutes. Limit: default 100, range 1 to 10,000.
type MinuteQuery struct {
	State  MinuteState // empty: any
	Before time.Time   // continues a listing; zero: from the newest
	Limit  int
}

// Limited returns the limit with its default.
func (q MinuteQuery) Limited() int {
	if q.Limit < 1 {
		return 100
	}
	return min(q.Limit, 10_000)
}

// ResendAge is how old a message may be at most that is sent again: a group that
// handled it longer ago may have forgotten it, and would handle it anew. It is
// below the default of [ConsumerConfig].DedupWindow.
const ResendAge = 6 * 24 * time.Hour

// Resent is what became of a Resend. Every id is in exactly one list.
type Resent struct {
	Sent []string `json:"sent"`
	// Bodiless are known, but their bodies are gone: named, not resendable.
	Bodiless []string `json:"bodiless,omitempty"`
	// TooOld are older than ResendAge.
	TooOld []string `json:"too_old,omitempty"`
	// Unknown are not in the sent log.
	Unknown []string `json:"unknown,omitempty"`
}
