package role

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest/history"
	"github.com/outlastmq/outlast/postgres"
)

// recording is the history of one process; without a folder to write to it does nothing.
type recording struct {
	recorder *history.Recorder
	ledger   *history.Ledger
}

// Ledger is the table that tells which transactions of a service have committed.
func Ledger(service string) *history.Ledger {
	return &history.Ledger{Engine: "postgres", Name: service}
}

func (s Spec) record() (*recording, error) {
	if s.History == "" {
		return &recording{}, nil
	}
	if err := os.MkdirAll(s.History, 0o755); err != nil {
		return nil, err
	}
	recorder, err := history.NewRecorder(filepath.Join(s.History, s.Name+".jsonl"), s.Name)
	if err != nil {
		return nil, err
	}
	return &recording{recorder, Ledger(s.Service)}, nil
}

func (r *recording) hooks() []outlast.Hook {
	if r.recorder == nil {
		return nil
	}
	return []outlast.Hook{r.recorder}
}

func (r *recording) middleware() []outlast.Middleware {
	if r.recorder == nil {
		return nil
	}
	return []outlast.Middleware{r.recorder.Middleware(r.ledger)}
}

// settled is how long a process has been whole when it is taken to hold what it needs.
const settled = 3 * time.Second

// resources records what the process holds: once it has been whole for a while, and when it
// is asked to end. The function that it returns ends that.
func (r *recording) resources(ctx context.Context, whole func(context.Context) bool) (end func()) {
	if r.recorder == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		for since := time.Now(); time.Since(since) < settled; {
			if !whole(ctx) {
				since = time.Now()
			}
			if !pause(ctx, 500*time.Millisecond) {
				return
			}
		}
		r.recorder.Resources()
		<-ctx.Done()
		r.recorder.Resources()
	})
	return func() {
		cancel()
		work.Wait()
	}
}

func (r *recording) close() error {
	if r.recorder == nil {
		return nil
	}
	return r.recorder.Close()
}

// inTx commits what f did, unless f failed.
func (r *recording) inTx(ctx context.Context, db *sql.DB, f func(context.Context, *sql.Tx) error) error {
	if r.recorder == nil {
		return inTx(ctx, db, f)
	}
	ctx, tx, err := r.recorder.Begin(ctx, db, r.ledger)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(ctx, tx.Tx); err != nil {
		return err
	}
	return tx.Commit()
}

// plain permits what a namespace needs: nobody else is in it.
func plain() postgres.OpenOption { return postgres.AllowPlain() }

func withNumber(ctx context.Context, n int64) context.Context { return history.WithKeySeq(ctx, n) }

func prepareHistory(ctx context.Context, db *sql.DB) error { return Ledger("").Create(ctx, db) }
