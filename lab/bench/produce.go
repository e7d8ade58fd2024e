package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/report"
)

// produceRows is the usual number of transactions of a client that works alone; more
// clients share more.
const produceRows = 1000

// bareTable is what a producer would have without Outlast: the same bytes, no limits,
// no columns but those used.
const bareTable = `CREATE TABLE bare (
	id uuid PRIMARY KEY, type text NOT NULL, ordering_key text, correlation_id text, content_type text, body text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now())`

// producerPart compares publishing with a bare INSERT of the same bytes, and with an INSERT
// of them into the outbox by hand.
func producerPart(ctx context.Context, s *stack, o *options) ([]*report.Table, error) {
	t := &report.Table{Name: "producer", Title: "Transactions with 1 or 100 messages, against INSERTs by hand"}
	url, err := s.postgres.NewDatabase(ctx)
	if err != nil {
		return nil, err
	}
	if err := migrateOutlast(ctx, url); err != nil {
		return nil, err
	}
	if err := execAll(ctx, url, bareTable); err != nil {
		return nil, err
	}
	for range o.rounds {
		for _, c := range producerCases() {
			name := c.name()
			if !o.wants(name) {
				continue
			}
			if err := execAll(ctx, url, "TRUNCATE bare, outlast_outbox", "CHECKPOINT"); err != nil {
				return nil, err
			}
			if err := s.produceRun(ctx, o, t, c, url); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	noteRatios(t)
	return []*report.Table{t}, nil
}

type producerCase struct {
	actor          string
	clients, batch int
}

func (c producerCase) name() string { return fmt.Sprintf("%s %d clients", c.about(), c.clients) }

func (c producerCase) about() string {
	what := map[string]string{"insert": "bare INSERT", "plain": "plain INSERT", "publish": "outlast Publish"}[c.actor]
	if c.batch > 1 {
		what += fmt.Sprintf(" of %d", c.batch)
	}
	return what
}

func producerCases() []producerCase {
	var cases []producerCase
	for _, clients := range []int{1, 16, 64} {
		for _, batch := range []int{1, 100} {
			for _, actor := range []string{"insert", "plain", "publish"} {
				cases = append(cases, producerCase{actor, clients, batch})
			}
		}
	}
	return cases
}

func (s *stack) produceRun(ctx context.Context, o *options, t *report.Table, c producerCase, url string) error {
	rows := produceRows * o.scale
	if c.clients > 1 {
		rows *= 6
	}
	if c.batch > 1 {
		rows /= 5
	}
	work := task{Actor: c.actor, Database: url, Rows: max(int(rows), c.clients), Size: 256, Keys: 1000, Clients: c.clients, Batch: c.batch}
	pg := treeCPU(s.postgresPID)
	r, err := perform(ctx, work)
	if err != nil {
		return err
	}
	pg = settledCPU(s.postgresPID) - pg
	table := "outlast_outbox"
	if c.actor == "insert" {
		table = "bare"
	}
	n, err := number(ctx, url, "SELECT count(*) FROM "+table)
	if err != nil {
		return err
	}
	if n != work.Rows*c.batch {
		return fmt.Errorf("%d rows were written, want %d", n, work.Rows*c.batch)
	}
	messages := float64(n)
	t.Add(c.name(), report.Value{Name: "tx/s", Value: r.rate()}, report.Value{Name: "msg/s", Value: r.rate() * float64(c.batch)},
		report.Value{Name: "CPU us/msg", Value: r.Usage.CPU / messages * 1e6},
		report.Value{Name: "database CPU us/msg", Value: pg / messages * 1e6},
		report.Value{Name: "allocs/msg", Value: r.Usage.Allocs / messages})
	return nil
}

// noteRatios says how each number of Outlast compares with those of the INSERTs by hand.
func noteRatios(t *report.Table) {
	for _, l := range t.Lines {
		rest, ours := strings.CutPrefix(l.Case, "outlast Publish")
		for _, hand := range []string{"bare INSERT", "plain INSERT"} {
			for _, other := range t.Lines {
				if ours && other.Case == hand+rest {
					t.Notes = append(t.Notes, fmt.Sprintf("%s: %.2f of the %s", l.Case, l.Metrics[0].Median()/other.Metrics[0].Median(), hand))
				}
			}
		}
	}
}

// insertBare writes rows into the bare table as a hand-written producer does.
func insertBare(ctx context.Context, t *task, done func(int)) error {
	return insertInto(ctx, t, done, "bare")
}

// insertPlain writes the same rows into the outbox, as a producer without the library
// does: with its limits and its generated columns.
func insertPlain(ctx context.Context, t *task, done func(int)) error {
	return insertInto(ctx, t, done, "outlast_outbox")
}

func insertInto(ctx context.Context, t *task, done func(int), table string) error {
	return withOwnPool(ctx, t.Database, t.Clients, func(db *sql.DB, _ outlast.Store) error {
		into := "INSERT INTO " + table + " (id, type, ordering_key, correlation_id, content_type, body)"
		one := into + " VALUES ($1, $2, $3, $4, $5, $6)"
		many := into + " SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])"
		return produce(ctx, t, db, done, func(tx *sql.Tx, from int) error {
			columns := make([][]string, 6)
			for i := from; i < from+t.Batch; i++ {
				id := outlast.NewID()
				for c, v := range []string{id, messageType, keyOf(i, t.Keys), id, "application/json", bodyOf(i, t.Size)} {
					columns[c] = append(columns[c], v)
				}
			}
			query, args := many, make([]any, 6)
			for c := range columns {
				if args[c] = columns[c]; t.Batch == 1 {
					query, args[c] = one, columns[c][0]
				}
			}
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
	})
}

// publishOutbox writes the same messages with Outbox.Publish.
func publishOutbox(ctx context.Context, t *task, done func(int)) error {
	return withOwnPool(ctx, t.Database, t.Clients, func(db *sql.DB, store outlast.Store) error {
		outbox := outlast.NewOutbox(store)
		return produce(ctx, t, db, done, func(tx *sql.Tx, from int) error {
			msgs := make([]outlast.Message, 0, t.Batch)
			for i := from; i < from+t.Batch; i++ {
				msgs = append(msgs, outlast.Message{Envelope: outlast.Envelope{Type: messageType, Key: keyOf(i, t.Keys),
					ContentType: "application/json"}, Body: []byte(bodyOf(i, t.Size))})
			}
			return outbox.Publish(ctx, tx, msgs...)
		})
	})
}

// produce shares the transactions out among the clients. Each is begun, written in one
// statement, and committed.
func produce(ctx context.Context, t *task, db *sql.DB, done func(int), write func(tx *sql.Tx, from int) error) error {
	var clients sync.WaitGroup
	errs := make([]error, t.Clients)
	for c := range t.Clients {
		clients.Go(func() {
			for i := c; i < t.Rows && errs[c] == nil; i += t.Clients {
				errs[c] = inTx(ctx, db, func(tx *sql.Tx) error { return write(tx, i*t.Batch) })
				if errs[c] == nil {
					done(1)
				}
			}
		})
	}
	clients.Wait()
	return errors.Join(errs...)
}

func inTx(ctx context.Context, db *sql.DB, f func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
