package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

type journal struct{ s *store }

// tracked reports whether the tables of tracking are there. It is asked anew each
// time: a migration may add them, or take them away, while a relay runs.
func (s *store) tracked(ctx context.Context, db runner) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, s.sql.Get("tracked")).Scan(&n)
	return n == 2, err
}

func (j journal) Tracking(ctx context.Context) error {
	const op = "track messages"
	if j.s.err != nil {
		return j.s.err
	}
	there, err := j.s.tracked(ctx, j.s.db)
	if err == nil && !there {
		return &outlast.Error{Op: op, Code: outlast.CodeSchema, Err: fmt.Errorf("the tables of tracking are not there"), Hint: hintMigrate}
	}
	return mapped(op, err)
}

// log notes a row that is about to leave in the sent log.
func (st *settling) log(ctx context.Context, r *outlast.Row, fate outlast.Fate) error {
	if !st.track {
		return nil
	}
	var find, within any
	if len(r.Find) > 0 {
		find = jsonText(r.Find)
	}
	if r.Within > 0 {
		within = r.Within.Microseconds()
	}
	for _, place := range []string{"", "_held"} {
		found, err := st.run(ctx, "log_sent"+place, r.Seq, r.ID, int(fate), find, within)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		for _, value := range r.Find {
			if _, err := st.run(ctx, "log_key", value); err != nil {
				return err
			}
		}
		if fate <= outlast.FateUnheard {
			_, err = st.run(ctx, "log_body"+place, r.Seq, r.ID)
		}
		return err
	}
	return nil
}

// unlog notes that the sent log will not know what this transaction settles.
func (w *writeTx) unlog(ctx context.Context) error {
	n, err := w.count(ctx, w.s.sql.Get("log_unlogged"))
	if err != nil || n == 0 {
		return err
	}
	return w.exec(ctx, w.s.sql.Get("keep_marks"))
}

// failed notes a try of a row that failed by itself.
func (st *settling) failed(ctx context.Context, h *outlast.Hold) error {
	if !st.track || h.Reason != outlast.HeldBackoff && h.Reason != outlast.HeldRefused {
		return nil
	}
	_, err := st.run(ctx, "fact_add", string(outlast.FactFailed), h.Row.ID, nil, nil, h.Attempts, string(h.Reason), text(outlast.CleanErrorText(h.Error)))
	return err
}

// addFact notes what happened to a message, within the transaction in which it does.
func (w *writeTx) addFact(ctx context.Context, f outlast.Fact) error {
	there, err := w.s.tracked(ctx, w.tx)
	if err != nil || !there {
		return mapped(w.op, err)
	}
	return w.exec(ctx, w.s.sql.Get("fact_add"), string(f.Kind), f.ID, text(f.Source), text(f.Group), f.Attempt, text(f.Code), text(outlast.CleanErrorText(f.Detail)))
}

// failure is the fact of a try that failed in a group.
func failure(group string, m *outlast.Message, attempt int, code, detail string) outlast.Fact {
	return outlast.Fact{Kind: outlast.FactFailed, ID: m.ID, Source: m.Source, Group: group, Attempt: attempt, Code: code, Detail: detail}
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null" // only maps and lists of texts come here
	}
	return string(b)
}

func (j journal) Facts(ctx context.Context, q outlast.FactQuery) (page outlast.FactPage, err error) {
	const op = "find messages"
	if j.s.err != nil {
		return page, j.s.err
	}
	r := factReader{ctx: ctx, s: j.s, page: &page, limit: q.Limited()}
	if _, err := first(j.s.db.QueryRowContext(ctx, j.s.sql.Get("source")), &r.source); err != nil {
		return page, mapped(op, err)
	}
	there, err := j.s.tracked(ctx, j.s.db)
	if err != nil {
		return page, mapped(op, err)
	}
	page.Service, page.Tracked = r.source, there
	ids, flows, keys, likes := asked(q)
	limit := r.limit + 1
	r.read("facts_outbox", r.scanRow(outlast.FactCommitted), ids, flows, keys, likes, limit)
	r.read("facts_held", r.scanRow(outlast.FactHeld), ids, flows, keys, likes, limit)
	r.read("facts_retry", r.scanReceived(outlast.FactWaiting), ids, flows, keys, limit)
	r.read("facts_dead", r.scanReceived(outlast.FactDead), ids, flows, keys, limit)
	r.read("facts_inbox", r.scanInbox, ids, limit)
	if there {
		r.read("facts_sent", r.scanSent, ids, flows, keys, limit)
		r.read("facts_kept", r.scanKept, ids, limit)
		r.read("facts_since", r.scanSince)
	}
	return page, mapped(op, r.err)
}

