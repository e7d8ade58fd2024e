package model

// Rules switch rules of the protocol off, one by one: the zero value is the protocol.
// Each has a test that finds the schedule in which the system without it fails.
type Rules struct {
	// Outbox and relay.
	ReadUncommitted  bool // a pick sees rows of open transactions
	MaxCursor        bool // rule 6 off: a pick goes on above the highest seq it saw
	PickSettled      bool // rule 7 off: a pick may return a row that is settled
	KeepCursor       bool // rule 5 off: a new owner goes on where the old one stood
	PickAnyRow       bool // rule 5 off: an owner does not begin with the first row
	SharedEpoch      bool // rule 5 off: a takeover does not raise the epoch
	NoFence          bool // rule 5 off: a settlement does not ask for its epoch
	ReadAfterLapse   bool // rule 5 off: a relay reads on when its lease may be another one's
	ReuseEpoch       bool // rule 5 off: a relay that gave its slots up goes on under their epoch
	TakeLivingLease  bool // rule 5 off: a lease is taken before its time is over
	ManyPerKey       bool // rule 8 off: several unconfirmed messages of one key
	LaterRowsGoOn    bool // rule 9 off: later rows of a held key are sent
	NoHeldAtTakeover bool // rule 9 off: a new owner does not load the held keys
	HoldInAnyOrder   bool // rule 9 off: a later row may be held before an earlier one
	FreeKeyEarly     bool // rule 9 off: a key is free although rows of it are on their way to the held
	HeldInAnyOrder   bool // rule 9 off: held rows of a key come back in any order
	PutAwayOne       bool // rule 9 off: of a key's rows only one is put away for its route
	AckBeforeReturn  bool // rule 10 off: a confirm is believed before its return
	NotMandatory     bool // rule 10 off: the broker says nothing about a message nobody gets
	MarkWhenSent     bool // rule 10 off: a row is deleted when it is sent
	NackIsConfirm    bool // rule 3 off: a refusal counts as an answer
	ForgetHeldFailed bool // rule 9 off: a row that failed is deleted
	UnknownIsOK      bool // "three outcomes" off: an unknown confirm counts as one

	// Consumer.
	StatesBeforeMark bool // rule 17 off: the states are read before the mark is inserted
	NoWaitingInInbox bool // rule 16 off: the inbox knows only what was handled
	AnyWaitingRow    bool // rule 17 off: any waiting row of a key may run
	NoBehind         bool // rule 17 off: a message passes an earlier one that waits
	AckFirst         bool // an acknowledgement before the commit
	AckAnySession    bool // an acknowledgement counts on any session
	CloseWithWork    bool // rule 19 off: the queue passes on while work is in hand
	ManyActive       bool // rule 19 off: the queue delivers to two instances at once
	LanesMix         bool // rule 19 off: an instance runs messages of a key side by side
	PurgeEarly       bool // rule 21 off: the inbox forgets what its producer has not settled
	DropDead         bool // rule 20 off: what is spent vanishes without a record
}
