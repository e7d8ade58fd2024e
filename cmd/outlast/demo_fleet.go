package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

const (
	childStartLimit = 60 * time.Second
	childStopLimit  = 20 * time.Second
)

// fleet is the demo's operating-system processes: this program again, each with a
// role of its own.
type fleet struct {
	program string   // the file of this program
	env     []string // where the children find the servers
	logs    string   // the directory of their logs

	mu       sync.Mutex
	children map[string]*child
	// died receives the name of a child that ended without being told to.
	died chan string
}

// child is one process. Its standard input is the rope that holds it: when it is cut,
// because the demo says so or has died, the child ends in good order.
type child struct {
	role   string
	cmd    *exec.Cmd
	rope   io.Closer
	ready  chan string // receives what the child says when it is ready
	exited chan struct{}
	told   bool // to end; guarded by fleet.mu
}

func newFleet(logs string, env []string) (*fleet, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &fleet{program: program, env: append(os.Environ(), env...), logs: logs, children: map[string]*child{}, died: make(chan string, 16)}, nil
}

// start starts a role and returns when it is ready, with what it said about itself.
func (f *fleet) start(ctx context.Context, role string, args ...string) (string, error) {
	c, err := f.launch(role, args)
	if err != nil {
		return "", fmt.Errorf("start %s: %w", role, err)
	}
	limit := time.NewTimer(childStartLimit)
	defer limit.Stop()
	select {
	case word := <-c.ready:
		return word, nil
	case <-c.exited:
		return "", f.failed(role, "ended at its start")
	case <-limit.C:
		return "", f.failed(role, fmt.Sprintf("was not ready after %s", childStartLimit))
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (f *fleet) launch(role string, args []string) (*child, error) {
	log, err := os.OpenFile(f.logOf(role), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := &child{role: role, ready: make(chan string, 1), exited: make(chan struct{})}
	c.cmd = exec.Command(f.program, append([]string{demoRoleName, role}, args...)...)
	c.cmd.Env, c.cmd.Stderr, c.cmd.SysProcAttr = f.env, log, childAttr()
	if c.rope, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	said, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	f.children[role] = c
	go f.attend(c, said)
	return c, nil
}

// attend hears what a child says and sees its end.
func (f *fleet) attend(c *child, said io.Reader) {
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if word, ok := strings.CutPrefix(lines.Text(), readyWord); ok {
			select {
			case c.ready <- strings.TrimSpace(word):
			default:
			}
		}
	}
	_ = c.cmd.Wait() // how it ended is in its log
	_ = c.rope.Close()
	close(c.exited)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !c.told {
		select {
		case f.died <- c.role:
		default:
		}
	}
}

// kill ends a process with SIGKILL, and returns when it is gone.
func (f *fleet) kill(role string) error {
	c := f.tell(role)
	if c == nil {
		return fmt.Errorf("kill %s: it does not run", role)
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", role, err)
	}
	<-c.exited
	return nil
}

// stop lets a process end in good order.
func (f *fleet) stop(role string) error {
	c := f.tell(role)
	if c == nil {
		return nil
	}
	_ = c.rope.Close() // closed already: the child has ended
	limit := time.NewTimer(childStopLimit)
	defer limit.Stop()
	select {
	case <-c.exited:
		return nil
	case <-limit.C:
		_ = c.cmd.Process.Kill()
		<-c.exited
		return fmt.Errorf("stop %s: it had not ended after %s", role, childStopLimit)
	}
}

// tell notes that a child's end is wanted. It returns nil when it has ended already.
func (f *fleet) tell(role string) *child {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.children[role]
	if c != nil {
		c.told = true
		delete(f.children, role)
	}
	return c
}

// stopAll stops what still runs: the given roles at once, then the rest.
func (f *fleet) stopAll(first ...string) error {
	var errs []error
	stop := func(roles []string) {
		var (
			wait sync.WaitGroup
			mu   sync.Mutex
		)
		for _, role := range roles {
			wait.Go(func() {
				err := f.stop(role)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
		wait.Wait()
	}
	stop(first)
	stop(f.running())
	return errors.Join(errs...)
}

func (f *fleet) running() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	roles := make([]string, 0, len(f.children))
	for role := range f.children {
		roles = append(roles, role)
	}
	return roles
}

// failed tells of a child that did not do what it should, with the end of its log.
func (f *fleet) failed(role, what string) error {
	return &outlast.Error{Op: "demo", Code: outlast.CodeUnavailable, Err: fmt.Errorf("the process %q %s\n%s", role, what, f.logTail(role))}
}

func (f *fleet) logOf(role string) string { return filepath.Join(f.logs, role+".log") }

func (f *fleet) logTail(role string) string {
	const most = 2000
	text, err := os.ReadFile(f.logOf(role))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