// asked is what statements take of a FactQuery: lists in JSON.
func asked(q outlast.FactQuery) (ids, flows, keys, likes string) {
	quoted := make([]string, len(q.Keys))
	for i, key := range q.Keys {
		quoted[i] = ":" + jsonText(key)
	}
	// A flow is named by the message that began it.
	return jsonList(append(append([]string{}, q.IDs...), q.Flows...)), jsonList(q.Flows), jsonList(q.Keys), jsonList(quoted)
}

func (j journal) IDs(ctx context.Context, q outlast.FactQuery, before string) (list []string, err error) {
	const op = "find messages"
	if j.s.err != nil {
		return nil, j.s.err
	}
	there, err := j.s.tracked(ctx, j.s.db)
	if err != nil {
		return nil, mapped(op, err)
	}
	one := func(scan scanner) error {
		var id string
		err := scan(&id)
		list = append(list, id)
		return err
	}
	ids, flows, keys, likes := asked(q)
	limit := q.Limited()
	err = each(ctx, j.s.db, j.s.sql.Get("ids_waiting"), []any{ids, flows, keys, likes, before, limit}, one)
	if err == nil && there {
		err = each(ctx, j.s.db, j.s.sql.Get("ids_sent"), []any{ids, flows, keys, before, limit}, one)
	}
	if err != nil {
		return nil, mapped(op, err)
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(b, a) })
	list = slices.Compact(list)
	return list[:min(len(list), limit)], nil
}

// factReader reads the places one after another and stops at the first error.
type factReader struct {
	ctx    context.Context
	s      *store
	page   *outlast.FactPage
	limit  int
	source string
	err    error
}

func (r *factReader) read(name string, one func(scan scanner) error, args ...any) {
	if r.err != nil {
		return
	}
	n := 0
	r.err = each(r.ctx, r.s.db, r.s.sql.Get(name), args, func(scan scanner) error {
		if n++; n > r.limit {
			r.page.More = true
			return nil
		}
		return one(scan)
	})
}

func (r *factReader) add(f outlast.Fact) { r.page.Facts = append(r.page.Facts, f) }

// scanRow reads a row that is still here: it was committed, and it may be held.
func (r *factReader) scanRow(kind outlast.FactKind) func(scan scanner) error {
	return func(scan scanner) error {
		m := &outlast.Message{}
		s := messageScan{m: m}
		held := outlast.Fact{Kind: kind, Now: true}
		var size, at int64
		var next sql.NullInt64
		if err := scan(append(s.targets(), &size, &held.Code, &held.Attempt, &held.Detail, &next, &at)...); err != nil {
			return err
		}
		s.finish()
		m.Source = r.source
		r.add(outlast.Fact{Kind: outlast.FactCommitted, ID: m.ID, Source: r.source, At: m.EnqueuedAt, Envelope: &m.Envelope, Now: kind == outlast.FactCommitted})
		if kind == outlast.FactHeld {
			held.ID, held.Source, held.At, held.Until = m.ID, r.source, time.UnixMicro(at), instant(next)
			r.add(held)
		}
		return nil
	}
}

