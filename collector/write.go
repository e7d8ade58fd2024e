package collector

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// told is what one database said of a message, and when.
type told struct {
	place string
	at    time.Time
	facts []outlast.Fact
	fresh bool // said in this round
}

// kept is a message as it is to be written.
type kept struct {
	id, why string
	asked   time.Time
	told    map[string]told // by place
}

// story folds what all databases said.
func (k *kept) story() *journey.Story {
	var facts []outlast.Fact
	for _, t := range k.told {
		facts = append(facts, t.remembered(!t.fresh)...)
	}
	if list := journey.Fold(facts); len(list) > 0 {
		return list[0]
	}
	return nil
}

// open reports whether something is still to happen to a message.
func open(s *journey.Story, why string, settled time.Time) bool {
	if s.Send.State != journey.Sent && s.Send.State != journey.Unknown && !s.Send.State.Final() {
		return true
	}
	for _, g := range s.Groups {
		if !g.State.Final() && g.State != journey.Unknown {
			return true
		}
	}
	// What is missing, and what a young flow of the share may still grow by.
	return len(s.Groups) == 0 && why == WhyMissing || why == WhySample && since(s).After(settled)
}

// since is when a message was enqueued, or else when it was first heard of.
func since(s *journey.Story) time.Time {
	if at := s.EnqueuedAt(); !at.IsZero() || len(s.Facts) == 0 {
		return at
	}
	return s.Facts[0].At
}

// overdue reports whether a message is past its deadline for somebody who was asked.
func overdue(s *journey.Story, bench journey.Bench) bool {
	s.Judge(bench)
	return slices.ContainsFunc(s.Verdicts, func(v journey.Verdict) bool { return v.Kind == journey.Overdue })
}

