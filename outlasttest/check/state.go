package check

import (
	"fmt"

	"github.com/outlastmq/outlast/outlasttest/history"
)

// message is what is known of one message, by its id.
type message struct {
	id       id
	hash     uint64
	tx       int32
	typ      int32
	key      int32
	source   int32
	group    int32 // the first of its groups
	keySeq   int64
	enqueued int64
	claimed  int64 // the highest epoch that claimed it
	acked    int64 // the highest epoch under which it was confirmed
	marked   int64 // the epoch that deleted its row; 0: none, or unknown
	first    int64 // its first publish
	lastAck  int64
	behind   int64 // the last epoch that claimed it later than a higher one
	late     int64 // the last epoch under which a relay was at work on it after such a claim
	epochs   uint16
	acks     uint16
	unsure   uint16 // confirms and marks whose outcome was not known, or nothing
	refusals uint16 // refused, nacked or closed
	returns  uint16
	replays  uint16
	flags    uint16
}

const (
	isEnqueued  = 1 << iota // by somebody in this history
	isUnheard               // it may be that nobody hears it
	isMarked                // its row is gone, by its relay's word
	isExpired               // it was dropped, with its reason
	isWithdrawn             // by a person or its producer
	isPending               // at the end, in the outbox
	isHeld                  // at the end
	isDelivered             // to any group
	isEarly                 // its first publish came before its commit was asked for, if that was told
	isTold                  // it is an example already
)

// reception is what is known of a message in a group.
type reception struct {
	next      int32
	g         int32
	delivered uint16
	effects   uint16 // commits told
	unsure    uint16 // commits unknown
	rows      uint16 // of the ledger
	fails     uint16
	deaths    uint16
	spent     uint16 // the attempts that were told when they were spent, since the last replay
	replays   uint16
	flags     uint16
	started   int64 // the last start
	notBefore int64 // the next one
	minute    int64
	tries     uint16 // since minute
	early     int64  // an acknowledgement that nothing told before it justifies
	handled   int64  // when the first effect was told
}

const (
	isParked  = 1 << iota // it was told to wait
	isDead                // now
	wasDead               // ever: a recorded skip
	isKnown               // the inbox knew it
	isDropped             // expired, or discarded by a person
	leftRetry             // at the end
	leftDead
)

// transaction is one of the business or of a handler.
type transaction struct {
	name   int32 // of its ledger; 0: none
	m, g   int32 // of a handler
	began  int64
	commit outcome
	// committing: its commit was about to be asked for.
	committing bool
	row        bool
	effect     outcome
}

type outcome uint8

const (
	noOutcome outcome = iota
	ok
	failed
	unknown
)

func outcomeOf(o string) outcome {
	switch o {
	case history.OK:
		return ok
	case history.Unknown:
		return unknown
	case "":
		return noOutcome
	}
	return failed
}

type checker struct {
	opt    Options
	report Report

	messages  slab[message]
	ids       map[id]int32
	receipts  slab[reception]
	txs       slab[transaction]
	txIDs     map[id]int32
	groups    names
	types     names
	keys      names
	sources   names
	ledgers   names
	complete  map[int32]bool  // ledgers that were read to their end
	judged    map[int32]int32 // groups whose effects are in a ledger, with its name
	enqueued  map[int32]bool  // types that somebody enqueued
	processes map[*history.Process]bool

	began, ended int64
	quiesced     int64
	quiesce      string // how it ended

	sessions  map[string]*session
	bindings  map[[2]int32]*binding
	order     orders
	ledger    orders
	leases    leases
	faults    faults
	gauges    map[string]*gauge
	purges    map[int32]purge
	rare      map[string]int
	strangers int // messages of types that nobody enqueued
	// lostByHand counts what may have been in a queue that was deleted, once for a group.
	lostByHand int
	// clockSet: a fault set the clock of a database, whose instants may then go back.
	clockSet bool

	tested [invariants + 1]int
	count  [invariants + 1]int
	found  [invariants + 1][]Example
	notes  [invariants + 1]string
}

func newChecker(opt Options) *checker {
	return &checker{
		opt: opt, ids: map[id]int32{}, txIDs: map[id]int32{},
		complete: map[int32]bool{}, judged: map[int32]int32{}, enqueued: map[int32]bool{}, processes: map[*history.Process]bool{},
		sessions: map[string]*session{}, bindings: map[[2]int32]*binding{},
		order: newOrders(), ledger: newOrders(), leases: newLeases(), faults: newFaults(),
		gauges: map[string]*gauge{}, purges: map[int32]purge{}, rare: map[string]int{},
	}
}

// message returns the index of a message, made when it is new.
func (c *checker) message(text string) int32 {
	key := idOf(text)
	i, found := c.ids[key]
	if !found {
		i = c.messages.add()
		c.ids[key] = i
		c.messages.at(i).id = key
	}
	return i
}

// reception returns that of a message in a group, made when it is new.
func (c *checker) reception(m, g int32) *reception {
	msg := c.messages.at(m)
	for i := msg.group; i != 0; i = c.receipts.at(i).next {
		if r := c.receipts.at(i); r.g == g {
			return r
		}
	}
	i := c.receipts.add()
	r := c.receipts.at(i)
	r.g, r.next = g, msg.group
	msg.group = i
	return r
}

// receptions calls f for each group that has to do with a message.
func (c *checker) receptions(m *message, f func(*reception)) {
	for i := m.group; i != 0; {
		r := c.receipts.at(i)
		i = r.next
		f(r)
	}
}

func (c *checker) transaction(text string) int32 {
	if text == "" {
		return 0
	}
	key := idOf(text)
	i, found := c.txIDs[key]
	if !found {
		i = c.txs.add()
		c.txIDs[key] = i
	}
	return i
}

// violated notes a violation of an invariant. The first ones are told in full.
func (c *checker) violated(inv invariant, x Example, format string, args ...any) {
	c.count[inv]++
	if len(c.found[inv]) < c.opt.Examples {
		x.Text = fmt.Sprintf(format, args...)
		if x.m != 0 {
			c.messages.at(x.m).flags |= isTold
		}
		c.found[inv] = append(c.found[inv], x)
	}
}

// inc counts without going around.
func inc(n *uint16) {
	if *n < 1<<16-1 {
		*n++
	}
}
