package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outlastmq/outlast"
)

type journal struct{ *store }

// tracking remembers whether the tables of tracking are there. They may come while a
// relay runs, by a migration, and go again; until it is known, nothing is tracked.
type tracking struct {
	mu    sync.Mutex
	known bool
	err   error // why there is no tracking
	next  time.Time
	// unlogged is until when the database knows that rows are settled without the sent log.
	unlogged time.Time
}

// lookAgain is how long it takes until tables that were not there are noticed.
const lookAgain = 20 * time.Second

// doubt makes the next call look again, after an error that missing tables explain.
func (t *tracking) doubt(err error) {
	switch outlast.CodeOf(err) {
	case outlast.CodeSchema, outlast.CodeDenied:
		t.mu.Lock()
		t.known = false
		t.mu.Unlock()
	}
}

// tracked returns nil when tracking is possible, and otherwise why it is not.
func (s *store) tracked(ctx context.Context, c querier) (missing, err error) {
	t := &s.journal
	t.mu.Lock()
	if t.known && (t.err == nil || time.Now().Before(t.next)) {
		defer t.mu.Unlock()
		return t.err, nil
	}
	t.mu.Unlock()
	var there, granted bool
	if err := c.QueryRow(ctx, s.sql.Get("tracked"), s.conf.names()["t"]).Scan(&there, &granted); err != nil {
		return nil, err
	}
	switch {
	case !there:
		missing = &outlast.Error{Op: "track messages", Code: outlast.CodeSchema,
			Err: fmt.Errorf("the tables of tracking are not there"), Hint: "outlast migrate up"}
	case !granted:
		missing = &outlast.Error{Op: "track messages", Code: outlast.CodeDenied,
			Err:  fmt.Errorf("this role may not write the sent log"),
			Hint: "grant it SELECT, INSERT, UPDATE and DELETE on all of Outlast's tables"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.err, t.next = true, missing, time.Now().Add(lookAgain)
	return missing, nil
}

func (s *store) tracks(ctx context.Context, c execer, set *outlast.Settlement) (bool, error) {
	if len(set.Sent)+len(set.Hold) == 0 {
		return false, nil
	}
	missing, err := s.tracked(ctx, c)
	switch {
	case err != nil:
		return false, err
	case missing == nil && !set.Untracked:
		return true, nil
	case len(set.Sent) > 0 && outlast.CodeOf(missing) != outlast.CodeSchema:
		return false, s.unlog(ctx, c)
	}
	return false, nil
}

// unlog notes, ahead and before rows go, that the sent log will not know them: it is whole
// from a minute hence at the earliest.
func (s *store) unlog(ctx context.Context, c execer) error {
	t := &s.journal
	now := time.Now()
	t.mu.Lock()
	noted := now.Before(t.unlogged)
	t.mu.Unlock()
	if noted {
		return nil
	}
	if _, err := c.Exec(ctx, s.sql.Get("log_unlogged")); err != nil {
		switch outlast.CodeOf(s.fail("note that nothing is tracked", err, false)) {
		case outlast.CodeDenied, outlast.CodeSchema: // who may not write there is warned of it: see outlast doctor
		default:
			return err
		}
	}
	t.mu.Lock()
	t.unlogged = now.Add(30 * time.Second)
	t.mu.Unlock()
	return nil
}

func (s journal) Tracking(ctx context.Context) error {
	var missing error
	err := s.conn(ctx, "look for the tables of tracking", false, func(c *pgx.Conn) (err error) {
		s.journal.mu.Lock()
		s.journal.known = false
		s.journal.mu.Unlock()
		missing, err = s.tracked(ctx, c)
		return err
	})
	if err != nil {
		return err
	}
	return missing
}

// asked is what statements take of a FactQuery.
type asked struct{ ids, texts, flows, keys, likes []string }

func askedOf(q outlast.FactQuery) asked {
	a := asked{[]string{}, append(append([]string{}, q.IDs...), q.Flows...), notNil(q.Flows), notNil(q.Keys), []string{}}
	for _, id := range a.texts { // a flow is named by the message that began it
		if u, err := uuid.Parse(id); err == nil {
			a.ids = append(a.ids, u.String())
		}
	}
	for _, key := range q.Keys {
		text, _ := json.Marshal(key)
		a.likes = append(a.likes, "%:"+strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(string(text))+"%")
	}
	return a
}

func (s journal) IDs(ctx context.Context, q outlast.FactQuery, before string) (ids []string, err error) {
	a, limit := askedOf(q), q.Limited()
	err = s.conn(ctx, "find messages", false, func(c *pgx.Conn) error {
		missing, err := s.tracked(ctx, c)
		if err != nil {
			return err
		}
		ids = nil
		batch := &pgx.Batch{}
		read := func(name string, args ...any) {
			batch.Queue(s.sql.Get(name), args...).Query(func(rows pgx.Rows) error {
				list, err := pgx.CollectRows(rows, pgx.RowTo[string])
				ids = append(ids, list...)
				return err
			})
		}
		batch.Queue(s.sql.Get("facts_begin"))
		read("ids_waiting", a.ids, a.flows, a.keys, limit, a.likes, a.texts, before)
		if missing == nil {
			batch.Queue(s.sql.Get("facts_indexed"))
			read("ids_sent", a.ids, a.flows, a.keys, limit, before)
		}
		return c.SendBatch(ctx, batch).Close()
	})
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(b, a) })
	ids = slices.Compact(ids)
	return ids[:min(len(ids), limit)], err
}

