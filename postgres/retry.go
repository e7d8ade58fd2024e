package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outlastmq/outlast"
)

// busyPause is how long to wait when all that is due is in other hands.
const busyPause = time.Second

const savepoint = "outlast_retry"

func (s inbox) BeginRetry(ctx context.Context, group string, types []string) (outlast.RetryTx, time.Duration, error) {
	if len(types) == 0 {
		return nil, -1, s.err
	}
	// Shuffled, so that no type starves another.
	types = append([]string(nil), types...)
	rand.Shuffle(len(types), func(i, j int) { types[i], types[j] = types[j], types[i] })
	t, err := s.begin(ctx, "begin a retry")
	if err != nil {
		return nil, 0, err
	}
	tx := &retryTx{handlerTx: t}
	pause, err := tx.claim(ctx, group, types)
	if err != nil {
		t.Rollback()
		return nil, 0, s.fail("claim a retry", err, false)
	}
	if tx.waiting == nil {
		t.Rollback()
		return nil, pause, nil
	}
	return tx, 0, nil
}

// retryTx implements [outlast.RetryTx].
type retryTx struct {
	failure *failure // of the try, when it failed
	*handlerTx
	waiting *outlast.Waiting
	// name and end are the statement that Commit runs first, with its arguments.
	name string
	end  []any
}

func (t *retryTx) claim(ctx context.Context, group string, types []string) (time.Duration, error) {
	for _, name := range []string{"retry_claim", "retry_claim_first"} {
		found, err := t.take(ctx, name, group, types)
		if err != nil {
			return 0, err
		}
		if found {
			t.waiting.Group = group
			batch := &pgx.Batch{}
			batch.Queue(t.s.sql.Get("as_before"))
			batch.Queue("SAVEPOINT " + savepoint)
			return 0, t.conn.SendBatch(ctx, batch).Close()
		}
	}
	var next *int64
	var busy bool
	if err := t.conn.QueryRow(ctx, t.s.sql.Get("retry_next"), group, types).Scan(&next, &busy); err != nil {
		return 0, err
	}
	pause := time.Duration(-1)
	if next != nil {
		pause = max(time.Duration(*next)*time.Microsecond, 0)
	}
	if busy && (pause < 0 || pause > busyPause) {
		pause = busyPause
	}
	return pause, nil
}

// take runs a statement that claims, the first one with BEGIN. All are planned by index until
// one is claimed: see byIndex.
func (t *retryTx) take(ctx context.Context, name, group string, types []string) (bool, error) {
	if t.tx != nil {
		return t.read(t.conn.QueryRow(ctx, t.s.sql.Get(name), group, types))
	}
	results := t.send(ctx, func(b *pgx.Batch) { t.s.byIndex(b, name, group, types) })
	found := false
	_, err := results.Exec()
	if err == nil {
		found, err = t.read(results.QueryRow())
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	return found, err
}

func (t *retryTx) read(row pgx.Row) (bool, error) {
	var w outlast.Waiting
	var source, id, envelope string
	var body []byte
	var hash int64
	err := row.Scan(&w.Seq, &source, &id, &w.Ordered, &envelope, &body, &hash, &w.Attempts, &w.Replays, &w.Reason, &w.Error, &w.FirstAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if w.Message, err = decodeMessage(envelope, body); err != nil {
		return false, err
	}
	w.Message.Source, w.Message.ID, w.FirstAt = source, id, w.FirstAt.UTC()
	t.waiting = &w
	return true, nil
}

func (t *retryTx) Waiting() *outlast.Waiting { return t.waiting }

func (t *retryTx) Undo(ctx context.Context) error {
	t.end = nil
	_, err := t.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT "+savepoint)
	return t.failed("undo", err)
}

// Done, Wait and Bury are carried out by Commit: until then the inbox row stays
// free, and a duplicate that arrives meanwhile does not wait.

func (t *retryTx) Done(context.Context) error {
	t.end, t.failure = []any{t.waiting.Seq}, nil
	t.name = "retry_done"
	return nil
}

func (t *retryTx) Wait(_ context.Context, w *outlast.Waiting) error {
	t.failure = nil
	if w.Reason == "failed" {
		t.failure = &failure{w.Attempts, w.Reason, w.Error}
	}
	t.end = []any{t.waiting.Seq, w.Reason, outlast.CleanErrorText(w.Error), w.Attempts, micros(max(w.Wait, 0))}
	t.name = "retry_wait"
	return nil
}

func (t *retryTx) Bury(_ context.Context, d *outlast.DeadLetterRecord) error {
	t.failure = &failure{d.Attempts, d.Reason, d.Error}
	t.end = []any{t.waiting.Seq, d.Reason, outlast.CleanErrorText(d.Error), d.Attempts, d.Fingerprint}
	t.name = "retry_bury"
	return nil
}

// failure is a try that failed, for the facts of the message.
type failure struct {
	attempt    int
	code, text string
}

func (t *retryTx) Commit(ctx context.Context) error {
	if t.end != nil {
		if err := t.execByIndex(ctx, t.name, t.end...); err != nil {
			t.Rollback()
			return t.failed("record the end of a retry", err)
		}
		if f := t.failure; f != nil {
			if err := t.s.addFacts(ctx, t.conn, outlast.FactFailed, t.waiting.Group, ofMessage(t.waiting.Message), f.attempt, f.code, f.text); err != nil {
				t.Rollback()
				return t.failed("record a failure", err)
			}
		}
	}
	return t.handlerTx.Commit(ctx)
}

// encodeMessage renders everything but the body.
func encodeMessage(m *outlast.Message) (string, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return "", &outlast.Error{Op: "encode the envelope of " + m.Type, Code: outlast.CodeInvalid, Err: err}
	}
	return string(text), nil
}

func decodeMessage(envelope string, body []byte) (*outlast.Message, error) {
	m := &outlast.Message{Body: body}
	if err := json.Unmarshal([]byte(envelope), m); err != nil {
		return nil, &outlast.Error{Op: "decode a stored envelope", Code: outlast.CodeInternal, Err: err}
	}
	return m, nil
}

// bytesOf makes an empty body of a missing one: both columns are NOT NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
