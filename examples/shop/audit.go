package shop

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// Account is what became of the messages that one group, or all groups, had to handle.
type Account struct {
	// Committed messages are those of committed transactions that somebody, or this
	// group, must handle.
	Committed int `json:"committed"`
	// Handled counts messages that took effect, each once for every group.
	Handled int `json:"handled"`
	// Retried counts those, handled or dead, that needed more than one try.
	Retried int `json:"retried"`
	// Dead counts dead letters.
	Dead int `json:"dead"`
	// Lost messages were committed, and neither took effect nor became a dead letter.
	Lost int `json:"lost"`
	// Doubled counts effects beyond a message's first, and dead letters that took effect.
	Doubled int `json:"doubled"`
	// OutOfOrder counts messages that took first effect after a later one of their key.
	OutOfOrder int `json:"out_of_order"`
	// FirstOutOfOrder tells of the first of them, for whoever looks for the cause.
	FirstOutOfOrder string `json:"first_out_of_order,omitempty"`
	// Ghosts are messages that took effect, or died, and that nobody committed.
	Ghosts int `json:"ghosts"`
	// LongestBacklog is the greatest number of messages that waited at one moment.
	LongestBacklog int `json:"longest_backlog"`
	// RecoverySeconds is the time from the end of the outage until nothing waited any
	// more that was committed before it.
	RecoverySeconds float64 `json:"recovery_seconds"`
}

// Broken reports whether a promise was broken.
func (a Account) Broken() bool {
	return a.Lost > 0 || a.Doubled > 0 || a.OutOfOrder > 0 || a.Ghosts > 0
}

func (a *Account) add(b Account) {
	a.Handled += b.Handled
	a.Retried += b.Retried
	a.Dead += b.Dead
	a.Lost += b.Lost
	a.Doubled += b.Doubled
	a.OutOfOrder += b.OutOfOrder
	a.FirstOutOfOrder = cmp.Or(a.FirstOutOfOrder, b.FirstOutOfOrder)
	a.Ghosts += b.Ghosts
}

// Report is the outcome of an audit. The totals are sums over the groups, except
// that Committed counts a message once, whatever the number of groups that hear it;
// LongestBacklog and RecoverySeconds of the whole are not known from the journals.
type Report struct {
	Account
	// Orders are those that were accepted; Poison those of them that cannot be paid.
	Orders int                `json:"orders"`
	Poison int                `json:"poison"`
	Groups map[string]Account `json:"groups"`
}

type messageID struct{ source, id string }

type sentLine struct {
	typ      string
	key      string
	position int64
	at       int64 // microseconds since 1970
}

type effectLine struct {
	messageID
	attempt int
	at      int64
}

