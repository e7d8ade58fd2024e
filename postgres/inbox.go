package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

type inbox struct{ *store }

func (s inbox) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	for sure := 0; ; {
		t, err := s.begin(ctx, "begin handling")
		if err != nil {
			return nil, err
		}
		tx := &inboxTx{handlerTx: t, group: group, marks: marks}
		if err := tx.mark(ctx); err != nil {
			t.Rollback()
			return nil, s.fail("mark messages", err, false)
		}
		if !tx.waits || tx.known() <= sure {
			return tx, nil
		}
		// A mark can be seen whose COMMIT the standby does not have: its wait was cancelled, or the
		// server started again. The caller acknowledges what is known, and a failover must not undo it.
		sure = tx.known()
		t.Rollback()
		err = s.conn(ctx, "wait for the standby", false, func(c *pgx.Conn) error {
			_, err := c.Exec(ctx, s.sql.Get("inbox_barrier"))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
}

// inboxTx implements [outlast.InboxTx].
type inboxTx struct {
	*handlerTx
	group  string
	marks  []outlast.Mark
	states []outlast.Seen
	waits  bool // commits wait for a standby; known only when something was looked up
}

func (t *inboxTx) States() []outlast.Seen { return t.states }

// known is how many messages others have marked.
func (t *inboxTx) known() (n int) {
	for _, seen := range t.states {
		if seen != outlast.SeenNew && seen != outlast.SeenBehind {
			n++
		}
	}
	return n
}

type markKey struct{ source, id string }

// mark inserts the marks and finds out what was known.
func (t *inboxTx) mark(ctx context.Context) error {
	if len(t.marks) == 1 {
		return t.markOne(ctx, &t.marks[0])
	}
	order := make([]int, len(t.marks))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(t.marks[a].Source, t.marks[b].Source), cmp.Compare(t.marks[a].ID, t.marks[b].ID))
	})
	n := len(order)
	sources, ids, keys := make([]string, n), make([]string, n), make([]string, n)
	hashes, times := make([]int64, n), make([]*time.Time, n)
	fresh := false // is a fresh statement needed
	for i, at := range order {
		m := &t.marks[at]
		sources[i], ids[i], keys[i], hashes[i] = m.Source, m.ID, m.Key, m.Hash
		if !m.EnqueuedAt.IsZero() {
			times[i] = &m.EnqueuedAt
		}
		fresh = fresh || m.Key != ""
	}
	rows, err := t.conn.Query(ctx, t.s.sql.Get("mark"), t.group, sources, ids, hashes, times)
	if err != nil {
		return err
	}
	ours := make(map[markKey]bool, n)
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k markKey, err error) {
		err = row.Scan(&k.source, &k.id)
		ours[k] = true
		return k, err
	})
	if err != nil {
		return err
	}
	t.states = make([]outlast.Seen, n)
	for i, at := range order {
		k := markKey{sources[i], ids[i]}
		if ours[k] {
			t.states[at] = outlast.SeenNew
			ours[k] = false // a second mark of the same message is a duplicate of the first
		} else {
			fresh = true
		}
	}
	if !fresh {
		return nil
	}
	return t.look(ctx, order, sources, ids, keys, hashes)
}

// markOne does the same for one message by statements that the server need not plan for
// each, as it does when the number of marks is a parameter's. They go together: one way
// to the server and back, and a second one only for a message that was known.
func (t *inboxTx) markOne(ctx context.Context, m *outlast.Mark) error {
	batch := &pgx.Batch{}
	batch.Queue(t.s.sql.Get("mark_one"), t.group, m.Source, m.ID, m.Hash, instant(m.EnqueuedAt))
	if m.Redelivered {
		batch.Queue(t.s.sql.Get("unsuspect_one"), t.group, m.Source, m.ID)
	}
	look := func(b *pgx.Batch) { b.Queue(t.s.sql.Get("marked_one"), t.group, m.Source, m.ID, m.Key) }
	if m.Key != "" {
		look(batch)
	}
	results := t.conn.SendBatch(ctx, batch)
	tag, err := results.Exec()
	if err == nil && m.Redelivered {
		_, err = results.Exec()
	}
	fresh := tag.RowsAffected() == 1
	t.states = []outlast.Seen{outlast.SeenNew}
	switch {
	case err != nil:
	case m.Key != "":
		err = t.lookOne(results, m, fresh)
	case !fresh:
		if err = results.Close(); err == nil {
			batch = &pgx.Batch{}
			look(batch)
			results = t.conn.SendBatch(ctx, batch)
			err = t.lookOne(results, m, fresh)
		}
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	return err
}

func (t *inboxTx) lookOne(results pgx.BatchResults, m *outlast.Mark, fresh bool) error {
	var state string
	var hash int64
	var behind bool
	if err := results.QueryRow().Scan(&state, &hash, &behind, &t.waits); err != nil {
		return err
	}
	t.states[0] = seenOf(fresh, state, hash == m.Hash, behind)
	return nil
}

// seenOf tells what was known of a message: fresh when its mark was inserted just now.
func seenOf(fresh bool, state string, sameContent, behind bool) outlast.Seen {
	switch {
	case fresh && behind:
		return outlast.SeenBehind
	case fresh:
		return outlast.SeenNew
	case !sameContent:
		return outlast.SeenConflict
	case state == "retry":
		return outlast.SeenWaiting
	case state == "dead":
		return outlast.SeenDead
	default:
		return outlast.SeenHandled
	}
}

func (t *inboxTx) look(ctx context.Context, order []int, sources, ids, keys []string, hashes []int64) error {
	rows, err := t.conn.Query(ctx, t.s.sql.Get("marked"), t.group, sources, ids, keys)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ord int
		var state string
		var hash int64
		var behind bool
		if err := rows.Scan(&ord, &state, &hash, &behind, &t.waits); err != nil {
			return err
		}
		seen := &t.states[order[ord-1]]
		*seen = seenOf(*seen == outlast.SeenNew, state, hash == hashes[ord-1], behind)
	}
	return rows.Err()
}

