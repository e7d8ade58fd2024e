package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// Recorder appends the history of one process to a file. It implements the hooks of
// Outlast; give it as one to a service, relay, consumer or outbox. All methods are
// safe for concurrent use.
type Recorder struct {
	mu   sync.Mutex
	file *os.File
	last int64
	err  error
	buf  []byte

	effects sync.Map // effectKey to the tx of the handler that runs
}

type effectKey struct{ group, id string }

// NewRecorder appends to the file at path, which it makes when there is none, and records
// that the process with that name has begun.
func NewRecorder(path, process string) (*Recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := endLine(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open history %q: %w", path, err)
	}
	r := &Recorder{file: f}
	r.Record(Event{E: Open, V: Version, P: process, PID: os.Getpid()})
	return r, r.Err()
}

// endLine ends a line that a killed process has left torn.
func endLine(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.Write([]byte{'\n'})
	return err
}

// Record appends events, in one write. It sets their time.
func (r *Recorder) Record(events ...Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return
	}
	r.buf = r.buf[:0]
	r.last = max(r.last, time.Now().UnixNano())
	for i := range events {
		events[i].T = r.last
		line, err := json.Marshal(&events[i])
		if err != nil {
			r.fail(err)
			return
		}
		r.buf = append(append(r.buf, line...), '\n')
	}
	if _, err := r.file.Write(r.buf); err != nil {
		r.fail(err)
	}
}

func (r *Recorder) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("record history: %w", err)
	}
}

// Err returns the first failure to record: the history is worth nothing then.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close records that the process ends in good order, and closes the file. What is
// recorded after it is dropped.
func (r *Recorder) Close() error {
	r.Record(Event{E: Close})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return r.err
	}
	err := r.file.Close()
	r.file = nil
	return errors.Join(r.err, err)
}

// Fault records that a fault begins (On), ends (Off), or strikes once (""). The first
// word of its name says what it concerns: broker, database, relay, consumer, producer, or
// clock, for that of a database.
func (r *Recorder) Fault(name, onOff, why string) {
	r.Record(Event{E: Fault, Name: name, O: onOff, Why: why})
}

// Saw records something rare that only the one who runs the test can see, such as
// a "leader change" of the broker.
func (r *Recorder) Saw(name string) { r.Record(Event{E: Seen, Name: name}) }

// Acted records what an operator did to a message in a group: "replay", "discard";
// or, without a group, to a row of the outbox: "withdraw", "release".
func (r *Recorder) Acted(name, group, id, why string) {
	r.Record(Event{E: Operator, Name: name, G: group, M: id, Why: why})
}

// Unbound records that the bindings of a group were taken away, for one type or, when
// it is empty, for all. They count as away until the same process records [Recorder.Bound]:
// a consumer that declares them anew does not know whether every node of the broker has them.
func (r *Recorder) Unbound(group, typ string) {
	r.Record(Event{E: Bind, O: Off, G: group, Type: typ})
}

// Destroyed records what [Recorder.Unbound] does, and that messages of a type, or of all,
// may have been destroyed with a queue of the group. What was first sent before
// [Recorder.Bound] may be missing in the group.
func (r *Recorder) Destroyed(group, typ string) {
	r.Record(Event{E: Bind, O: Off, Why: Destroyed, G: group, Type: typ})
}

// Bound records that the bindings of a group are there. Consumers that declare them
// record that by themselves.
func (r *Recorder) Bound(group string, types ...string) {
	for _, typ := range types {
		r.Record(Event{E: Bind, O: On, G: group, Type: typ})
	}
}

// Quiesce records that faults are over and nothing moves any more, or, with false,
// that it did not come to rest in the time that it had.
func (r *Recorder) Quiesce(ok bool) {
	o := Timeout
	if ok {
		o = OK
	}
	r.Record(Event{E: Quiesce, O: o})
}

// Gauge records a number of the process. The checker compares the first and the
// last value of a name: they should be about the same.
func (r *Recorder) Gauge(name string, value float64) {
	r.Record(Event{E: Gauge, Name: name, Value: value})
}

// Resources records how many goroutines and, on Linux, open files the process has. Call
// it when the process has settled and again when it has come to rest at the end.
func (r *Recorder) Resources() {
	r.Gauge("goroutines", float64(runtime.NumGoroutine()))
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		r.Gauge("files", float64(len(files)))
	}
}
