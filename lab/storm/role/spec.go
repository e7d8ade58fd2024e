// Package role holds the services of a storm: small programs on Outlast's public API alone,
// so that an earlier commit can be built with the same ones. Each keeps a ledger in its own
// database, in the transactions that the ledger tells of.
//
// The orders service writes about keys; billing, audit and stock hear it, and orders hears
// what billing answers. The group late begins with a queue of its name that is not as it
// must be:
//
//	orders  ── order.placed, order.changed ──> billing, audit     (keyed; late hears the first)
//	orders  ── order.noted ──> billing                            (without a key)
//	billing ── order.billed ──> orders                            (keyed)
package role

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Env holds the spec of a role as JSON, for a process that is one.
const Env = "OUTLAST_STORM_ROLE"

// Spec is what a process of a storm does.
type Spec struct {
	// Role is producer, relay, or the name of a group: billing, audit, orders, late.
	Role string
	// Name is the process's own: relay-2.
	Name string
	// Service owns the database: orders, billing, audit.
	Service string
	// Database is the address of the service's database, Broker a list of URLs.
	Database, Broker string
	// Rate is a producer's messages a second, Batch how many it may write in one transaction.
	Rate  float64
	Batch int
	// Last ends a producer that has written as many messages in all its lives. 0: never.
	Last int
	// ConsumerBatch is how many messages a transaction of a consumer may hold. 0: one.
	ConsumerBatch int
	// Trouble is how often, of a thousand, a handler fails by itself.
	Trouble int
	// History is the folder of this process's history; empty for none.
	History string
}

// Environment is what makes a process this role.
func (s Spec) Environment() string {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err) // a struct of plain fields
	}
	return Env + "=" + string(data)
}

// Main runs the role that the environment names and ends the process; without one it
// returns. It is the first line of a program, or of a TestMain, that is also its roles.
func Main() {
	text := os.Getenv(Env)
	if text == "" {
		return
	}
	var spec Spec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, "read the role:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := spec.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, spec.Name+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (s Spec) run(ctx context.Context) error {
	r, err := s.record()
	if err != nil {
		return err
	}
	do := s.serve
	switch s.Role {
	case "producer":
		do = s.produce
	case "relay":
		do = s.relay
	}
	return errors.Join(do(ctx, r), r.close())
}

func (s Spec) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Writer(os.Stderr), &slog.HandlerOptions{Level: slog.LevelInfo})).With("process", s.Name)
}

// pause waits for up to d and reports false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