// markOf returns the hash that the message was marked with, and whether its id was
// known with other content.
func (t *inboxTx) markOf(m *outlast.Message) (hash int64, conflict bool) {
	for i, mark := range t.marks {
		if mark.Source == m.Source && mark.ID == m.ID {
			hash, conflict = mark.Hash, t.states[i] == outlast.SeenConflict
			if !conflict {
				return hash, false
			}
		}
	}
	return hash, conflict
}

func ofMessage(m *outlast.Message) []factOf { return []factOf{{id: m.ID, source: m.Source}} }

func (t *inboxTx) Wait(ctx context.Context, w *outlast.Waiting) error {
	envelope, err := encodeMessage(w.Message)
	if err != nil {
		return err
	}
	hash, _ := t.markOf(w.Message)
	_, err = t.conn.Exec(ctx, t.s.sql.Get("inbox_wait"), t.group, w.Message.Source, w.Message.ID,
		w.Message.Envelope.Key, w.Ordered, w.Message.Type, envelope, bytesOf(w.Message.Body), hash,
		w.Reason, outlast.CleanErrorText(w.Error), w.Attempts, w.Replays, micros(w.Wait), instant(w.FirstAt))
	if err == nil && w.Attempts > 0 && w.Reason == "failed" {
		err = t.s.addFacts(ctx, t.conn, outlast.FactFailed, t.group, ofMessage(w.Message), w.Attempts, w.Reason, w.Error)
	}
	return t.failed("record a waiting message", err)
}

func (t *inboxTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	envelope, err := encodeMessage(d.Message)
	if err != nil {
		return err
	}
	hash, conflict := t.markOf(d.Message)
	_, err = t.conn.Exec(ctx, t.s.sql.Get("inbox_bury"), t.group, d.Message.Source, d.Message.ID,
		d.Message.Envelope.Key, d.Ordered, d.Message.Type, envelope, bytesOf(d.Message.Body), hash,
		d.Reason, outlast.CleanErrorText(d.Error), d.Attempts, d.Replays, d.Fingerprint, conflict, instant(d.FirstAt))
	if err == nil {
		err = t.s.addFacts(ctx, t.conn, outlast.FactFailed, t.group, ofMessage(d.Message), d.Attempts, d.Reason, d.Error)
	}
	return t.failed("record a dead letter", err)
}

func (s inbox) Purge(ctx context.Context, p outlast.PurgeRequest) (n int, err error) {
	if p.SettledBefore.IsZero() || p.Limit < 1 {
		return 0, nil // nothing is known to be settled
	}
	err = s.conn(ctx, "purge the inbox", true, func(c *pgx.Conn) error {
		tag, err := c.Exec(ctx, s.sql.Get("purge"), p.Group, p.Source, p.SettledBefore.UTC(), micros(p.Age), p.Limit)
		n = int(tag.RowsAffected())
		return err
	})
	return n, err
}

func (s inbox) Alive(ctx context.Context, group, instance string) (others []outlast.Instance, err error) {
	err = s.conn(ctx, "show that "+instance+" lives", false, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, s.sql.Get("alive"), group, instance); err != nil {
			return err
		}
		rows, err := c.Query(ctx, s.sql.Get("others"), group, instance)
		if err != nil {
			return err
		}
		others, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (i outlast.Instance, err error) {
			var age int64
			err = row.Scan(&i.Name, &age)
			i.Age = time.Duration(age) * time.Microsecond
			return i, err
		})
		return err
	})
	return others, err
}

func (s inbox) Leave(ctx context.Context, group, instance string) error {
	return s.conn(ctx, "leave group "+group, true, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql.Get("leave"), group, instance)
		return err
	})
}

func (s inbox) Suspect(ctx context.Context, group, source, id string) (count int, err error) {
	err = s.conn(ctx, fmt.Sprintf("suspect message %q", clip(id)), true, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql.Get("suspect"), group, source, id).Scan(&count)
	})
	return count, err
}

func (s inbox) Unsuspect(ctx context.Context, group, source, id string) (done bool, err error) {
	err = s.conn(ctx, fmt.Sprintf("take back that message %q is suspect", clip(id)), true, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql.Get("unsuspect"), group, source, id).Scan(&done)
	})
	return done && err == nil, err
}

func (s inbox) Paused(ctx context.Context, group string) (paused bool, err error) {
	err = s.conn(ctx, "look whether group "+group+" is paused", false, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, s.sql.Get("paused"), group).Scan(&paused)
	})
	return paused, err
}