func (s journal) Facts(ctx context.Context, q outlast.FactQuery) (page outlast.FactPage, err error) {
	a, limit := askedOf(q), q.Limited()
	ids, texts, flows, keys, likes := a.ids, a.texts, a.flows, a.keys, a.likes
	err = s.conn(ctx, "find messages", false, func(c *pgx.Conn) error {
		missing, err := s.tracked(ctx, c)
		if err != nil {
			return err
		}
		r := factReader{page: &page, limit: limit, batch: &pgx.Batch{}}
		page.Tracked = missing == nil
		r.batch.Queue(s.sql.Get("facts_begin")).QueryRow(func(row pgx.Row) error { return row.Scan(nil, nil, &r.source) })
		read := func(name string, scan func(rows pgx.Rows) error, args ...any) {
			r.batch.Queue(s.sql.Get(name), args...).Query(func(rows pgx.Rows) error { return r.read(name, rows, scan) })
		}
		read("facts_outbox", r.scanRow(outlast.FactCommitted), ids, flows, keys, limit+1, likes)
		read("facts_held", r.scanRow(outlast.FactHeld), ids, flows, keys, limit+1, likes)
		read("facts_retry", r.scanReceived(outlast.FactWaiting), texts, flows, keys, limit+1)
		read("facts_dead", r.scanReceived(outlast.FactDead), texts, flows, keys, limit+1)
		r.batch.Queue(s.sql.Get("facts_indexed"))
		read("facts_inbox", r.scanInbox, texts, limit+1)
		if page.Tracked {
			read("facts_sent", r.scanSent, ids, flows, keys, limit+1)
			read("facts_kept", r.scanKept, texts, limit+1)
			r.batch.Queue(s.sql.Get("facts_since")).QueryRow(func(row pgx.Row) error {
				var since *time.Time
				err := row.Scan(&since)
				page.Since = utc(since)
				return err
			})
		}
		err = c.SendBatch(ctx, r.batch).Close() // one way to the server and back
		page.Service = r.source
		return err
	})
	return page, err
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// factReader reads the places one after another, in one transaction.
type factReader struct {
	batch  *pgx.Batch
	page   *outlast.FactPage
	limit  int
	source string // empty before the first relay
}

func (r *factReader) read(name string, rows pgx.Rows, scan func(rows pgx.Rows) error) error {
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n >= r.limit {
			r.page.More = true
			break
		}
		if err := scan(rows); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil // rows.Err comes from the batch
}

func (r *factReader) add(f outlast.Fact) { r.page.Facts = append(r.page.Facts, f) }

// scanRow reads a row that is still here: it was committed, and it may be held.
func (r *factReader) scanRow(kind outlast.FactKind) func(rows pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var l rowScan
		var reason, text string
		var attempts int
		var next *time.Time
		var at time.Time
		if err := rows.Scan(append(l.dest(), &reason, &attempts, &text, &next, &at)...); err != nil {
			return err
		}
		e := &l.row().Envelope
		e.Source = r.source
		fact := outlast.Fact{Kind: outlast.FactCommitted, ID: e.ID, Source: r.source, At: e.EnqueuedAt, Envelope: e}
		if kind == outlast.FactCommitted {
			fact.Now = true
			r.add(fact)
			return nil
		}
		r.add(fact)
		r.add(outlast.Fact{Kind: kind, ID: e.ID, Source: r.source, At: at.UTC(), Attempt: attempts, Code: reason, Detail: text, Until: utc(next), Now: true})
		return nil
	}
}

