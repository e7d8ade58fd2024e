// Package journey tells the life of messages across the databases of several services,
// and keeps the books that name a lost one.
//
// Every transition of a message is an immutable [outlast.Fact]; where a message is, is
// a fold of its facts ([Fold]), and what is wrong with it is computed when somebody
// asks ([Story.Judge]), never stored. [Asker.Find] and [Asker.Flow] ask every database
// at once: one that cannot be reached is drawn as unknown, never as fine. [Books] says
// for each minute whether every group has seen what was sent. All reads are bounded and
// need no SQL of the caller: a console is built on them.
//
// See docs/journey.md.
package journey
