// Package history records what the processes of a system under test do to every
// message, so that package check can say afterwards whether a promise was broken.
//
// # Use
//
// Every process opens one file and gives its [Recorder] to Outlast as a hook:
//
//	rec, err := history.NewRecorder("history/billing-1.jsonl", "billing-1")
//	...
//	service, err := outlast.NewService(outlast.ServiceConfig{
//		Hooks:      []outlast.Hook{rec},
//		Middleware: []outlast.Middleware{rec.Middleware(ledger)},
//		...
//	})
//
// A producer begins its transactions with [Recorder.Begin]. A program that injects
// faults records them with [Recorder.Fault]. When the faults are over and nothing
// moves any more, it calls [Recorder.Quiesce], [Ledger.Read] and [Recorder.Left] on
// each database; then `outlast check history/*.jsonl` judges.
//
// An event is appended by one write before Outlast goes on, so that a process that
// is killed loses nothing of its history; no fsync is needed for that, and a torn
// last line is tolerated.
//
// # The ledger
//
// A process may be killed, or its connection cut, while a COMMIT is under way: then
// nobody knows whether it happened. Therefore each transaction writes a row of its
// own into a [Ledger], a table in the same database. A transaction has committed if
// and only if its row is there, so that after the run every unknown is a fact.
//
// # Format, version 1
//
// A history is a set of files; a file is lines of JSON, one [Event] each, in the order
// in which one process saw them. The first event of a process is [Open] and carries the
// version, the process's name and pid; a file may hold several processes, one after
// the other. A process that ended without [Close] was killed. Times are of the wall
// clock in nanoseconds and never go back within a file; files are merged by them, so
// all processes must have one clock: one machine, or well synchronised ones. What is
// decided by a database has its clock, in the fields at and exp.
//
// Fields that are empty are left out. Readers ignore fields and events that they do
// not know; a change that would mislead them gets another version.
package history