func (r *factReader) scanSent(rows pgx.Rows) error {
	e := &outlast.Envelope{Source: r.source}
	var sent, enqueued time.Time
	var deadline *time.Time
	var fate outlast.Fate
	var exchange, routing string
	var find *string
	if err := rows.Scan(&sent, &enqueued, &deadline, &e.ID, &fate, &e.Type, &e.Kind, &exchange, &routing,
		&e.Key, &e.CorrelationID, &e.CausationID, &e.TraceParent, &find); err != nil {
		return err
	}
	e.EnqueuedAt = enqueued.UTC()
	if deadline != nil {
		e.Within = deadline.Sub(enqueued)
	}
	if find != nil && json.Unmarshal([]byte(*find), &e.Find) != nil {
		e.Find = nil
	}
	r.add(outlast.Fact{Kind: outlast.FactCommitted, ID: e.ID, Source: r.source, At: e.EnqueuedAt, Envelope: e})
	r.add(outlast.Fact{Kind: fate.Kind(), ID: e.ID, Source: r.source, At: sent.UTC(), Code: routing})
	return nil
}

func (r *factReader) scanReceived(kind outlast.FactKind) func(rows pgx.Rows) error {
	return func(rows pgx.Rows) error {
		f := outlast.Fact{Kind: kind, Now: true}
		var envelope, print string
		var next *time.Time
		var firstAt, lastAt time.Time
		if err := rows.Scan(&f.Group, &f.Source, &f.ID, &envelope, &f.Code, &f.Detail, &f.Attempt, &f.Replays, &next, &firstAt, &lastAt, &print); err != nil {
			return err
		}
		m, err := decodeMessage(envelope, nil)
		if err != nil {
			return err
		}
		f.Envelope = &m.Envelope
		f.Envelope.ID, f.Envelope.Source = f.ID, f.Source
		f.At, f.Until = lastAt.UTC(), utc(next)
		r.add(f)
		return nil
	}
}

// scanInbox leaves out what waits: its own row says more.
func (r *factReader) scanInbox(rows pgx.Rows) error {
	var f outlast.Fact
	var state string
	var enqueued, at time.Time
	if err := rows.Scan(&f.Group, &f.Source, &f.ID, &state, &enqueued, &at); err != nil {
		return err
	}
	f.At, f.EnqueuedAt = at.UTC(), enqueued.UTC()
	switch state {
	case "handled":
		f.Kind, f.Now = outlast.FactHandled, true
	case "dead":
		f.Kind = outlast.FactDead // discarded, unless the dead letter is there
	default:
		return nil
	}
	r.add(f)
	return nil
}

func (r *factReader) scanKept(rows pgx.Rows) error {
	var f outlast.Fact
	if err := rows.Scan(&f.Kind, &f.ID, &f.Source, &f.Group, &f.At, &f.Attempt, &f.Code, &f.Detail); err != nil {
		return err
	}
	if f.Source == "" {
		f.Source = r.source
	}
	f.At = f.At.UTC()
	r.add(f)
	return nil
}

