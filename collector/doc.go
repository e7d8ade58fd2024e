// Package collector keeps the view across services in a database of its own: dead
// letters, messages that are missing, held, late or waiting, and a share of flows.
//
// It is a cache, and never the truth. [Collector] reads the databases of the services
// in batches, and writes nothing there; what it kept of a database still answers when
// that database does not ([Store] is a [journey.Memory]), with the time at which it was
// told. It may be wiped at any time and rebuilt, and when it is down nothing else
// notices (TestCollectorIsACache).
package collector
