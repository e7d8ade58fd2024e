package outlasttest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	crashLook  = 50 * time.Millisecond // between two questions whether all is done
	crashGrace = 20 * time.Second      // for the program to end when it is asked to
)

// crashProcess is one life of the program.
type crashProcess struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan error
}

func (c *CrashConfig) start(t *testing.T, run CrashRun, step CrashStep) *crashProcess {
	t.Helper()
	p := &crashProcess{cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	p.cmd.Env = append(append(os.Environ(), run.Env...),
		crashProgramEnv+"="+c.Program, crashStepEnv+"="+string(step), crashNthEnv+"="+strconv.Itoa(c.Nth))
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start the program: %v", err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// run lets the program die at the step and live again until all is done, and reports
// whether it died.
func (c *CrashConfig) run(t *testing.T, run CrashRun, step CrashStep) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), c.Patience)
	defer cancel()
	p := c.start(t, run, step)
	if run.Begin != nil {
		if err := run.Begin(ctx); err != nil {
			t.Fatalf("begin: %v", err)
		}
	}
	var last error
	var quiet time.Time // when the program has gone on for long enough
	for quiet.IsZero() || time.Now().Before(quiet) {
		select {
		case err := <-p.ended:
			if killed || !wasKilled(err) {
				t.Fatalf("the program ended by itself: %v\n%s", err, &p.output)
			}
			killed = true
			p = c.start(t, run, "")
		case <-ctx.Done():
			t.Fatalf("not done after %v; killed: %v; last error: %v\n%s", c.Patience, killed, last, p.stop())
		case <-time.After(crashLook):
			var done bool
			if done, last = run.Done(ctx); done && quiet.IsZero() {
				quiet = time.Now().Add(c.Quiet)
			}
		}
	}
	if err := p.ask(); err != nil {
		t.Errorf("the program did not end well: %v\n%s", err, &p.output)
	}
	return killed
}

// stop kills the program and returns what it said.
func (p *crashProcess) stop() string {
	_ = p.cmd.Process.Kill()
	<-p.ended
	return p.output.String()
}

// ask has the program end by itself.
func (p *crashProcess) ask() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	hard := time.AfterFunc(crashGrace, func() { _ = p.cmd.Process.Kill() })
	defer hard.Stop()
	return <-p.ended
}

// wasKilled reports whether a process died by SIGKILL.
func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