// execer is a connection or a transaction of pgx.
type execer interface {
	querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// addFacts notes what happened to messages, within the transaction in which it does.
func (s *store) addFacts(ctx context.Context, tx execer, kind outlast.FactKind, group string, msgs []factOf, attempt int, code, detail string) error {
	if len(msgs) == 0 {
		return nil
	}
	missing, err := s.tracked(ctx, tx)
	if err != nil || missing != nil {
		return err
	}
	ids, sources := make([]string, len(msgs)), make([]string, len(msgs))
	for i, m := range msgs {
		ids[i], sources[i] = m.id, m.source
	}
	_, err = tx.Exec(ctx, s.sql.Get("fact_add"), string(kind), ids, sources, group, attempt, code, outlast.CleanErrorText(detail))
	return err
}

// factOf names the message of a fact.
type factOf struct{ id, source, group string }

// addActed notes what a person did to messages, group by group.
func (s *store) addActed(ctx context.Context, tx execer, kind outlast.FactKind, msgs []factOf, by outlast.Action) error {
	groups := map[string][]factOf{}
	for _, m := range msgs {
		groups[m.group] = append(groups[m.group], m)
	}
	for group, list := range groups {
		if err := s.addFacts(ctx, tx, kind, group, list, 0, by.Who, by.Reason); err != nil {
			return err
		}
	}
	return nil
}

func readActed(rows pgx.Rows, err error) ([]factOf, error) {
	return collect(func(row pgx.CollectableRow, f *factOf) error { return row.Scan(&f.group, &f.source, &f.id) })(rows, err)
}

func (s journal) Failures(ctx context.Context, q outlast.FailureQuery) (list []outlast.Failure, err error) {
	if q.Limit < 1 || q.Limit > 1000 {
		q.Limit = 100
	}
	err = s.ask(ctx, "group failures", func(tx pgx.Tx) error {
		list, err = collect(func(row pgx.CollectableRow, f *outlast.Failure) error {
			err := row.Scan(&f.Fingerprint, &f.Group, &f.Type, &f.Reason, &f.Error, &f.Count, &f.FirstSeen, &f.LastSeen)
			f.FirstSeen, f.LastSeen = f.FirstSeen.UTC(), f.LastSeen.UTC()
			return err
		})(tx.Query(ctx, s.sql.Get("failures"), q.Group, instant(q.Before), q.Limit, q.After.Fingerprint, q.After.Group, q.After.Type))
		return err
	})
	return list, err
}

func (s journal) Hear(ctx context.Context, group string, types []string) error {
	return s.tx(ctx, "record what group "+group+" hears", func(tx pgx.Tx) error {
		missing, err := s.tracked(ctx, tx)
		if err != nil || missing != nil {
			return err
		}
		_, err = tx.Exec(ctx, s.sql.Get("hear"), group, types)
		return err
	})
}

func (s journal) Unhear(ctx context.Context, group, typ string, by outlast.Action) error {
	_, err := s.act(ctx, "books unhear", group+" "+typ, by, func(tx pgx.Tx) (int, error) {
		tag, err := tx.Exec(ctx, s.sql.Get("unhear"), group, typ)
		return int(tag.RowsAffected()), err
	})
	return err
}

func (s journal) Hearers(ctx context.Context) (list []outlast.Hearer, err error) {
	err = s.ask(ctx, "read who hears what", func(tx pgx.Tx) error {
		missing, err := s.tracked(ctx, tx)
		if err != nil || missing != nil {
			return err
		}
		list, err = collect(func(row pgx.CollectableRow, h *outlast.Hearer) error {
			var until, forgot *time.Time
			err := row.Scan(&h.Group, &h.Type, &h.Since, &until, &forgot)
			h.Since, h.Until, h.Forgot = h.Since.UTC(), utc(until), utc(forgot)
			return err
		})(tx.Query(ctx, s.sql.Get("hearers")))
		return err
	})
	return list, err
}
