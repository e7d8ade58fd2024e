package console

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// AuditRecord is one line of the audit log. A deed has two: one before it is done, and
// one with its result.
type AuditRecord struct {
	Number int       `json:"n"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"` // "retry", "view body"
	Place  string    `json:"place,omitempty"`
	Group  string    `json:"group,omitempty"`
	Type   string    `json:"type,omitempty"`
	Target string    `json:"target"`
	Reason string    `json:"reason,omitempty"`
	Result string    `json:"result"` // "begun" before the deed
	// Before is the hash of the line before, Hash of this one with an empty Hash.
	Before string `json:"before"`
	Hash   string `json:"hash"`
}

func (r AuditRecord) sum() (string, error) {
	r.Hash = ""
	text, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// AuditLog is a file of JSON lines, each with the hash of the one before: whoever changes
// or removes a line that is not the last breaks the chain. Keep the newest hash elsewhere
// to notice a shortened end. One console writes to a file. It is safe for concurrent use.
type AuditLog struct {
	mu     sync.Mutex
	file   *os.File
	last   string
	number int
	size   int64
	marks  []int64 // where the first of each hundred records begins
	recent []AuditRecord
	broken error
}

const (
	auditRecent = 1000
	auditMarked = 100
	maxRecord   = 1 << 20
)

// OpenAudit opens the log in a file, made with mode 0600 when it is not there, and
// verifies its chain. A broken chain is an error of CodeConflict.
func OpenAudit(name string) (*AuditLog, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, &outlast.Error{Op: "open the audit log", Code: outlast.CodeDenied, Err: err}
	}
	l := &AuditLog{file: file}
	if err := l.read(file); err != nil {
		_ = file.Close()
		return nil, &outlast.Error{Op: "open the audit log " + name, Code: outlast.CodeConflict, Err: err,
			Hint: "somebody changed it, or it ends in half a line: keep it, and begin a new file"}
	}
	return l, nil
}

// VerifyAudit reads a log and returns the number of its records and the newest hash, or
// an error that names the first line that breaks the chain.
func VerifyAudit(r io.Reader) (records int, hash string, err error) {
	l := &AuditLog{}
	err = l.read(r)
	return l.number, l.last, err
}

func (l *AuditLog) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		rec, size, err := readRecord(in, l.number+1)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Before != l.last {
			return follows(rec.Number)
		}
		l.keep(rec, size)
	}
}

// readRecord reads the next line, which is to have that number and its own hash.
func readRecord(in *bufio.Reader, number int) (rec AuditRecord, size int, err error) {
	line, err := in.ReadBytes('\n')
	if err == io.EOF && len(line) == 0 {
		return rec, 0, io.EOF
	}
	if err != nil || len(line) > maxRecord {
		return rec, 0, fmt.Errorf("line %d does not end", number)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		return rec, 0, fmt.Errorf("line %d: %w", number, err)
	}
	if sum, err := rec.sum(); err != nil || sum != rec.Hash || rec.Number != number {
		return rec, 0, follows(number)
	}
	return rec, len(line), nil
}

func follows(number int) error {
	return fmt.Errorf("line %d does not follow from the one before", number)
}

func (l *AuditLog) keep(rec AuditRecord, size int) {
	if l.number%auditMarked == 0 {
		l.marks = append(l.marks, l.size)
	}
	l.size += int64(size)
	l.last, l.number = rec.Hash, rec.Number
	if len(l.recent) == auditRecent {
		l.recent = append(l.recent[:0], l.recent[1:]...)
	}
	l.recent = append(l.recent, rec)
}

// write appends a record and returns when it is on the disk. After a failure nothing is
// written any more: what follows could not be told from a broken chain.
func (l *AuditLog) write(rec AuditRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	rec.Number, rec.At, rec.Before = l.number+1, time.Now().UTC(), l.last
	sum, err := rec.sum()
	if err != nil {
		return err
	}
	rec.Hash = sum
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if len(text) >= maxRecord {
		return errors.New("write the audit log: the record is too long")
	}
	text = append(text, '\n')
	if _, err = l.file.Write(text); err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.broken = fmt.Errorf("write the audit log: %w", err)
		return l.broken
	}
	l.keep(rec, len(text))
	return nil
}

// newest returns the newest records before a number, the newest first: those of late from
// memory, earlier ones from the file.
func (l *AuditLog) newest(before, limit int) (list []AuditRecord, err error) {
	l.mu.Lock()
	recent, marks, size := slices.Clone(l.recent), l.marks, l.size
	if before == 0 || before > l.number {
		before = l.number + 1
	}
	l.mu.Unlock()
	first := max(1, before-limit)
	if len(recent) == 0 || first >= before {
		return nil, nil
	}
	if first < recent[0].Number {
		recent, err = l.between(marks, size, first, before)
		if err != nil {
			return nil, &outlast.Error{Op: "read the audit log", Code: outlast.CodeConflict, Err: err, Hint: "somebody changed the file: outlast console verify"}
		}
	}
	for _, rec := range slices.Backward(recent) {
		if rec.Number >= first && rec.Number < before {
			list = append(list, rec)
		}
	}
	return list, nil
}

// between reads records of the file, from the mark before the first of them.
func (l *AuditLog) between(marks []int64, size int64, first, before int) (list []AuditRecord, err error) {
	mark := (first - 1) / auditMarked
	in := bufio.NewReader(io.NewSectionReader(l.file, marks[mark], size-marks[mark]))
	for number := mark*auditMarked + 1; number < before; number++ {
		rec, _, err := readRecord(in, number)
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && rec.Before != list[n-1].Hash {
			return nil, follows(number)
		}
		list = append(list, rec)
	}
	return list, nil
}

// Close closes the file.
func (l *AuditLog) Close() error { return l.file.Close() }
