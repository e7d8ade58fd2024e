package servers

import (
	"context"
	"os"
	"syscall"
)

// ProgramConfig says what a [Program] runs.
type ProgramConfig struct {
	// Name is for messages.
	Name string
	Path string
	Args []string
	// Env is added to this process's environment.
	Env []string
	// Log is the file that receives what the program prints.
	Log string
	// Host is where it runs.
	Host Host
}

// Program is any other program that is started, killed and frozen like a server: the
// processes of a service under test. It dies with this process. Its methods may be called
// concurrently.
type Program struct {
	process *process
	env     []string // of every run
}

// NewProgram describes a program; nothing runs until Start.
func NewProgram(c ProgramConfig) *Program {
	env := append(os.Environ(), c.Env...)
	return &Program{env: env, process: &process{
		name: c.Name, path: c.Path, args: c.Args, env: env, log: c.Log,
		stopSignal: syscall.SIGTERM, deathSig: syscall.SIGKILL, host: c.Host, ours: true,
	}}
}

// Use has the next Start run another program file, with more in its environment.
func (p *Program) Use(path string, env ...string) {
	p.process.mu.Lock()
	defer p.process.mu.Unlock()
	p.process.path, p.process.env = path, append(append([]string{}, p.env...), env...)
}

// Start starts the program; starting one that runs is an error.
func (p *Program) Start() error { return p.process.start() }

// Stop sends SIGTERM and returns when the program has ended.
func (p *Program) Stop(ctx context.Context) error { return p.process.stop(ctx) }

// Kill sends SIGKILL and returns when the program and all below it are gone.
func (p *Program) Kill() error { return p.process.kill() }

// Pause freezes the program with SIGSTOP.
func (p *Program) Pause() error { return p.process.pause() }

// Continue ends a Pause.
func (p *Program) Continue() error { return p.process.resume() }

// Running reports whether the program has been started and has not ended.
func (p *Program) Running() bool { return p.process.running() }

// Ended returns a channel that is closed when the present run ends, and nil when the
// program was never started.
func (p *Program) Ended() <-chan struct{} {
	p.process.mu.Lock()
	defer p.process.mu.Unlock()
	return p.process.exited
}

// PID is the process id of the present run, and 0 when none runs.
func (p *Program) PID() int {
	p.process.mu.Lock()
	defer p.process.mu.Unlock()
	if !p.process.alive() {
		return 0
	}
	return p.process.cmd.Process.Pid
}

// ExitCode is that of the last run: -1 after a signal.
func (p *Program) ExitCode() int {
	p.process.mu.Lock()
	defer p.process.mu.Unlock()
	return p.process.cmd.ProcessState.ExitCode()
}

// LogTail returns the last lines that the program printed.
func (p *Program) LogTail() string { return p.process.logTail() }
