// Package planted holds known bugs that a test build can switch on, so that the
// checker of histories is itself proved: it must catch each of them. In any other
// build On is a constant false, and the compiler removes what it guards
// (TestReleaseBuildsContainNoPlantedBug).
package planted

// Bug is one that was found in some real system.
type Bug string

const (
	AckBeforeCommit   Bug = "ack-before-commit"
	MarkBeforeConfirm Bug = "mark-before-confirm"
	MaxIDCursor       Bug = "max-id-cursor"
	NoEpochInMark     Bug = "no-epoch-in-mark"
	AppClockLease     Bug = "app-clock-lease"
	NoMandatory       Bug = "no-mandatory"
	RawTag            Bug = "raw-tag-after-reconnect"
	DeleteByAge       Bug = "delete-by-age"
	AttemptsBurnt     Bug = "attempts-burnt-by-outage"
	CheckThenInsert   Bug = "check-then-insert-inbox"
)

// Bugs are all of them.
var Bugs = []Bug{AckBeforeCommit, MarkBeforeConfirm, MaxIDCursor, NoEpochInMark, AppClockLease, NoMandatory, RawTag, DeleteByAge, AttemptsBurnt, CheckThenInsert}