func (r *factReader) scanSent(scan scanner) error {
	e := &outlast.Envelope{Source: r.source}
	var sent, enqueued int64
	var deadline sql.NullInt64
	var fate outlast.Fate
	var routing string
	var find sql.NullString
	if err := scan(&sent, &enqueued, &deadline, &e.ID, &fate, &e.Type, &e.Kind, &routing, &e.Key, &e.CorrelationID, &e.CausationID, &e.TraceParent, &find); err != nil {
		return err
	}
	e.EnqueuedAt = time.UnixMicro(enqueued)
	if deadline.Valid {
		e.Within = time.Duration(deadline.Int64-enqueued) * time.Microsecond
	}
	if find.Valid && json.Unmarshal([]byte(find.String), &e.Find) != nil {
		e.Find = nil
	}
	r.add(outlast.Fact{Kind: outlast.FactCommitted, ID: e.ID, Source: r.source, At: e.EnqueuedAt, Envelope: e})
	r.add(outlast.Fact{Kind: fate.Kind(), ID: e.ID, Source: r.source, At: time.UnixMicro(sent), Code: routing})
	return nil
}

func (r *factReader) scanReceived(kind outlast.FactKind) func(scan scanner) error {
	return func(scan scanner) error {
		f := outlast.Fact{Kind: kind, Now: true}
		var envelope string
		var next sql.NullInt64
		var last int64
		if err := scan(&f.Group, &f.Source, &f.ID, &envelope, &f.Code, &f.Detail, &f.Attempt, &f.Replays, &next, &last); err != nil {
			return err
		}
		f.Envelope = &outlast.Envelope{}
		if err := json.Unmarshal([]byte(envelope), f.Envelope); err != nil {
			return err
		}
		f.Envelope.ID, f.Envelope.Source = f.ID, f.Source
		f.At, f.Until = time.UnixMicro(last), instant(next)
		r.add(f)
		return nil
	}
}

