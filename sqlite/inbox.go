package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

type inbox struct{ s *store }

var _ outlast.TransientErrors = inbox{}

// Transient reports whether an error of a handler is the database's own trouble: the
// lock, the disk, memory.
func (x inbox) Transient(err error) bool {
	switch primary(err) {
	case codeBusy, codeLocked, codeNoMem, codeReadonly, codeIOErr, codeFull, codeCantOpen, codeProtocol, codeSchema:
		return true
	}
	return false
}

type inboxTx struct {
	w      *writeTx
	group  string
	marks  []outlast.Mark
	states []outlast.Seen
}

// Begin takes the write lock first, so that every mark is either committed or its
// own: nothing is waited for after that.
func (x inbox) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	const op = "inbox transaction"
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return nil, err
	}
	t := &inboxTx{w: w, group: group, marks: marks, states: make([]outlast.Seen, len(marks))}
	for i := range marks {
		if t.states[i], err = t.mark(ctx, &marks[i]); err != nil {
			w.rollback()
			return nil, mapped(op, err)
		}
	}
	if err := w.guard(ctx); err != nil {
		w.rollback()
		return nil, err
	}
	return t, nil
}

func (t *inboxTx) mark(ctx context.Context, m *outlast.Mark) (outlast.Seen, error) {
	q := t.w.s.sql
	fresh, err := t.w.count(ctx, q.Get("mark"), t.group, m.Source, m.ID, m.Hash, micros(m.EnqueuedAt))
	if err != nil {
		return "", err
	}
	if err := t.w.exec(ctx, q.Get("suspect_clear"), t.group, m.Source, m.ID); err != nil {
		return "", err
	}
	if fresh == 0 {
		return t.known(ctx, m)
	}
	if m.Key == "" {
		return outlast.SeenNew, nil
	}
	var waits bool
	if err := t.w.tx.QueryRowContext(ctx, q.Get("key_waits"), t.group, m.Key).Scan(&waits); err != nil {
		return "", err
	}
	if waits {
		return outlast.SeenBehind, nil
	}
	return outlast.SeenNew, nil
}

func (t *inboxTx) known(ctx context.Context, m *outlast.Mark) (outlast.Seen, error) {
	var state string
	var hash int64
	if err := t.w.tx.QueryRowContext(ctx, t.w.s.sql.Get("known"), t.group, m.Source, m.ID).Scan(&state, &hash); err != nil {
		return "", err
	}
	if hash != m.Hash {
		return outlast.SeenConflict, nil
	}
	switch state {
	case stateRetry:
		return outlast.SeenWaiting, nil
	case stateDead:
		return outlast.SeenDead, nil
	default:
		return outlast.SeenHandled, nil
	}
}

// States of the inbox table.
const (
	stateHandled = "handled"
	stateRetry   = "retry"
	stateDead    = "dead"
)

func (t *inboxTx) Tx() outlast.Tx                   { return handlerTx{t.w} }
func (t *inboxTx) States() []outlast.Seen           { return slices.Clone(t.states) }
func (t *inboxTx) Rollback()                        { t.w.rollback() }
func (t *inboxTx) Commit(ctx context.Context) error { return t.w.commit(ctx) }

// hash returns the mark's hash, which tells the message from a conflicting one.
func (t *inboxTx) hash(op string, m *outlast.Message) (int64, error) {
	for i := range t.marks {
		if t.marks[i].Source == m.Source && t.marks[i].ID == m.ID {
			return t.marks[i].Hash, nil
		}
	}
	return 0, invalid(op, "message", "one that this transaction has marked", fmt.Sprintf("%q of %q", m.ID, m.Source))
}

func (t *inboxTx) Wait(ctx context.Context, wt *outlast.Waiting) error {
	hash, err := t.hash("record waiting message", wt.Message)
	if err != nil {
		return err
	}
	m, err := messageArgs(t.group, wt.Message, wt.Ordered, hash)
	if err != nil {
		return err
	}
	args := append(m, wt.Reason, text(wt.Error), wt.Attempts, wt.Replays, wt.Wait.Microseconds())
	if err := t.w.exec(ctx, t.w.s.sql.Get("retry_insert"), args...); err != nil {
		return err
	}
	if wt.Attempts > 0 && wt.Reason == "failed" {
		if err := t.w.addFact(ctx, failure(t.group, wt.Message, wt.Attempts, wt.Reason, wt.Error)); err != nil {
			return err
		}
	}
	return setState(ctx, t.w, stateRetry, t.group, wt.Message.Source, wt.Message.ID, hash)
}

// Bury of a conflicting message leaves the mark to the message that it belongs to.
func (t *inboxTx) Bury(ctx context.Context, d *outlast.DeadLetterRecord) error {
	hash, err := t.hash("record dead letter", d.Message)
	if err != nil {
		return err
	}
	return bury(ctx, t.w, t.group, d, hash)
}

func bury(ctx context.Context, w *writeTx, group string, d *outlast.DeadLetterRecord, hash int64) error {
	m, err := messageArgs(group, d.Message, d.Ordered, hash)
	if err != nil {
		return err
	}
	args := append(m, d.Reason, text(d.Error), d.Attempts, d.Replays, text(d.Fingerprint), micros(d.FirstAt))
	if err := w.exec(ctx, w.s.sql.Get("dead_insert"), args...); err != nil {
		return err
	}
	if err := w.addFact(ctx, failure(group, d.Message, d.Attempts, d.Reason, d.Error)); err != nil {
		return err
	}
	return setState(ctx, w, stateDead, group, d.Message.Source, d.Message.ID, hash)
}

