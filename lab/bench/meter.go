package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// reading is what a database and both servers have done so far.
type reading struct {
	WAL, Records, Images   float64 // bytes, records and whole-page images of the write-ahead log
	Hits, Reads            float64 // pages found in shared buffers, and not
	Dead                   float64 // row versions that died by a delete or an update
	Transactions           float64
	DatabaseCPU, BrokerCPU float64 // seconds
	Reductions             float64 // of RabbitMQ's Erlang machine
}

// read takes a reading of a database. It first waits until the backends have reported
// their counts, which they do a second after their last statement at the latest.
func (s *stack) read(ctx context.Context, url string) (r reading, err error) {
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return r, err
	}
	if r.Reductions, err = s.reductions(ctx); err != nil {
		return r, err
	}
	r.DatabaseCPU, r.BrokerCPU = treeCPU(s.postgresPID), treeCPU(s.rabbitPID)
	return r, withConn(ctx, url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT w.wal_bytes::float8, w.wal_records::float8, w.wal_fpi::float8, d.blks_hit::float8, d.blks_read::float8,
				(SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 FROM pg_stat_user_tables), d.xact_commit::float8
			FROM pg_stat_wal w, pg_stat_database d WHERE d.datname = current_database()`).
			Scan(&r.WAL, &r.Records, &r.Images, &r.Hits, &r.Reads, &r.Dead, &r.Transactions)
	})
}

func (r reading) minus(b reading) reading {
	return reading{WAL: r.WAL - b.WAL, Records: r.Records - b.Records, Images: r.Images - b.Images, Hits: r.Hits - b.Hits, Reads: r.Reads - b.Reads,
		Dead: r.Dead - b.Dead, Transactions: r.Transactions - b.Transactions, DatabaseCPU: r.DatabaseCPU - b.DatabaseCPU,
		BrokerCPU: r.BrokerCPU - b.BrokerCPU, Reductions: r.Reductions - b.Reductions}
}

var firstNumber = regexp.MustCompile(`\d+`)

// reductions asks the broker's machine for the unit of work that it counts in.
func (s *stack) reductions(ctx context.Context) (float64, error) {
	out, err := s.rabbit.Ctl(ctx, "eval", "element(1, erlang:statistics(reductions)).")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseFloat(firstNumber.FindString(out), 64)
	if err != nil {
		return 0, fmt.Errorf("read the reductions from %q: %w", out, err)
	}
	return n, nil
}