// Audit compares what the services committed with what took effect, from the tables
// of all of them. outageEnd is when an outage ended; zero means that there was none.
// It reads each database by itself, so the shop must be at rest for exact figures.
func Audit(ctx context.Context, databases []*Database, outageEnd time.Time) (*Report, error) {
	sent := map[messageID]sentLine{}
	for _, db := range databases {
		if err := db.readSent(ctx, sent); err != nil {
			return nil, err
		}
	}
	report := &Report{Groups: map[string]Account{}}
	report.Committed = len(sent)
	for _, db := range databases {
		if db.Service == "orders" {
			err := db.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN card IN ($1, $2) THEN 1 END) FROM orders`,
				CardExpired, CardUnreadable).Scan(&report.Orders, &report.Poison)
			if err != nil {
				return nil, err
			}
		}
		effects, err := db.readEffects(ctx)
		if err != nil {
			return nil, err
		}
		dead, err := db.readDead(ctx)
		if err != nil {
			return nil, err
		}
		types, err := heard(db.Service)
		if err != nil {
			return nil, err
		}
		a := account(types, sent, effects, dead, outageEnd)
		report.Groups[db.Service] = a
		report.add(a)
	}
	return report, nil
}

// account settles a group that hears these types. Dead letters are lines whose at is
// their death.
func account(types []string, sent map[messageID]sentLine, effects, dead []effectLine, outageEnd time.Time) Account {
	var a Account
	ends := map[messageID]effectLine{}
	last := map[[2]string]int64{} // by source and key
	for _, e := range effects {
		line, known := sent[e.messageID]
		_, again := ends[e.messageID]
		switch {
		case !known:
			a.Ghosts++
			continue
		case again:
			a.Doubled++
			continue
		}
		ends[e.messageID] = e
		a.Handled++
		if e.attempt > 1 {
			a.Retried++
		}
		key := [2]string{e.source, line.key}
		if line.position < last[key] {
			a.OutOfOrder++
			a.FirstOutOfOrder = cmp.Or(a.FirstOutOfOrder, fmt.Sprintf("%s %s of %s: position %d (committed at %d) took effect at %d, in attempt %d, after position %d",
				line.typ, e.id, e.source, line.position, line.at, e.at, e.attempt, last[key]))
		}
		last[key] = max(last[key], line.position)
	}
	for _, d := range dead {
		a.Dead++
		if d.attempt > 1 {
			a.Retried++
		}
		if _, known := sent[d.messageID]; !known {
			a.Ghosts++
		} else if _, took := ends[d.messageID]; took {
			a.Doubled++
		}
		ends[d.messageID] = d
	}
	waits := backlog{outageEnd: outageEnd}
	for id, line := range sent {
		if !slices.Contains(types, line.typ) {
			continue
		}
		a.Committed++
		end, ended := ends[id]
		if !ended {
			a.Lost++
		}
		waits.add(line.at, end.at, ended)
	}
	a.LongestBacklog, a.RecoverySeconds = waits.longest(), waits.recovery().Seconds()
	return a
}

// backlog finds how many messages waited at the worst moment.
type backlog struct {
	outageEnd time.Time
	steps     []step
	lastEnd   int64 // of what was committed before the outage ended
}

type step struct {
	at     int64
	change int
}

func (b *backlog) add(from, to int64, ended bool) {
	b.steps = append(b.steps, step{from, 1})
	if !ended {
		return
	}
	b.steps = append(b.steps, step{to, -1})
	if from < b.outageEnd.UnixMicro() {
		b.lastEnd = max(b.lastEnd, to)
	}
}

func (b *backlog) longest() int {
	slices.SortFunc(b.steps, func(x, y step) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.change, y.change)) })
	waiting, most := 0, 0
	for _, s := range b.steps {
		waiting += s.change
		most = max(most, waiting)
	}
	return most
}

func (b *backlog) recovery() time.Duration {
	if b.outageEnd.IsZero() {
		return 0
	}
	return max(0, time.UnixMicro(b.lastEnd).Sub(b.outageEnd))
}

// heard returns the types that a service handles.
func heard(service string) ([]string, error) {
	p, err := newPart(service, nil, false)
	if err != nil {
		return nil, err
	}
	var types []string
	for _, h := range p.handlers {
		types = append(types, h.Type())
	}
	return types, nil
}

func (d *Database) readSent(ctx context.Context, into map[messageID]sentLine) error {
	rows, err := d.QueryContext(ctx, `SELECT id, type, ordering_key, position, at FROM journal_sent`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		id, line := messageID{source: d.Service}, sentLine{}
		if err := rows.Scan(&id.id, &line.typ, &line.key, &line.position, &line.at); err != nil {
			return err
		}
		into[id] = line
	}
	return rows.Err()
}

func (d *Database) readEffects(ctx context.Context) ([]effectLine, error) {
	rows, err := d.QueryContext(ctx, `SELECT source, id, attempt, at FROM journal_effect ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var lines []effectLine
	for rows.Next() {
		var e effectLine
		if err := rows.Scan(&e.source, &e.id, &e.attempt, &e.at); err != nil {
			return nil, err
		}
		lines = append(lines, e)
	}
	return lines, rows.Err()
}

// readDead returns the dead letters, however many.
func (d *Database) readDead(ctx context.Context) ([]effectLine, error) {
	filter := outlast.Filter{Group: d.Service, Limit: 10_000}
	var lines []effectLine
	for {
		items, err := d.Store.Operator().Dead().List(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			lines = append(lines, effectLine{messageID{item.Envelope.Source, item.Envelope.ID}, item.Attempts, item.LastAt.UnixMicro()})
			filter.After = item.Seq
		}
		if len(items) < filter.Limit {
			return lines, nil
		}
	}
}

// Effects counts the effects so far, for a view of the progress.
func (d *Database) Effects(ctx context.Context) (int, error) {
	var n int
	err := d.QueryRowContext(ctx, `SELECT count(*) FROM journal_effect`).Scan(&n)
	return n, err
}
