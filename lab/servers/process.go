package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startLimit = 2 * time.Minute // when the caller's context sets no deadline
	stopLimit  = time.Minute
	killLimit  = 20 * time.Second
	probePause = 50 * time.Millisecond
)

// ErrNotOurs is returned by what would stop, kill or freeze a server that was not started
// by this process.
var ErrNotOurs = errors.New("the server is not ours: " + envPostgres + " or " + envAMQP + " names it")

// process is a program that can be started again and again with the same arguments. Its
// methods may be called concurrently.
type process struct {
	name       string
	path       string
	args       []string
	env        []string // nil: this process's environment
	dir        string
	user       *syscall.Credential // nil: this process's user
	log        string              // file that receives stdout and stderr
	otherLogs  []string            // files that the program writes itself, for error messages
	stopSignal syscall.Signal      // asks for an orderly end
	deathSig   syscall.Signal      // sent by the kernel when this process dies
	host       Host
	ours       bool // a program of this machine, not of the generation

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil: not running
	exited chan struct{} // closed when cmd has ended
	frozen []int         // descendants frozen with it
	paused bool
}

// start launches the program. It does not wait until the program is of any use.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive() {
		return fmt.Errorf("start %s: it runs already", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: open its log: %w", p.name, err)
	}
	defer log.Close()

	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Dir = p.env, p.dir
	cmd.Stdout, cmd.Stderr = log, log
	// Its own process group keeps a terminal's Ctrl-C for the test process alone, which
	// then decides how its servers end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.user}
	dieWithParent(cmd.SysProcAttr, p.deathSig)
	if !p.ours {
		if err := into(cmd.SysProcAttr); err != nil {
			return err
		}
	}
	if err := p.host.enter(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit code is in cmd.ProcessState
	}()
	p.cmd, p.exited, p.paused, p.frozen = cmd, exited, false, nil
	return nil
}

// startAndWait launches the program and waits until probe succeeds. When it does not, the
// program is killed and the error holds the end of its logs.
func (p *process) startAndWait(ctx context.Context, probe func(context.Context) error) error {
	if err := p.start(); err != nil {
		return err
	}
	ctx, cancel := withLimit(ctx, startLimit)
	defer cancel()
	err := p.awaitReady(ctx, probe)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("start %s: %w\n%s", p.name, err, p.logTail()), p.kill())
}

func (p *process) awaitReady(ctx context.Context, probe func(context.Context) error) error {
	p.mu.Lock()
	exited, cmd := p.exited, p.cmd
	p.mu.Unlock()

	ticker := time.NewTicker(probePause)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended at once: %v", cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w; last probe: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// stop asks the program to end in good order and waits until it has. Stopping one that
// does not run is no error.
func (p *process) stop(ctx context.Context) error {
	if err := p.resume(); err != nil {
		return err
	}
	p.mu.Lock()
	alive, cmd, exited := p.alive(), p.cmd, p.exited
	p.mu.Unlock()
	if !alive {
		return nil
	}
	if err := cmd.Process.Signal(p.stopSignal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	ctx, cancel := withLimit(ctx, stopLimit)
	defer cancel()
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w\n%s", p.name, context.Cause(ctx), p.logTail())
	}
}

// kill sends SIGKILL to the program and all its descendants and returns when none is left.
// Killing one that does not run is no error.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return nil
	}
	below, err := signalTree(p.cmd.Process.Pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.exited
	return awaitGone(below, killLimit)
}

// pause freezes the program and all its descendants: connections stay open, and nothing
// answers.
func (p *process) pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return fmt.Errorf("pause %s: it does not run", p.name)
	}
	below, err := signalTree(p.cmd.Process.Pid, syscall.SIGSTOP)
	if err != nil {
		return fmt.Errorf("pause %s: %w", p.name, err)
	}
	p.paused, p.frozen = true, below
	return nil
}

// resume ends a pause; without one it does nothing.
func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() || !p.paused {
		return nil
	}
	for _, pid := range append(p.frozen, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("continue %s: %w", p.name, err)
		}
	}
	p.paused, p.frozen = false, nil
	return nil
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive()
}

// alive needs p.mu.
func (p *process) alive() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// logTail returns the last lines of every log of the program.
func (p *process) logTail() string {
	const lines = 60
	var tail strings.Builder
	for _, path := range append([]string{p.log}, p.otherLogs...) {
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			continue
		}
		all := slices.Collect(strings.Lines(string(content)))
		fmt.Fprintf(&tail, "--- end of %s\n%s", path, strings.Join(all[max(0, len(all)-lines):], ""))
	}
	return tail.String()
}

// withLimit gives a context that has no deadline one.
func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}
