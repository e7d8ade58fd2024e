package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is one fuzz function.
type target struct {
	root, folder, name string // folder of its package below root
}

func (t target) String() string { return t.folder + " " + t.name }

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)

// find returns the fuzz targets of all modules below root, in the order of their folders.
func find(root string) ([]target, error) {
	var all []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			all = append(all, target{root, folder, m[1]})
		}
		return err
	})
	return all, err
}

// chunk is how long a run of the fuzzer lasts before it is noted.
const chunk = time.Minute

// fuzz runs the target for span, or until it has execs executions in all; ok is false when
// an input broke it.
func (t target) fuzz(ctx context.Context, proof *record, span time.Duration, execs int) (ok bool, err error) {
	for end := time.Now().Add(span); ctx.Err() == nil; {
		done, err := proof.executions(t)
		if err != nil {
			return false, err
		}
		limit := fmt.Sprint(min(chunk, time.Until(end).Round(time.Second)))
		switch {
		case execs > 0 && done >= execs:
			return true, nil
		case execs > 0:
			limit = chunk.String()
		case time.Until(end) < time.Second:
			return true, nil
		}
		fmt.Printf("%s: %d executions so far\n", t, done)
		n, crash, err := t.run(ctx, limit)
		if n > 0 || crash != "" {
			err = proof.add(t, n, crash)
		}
		if err != nil || crash != "" {
			return false, err
		}
	}
	return true, nil
}

var (
	progress = regexp.MustCompile(`^fuzz: elapsed: .*, execs: (\d+) `)
	failing  = regexp.MustCompile(`^\s+Failing input written to (\S+)`)
)

// run executes go test once. An input that breaks the target is named by its file.
func (t target) run(ctx context.Context, limit string) (execs int, crash string, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-toolexec", fmt.Sprintf("'%s' %s", self, toolexec), "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", limit,
		"-fuzzminimizetime", "10x", "-parallel", "2", ".")
	cmd.Dir = filepath.Join(t.root, t.folder)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", err
	}
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	var last []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		last = append(last, line)
		if m := progress.FindStringSubmatch(line); m != nil {
			execs, _ = strconv.Atoi(m[1])
			last = nil
		}
		if m := failing.FindStringSubmatch(line); m != nil {
			crash = m[1]
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return execs, crash, nil // stopped; what was executed counts
	}
	if err != nil {
		fmt.Println(strings.Join(last, "\n"))
	}
	if crash != "" {
		err = nil
	}
	return execs, crash, err
}

// maxKept is the size of the largest input that is kept beside the code.
const maxKept = 512

// keep copies the shortest inputs that reached new code from the build cache to testdata.
func (t target) keep(count int) error {
	dir := filepath.Join(t.root, t.folder)
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}}", ".")
	cmd.Dir = dir
	name, err := cmd.Output()
	if err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	found := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", strings.TrimSpace(string(name)), t.name)
	entries, err := os.ReadDir(found)
	if err != nil {
		return nil // nothing was found yet
	}
	sizes := map[string]int64{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() <= maxKept {
			sizes[e.Name()] = info.Size()
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return int(sizes[a]-sizes[b])*2 + strings.Compare(a, b)
	})
	to := filepath.Join(dir, "testdata", "fuzz", t.name)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	kept, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, n := range names[:max(0, min(len(names), count-len(kept)))] {
		data, err := os.ReadFile(filepath.Join(found, n))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, n), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
