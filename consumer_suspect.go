package outlast

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// killsProcess is how many processes may die with a message in hand: the first time
	// it is not known which message did it, then it runs alone.
	killsProcess = 3
	// forgetDead is how long the record of a silent instance makes redelivered messages
	// suspects. After it the record is removed; an instance that comes back renews it.
	forgetDead = 10 * time.Minute
	// suspectRetries is how long, after a death was noticed, retries run alone: no
	// redelivered flag tells which of them was in hand.
	suspectRetries = time.Minute
)

// peers is what is known of the group's other instances.
type peers struct {
	mu     sync.Mutex
	stale  time.Duration // without a sign of life for so long: probably dead
	known  map[string]*peer
	deaths int // noticed so far
}

type peer struct {
	age      time.Duration
	seen     time.Time
	advanced bool      // it gave a sign of life since we know it
	dead     time.Time // since when it counts as perhaps dead; zero: it does not
}

func newPeers(stale time.Duration) *peers {
	return &peers{stale: stale, known: map[string]*peer{}}
}

// look takes in the records of others. One that was not seen to advance may belong
// to a dead process, however young it is: a process that died a second ago and was
// started again looks like that.
func (p *peers) look(list []Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	known := make(map[string]*peer, len(list))
	for _, in := range list {
		was := p.known[in.Name]
		n := &peer{age: in.Age, seen: now}
		if was != nil {
			n.dead = was.dead
			n.advanced = was.advanced || in.Age < was.age+now.Sub(was.seen)/2
		}
		switch alive := n.advanced && in.Age < p.stale; {
		case alive:
			n.dead = time.Time{}
		case n.dead.IsZero():
			n.dead = now
			p.deaths++
		}
		known[in.Name] = n
	}
	p.known = known
}

// anyDead reports whether a process of the group may have died.
func (p *peers) anyDead() bool { return p.deadFor(math.MaxInt64) }

// newlyDead reports whether a death was noticed not long ago.
func (p *peers) newlyDead() bool { return p.deadFor(suspectRetries) }

func (p *peers) deadFor(atMost time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.known {
		if !n.dead.IsZero() && time.Since(n.dead) < atMost {
			return true
		}
	}
	return false
}

// deathsNoticed is a number that grows with every death that is noticed.
func (p *peers) deathsNoticed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaths
}

// forgotten returns the instances whose records are of no more use.
func (p *peers) forgotten() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name, n := range p.known {
		if !n.dead.IsZero() && n.age > forgetDead {
			names = append(names, name)
		}
	}
	return names
}

// living returns how many others give signs of life, and whether of some it is
// too early to tell.
func (p *peers) living() (n int, early bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, peer := range p.known {
		switch {
		case peer.dead.IsZero():
			n++
		case time.Since(peer.dead) < p.stale/2 && peer.age < p.stale:
			early = true
		}
	}
	return n, early
}

// suspects are the messages that the inbox knows to be about to run in this
// process: each is counted once, or looking twice would make a killer of it.
//
//	counted -> gone      its end was committed, and the count with it
//	counted -> released  out of hand without an end: the delivery is void, the database
//	                     failed, the process stops. It lives, so the count is not true
//	released -> counted  it runs here again before the count was taken back
//	released -> gone     the count was taken back
//
// The count of a process that dies stays.
type suspects struct {
	mu    sync.Mutex
	count map[messageID]int
	// released are counts that are to be taken back, and taking is the one of them that
	// is being taken.
	released map[messageID]int
	taking   messageID
	// survived are messages that this process has tried and lived, with the number of
	// deaths noticed until then: none of these deaths is theirs, unless another process
	// has tried them since, and then its death is noticed and counts anew.
	survived map[messageID]int
}

func newSuspects() *suspects {
	return &suspects{count: map[messageID]int{}, released: map[messageID]int{}, survived: map[messageID]int{}}
}

// release notes that a message is out of hand, and the process lives. Without a count
// of this process, or after its end, it does nothing.
func (s *suspects) release(id messageID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.count[id]; n > 0 {
		delete(s.count, id)
		s.released[id] = n
	}
}

// counted reports whether the inbox counts the message for this process already. While
// that is being taken back the error says to ask again.
func (s *suspects) counted(id messageID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taking == id {
		return false, fmt.Errorf("%w: its count as a suspect is being taken back", errBusy)
	}
	if n := s.released[id]; n > 0 && s.count[id] == 0 {
		delete(s.released, id)
		s.count[id] = n
	}
	return s.count[id] > 0, nil
}

// owed lists the messages whose counts are to be taken back.
func (s *suspects) owed() []messageID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.released))
}

// take begins to take a count back, unless the message is counted again meanwhile.
func (s *suspects) take(id messageID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released[id] > 0 {
		s.taking = id
	}
	return s.taking == id
}

// taken ends that. What was not taken back stays owed.
func (s *suspects) taken(id messageID, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taking = (messageID{}); done {
		delete(s.released, id)
	}
}

// survive notes that the process has tried a message, which waits now, and lives.
func (s *suspects) survive(id messageID, deaths int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.survived) >= maxOurs {
		clear(s.survived)
	}
	s.survived[id] = deaths
}

// innocent reports whether no death that was noticed can be the message's.
func (s *suspects) innocent(id messageID, deaths int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.survived[id]
	return ok && at == deaths
}

// get returns how often the inbox has counted the message, and 0 when this process
// has not had it counted.
func (s *suspects) get(id messageID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[id]
}

func (s *suspects) set(id messageID, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[id] = n
}

// clear forgets a message whose end was committed.
func (s *suspects) clear(id messageID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.count, id)
	delete(s.survived, id)
}

// countSuspect has the inbox know that a message is about to run although a
// process died with it in hand.
func (r *consumerRun) countSuspect(ctx context.Context, id messageID) error {
	n, err := r.c.inbox.Suspect(ctx, r.c.conf.Group, id.source, id.id)
	if err == nil {
		r.suspects.set(id, n)
	}
	return err
}

// takeBack takes back what was counted of messages that are out of hand. What it cannot
// take back before the process dies makes them suspect sooner than they are, and so does
// a count of which it is unknown whether it was taken: twice would take another's.
func (r *consumerRun) takeBack() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.stop), farewell)
	defer cancel()
	for _, id := range r.suspects.owed() {
		if ctx.Err() != nil || !r.suspects.take(id) {
			continue
		}
		done, err := r.c.inbox.Unsuspect(ctx, r.c.conf.Group, id.source, id.id)
		r.suspects.taken(id, done || CodeOf(err) == CodeUnknown)
		if err != nil {
			r.c.log.Debug("take back that a message is suspect", "source", id.source, "id", id.id, "error", err)
		}
	}
}

// kills reports whether too many processes died with a message in hand. Each other
// one that lives has perhaps counted it without running it, as it changed hands.
// While it is too early to tell who lives, the error says to look again.
func (r *consumerRun) kills(id messageID) (bool, error) {
	n := r.suspects.get(id)
	if n < killsProcess {
		return false, nil
	}
	living, early := r.peers.living()
	if early {
		return false, errEarly
	}
	return n >= killsProcess+living, nil
}

var errEarly = fmt.Errorf("%w: it may have killed processes, and it is too early to tell which are dead", errBusy)

var errKills = errors.New("processes died with the message in hand, again and again, even when it was handled alone")
