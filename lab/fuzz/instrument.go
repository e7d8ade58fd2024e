package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// guided are the packages, by the beginning of their import paths, whose code guides the fuzzer:
// what is ours, and what parses in our name. The go command instruments everything that is
// linked, and each execution walks over the counters of all of it: with the database's driver
// and the standard library that is three quarters of its time, spent on code that is not looked at.
var guided = []string{"github.com/outlastmq/", "github.com/rabbitmq/amqp091-go", "encoding/json"}

// toolexec is the argument that makes this program stand in front of the go command's tools.
const toolexec = "toolexec"

// instrument runs a tool of the go command, and takes the fuzzer's counters out of the compilation
// of packages that do not guide it.
func instrument(tool string, args []string) int {
	cmd := exec.Command(tool, args...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	if strings.TrimSuffix(filepath.Base(tool), ".exe") == "compile" {
		if slices.Contains(args, "-V=full") {
			// Another name of the compiler keeps these packages apart from the usual ones in the build cache.
			out, err := cmd.Output()
			fmt.Println(strings.TrimSpace(string(out)), "guided by", strings.Join(guided, " "))
			return exitCode(err)
		}
		path := os.Getenv("TOOLEXEC_IMPORTPATH")
		if !slices.ContainsFunc(guided, func(start string) bool { return strings.HasPrefix(path, start) }) {
			cmd.Args = slices.DeleteFunc(cmd.Args, func(arg string) bool { return arg == "-d=libfuzzer" })
		}
	}
	cmd.Stdout = os.Stdout
	return exitCode(cmd.Run())
}

func exitCode(err error) int {
	var failed *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		return failed.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
