// Package sqlite is the store on SQLite 3.38 and newer, for services that run on
// one host. It imports no driver: the program brings modernc.org/sqlite, or
// github.com/mattn/go-sqlite3.
//
//	db, err := sql.Open("sqlite", sqlite.DSN("/var/lib/shop/shop.db"))
//	store := sqlite.Store(db)
//
// # One writer
//
// SQLite has one writer at a time, whatever the number of processes. So commits
// follow each other in the order of the outbox's numbers, there is one slot
// (Slots is 1), and one relay works at a time while others stand by.
//
// A consumer's transaction takes the write lock when it begins and holds it while
// the handler runs: every other writer of the database waits for it, the service's
// own transactions and the renewal of the relay's lease too. Keep handlers short,
// well below the busy timeout (10 s with [DSN]) and the relay's lease (10 s), and
// let a handler use only the transaction that it is given: another write
// transaction begun inside it waits for itself. Readers never wait.
//
// # Settings
//
// Three settings carry promises, and Check refuses a database without them:
// _txlock=immediate (a deferred transaction that reads and then writes fails at
// once, whatever the busy timeout), journal_mode=WAL (readers do not stop the
// writer) and synchronous=FULL (a commit survives a power cut). Set them by the DSN,
// as they belong to each connection.
//
// Set no db.SetMaxOpenConns(1): a handler's transaction would starve all readers.
// A few connections (say 8) are enough, since writers queue anyway.
//
// # Errors that end a transaction
//
// SQLite may roll a whole transaction back by itself when a statement fails: a full
// disk, an I/O error, no memory, an interrupt, ON CONFLICT ROLLBACK. Whatever
// follows would then commit by itself, statement by statement. The transaction that
// handlers get notices that: it refuses later statements and the commit, also when
// the handler ignored the error. A statement that a handler prepared itself is out of
// its sight until the commit: return the errors of such statements.
//
// # Times
//
// Times in the tables are integers: microseconds since 1970-01-01 UTC, by SQLite's
// clock, which is the host's in steps of a millisecond.
package sqlite
