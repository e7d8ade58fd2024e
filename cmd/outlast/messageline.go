package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outlastmq/outlast"
)

// messageLine is one message of a file: the members of a message as they are
// everywhere, with the body and the durations in readable forms.
type messageLine struct {
	outlast.Message
	Key      string          `json:"key"`
	Body     json.RawMessage `json:"body"`
	Text     *string         `json:"body_text"`
	Bytes    []byte          `json:"body_base64"`
	Delay    string          `json:"delay"`
	Lifetime string          `json:"lifetime"`
}

// maxLine is the longest line: the greatest body as base64, and its envelope.
const maxLine = outlast.MaxBody*4/3 + 1<<20

// lineReader reads messages, one JSON object a line, in batches.
type lineReader struct {
	r      *bufio.Reader
	single *outlast.Message // the one message of a command line, instead of a file

	done int // lines of whole batches that were committed or skipped
	at   int // lines read
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 1<<16)}
}

// skip passes over n lines.
func (l *lineReader) skip(n int) error {
	for range n {
		if _, err := l.line(); err != nil {
			if errors.Is(err, io.EOF) {
				return usage("publish", "--skip", fmt.Sprintf("at most %d, the lines of the file", l.at), fmt.Sprint(n), "")
			}
			return err
		}
	}
	l.done = l.at
	return nil
}

// next returns a checked batch of at most n messages with their ids; last is true
// at the end of the file.
func (l *lineReader) next(n, maxBody int) (batch []outlast.Message, last bool, err error) {
	if l.single != nil {
		m := *l.single
		l.at = 1
		return []outlast.Message{withID(m)}, true, checked(m, maxBody, "publish "+m.Type)
	}
	bytesLeft := maxBatchBytes
	for len(batch) < n && bytesLeft > 0 {
		line, err := l.line()
		if errors.Is(err, io.EOF) {
			return batch, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		m, err := parseLine(line)
		if err != nil {
			return nil, false, l.badLine(err)
		}
		if err := checked(m, maxBody, fmt.Sprintf("line %d", l.at)); err != nil {
			return nil, false, l.badLine(err)
		}
		batch = append(batch, withID(m))
		bytesLeft -= len(m.Body)
	}
	return batch, false, nil
}

// maxBatchBytes bounds what one transaction and this process's memory hold.
const maxBatchBytes = 32 << 20

func withID(m outlast.Message) outlast.Message {
	if m.ID == "" {
		m.ID = outlast.NewID()
	}
	return m
}

func checked(m outlast.Message, maxBody int, op string) error {
	err := m.Validate(maxBody)
	var e *outlast.Error
	if errors.As(err, &e) {
		e.Op = op
		e.Hint = ""
	}
	return err
}

// badLine says where the file is wrong and how to go on.
func (l *lineReader) badLine(err error) error {
	return withHint(&outlast.Error{Op: fmt.Sprintf("line %d", l.at), Code: outlast.CodeInvalid, Err: unwrapped(err)},
		fmt.Sprintf("lines 1 to %d are done; mend the line, and --skip %d continues", l.done, l.done))
}

// unwrapped drops the operation of an error that names the line already.
func unwrapped(err error) error {
	var e *outlast.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return err
	}
	var all []error
	for _, f := range e.Fields {
		all = append(all, errors.New(f.String()))
	}
	return joined(all)
}

func joined(errs []error) error {
	text := ""
	for i, err := range errs {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return errors.New(text)
}

// commit notes that everything read so far is done.
func (l *lineReader) commit() { l.done = l.at }

// span returns the first and the last line of the batch that is not committed.
func (l *lineReader) span() (from, to int) { return l.done + 1, l.at }

func (l *lineReader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			l.at++
			return nil, l.badLine(fmt.Errorf("longer than %d bytes", maxLine))
		case err == nil, errors.Is(err, io.EOF) && len(line) > 0:
			l.at++
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, &outlast.Error{Op: "read the messages", Code: outlast.CodeUnavailable, Err: err}
		}
	}
}

func parseLine(line []byte) (outlast.Message, error) {
	var in messageLine
	if !utf8.Valid(line) { // the decoder would put other characters in place of what is broken
		return in.Message, errors.New("not valid UTF-8; bytes that are not text go into body_base64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in.Message, jsonProblem(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in.Message, errors.New("data after the JSON object")
	}
	m := in.Message
	m.Key = in.Key
	if err := in.setBody(&m); err != nil {
		return m, err
	}
	var err error
	if m.Delay, err = durationMember("delay", in.Delay); err != nil {
		return m, err
	}
	m.Lifetime, err = durationMember("lifetime", in.Lifetime)
	return m, err
}

// jsonProblem keeps the decoder's word without quoting the document: at most the start of a
// member's name that it does not know.
func jsonProblem(err error) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not JSON: it ends too early")
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON: at byte %d", syntax.Offset)
	case errors.As(err, &wrong):
		return fmt.Errorf("member %q: cannot be a JSON %s", wrong.Field, wrong.Value)
	default:
		return errors.New(cut(printable(strings.TrimPrefix(err.Error(), "json: ")), 120))
	}
}

func (in *messageLine) setBody(m *outlast.Message) error {
	given := 0
	if in.Body != nil {
		m.Body = in.Body
		given++
	}
	if in.Text != nil {
		m.Body = []byte(*in.Text)
		given++
		if m.ContentType == "" {
			m.ContentType = "text/plain"
		}
	}
	if in.Bytes != nil {
		m.Body = in.Bytes
		given++
		if m.ContentType == "" {
			m.ContentType = "application/octet-stream"
		}
	}
	if given != 1 {
		return errors.New("a message has exactly one of body, body_text and body_base64")
	}
	return nil
}

func durationMember(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("member %q: must be a duration like \"10m\"", name)
	}
	return d, nil
}
