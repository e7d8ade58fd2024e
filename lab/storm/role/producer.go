package role

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
)

const (
	keys = 40
	// Of a thousand messages so many are poison, and of a thousand transactions so many
	// are rolled back at the end.
	poisoned   = 3
	rolledBack = 20
	// hang bounds a transaction, as any service would: a database that says nothing.
	hang = 20 * time.Second
)

var errDrawn = errors.New("rolled back by lot")

// produce writes messages until ctx ends or Last are written. An error, an unknown COMMIT
// among them, is followed by other messages: the ledger tells what became of it.
func (s Spec) produce(ctx context.Context, r *recording) error {
	db := s.open(ctx)
	if db == nil {
		return nil
	}
	defer db.Close()
	outbox := outlast.NewOutbox(postgres.Store(db), waking(outlast.OutboxConfig{Hooks: r.hooks()}))
	begin, written := time.Now(), 0
	for ctx.Err() == nil {
		due := int(time.Since(begin).Seconds()*s.Rate) - written
		if due <= 0 {
			pause(ctx, 10*time.Millisecond)
			continue
		}
		n := min(due, 1+rand.IntN(max(s.Batch, 1)))
		ended, err := s.write(ctx, r, db, outbox, n)
		switch {
		case ended:
			return nil
		case err == nil || errors.Is(err, errDrawn):
			written += n
		default:
			pause(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// write commits n messages in one transaction, in the order of their keys: two producers
// that lock keys in opposite orders would wait for each other.
func (s Spec) write(ctx context.Context, r *recording, db *sql.DB, outbox *outlast.Outbox, n int) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	chosen := make([]string, n)
	for i := range chosen {
		if rand.IntN(8) > 0 {
			chosen[i] = fmt.Sprintf("k%02d", rand.IntN(keys))
		}
	}
	slices.Sort(chosen)
	err = r.inTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		before, err := s.count(ctx, tx, len(chosen))
		if err != nil {
			return err
		}
		if s.Last > 0 && before+len(chosen) > s.Last {
			ended = before >= s.Last
			return errDrawn // a shorter one will fit
		}
		for _, key := range chosen {
			if err := s.writeOne(ctx, tx, outbox, key); err != nil {
				return err
			}
		}
		if rand.IntN(1000) < rolledBack {
			return errDrawn
		}
		return nil
	})
	return ended, err
}

// count adds to what this producer has written in all its lives, and returns what it was.
func (s Spec) count(ctx context.Context, tx *sql.Tx, n int) (before int, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO ledger_producer (name, n) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET n = ledger_producer.n + $2 RETURNING n - $2`, s.Name, n).Scan(&before)
	return before, err
}

func (s Spec) writeOne(ctx context.Context, tx *sql.Tx, outbox *outlast.Outbox, key string) error {
	poison := rand.IntN(1000) < poisoned
	switch {
	case key == "":
		return publishLoose(ctx, tx, outbox, poison)
	case rand.IntN(3) == 0:
		return publishNote(ctx, tx, outbox, Changed, key, poison)
	default:
		return publishNote(ctx, tx, outbox, Placed, key, poison)
	}
}

// open waits until the database answers, for ever; nil when ctx ended.
func (s Spec) open(ctx context.Context) *sql.DB {
	for {
		db, err := postgres.Open(ctx, s.Database, plain(), postgres.MaxConns(12), postgres.ApplicationName(s.Name))
		if err == nil {
			return db
		}
		s.logger().Warn("the database cannot be opened", "error", err)
		if !pause(ctx, 500*time.Millisecond) {
			return nil
		}
	}
}
