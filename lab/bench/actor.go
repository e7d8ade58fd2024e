package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"time"
)

// actorCommand, as the program's first argument, makes it an actor: a process that does
// one contender's work and reports what that cost.
const actorCommand = "actor"

// task is what an actor is told, on its standard input.
type task struct {
	Actor    string
	Database string
	Broker   string
	Queue    string
	Rows     int
	Size     int
	Keys     int
	Clients  int    // producers, or workers of a consumer
	Batch    int    // messages in one transaction
	Mode     string // what a consumer's handler does: see handlerOf
	Rate     int    // messages a second, of a load
	Sample   int    // one message of so many gets a stamp; 0: none does
	Interval time.Duration
	Pace     time.Duration // how often to note how many messages are finished; 0: never
	// Linger is how long an actor stays after its last message. A quorum queue that is
	// behind stashes acknowledgements in the channel, and forgets them when that closes.
	Linger  time.Duration
	Profile string // file for a CPU profile
	// Endless actors work until they are told to end.
	Endless bool

	stamps *stamps
}

// actor works until ctx ends or nothing is left to do, and tells done how many messages
// are finished: gone from the outbox, or acknowledged.
type actor func(ctx context.Context, t *task, done func(n int)) error

// outcome is what an actor reports. Times are in seconds.
type outcome struct {
	Rows    int
	Elapsed float64 // from the start, connecting included, until the last message was finished
	First   float64 // until the first was
	Usage   usage
	Tenths  []float64        `json:",omitempty"` // when each tenth of the messages was finished
	Stamps  map[string]int64 `json:",omitempty"` // by message: when it was committed, or its effect; Unix nanoseconds
	Paces   []pace           `json:",omitempty"` // in the order of time
	Error   string           `json:",omitempty"`
}

// pace is how many messages were finished at a time.
type pace struct {
	At   int64 // Unix nanoseconds
	Rows int
}

// rateFrom is the rate, in messages a second, at which so many were finished from a time on.
func (o *outcome) rateFrom(at time.Time, rows int) (float64, error) {
	before := 0
	for _, p := range o.Paces {
		took := time.Duration(p.At - at.UnixNano())
		if took <= 0 {
			before = p.Rows
		} else if n := p.Rows - before; n >= rows {
			return float64(n) / took.Seconds(), nil
		}
	}
	return 0, fmt.Errorf("fewer than %d messages were finished after %s", rows, at.Format(time.TimeOnly))
}

// rate is messages a second.
func (o *outcome) rate() float64 { return float64(o.Rows) / o.Elapsed }

// actorMain runs an actor in this process.
func actorMain(in io.Reader, out io.Writer) int {
	var t task
	result, err := outcome{}, json.NewDecoder(in).Decode(&t)
	if err == nil {
		result, err = act(&t)
	}
	if err != nil {
		result.Error = err.Error()
	}
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return 1
	}
	return 0
}

func act(t *task) (result outcome, err error) {
	work, ok := actors()[t.Actor]
	if !ok {
		return result, fmt.Errorf("there is no actor %q", t.Actor)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if t.Endless {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
	}
	if t.Profile != "" {
		f, err := os.Create(t.Profile)
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return result, err
		}
		defer pprof.StopCPUProfile()
	}
	runtime.GC()
	t.stamps = &stamps{every: t.Sample, at: map[string]int64{}}
	p := &progress{task: t, began: time.Now(), before: readUsage(), cancel: cancel}
	err = work(ctx, t, p.done)
	if t.Endless {
		p.finish()
	}
	result = p.result
	result.Stamps = t.stamps.at
	if err == nil && !t.Endless && result.Rows != t.Rows {
		err = fmt.Errorf("%d messages were finished, want %d", result.Rows, t.Rows)
	}
	return result, err
}

// progress counts finished messages. It is safe for concurrent use.
type progress struct {
	task   *task
	began  time.Time
	before usage
	cancel context.CancelFunc

	mu     sync.Mutex
	ended  bool
	paced  time.Time
	result outcome
}

func (p *progress) done(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.result
	if r.Rows == 0 && n > 0 {
		r.First = time.Since(p.began).Seconds()
	}
	r.Rows += n
	if now := time.Now(); p.task.Pace > 0 && now.Sub(p.paced) >= p.task.Pace {
		p.paced = now
		r.Paces = append(r.Paces, pace{At: now.UnixNano(), Rows: r.Rows})
	}
	if p.task.Endless || p.ended {
		return
	}
	for len(r.Tenths) < r.Rows*10/p.task.Rows && len(r.Tenths) < 10 {
		r.Tenths = append(r.Tenths, time.Since(p.began).Seconds())
	}
	if r.Rows >= p.task.Rows {
		p.ended = true
		p.finish()
		time.AfterFunc(p.task.Linger, p.cancel)
	}
}

func (p *progress) finish() {
	p.result.Elapsed, p.result.Usage = time.Since(p.began).Seconds(), readUsage().minus(p.before)
}

// stamps notes when things became of messages. It is safe for concurrent use.
type stamps struct {
	every int
	mu    sync.Mutex
	at    map[string]int64
}

// wants reports whether the n-th message gets a stamp.
func (s *stamps) wants(n int) bool { return s.every > 0 && n%s.every == 0 }

func (s *stamps) note(id string) {
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[id] = now
}

// running is an actor at work in a process of its own.
type running struct {
	cmd  *exec.Cmd
	out  *json.Decoder
	name string
}

// start starts an actor. It is killed when ctx ends.
func start(ctx context.Context, t task) (*running, error) { return startAs(ctx, t) }

// startAs starts an actor under another program.
func startAs(ctx context.Context, t task, under ...string) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(under, self, actorCommand)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = dieWithParent()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(in).Encode(t); err != nil {
		return nil, err
	}
	return &running{cmd: cmd, out: json.NewDecoder(out), name: t.Actor}, nil
}

// end asks an endless actor to end.
func (r *running) end() error { return r.cmd.Process.Signal(os.Interrupt) }

// wait returns what the actor reports.
func (r *running) wait() (outcome, error) {
	var result outcome
	decoded := r.out.Decode(&result)
	ended := r.cmd.Wait()
	switch {
	case decoded != nil:
		return result, fmt.Errorf("actor %s: %w", r.name, errors.Join(decoded, ended))
	case result.Error != "":
		return result, fmt.Errorf("actor %s: %s", r.name, result.Error)
	}
	return result, nil
}

// perform starts an actor and waits for its end.
func perform(ctx context.Context, t task) (outcome, error) {
	r, err := start(ctx, t)
	if err != nil {
		return outcome{}, err
	}
	return r.wait()
}

// profileFile names the CPU profile of a case, or nothing when none is wanted.
func (o *options) profileFile(name string) string {
	if o.profile == "" {
		return ""
	}
	clean := func(r rune) rune {
		if r == ' ' || r == ',' || r == '/' {
			return '-'
		}
		return r
	}
	return filepath.Join(o.profile, strings.Map(clean, name)+".pprof")
}
