package console

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/ownfile"
)

// OperationLog is a file of operations: what each is to do, and every part of it before
// and after it is done. A console that is opened with it goes on where the last one
// stopped, however that ended. One console at a time has it.
type OperationLog struct {
	mu   sync.Mutex
	lock *os.File
	file *os.File
	jobs []*jobRecord // as they were when the file was opened
	err  error        // of the last write
}

// jobRecord is an operation as the file holds it.
type jobRecord struct {
	ID       string    `json:"id"`
	Deed     string    `json:"deed"`
	Place    string    `json:"place"`
	Group    string    `json:"group"`
	Type     string    `json:"type"`
	Print    string    `json:"fingerprint"`
	Cutoff   int64     `json:"cutoff"`
	Rate     int       `json:"rate"`
	Most     int       `json:"most,omitempty"` // 0: all
	Who      string    `json:"who"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	State    jobState  `json:"state"`
	Selected int       `json:"selected"`
	More     bool      `json:"more,omitempty"`
	Err      string    `json:"error,omitempty"`

	// Progress, which the lines of parts tell.
	Done  int      `json:"done,omitempty"`
	After int64    `json:"after,omitempty"`
	IDs   []string `json:"ids,omitempty"`
	Part  []string `json:"part,omitempty"` // begun, and not known to be done
	Ahead int64    `json:"ahead,omitempty"`
}

// operationLine is one line of the file: an operation as it is now, a part that begins,
// or a part that is done.
type operationLine struct {
	Job   *jobRecord `json:"operation,omitempty"`
	ID    string     `json:"id,omitempty"`
	Begin []string   `json:"begin,omitempty"`
	Ahead int64      `json:"ahead,omitempty"` // where the next part begins
	Did   *int       `json:"did,omitempty"`
}

// OpenOperations opens the file, made with mode 0600 when it is not there, and reads what
// is in it. Another console that has it is an error of CodeConflict, and so is a line
// that is not one of ours; half a line at the end is what a crash leaves.
func OpenOperations(name string) (*OperationLog, error) {
	const op = "open the console's operations"
	lock, err := ownfile.Take(name + ".lock")
	if errors.Is(err, ownfile.ErrTaken) {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("another console has %s", name), Hint: "one console at a time runs its operations"}
	}
	if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: err}
	}
	l := &OperationLog{lock: lock}
	if err := l.open(name); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

func (l *OperationLog) open(name string) error {
	const op = "open the console's operations"
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: err}
	}
	if err := l.read(bytes.NewReader(text)); err != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: fmt.Errorf("%s: %w", name, err), Hint: "somebody changed it: keep it, and begin a new file"}
	}
	// One line for each operation, put in place at once.
	fresh := name + ".new"
	if l.file, err = os.OpenFile(fresh, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600); err != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: err}
	}
	var out bytes.Buffer
	for _, j := range l.jobs {
		_ = json.NewEncoder(&out).Encode(operationLine{Job: j}) // a buffer takes everything
	}
	if _, err = l.file.Write(out.Bytes()); err == nil {
		err = l.file.Sync()
	}
	if err == nil {
		err = os.Rename(fresh, name)
	}
	if err != nil {
		_ = l.file.Close()
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	}
	return nil
}

// read folds the lines into operations.
func (l *OperationLog) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break // the end, or what a crash cut off: it was not acted on
		}
		var x operationLine
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&x); err != nil || !l.fold(&x) {
			return fmt.Errorf("line %d is none of a console", number)
		}
	}
	if n := len(l.jobs) - mostJobs; n > 0 {
		l.jobs = slices.Delete(l.jobs, 0, n)
	}
	return nil
}

func (l *OperationLog) fold(x *operationLine) bool {
	id := x.ID
	if x.Job != nil {
		id = x.Job.ID
	}
	i := slices.IndexFunc(l.jobs, func(j *jobRecord) bool { return j.ID == id })
	switch {
	case x.Job != nil && i < 0:
		l.jobs = append(l.jobs, x.Job)
	case x.Job != nil: // a line of a change leaves progress out
		old := l.jobs[i]
		x.Job.Done, x.Job.After, x.Job.IDs, x.Job.Part, x.Job.Ahead = old.Done, old.After, old.IDs, old.Part, old.Ahead
		l.jobs[i] = x.Job
	case i < 0:
		return false
	case x.Begin != nil:
		l.jobs[i].Part, l.jobs[i].Ahead = x.Begin, x.Ahead
	case x.Did != nil:
		l.jobs[i].did(*x.Did)
	default:
		return false
	}
	return true
}

// did notes that the part in hand is done.
func (j *jobRecord) did(n int) {
	j.Done += n
	j.After = j.Ahead
	j.IDs = append(j.IDs, j.Part[:min(len(j.Part), max(0, mostOutcome-len(j.IDs)))]...)
	j.Part = nil
}

// write appends a line and returns when it is on the disk. A nil log keeps nothing. After
// a failure nothing is written any more: what follows half a line cannot be read.
func (l *OperationLog) write(x operationLine) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	text, err := json.Marshal(x)
	if err == nil {
		if _, err = l.file.Write(append(text, '\n')); err == nil {
			err = l.file.Sync()
		}
	}
	if err != nil {
		l.err = &outlast.Error{Op: "record an operation", Code: outlast.CodeUnavailable, Err: err}
	}
	return l.err
}

// Close gives the file back.
func (l *OperationLog) Close() error { return errors.Join(l.file.Close(), l.lock.Close()) }