// keep writes messages as bench judges them, all by one transaction. What no database
// knows any more is forgotten.
func (s *Store) keep(ctx context.Context, wiped int64, list []*kept, settle time.Duration, bench journey.Bench) error {
	slices.SortFunc(list, func(a, b *kept) int { // one order of locks
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return s.write(ctx, "keep what was collected", wiped, func(w *writer) {
		var gone []string
		for _, k := range list {
			story := k.story()
			if story == nil {
				gone = append(gone, k.id)
				continue
			}
			still := open(story, k.why, k.asked.Add(-settle))
			w.message(k, story, still, still && overdue(story, bench))
		}
		if w.err == nil && len(gone) > 0 {
			w.err = s.drop(ctx, w.tx, gone)
		}
	})
}

// writer stops at the first error.
type writer struct {
	ctx context.Context
	s   *Store
	tx  *sql.Tx
	err error
}

func (w *writer) run(name string, args ...any) {
	if w.err == nil {
		_, w.err = w.tx.ExecContext(w.ctx, w.s.sql.Get(name), args...)
	}
}

func (w *writer) message(k *kept, story *journey.Story, open, overdue bool) {
	bytes := 200 // the row itself, with its indexes, roughly
	for _, t := range k.told {
		text := jsonOf(t.facts)
		bytes += len(text)
		switch {
		case !t.fresh:
		case len(t.facts) == 0:
			w.run("fact_drop", k.id, t.place)
		default:
			w.run("fact_write", k.id, t.place, t.at.UnixMicro(), text)
		}
	}
	flow := k.id
	if e := story.Envelope; e != nil {
		if e.CorrelationID != "" {
			flow = e.CorrelationID
		}
		if e.Key != "" {
			w.run("key_write", e.Key, k.id)
		}
		for _, value := range e.Find {
			w.run("key_write", value, k.id)
		}
	}
	w.run("message_write", k.id, flow, story.Type(), story.Source, k.why, flag(open), since(story).UnixMicro(), k.asked.UnixMicro(), bytes, flag(overdue))
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// due is a message that is to be asked for again.
type due struct{ id, why, flow string }

func (s *Store) due(ctx context.Context, before time.Time, limit int) (list []due, err error) {
	err = each(ctx, s.db, s.sql.Get("due"), []any{before.UnixMicro(), limit}, func(scan func(...any) error) error {
		var d due
		err := scan(&d.id, &d.why, &d.flow)
		list = append(list, d)
		return err
	})
	return list, fail("read what is open", err)
}

func (s *Store) cursors(ctx context.Context) (map[[2]string]int64, error) {
	all := map[[2]string]int64{}
	err := each(ctx, s.db, s.sql.Get("cursors"), nil, func(scan func(...any) error) error {
		var place, kind string
		var at int64
		err := scan(&place, &kind, &at)
		all[[2]string{place, kind}] = at
		return err
	})
	return all, fail("read how far the collector is", err)
}

// told returns what was said before of some messages.
func (s *Store) told(ctx context.Context, ids []string) (map[string][]told, error) {
	all := map[string][]told{}
	for part := range slices.Chunk(ids, mostListed) {
		text, args := s.listed("facts", part)
		err := each(ctx, s.db, text, args, func(scan func(...any) error) error {
			var id, facts string
			var t told
			var at int64
			if err := scan(&id, &t.place, &at, &facts); err != nil {
				return err
			}
			t.at = time.UnixMicro(at).UTC()
			all[id] = append(all[id], t)
			return json.Unmarshal([]byte(facts), &all[id][len(all[id])-1].facts)
		})
		if err != nil {
			return nil, fail("read what was collected", err)
		}
	}
	return all, nil
}

// trackedSince is what the column tracked holds: 0 when there is no sent log, 1 when nobody
// knows since when it is whole, and else the first hour since 1970 in which it was.
func (l *look) trackedSince() int64 {
	switch {
	case !l.tracked:
		return 0
	case l.since.IsZero():
		return 1
	}
	return l.since.Add(time.Hour-time.Second).Unix() / 3600
}

// finish writes how the databases answered and how far the round came.
func (s *Store) finish(ctx context.Context, wiped int64, looks []*look, at time.Time) error {
	return s.write(ctx, "keep how far the collector is", wiped, func(w *writer) {
		for _, l := range looks {
			if l.err != nil {
				w.run("place_unknown", l.name, l.err.Error(), at.UnixMicro())
				continue
			}
			w.run("place_answered", l.name, l.service, l.trackedSince(), at.UnixMicro(), jsonOf(l.status), jsonOf(l.hearers))
			for kind, position := range l.cursors {
				w.run("cursor_write", l.name, kind, position)
			}
		}
	})
}

// drop forgets messages.
func (s *Store) drop(ctx context.Context, tx *sql.Tx, ids []string) error {
	for part := range slices.Chunk(ids, mostListed) {
		for _, name := range []string{"drop_key", "drop_fact", "drop_message"} {
			text, args := s.listed(name, part)
			if _, err := tx.ExecContext(ctx, text, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropOld forgets what is over and was enqueued before an instant.
func (s *Store) dropOld(ctx context.Context, before time.Time, limit int) error {
	_, _, err := s.dropSome(ctx, s.sql.Get("old"), []any{before.UnixMicro(), limit}, func(int, int64) bool { return true })
	return err
}

// shedSome forgets the oldest of a kind, until so many rows and bytes are gone.
func (s *Store) shedSome(ctx context.Context, sample, open, rows int, bytes int64) (n int, freed int64, err error) {
	return s.dropSome(ctx, s.sql.Get("shed"), []any{sample, open, 1000}, func(n int, freed int64) bool { return n < rows || freed < bytes })
}

func (s *Store) dropSome(ctx context.Context, text string, args []any, more func(n int, freed int64) bool) (n int, freed int64, err error) {
	err = s.tx(ctx, "make room in the collector's database", func(tx *sql.Tx) error {
		var ids []string
		err := each(ctx, tx, text, args, func(scan func(...any) error) error {
			var id string
			var bytes int64
			if err := scan(&id, &bytes); err != nil || !more(len(ids), freed) {
				return err
			}
			ids, freed = append(ids, id), freed+bytes
			return nil
		})
		if err != nil {
			return err
		}
		n = len(ids)
		return s.drop(ctx, tx, ids)
	})
	return n, freed, err
}
