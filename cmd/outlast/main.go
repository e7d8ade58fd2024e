// Command outlast migrates the tables of Outlast, relays an outbox to a broker, and
// lets people look at and act on what waits.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	go cancelOnSignal(cancel)
	p := newProgram(os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	p.terminal = isTerminal(os.Stderr)
	os.Exit(p.run(ctx, os.Args[1:]))
}

// cancelOnSignal asks the command to end at the first signal and ends the process
// at the second: every part may be killed at any instant without loss.
func cancelOnSignal(cancel context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	cancel()
	<-signals
	fmt.Fprintln(os.Stderr, "outlast: second signal: ended at once")
	os.Exit(exitFailure)
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