// scanInbox leaves out what waits: its own row says more.
func (r *factReader) scanInbox(scan scanner) error {
	var f outlast.Fact
	var state string
	var enqueued, at int64
	if err := scan(&f.Group, &f.Source, &f.ID, &state, &enqueued, &at); err != nil {
		return err
	}
	f.At, f.EnqueuedAt = time.UnixMicro(at), time.UnixMicro(enqueued)
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

func (r *factReader) scanSince(scan scanner) error {
	var since sql.NullInt64
	err := scan(&since)
	r.page.Since = instant(since)
	return err
}

func (r *factReader) scanKept(scan scanner) error {
	var f outlast.Fact
	var at int64
	if err := scan(&f.Kind, &f.ID, &f.Source, &f.Group, &at, &f.Attempt, &f.Code, &f.Detail); err != nil {
		return err
	}
	if f.Source == "" {
		f.Source = r.source
	}
	f.At = time.UnixMicro(at)
	r.add(f)
	return nil
}

func (j journal) Failures(ctx context.Context, q outlast.FailureQuery) ([]outlast.Failure, error) {
	if j.s.err != nil {
		return nil, j.s.err
	}
	if q.Limit < 1 || q.Limit > 1000 {
		q.Limit = 100
	}
	var list []outlast.Failure
	err := each(ctx, j.s.db, j.s.sql.Get("failures"), []any{q.Group, micros(q.Before), q.Limit, q.After.Fingerprint, q.After.Group, q.After.Type}, func(scan scanner) error {
		var f outlast.Failure
		var first, last int64
		err := scan(&f.Fingerprint, &f.Group, &f.Type, &f.Reason, &f.Error, &f.Count, &first, &last)
		f.FirstSeen, f.LastSeen = time.UnixMicro(first), time.UnixMicro(last)
		list = append(list, f)
		return err
	})
	return list, mapped("group failures", err)
}

func (j journal) Hear(ctx context.Context, group string, types []string) error {
	w, err := j.s.begin(ctx, "record what group "+group+" hears")
	if err != nil {
		return err
	}
	defer w.rollback()
	there, err := j.s.tracked(ctx, w.tx)
	if err != nil || !there {
		return mapped(w.op, err)
	}
	for _, typ := range types {
		if err := w.exec(ctx, j.s.sql.Get("hear"), group, typ); err != nil {
			return err
		}
	}
	return w.commit(ctx)
}

func (j journal) Unhear(ctx context.Context, group, typ string, by outlast.Action) error {
	_, err := j.s.act(ctx, "books unhear", group+" "+typ, by, func(w *writeTx) (int, error) {
		n, err := w.count(ctx, j.s.sql.Get("unhear"), group, typ)
		return int(n), err
	})
	return err
}

func (j journal) Hearers(ctx context.Context) ([]outlast.Hearer, error) {
	const op = "read who hears what"
	if j.s.err != nil {
		return nil, j.s.err
	}
	there, err := j.s.tracked(ctx, j.s.db)
	if err != nil || !there {
		return nil, mapped(op, err)
	}
	var list []outlast.Hearer
	err = each(ctx, j.s.db, j.s.sql.Get("hearers"), nil, func(scan scanner) error {
		var h outlast.Hearer
		var since int64
		var until, forgot sql.NullInt64
		err := scan(&h.Group, &h.Type, &since, &until, &forgot)
		h.Since, h.Until, h.Forgot = time.UnixMicro(since), instant(until), instant(forgot)
		list = append(list, h)
		return err
	})
	return list, mapped(op, err)
}

// keepRows bounds what one call of Keep deletes of each table.
const keepRows = 5000

// rowBytes is what a row of the sent log takes with its indexes, roughly: see docs/journey.md.
const rowBytes = 400

// Keep deletes the oldest rows: SQLite has no partitions to drop.
func (j journal) Keep(ctx context.Context, r outlast.Retention) (kept outlast.Kept, err error) {
	r = r.Filled()
	w, err := j.s.begin(ctx, "keep the sent log")
	if err != nil {
		return kept, err
	}
	defer w.rollback()
	there, err := j.s.tracked(ctx, w.tx)
	if err != nil || !there {
		return kept, mapped(w.op, err)
	}
	if err := w.exec(ctx, j.s.sql.Get("log_begun")); err != nil {
		return kept, err
	}
	var ends, rows int64
	if err := w.tx.QueryRowContext(ctx, j.s.sql.Get("log_bytes")).Scan(&ends, &rows); err != nil {
		return kept, mapped(w.op, err)
	}
	kept.Bytes = rows * rowBytes
	age := r.Age
	if kept.Bytes > r.Bytes {
		age = min(age, time.Hour)
	}
	if err := j.keep(ctx, w, r, age, &kept); err != nil {
		return kept, mapped(w.op, err)
	}
	return kept, w.commit(ctx)
}

func (j journal) keep(ctx context.Context, w *writeTx, r outlast.Retention, age time.Duration, kept *outlast.Kept) error {
	books := 1
	if !r.Books {
		if err := w.tx.QueryRowContext(ctx, j.s.sql.Get("keep_books")).Scan(&books); err != nil {
			return err
		}
	}
	if err := w.exec(ctx, j.s.sql.Get("keep_body"), r.BodyAge.Microseconds(), books, keepRows); err != nil {
		return err
	}
	var old []int64
	err := each(ctx, w.tx, j.s.sql.Get("keep_old"), []any{age.Microseconds(), books, keepRows}, func(scan scanner) error {
		var seq int64
		err := scan(&seq)
		old = append(old, seq)
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"log_dropped", "drop_body", "drop_key", "drop_sent"} {
		if err := w.exec(ctx, j.s.sql.Get(name), jsonList(old)); err != nil {
			return err
		}
	}
	kept.Dropped = len(old)
	if books == 1 {
		if err := w.exec(ctx, j.s.sql.Get("keep_open"), age.Microseconds()); err != nil {
			return err
		}
	}
	if err := w.tx.QueryRowContext(ctx, j.s.sql.Get("keep_due"), age.Microseconds()).Scan(&kept.Due); err != nil {
		return err
	}
	if err := w.exec(ctx, j.s.sql.Get("log_withdrawn"), r.Age.Microseconds()); err != nil {
		return err
	}
	if err := w.exec(ctx, j.s.sql.Get("keep_facts"), r.Age.Microseconds(), keepRows); err != nil {
		return err
	}
	return w.exec(ctx, j.s.sql.Get("keep_marks"))
}