// setState changes the mark of a message with that content, and clears its suspicion.
func setState(ctx context.Context, w *writeTx, state, group, source, id string, hash int64) error {
	if err := w.exec(ctx, w.s.sql.Get("state"), state, group, source, id, hash); err != nil {
		return err
	}
	return w.exec(ctx, w.s.sql.Get("suspect_clear"), group, source, id)
}

// messageArgs are the first columns of outlast_retry and outlast_dead.
func messageArgs(group string, m *outlast.Message, ordered bool, hash int64) ([]any, error) {
	envelope, err := json.Marshal(&m.Envelope)
	if err != nil {
		return nil, &outlast.Error{Op: "record message", Code: outlast.CodeInvalid, Err: err}
	}
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	return []any{group, m.Source, m.ID, text(m.Envelope.Key), ordered && m.Envelope.Key != "", m.Type, string(envelope), body, hash}, nil
}

// Purge looks without a lock first: usually there is nothing to do.
func (x inbox) Purge(ctx context.Context, p outlast.PurgeRequest) (int, error) {
	const op = "purge inbox"
	if x.s.err != nil {
		return 0, x.s.err
	}
	if p.SettledBefore.IsZero() || p.Limit < 1 {
		return 0, nil
	}
	var ids []string
	args := []any{p.Group, p.Source, p.Age.Microseconds(), p.SettledBefore.UnixMicro()}
	err := each(ctx, x.s.db, x.s.sql.Get("purgeable"), append(args, p.Limit), func(scan scanner) error {
		var id string
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil || len(ids) == 0 {
		return 0, mapped(op, err)
	}
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return 0, err
	}
	defer w.rollback()
	n, err := w.count(ctx, x.s.sql.Get("purge"), append(args, jsonList(ids))...)
	if err != nil {
		return 0, err
	}
	there, err := x.s.tracked(ctx, w.tx)
	if err != nil {
		return 0, mapped(op, err)
	}
	if there && n > 0 {
		noted, err := w.count(ctx, x.s.sql.Get("forget"), p.Group, p.Age.Microseconds())
		if err == nil && noted > 0 {
			err = w.exec(ctx, x.s.sql.Get("keep_marks"))
		}
		if err != nil {
			return 0, err
		}
	}
	return int(n), w.commit(ctx)
}

func (x inbox) Alive(ctx context.Context, group, instance string) ([]outlast.Instance, error) {
	const op = "renew instance"
	if err := x.s.do(ctx, op, "alive", group, instance); err != nil {
		return nil, err
	}
	var others []outlast.Instance
	err := each(ctx, x.s.db, x.s.sql.Get("instances"), []any{group, instance}, func(scan scanner) error {
		var i outlast.Instance
		var age int64
		err := scan(&i.Name, &age)
		i.Age = time.Duration(max(0, age)) * time.Microsecond
		others = append(others, i)
		return err
	})
	return others, mapped(op, err)
}

func (x inbox) Leave(ctx context.Context, group, instance string) error {
	return x.s.do(ctx, "end instance", "leave", group, instance)
}

// do runs one named statement in a transaction of its own.
func (s *store) do(ctx context.Context, op, name string, args ...any) error {
	w, err := s.begin(ctx, op)
	if err != nil {
		return err
	}
	defer w.rollback()
	if err := w.exec(ctx, s.sql.Get(name), args...); err != nil {
		return err
	}
	return w.commit(ctx)
}

func (x inbox) Suspect(ctx context.Context, group, source, id string) (int, error) {
	const op = "count suspect"
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return 0, err
	}
	defer w.rollback()
	var n int
	if err := w.tx.QueryRowContext(ctx, x.s.sql.Get("suspect"), group, source, id).Scan(&n); err != nil {
		return 0, mapped(op, err)
	}
	return n, w.commit(ctx)
}

func (x inbox) Unsuspect(ctx context.Context, group, source, id string) (bool, error) {
	const op = "take a count of suspect back"
	w, err := x.s.begin(ctx, op)
	if err != nil {
		return false, err
	}
	defer w.rollback()
	for _, name := range []string{"suspect_less", "suspect_none"} {
		if err := w.exec(ctx, x.s.sql.Get(name), group, source, id); err != nil {
			return false, err
		}
	}
	err = w.commit(ctx)
	return err == nil, err
}

func (x inbox) Paused(ctx context.Context, group string) (bool, error) {
	if x.s.err != nil {
		return false, x.s.err
	}
	var paused bool
	err := x.s.db.QueryRowContext(ctx, x.s.sql.Get("paused"), group).Scan(&paused)
	return paused, mapped("read pause", err)
}

// first scans the one row of a query; found is false when there is none.
func first(row *sql.Row, targets ...any) (found bool, err error) {
	switch err := row.Scan(targets...); err {
	case nil:
		return true, nil
	case sql.ErrNoRows:
		return false, nil
	default:
		return false, err
	}
}
