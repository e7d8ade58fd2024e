package nats

import (
	"context"
	"encoding/json"
	"time"
)

var nak = []byte("-NAK")

// sweepExpires is how long the request that clears the way for redelivery waits.
const sweepExpires = 50 * time.Millisecond

// giveBack tells the server that nobody has the orphans in hand, in their order, so
// that it delivers them again now and not after its wait. What cannot be told
// stays an orphan for the next session.
func (s *subscriber) giveBack(ctx context.Context, l *link) {
	for d, replies := range s.orphans {
		if len(replies) > 0 && !l.giveBack(ctx, d, replies) {
			return
		}
		delete(s.orphans, d)
	}
}

// giveBack returns when the server has worked on all of it. It ignores what is not
// in hand any more by its own account.
func (l *link) giveBack(ctx context.Context, d durable, replies []string) bool {
	taken, ok := l.sweep(ctx, d)
	if !ok {
		return false
	}
	if taken != "" {
		replies = append(replies[:len(replies):len(replies)], taken)
	}
	last := len(replies) - 1
	for _, reply := range replies[:last] {
		if l.Publish(reply, nak) != nil {
			return false
		}
	}
	_, err := l.RequestWithContext(ctx, replies[last], nak)
	return err == nil
}

// sweep makes a short request for one message. The requests that an ended session
// or a lost connection left at the server go with it: to find one of them out, the
// server would take the first message that is given back and put it behind the
// others. When there was a message to take, its acknowledgement subject is returned.
func (l *link) sweep(ctx context.Context, d durable) (taken string, ok bool) {
	in, _ := json.Marshal(map[string]int64{"batch": 1, "expires": int64(sweepExpires)})
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	m, err := l.RequestWithContext(ctx, "$JS.API.CONSUMER.MSG.NEXT."+d.stream+"."+d.name, in)
	if err != nil {
		return "", false
	}
	return m.Reply, true
}
