package storm

import (
	"context"
	"errors"
	"time"
)

// startLimit is how long nodes may take to agree again, when what ailed them has ended.
const startLimit = 90 * time.Second

// insisting calls f, and lets an operator look after the nodes when it has failed for startLimit:
// those that have not started are restarted. RabbitMQ 3.10 hangs at times while a node rejoins
// the others after a partition ("Faking nodedown/nodeup" is the last line of its log), and
// whatever changes a binding or an exchange hangs with it (seed 5).
func (s *stage) insisting(f func(context.Context) error) func(context.Context) error {
	return patiently(f, s.restartHung)
}

// patiently calls f, and help besides whenever it has failed for startLimit.
func patiently(f, help func(context.Context) error) func(context.Context) error {
	var since time.Time
	return func(ctx context.Context) error {
		err := f(ctx)
		switch {
		case err == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > startLimit:
			since = time.Time{}
			return errors.Join(err, help(ctx))
		}
		return err
	}
}

// restartHung restarts the nodes that say that they have not started, and those that say nothing.
func (s *stage) restartHung(ctx context.Context) error {
	for i, node := range s.rabbit.Nodes() {
		asking, cancel := context.WithTimeout(ctx, time.Minute)
		_, err := node.Ctl(asking, "await_startup", "--timeout", "20")
		cancel()
		if err == nil {
			continue
		}
		s.timeline.Mark("restart " + nodeName(i) + ", which has hung while it started")
		if err := errors.Join(node.Kill(), s.startNode(ctx, i)); err != nil {
			return err
		}
	}
	return nil
}
