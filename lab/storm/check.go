package storm

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/storm/role"
)

// Account is what the ledgers say about one group.
type Account struct {
	Group string `json:"group"`
	// Committed messages were the group's to handle; Effects and Dead are how they ended.
	Committed int `json:"committed"`
	Effects   int `json:"effects"`
	Dead      int `json:"dead"`
	// Lost were committed and came to no end. Explained are those of them that were written
	// before the end of a time in which we had deleted the group's queue or bindings.
	Lost      int `json:"lost"`
	Explained int `json:"explained"`
	// Waiting came to no end and are still in an outbox, held, in a queue, or wait for a retry:
	// the run did not come to rest.
	Waiting int `json:"waiting,omitempty"`
	// Ghosts came to an end and were never committed.
	Ghosts int `json:"ghosts"`
	// Doubled took effect again, or are dead and took effect.
	Doubled int `json:"doubled"`
	// Inverted took effect after a later one of their key and type; Across after a later one
	// of their key and another type, which may be when a route is held.
	Inverted int `json:"inverted"`
	Across   int `json:"across"`
	// Delayed would be Inverted, but the first copy missed the group by our hand, and a second one
	// came: another group had it in order.
	Delayed int `json:"delayed,omitempty"`
	// Innocent are dead letters that no handler condemned, Spared the poison that took effect.
	Innocent int `json:"innocent"`
	Spared   int `json:"spared"`
	// Suspected are dead because processes died with them in hand, which we had killed.
	Suspected int `json:"suspected,omitempty"`
	// Stories tell of the first of each kind.
	Stories []string `json:"stories,omitempty"`
}

// Broken names the promises that were broken.
func (a Account) Broken() []string {
	var broken []string
	for _, p := range []struct {
		n    int
		what string
	}{{a.Lost, "lost"}, {a.Ghosts, "ghosts"}, {a.Doubled, "doubled"}, {a.Inverted, "out of order"}, {a.Innocent, "innocent and dead"}, {a.Spared, "poison that took effect"}} {
		if p.n > 0 {
			broken = append(broken, fmt.Sprintf("%s: %d %s", a.Group, p.n, p.what))
		}
	}
	return broken
}

// Add adds the counts of another group.
func (a *Account) Add(b Account) {
	a.Committed += b.Committed
	a.Effects += b.Effects
	a.Dead += b.Dead
	a.Lost += b.Lost
	a.Explained += b.Explained
	a.Waiting += b.Waiting
	a.Ghosts += b.Ghosts
	a.Doubled += b.Doubled
	a.Inverted += b.Inverted
	a.Across += b.Across
	a.Delayed += b.Delayed
	a.Innocent += b.Innocent
	a.Spared += b.Spared
	a.Suspected += b.Suspected
}

type sentLine struct {
	seq      int64
	typ, key string
	n        int64
	poison   bool
	at       time.Time
}

// course is the order in which a group's effects came.
type course struct {
	inverted []inversion
	inOrder  map[string]bool // ids with a key
}

type inversion struct {
	id, typ string
	seq     int64
	story   string
}

// check asks the ledgers, which are independent of Outlast's own tables.
func (s *stage) check(ctx context.Context, report *Report) error {
	var courses []course
	for _, group := range s.groups() {
		c := course{inOrder: map[string]bool{}}
		a, err := s.account(ctx, group, &c, report.Rest.Reached)
		if err != nil {
			return err
		}
		report.Accounts, courses = append(report.Accounts, a), append(courses, c)
	}
	for i := range courses {
		report.Accounts[i].judgeOrder(i, courses, s.gapsSoFar())
	}
	return nil
}

// judgeOrder tells messages that we kept from a group for a while from those that Outlast did
// not keep in order. A publish goes to all groups at once: when another one has the message in
// order, it was published in order.
func (a *Account) judgeOrder(own int, courses []course, gaps []gap) {
	for _, v := range courses[own].inverted {
		missed := slices.ContainsFunc(gaps, func(g gap) bool { return g.explains(a.Group, v.typ, v.seq) })
		elsewhere := slices.ContainsFunc(courses, func(c course) bool { return c.inOrder[v.id] })
		if missed && elsewhere {
			a.Delayed++
			continue
		}
		a.Inverted++
		a.tell(a.Inverted, "%s", v.story)
	}
}

