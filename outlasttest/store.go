// Package outlasttest proves stores and brokers, and runs handlers without servers.
//
// [Store] and [Broker] are the conformance suites: an adapter is right when they
// pass over it. [Handle] runs a user's handler and tells what it published.
package outlasttest

import (
	"context"
	"testing"

	"github.com/outlastmq/outlast"
)

// StoreUnderTest is a store with its tables in place and nothing in them.
type StoreUnderTest struct {
	Store outlast.Store
	// Begin starts a producer's transaction on the same database.
	Begin func(ctx context.Context) (ProducerTx, error)
	// ConcurrentWriters says that two transactions that write may be open at once.
	// Without it the schedules that need two of them are not run, and every
	// transaction ends before the next begins.
	ConcurrentWriters bool
}

// ProducerTx is a transaction of a producer; *sql.Tx is one.
type ProducerTx interface {
	outlast.LiveTx
	Commit() error
	Rollback() error
}

type storeTest struct {
	name string
	run  func(f *storeFixture)
	// concurrent tests hold two writing transactions open.
	concurrent bool
}

// Store runs the conformance suite for stores. open is called once for each
// subtest, with that subtest's t, and returns an empty store that nobody else uses.
// Subtests run in parallel.
func Store(t *testing.T, open func(t *testing.T) StoreUnderTest) {
	t.Helper()
	for _, list := range [][]storeTest{
		outboxTests, pickTests, leaseTests, settleTests, heldTests, settledBeforeTests,
		inboxTests, retryTests, upkeepTests, operatorTests, deadTests, journalTests, bookTests, migrationTests,
	} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				u := open(t)
				if c.concurrent && !u.ConcurrentWriters {
					t.Skip("this store has one writer at a time")
				}
				c.run(&storeFixture{T: t, ctx: t.Context(), u: u, s: u.Store})
			})
		}
	}
}
