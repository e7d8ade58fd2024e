// Command catalogue keeps docs/failures.md: every failure of the catalogue with what
// Outlast does about it, the tests that carry its ID in their names, and how they
// ended last.
//
//	go run ./catalogue                writes the page from rows.txt, the tests, and kept results
//	go run ./catalogue run            runs those tests first, and keeps how they ended
//	go run ./catalogue run DIR        runs those of one folder alone, such as lab/rabbitmq
//	go run ./catalogue run DIR TEST.. runs some of them alone, such as TestF12_TwoRelays
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "catalogue:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	c, err := read("..")
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
	case args[0] == "run":
		if err := c.runTests(args[1:]...); err != nil {
			return err
		}
	default:
		return fmt.Errorf("arguments %q: want none, or run, a folder and its tests", args)
	}
	return c.write()
}