func (s *stage) account(ctx context.Context, group string, c *course, rested bool) (Account, error) {
	a := Account{Group: group}
	sent, err := s.sent(ctx, group)
	if err != nil {
		return a, err
	}
	first := s.first(group)
	for _, m := range sent {
		if m.seq >= first {
			a.Committed++
		}
	}
	ended := map[string]bool{}
	if err := s.checkEffects(ctx, &a, c, sent, ended); err != nil {
		return a, err
	}
	if err := s.checkDead(ctx, &a, sent, ended); err != nil {
		return a, err
	}
	waiting, err := s.waiting(ctx, group)
	if err != nil {
		return a, err
	}
	if !rested {
		if err := s.queued(ctx, group, waiting); err != nil {
			a.Stories = append(a.Stories, fmt.Sprintf("what lies in its queues counts as lost, they could not be read: %v", err))
		}
	}
	gaps := s.gapsSoFar()
	for id, m := range sent {
		switch {
		case ended[id] || m.seq < first:
		case waiting[id]:
			a.Waiting++
		case slices.ContainsFunc(gaps, func(g gap) bool { return g.explains(group, m.typ, m.seq) }):
			a.Explained++
		default:
			a.Lost++
			a.tell(a.Lost, "lost: %s %s of %s, n %d, written %s", m.typ, id, m.key, m.n, m.at.Format("15:04:05.000"))
		}
	}
	return a, nil
}

// waiting are the messages that a group may still get.
func (s *stage) waiting(ctx context.Context, group string) (map[string]bool, error) {
	ids := map[string]bool{}
	for _, q := range []struct {
		database, query string
		args            []any
	}{
		{source[group], `SELECT id::text FROM outlast_outbox UNION SELECT id::text FROM outlast_held`, nil},
		{s.database(group), `SELECT id::text FROM outlast_retry WHERE grp = $1`, []any{group}},
	} {
		found, err := s.ids(ctx, q.database, q.query, q.args...)
		if err != nil {
			return nil, err
		}
		maps.Copy(ids, found)
	}
	return ids, nil
}

// queued adds the messages that lie in a group's queues, which nobody may consume. They stay there.
func (s *stage) queued(ctx context.Context, group string, ids map[string]bool) error {
	g := groupTopology(group)
	return s.onChannel(ctx, func(ch *amqp.Channel) error {
		for partition := range g.Partitions {
			for {
				d, ok, err := ch.Get(g.Queue(partition), false) // taken back when the channel ends
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				ids[d.MessageId] = true
			}
		}
		return nil
	})
}

// ids are those that a query of one column returns.
func (s *stage) ids(ctx context.Context, database, query string, args ...any) (map[string]bool, error) {
	rows, err := s.databases[database].QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids[id] = true
	}
	return ids, rows.Err()
}

// tell keeps the stories of the first few of a kind.
func (a *Account) tell(n int, format string, args ...any) {
	if n <= 5 {
		a.Stories = append(a.Stories, fmt.Sprintf(format, args...))
	}
}

func (s *stage) sent(ctx context.Context, group string) (map[string]sentLine, error) {
	sent := map[string]sentLine{}
	rows, err := s.databases[source[group]].QueryContext(ctx, `SELECT seq, id, type, key, n, poison, at FROM ledger_sent WHERE type = ANY($1)`, role.Hears[group])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var m sentLine
		if err := rows.Scan(&m.seq, &id, &m.typ, &m.key, &m.n, &m.poison, &m.at); err != nil {
			return nil, err
		}
		sent[id] = m
	}
	return sent, rows.Err()
}

