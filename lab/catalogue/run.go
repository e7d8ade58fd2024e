package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suites are the tests that run the parts of outlasttest.
var suites = map[string]string{
	"store_":  "lab/postgres TestS29_StoreAsItsRoles",
	"broker_": "lab/rabbitmq TestConformance|TestConformanceOutage",
}

// event is a line of go test -json.
type event struct {
	Action, Test string
}

// runTests runs every test of the catalogue, or those of a folder, or some of that, and
// keeps how each ended.
func (c *catalogue) runTests(folderAndTests ...string) error {
	folder, only := "", []string(nil)
	if len(folderAndTests) > 0 {
		folder, only = folderAndTests[0], folderAndTests[1:]
	}
	byDir := map[string]map[string]bool{}
	add := func(dir, top string) {
		if byDir[dir] == nil {
			byDir[dir] = map[string]bool{}
		}
		byDir[dir][top] = true
	}
	for _, t := range c.tests {
		if t.top != "" {
			add(filepath.Dir(t.file), t.top)
			continue
		}
		for prefix, where := range suites {
			if strings.HasPrefix(filepath.Base(t.file), prefix) {
				dir, top, _ := strings.Cut(where, " ")
				add(dir, top)
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		if folder != "" && folder != dir {
			continue
		}
		tops := slices.Sorted(maps.Keys(byDir[dir]))
		if len(only) > 0 {
			for _, name := range only {
				if !slices.Contains(tops, name) {
					return fmt.Errorf("%s is no test of the catalogue in %s", name, folder)
				}
			}
			tops = only
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", dir, strings.Join(tops, " "))
		if err := c.runPackage(dir, tops); err != nil {
			return err
		}
	}
	return nil
}

// runPackage does not mind failures: they are what it is to write down.
func (c *catalogue) runPackage(dir string, tops []string) error {
	cmd := exec.Command("go", "test", "-json", "-count=1", "-timeout=30m", "-run", "^("+strings.Join(tops, "|")+")$", ".")
	cmd.Dir = filepath.Join(c.root, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.note(out, time.Now())
	_ = cmd.Wait()
	return nil
}

func (c *catalogue) note(out io.Reader, now time.Time) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue
		}
		if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
			continue
		}
		name := e.Test[strings.LastIndex(e.Test, "/")+1:]
		if idsOf(name) == nil {
			continue
		}
		// Several adapters run the same test: one that cannot, or a broken one that is to fail
		// it and runs apart, says nothing against one that can.
		if was, again := c.results[name]; again && c.noted[name] && weight[was.outcome] >= weight[e.Action] {
			continue
		}
		c.noted[name] = true
		c.results[name] = result{e.Action, now.UTC().Format(time.DateOnly)}
	}
}

// weight: which of several results of a test counts.
var weight = map[string]int{"skip": 0, "pass": 1, "fail": 2}
