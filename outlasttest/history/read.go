package history

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Process is one process of a history.
type Process struct {
	Name string
	PID  int
	File string
}

// Entry is an event with the process that recorded it.
type Entry struct {
	Event
	Process *Process
	File    int // the index of its file
}

// Reader merges the files of a history by time. It holds one event of each file, so
// that it needs the same little memory for any length.
type Reader struct {
	files fileHeap
	// Torn counts lines that killed processes left unfinished.
	Torn int
}

// maxLine bounds a line: more is no history.
const maxLine = 1 << 20

// NewReader opens files. Its errors name the file and the line that is not as the
// format says.
func NewReader(paths ...string) (*Reader, error) {
	r := &Reader{}
	for i, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			_ = r.Close()
			return nil, err
		}
		s := &source{r: r, index: i, path: path, file: f, lines: bufio.NewReaderSize(f, 64<<10)}
		r.files = append(r.files, s)
		if err := s.advance(); err != nil {
			_ = r.Close()
			return nil, err
		}
	}
	heap.Init(&r.files)
	return r, nil
}

// Next returns the next event of all files, or io.EOF.
func (r *Reader) Next() (Entry, error) {
	if len(r.files) == 0 {
		return Entry{}, io.EOF
	}
	s := r.files[0]
	if s.done {
		heap.Pop(&r.files)
		_ = s.file.Close()
		return r.Next()
	}
	e := s.entry
	if err := s.advance(); err != nil {
		return e, err
	}
	heap.Fix(&r.files, 0)
	return e, nil
}

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, s := range r.files {
		errs = append(errs, s.file.Close())
	}
	r.files = nil
	return errors.Join(errs...)
}

// source is one file on its way.
type source struct {
	r     *Reader
	index int
	path  string
	file  *os.File
	lines *bufio.Reader
	line  int

	process *Process
	last    int64
	entry   Entry
	ahead   *Event // read already
	done    bool
}

// advance reads the next event into entry.
func (s *source) advance() error {
	e, err := s.event()
	switch {
	case errors.Is(err, io.EOF) && s.process == nil:
		s.done = true
		return nil
	case errors.Is(err, io.EOF), err == nil && e.E == Open && s.process != nil: // the one before ended without a word
		s.entry = Entry{Event{T: s.last, E: Killed}, s.process, s.index}
		s.process = nil
		if err == nil {
			s.ahead = &e
		}
		return nil
	case err != nil:
		return err
	}
	if e.E == Open {
		if e.V < 1 || e.V > Version {
			return s.broken("it has format version %d; this build reads 1 to %d", e.V, Version)
		}
		s.process = &Process{Name: e.P, PID: e.PID, File: s.path}
	}
	if s.process == nil {
		return s.broken("no history: event %q before the process began (\"open\")", e.E)
	}
	s.last = max(s.last, e.T)
	e.T = s.last
	s.entry = Entry{e, s.process, s.index}
	if e.E == Close {
		s.process = nil
	}
	return nil
}

func (s *source) broken(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", s.path, s.line, fmt.Sprintf(format, args...))
}

// event reads one line. A line that is not whole is torn if the process's history
// ends with it; otherwise the file is broken.
func (s *source) event() (Event, error) {
	if s.ahead != nil {
		e := *s.ahead
		s.ahead = nil
		return e, nil
	}
	e, begun, bad, err := s.parse()
	if err != nil || bad == nil {
		return e, err
	}
	if s.line == 1 && !begun {
		return Event{}, s.broken("not an event of a history: %v", bad)
	}
	next, _, nextBad, err := s.parse()
	switch {
	case errors.Is(err, io.EOF):
		s.r.Torn++
		return Event{}, io.EOF
	case err != nil:
		return Event{}, err
	case nextBad == nil && next.E == Open:
		s.r.Torn++
		return next, nil
	}
	s.line--
	return Event{}, s.broken("not an event of a history: %v", bad)
}

// parse returns io.EOF at the end, and as bad why a line is no event; begun tells
// whether it begins as one.
func (s *source) parse() (e Event, begun bool, bad, err error) {
	line, err := s.lines.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		if line, err = s.long(bytes.Clone(line)); err != nil && !errors.Is(err, io.EOF) {
			return e, false, nil, err
		}
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return e, false, nil, err
	}
	s.line++
	if bad = json.Unmarshal(line, &e); bad == nil {
		bad = e.lacks()
	}
	return e, bytes.HasPrefix(line, []byte(`{"t":`)), bad, nil
}

// lacks says what an event cannot be without.
func (e *Event) lacks() error {
	switch {
	case e.E == "" || e.T == 0:
		return errors.New("it has no time or no kind")
	case e.Tx == "" && (e.E == Begin || e.E == Committing || e.E == Commit):
		return fmt.Errorf("%q without its transaction", e.E)
	}
	return nil
}

func (s *source) long(head []byte) ([]byte, error) {
	for {
		part, err := s.lines.ReadSlice('\n')
		head = append(head, part...)
		if len(head) > maxLine {
			s.line++
			return nil, s.broken("a line of more than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return head, err
		}
	}
}

// fileHeap has the earliest event first; of the same time, that of the file named first.
type fileHeap []*source

func (h fileHeap) Len() int { return len(h) }
func (h fileHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	switch {
	case a.done != b.done:
		return a.done
	case a.entry.T != b.entry.T:
		return a.entry.T < b.entry.T
	}
	return a.index < b.index
}
func (h fileHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *fileHeap) Push(x any)   { *h = append(*h, x.(*source)) }
func (h *fileHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
