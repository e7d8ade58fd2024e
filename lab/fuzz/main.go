// Command fuzz runs every fuzz target of the repository in turn and notes in
// docs/proof/fuzz.md what was executed. make fuzz runs it.
//
//	go run ./fuzz -for 1m              every target for a minute
//	go run ./fuzz -execs 10000000      every target until it has that many executions in all
//	go run ./fuzz -only 'rabbitmq|nats' -execs ...
//
// It may be stopped at any time: executions are noted at least every minute, and a later
// run goes on from them. Inputs that reached new code are kept by Go's build cache, and the
// shortest of them in testdata/fuzz, where every go test runs them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == toolexec {
		os.Exit(instrument(os.Args[2], os.Args[3:]))
	}
	span := flag.Duration("for", 0, "fuzz every target for so long")
	execs := flag.Int("execs", 0, "fuzz every target until it has so many executions in all")
	only := flag.String("only", "", "only targets whose folder and name match this expression")
	keep := flag.Int("keep", 24, "keep so many of the shortest inputs of a target in testdata")
	flag.Parse()
	if err := run(*span, *execs, *only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(span time.Duration, execs int, only string, keep int) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if span == 0 && execs == 0 {
		span = time.Minute
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	targets, err := find("..")
	if err != nil {
		return err
	}
	proof := &record{path: "../docs/proof/fuzz.md"}
	crashed := 0
	for _, t := range targets {
		if !wanted.MatchString(t.String()) {
			continue
		}
		ok, err := t.fuzz(ctx, proof, span, execs)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if !ok {
			crashed++
		}
		if err := t.keep(keep); err != nil {
			return err
		}
	}
	if crashed > 0 {
		return fmt.Errorf("%d targets crashed; the inputs are in testdata/fuzz beside them", crashed)
	}
	return nil
}
