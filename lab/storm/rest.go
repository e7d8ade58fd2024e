package storm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/outlastmq/outlast/lab/storm/role"
)

// source is the service whose messages a group hears.
var source = map[string]string{"billing": "orders", "audit": "orders", "orders": "billing", late: "orders"}

// Rest is how a run came to its end.
type Rest struct {
	// Reached: nothing waits anywhere. Without it State says what still does.
	Reached bool          `json:"reached"`
	Took    time.Duration `json:"took"`
	State   string        `json:"state,omitempty"`
	// Earlier are the processes that ran the earlier commit when the run did not come to rest.
	Earlier []string `json:"earlier,omitempty"`
}

// quiet is how long nothing may change, with nothing waiting, until what is missing counts
// as missing.
const quiet = 30 * time.Second

// rest waits until every committed message is accounted for in every group and nothing
// waits, or until nothing changes any more.
func (s *stage) rest(ctx context.Context, patience time.Duration) (Rest, error) {
	begin := time.Now()
	var last string
	changed := begin
	for {
		state, even, waiting, err := s.state(ctx)
		switch {
		case err != nil:
			state = err.Error()
		case even && waiting == 0:
			return Rest{Reached: true, Took: time.Since(begin)}, nil
		case waiting == 0 && state == last && time.Since(changed) > quiet:
			return Rest{Reached: true, Took: time.Since(begin), State: state}, nil
		}
		if state != last {
			last, changed = state, time.Now()
		}
		if time.Since(begin) > patience {
			return Rest{Took: time.Since(begin), State: state, Earlier: s.earlier()}, nil
		}
		select {
		case <-ctx.Done():
			return Rest{}, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// earlier are the members that run the earlier commit.
func (s *stage) earlier() (names []string) {
	for _, name := range s.names {
		if s.cast[name].isEarlier() {
			names = append(names, name)
		}
	}
	return names
}

// state is the books of all groups in one line, whether they are even, and how many messages
// wait in the databases and ready in the queues.
func (s *stage) state(ctx context.Context) (text string, even bool, waiting int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	even = true
	var parts []string
	for _, group := range s.groups() {
		sent, ended, err := s.books(ctx, group)
		if err != nil {
			return "", false, 0, err
		}
		even = even && sent == ended
		parts = append(parts, fmt.Sprintf("%s: %d of %d", group, ended, sent))
		g := groupTopology(group)
		for p := range g.Partitions {
			depth, err := s.broker().Topology().Depth(ctx, g.Queue(p))
			if err != nil {
				return "", false, 0, err
			}
			if depth.Messages > 0 {
				waiting += depth.Messages
				parts = append(parts, fmt.Sprintf("%d in %s", depth.Messages, depth.Queue))
			}
		}
	}
	for _, name := range databaseNames {
		for _, table := range []string{"outbox", "held", "retry"} {
			n, err := s.count(ctx, name, "SELECT count(*) FROM outlast_"+table)
			if err != nil {
				return "", false, 0, err
			}
			if n > 0 {
				waiting += n
				parts = append(parts, fmt.Sprintf("%d in %s of %s", n, table, name))
			}
		}
	}
	return strings.Join(parts, ", "), even, waiting, nil
}

// books are how many messages a group had to handle, and how many have come to an end.
func (s *stage) books(ctx context.Context, group string) (sent, ended int, err error) {
	sent, err = s.count(ctx, source[group], `SELECT count(*) FROM ledger_sent WHERE type = ANY($1) AND seq >= $2`, role.Hears[group], s.first(group))
	if err != nil {
		return 0, 0, err
	}
	if s.first(group) > 0 {
		ended, err = s.endedOf(ctx, group)
		return sent, ended, err
	}
	ended, err = s.count(ctx, s.database(group), `SELECT (SELECT count(*) FROM ledger_effect WHERE grp = $1) + (SELECT count(*) FROM outlast_dead WHERE grp = $1)`, group)
	return sent, ended, err
}

// endedOf counts only what the group was promised: it may have heard more.
func (s *stage) endedOf(ctx context.Context, group string) (n int, err error) {
	sent, err := s.sent(ctx, group)
	if err != nil {
		return 0, err
	}
	rows, err := s.databases[s.database(group)].QueryContext(ctx, `SELECT id FROM ledger_effect WHERE grp = $1 UNION SELECT id FROM outlast_dead WHERE grp = $1`, group)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	first := s.first(group)
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		if m, known := sent[id]; known && m.seq >= first {
			n++
		}
	}
	return n, rows.Err()
}

func (s *stage) count(ctx context.Context, database, query string, args ...any) (n int, err error) {
	err = s.databases[database].QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// progress is best effort: the databases may be down.
func (s *stage) progress(ctx context.Context) (p Progress) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, group := range s.groups() {
		if sent, ended, err := s.books(ctx, group); err == nil {
			p.Committed += sent
			p.Effects += ended
		}
	}
	p.Waiting = p.Committed - p.Effects
	return p
}