// checkEffects walks through the effects in the order of their coming.
func (s *stage) checkEffects(ctx context.Context, a *Account, c *course, sent map[string]sentLine, ended map[string]bool) error {
	cured, err := s.ids(ctx, s.database(a.Group), `SELECT id FROM ledger_cured`)
	if err != nil {
		return err
	}
	rows, err := s.databases[s.database(a.Group)].QueryContext(ctx, `SELECT seq, id, type, key, n, attempt, process, at FROM ledger_effect WHERE grp = $1 ORDER BY seq`, a.Group)
	if err != nil {
		return err
	}
	defer rows.Close()
	// What was first sent before a group was bound may reach it with a second publish, after
	// later messages, and what died comes back after them: nothing is promised of either.
	first := s.first(a.Group)
	latest := map[[2]string]int64{} // by key and type
	latestOf := map[string]int64{}  // by key
	for rows.Next() {
		var e effectLine
		if err := rows.Scan(&e.seq, &e.id, &e.typ, &e.key, &e.n, &e.attempt, &e.process, &e.at); err != nil {
			return err
		}
		a.Effects++
		m, known := sent[e.id]
		_, replayed := s.replayed.Load([2]string{a.Group, e.id})
		switch {
		case !known:
			a.Ghosts++
			a.tell(a.Ghosts, "ghost: %s", e)
		case ended[e.id]:
			a.Doubled++
			a.tell(a.Doubled, "again: %s", e)
		case m.poison && !cured[e.id]:
			a.Spared++
			a.tell(a.Spared, "poison: %s", e)
		}
		if again := ended[e.id]; again || e.key == "" || m.seq < first || replayed {
			ended[e.id] = true
			continue
		}
		ended[e.id] = true
		at := [2]string{e.key, e.typ}
		switch {
		case e.n < latest[at]:
			c.inverted = append(c.inverted, inversion{e.id, e.typ, m.seq, fmt.Sprintf("out of order, after n %d: %s, written %s", latest[at], e, m.at.Format("15:04:05.000"))})
		case e.n < latestOf[e.key]:
			a.Across++
			c.inOrder[e.id] = true
		default:
			c.inOrder[e.id] = true
		}
		latest[at], latestOf[e.key] = max(latest[at], e.n), max(latestOf[e.key], e.n)
	}
	return rows.Err()
}

type effectLine struct {
	seq     int64
	id      string
	typ     string
	key     string
	n       int64
	attempt int
	process string
	at      time.Time
}

func (e effectLine) String() string {
	return fmt.Sprintf("seq %d %s %s of %s, n %d, attempt %d, by %s at %s", e.seq, e.typ, e.id, e.key, e.n, e.attempt, e.process, e.at.Format("15:04:05.000"))
}

// killsProcess is how many processes must have died with a message in hand for it to be a dead letter.
const killsProcess = 3

// killed is how many processes of a group this run has killed.
func (s *stage) killed(group string) (n int) {
	if s.timeline == nil {
		return 0
	}
	for _, l := range s.timeline.Lines() {
		if strings.HasPrefix(l.Name, "kill "+group+"-") {
			n++
		}
	}
	return n
}

func (s *stage) checkDead(ctx context.Context, a *Account, sent map[string]sentLine, ended map[string]bool) error {
	rows, err := s.databases[s.database(a.Group)].QueryContext(ctx, `SELECT id, reason, error, attempts, last_at FROM outlast_dead WHERE grp = $1 ORDER BY seq`, a.Group)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, reason string
		var text sql.NullString
		var attempts int
		var at time.Time
		if err := rows.Scan(&id, &reason, &text, &attempts, &at); err != nil {
			return err
		}
		a.Dead++
		m, known := sent[id]
		switch {
		case !known:
			a.Ghosts++
			a.tell(a.Ghosts, "dead ghost: %s", id)
		case ended[id]:
			a.Doubled++
			a.tell(a.Doubled, "dead and took effect, or dead twice: %s", id)
		case reason == outlast.DeadKills && s.killed(a.Group) >= killsProcess:
			a.Suspected++
		case !m.poison:
			a.Innocent++
			a.tell(a.Innocent, "innocent: %s %s of %s, %s after %d attempts at %s: %s", m.typ, id, m.key, reason, attempts, at.Format("15:04:05.000"), text.String)
		}
		ended[id] = true
	}
	return rows.Err()
}
