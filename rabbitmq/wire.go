package rabbitmq

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// frameMax is the largest frame that we ask for and accept: RabbitMQ's default.
	frameMax = 131072
	// frameOverhead is a frame's header and its end mark.
	frameOverhead = 8
	// roomBytes is how much may wait to be written before lanes pause.
	roomBytes = 256 << 10
	frameEnd  = 0xCE

	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
)

var (
	errWireClosed = errors.New("the connection is closed")
	errUnread     = errors.New("the broker sent what the client library did not take")
	errStalled    = fmt.Errorf("the broker took no data for %v", stallLimit)
)

// observer sees every frame in the order of the wire, before the library does. It
// runs on the library's reading goroutine and must not block.
type observer interface {
	method(channel, class, method uint16, args []byte)
	header(channel uint16, h contentHeader)
}

// wire is the connection as the library sees it. Reading hands on whole frames that
// were checked and observed. Writing never blocks: one goroutine writes out what
// was collected, so that frames share system calls, and nobody holds a lock of the
// library while the socket is slow.
type wire struct {
	net.Conn
	reader   *bufio.Reader
	observer observer
	frame    []byte // the frame being handed on; reused
	rest     []byte // of it, what was not yet read

	mu       sync.Mutex
	work     sync.Cond // something to write, or closing
	room     sync.Cond // written, closed, blocked or unblocked
	out      []byte
	partial  []byte // of the library: a frame that is not complete yet
	greeted  bool   // the protocol header has passed
	closing  bool
	err      error
	written  chan struct{} // closed when the writing goroutine has ended
	blocked  atomic.Bool
	since    atomic.Int64 // when the current write began; 0 when none is going on
	watchdog *time.Timer

	failed chan struct{} // closed when err is set
	reads  atomic.Uint64 // entries into Read and returns from it: even while the library works
	seen   uint64        // reads, when the library was last looked at
	looker *time.Timer
}

func newWire(conn net.Conn, o observer) *wire {
	w := &wire{Conn: conn, reader: bufio.NewReaderSize(conn, 64<<10), observer: o, written: make(chan struct{}), failed: make(chan struct{})}
	w.work.L, w.room.L = &w.mu, &w.mu
	w.watchdog = time.AfterFunc(time.Hour, w.watch)
	w.looker = time.AfterFunc(time.Hour, w.look)
	w.looker.Reset(stallLimit)
	go w.writeOut()
	return w
}

// Read hands the library what has been checked.
func (w *wire) Read(p []byte) (int, error) {
	w.reads.Add(1)
	defer w.reads.Add(1)
	for len(w.rest) == 0 {
		if err := w.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) next() error {
	if err := w.failure(); err != nil {
		return err // what was read ahead counts no more
	}
	w.frame = sized(w.frame, 7)
	if _, err := io.ReadFull(w.reader, w.frame); err != nil {
		return err
	}
	kind, channel := w.frame[0], binary.BigEndian.Uint16(w.frame[1:])
	size := binary.BigEndian.Uint32(w.frame[3:])
	if kind == 'A' {
		return errors.New("the server does not speak AMQP 0-9-1")
	}
	if size > frameMax-frameOverhead {
		return fmt.Errorf("the broker sent a frame of %d bytes; at most %d are accepted", size, frameMax-frameOverhead)
	}
	w.frame = sized(w.frame, 7+int(size)+1)
	if _, err := io.ReadFull(w.reader, w.frame[7:]); err != nil {
		return err
	}
	payload := w.frame[7 : 7+size]
	if w.frame[7+size] != frameEnd {
		return errors.New("the broker sent a frame without its end mark")
	}
	w.rest = w.frame
	switch kind {
	case frameMethod:
		if len(payload) < 4 {
			return errShortFrame
		}
		class, method, args := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4:]
		if err := checkMethod(class, method, args); err != nil {
			return err
		}
		w.observer.method(channel, class, method, args)
	case frameHeader:
		h, err := readContentHeader(payload)
		if errors.Is(err, errBadTable) {
			w.frame = h.withoutTable(w.frame, err)
			w.rest = w.frame
		} else if err != nil {
			return err
		}
		w.observer.header(channel, h)
	case frameBody, frameHeartbeat:
	default:
		return fmt.Errorf("the broker sent a frame of the unknown type %d", kind)
	}
	return nil
}

func sized(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	grown := make([]byte, n, max(n, 2*cap(b)))
	copy(grown, b)
	return grown
}

// Write takes what the library writes. It keeps back what is not a whole frame yet,
// since publishes are put between the library's frames.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.partial = append(w.partial, p...)
	for {
		n := w.wholeFrame()
		if n == 0 {
			break
		}
		w.out = append(w.out, w.partial[:n]...)
		w.partial = append(w.partial[:0], w.partial[n:]...)
	}
	w.work.Signal()
	return len(p), nil
}

func (w *wire) wholeFrame() int {
	n := 8 // of the protocol header
	if w.greeted {
		if len(w.partial) < 7 {
			return 0
		}
		n = int(binary.BigEndian.Uint32(w.partial[3:])) + frameOverhead
	}
	if len(w.partial) < n {
		return 0
	}
	w.greeted = true
	return n
}

// put adds whole frames that f appends.
func (w *wire) put(f func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.out = f(w.out)
	w.work.Signal()
	return nil
}

// waitRoom waits until there is room for more publishes; false when the connection
// ended or the broker blocks.
func (w *wire) waitRoom() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.out) > roomBytes && !w.blocked.Load() {
		w.room.Wait()
	}
	return w.err == nil && !w.blocked.Load()
}

func (w *wire) setBlocked(blocked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked.Store(blocked)
	w.room.Broadcast()
}

func (w *wire) writeOut() {
	defer close(w.written)
	defer w.watchdog.Stop()
	defer w.looker.Stop()
	defer w.Conn.Close()
	var spare []byte
	for {
		w.mu.Lock()
		for len(w.out) == 0 && !w.closing && w.err == nil {
			w.work.Wait()
		}
		if w.err != nil || len(w.out) == 0 {
			w.failLocked(errWireClosed)
			w.mu.Unlock()
			return
		}
		batch := w.out
		w.out = spare[:0]
		w.room.Broadcast()
		w.mu.Unlock()

		w.since.Store(time.Now().UnixNano())
		w.watchdog.Reset(stallLimit)
		_, err := w.Conn.Write(batch)
		w.since.Store(0)
		if err != nil {
			w.abort(err)
			return
		}
		if spare = batch; cap(spare) > 4*roomBytes {
			spare = nil // a rare large body; not to be kept
		}
	}
}

// watch ends a connection whose peer takes nothing. Blocked is no reason: the
// broker said so, and its heartbeats tell whether it lives.
func (w *wire) watch() {
	since := w.since.Load()
	if since == 0 {
		return
	}
	left := stallLimit - time.Since(time.Unix(0, since))
	if left > 0 || w.blocked.Load() {
		w.watchdog.Reset(max(left, time.Second))
		return
	}
	w.abort(errStalled)
}

// look ends a connection when the library has not asked for more since the last look. It
// waits for ever to hand on an answer that nobody asked for, and then notices nothing any
// more: neither heartbeats that stay away nor the end of the socket.
func (w *wire) look() {
	now := w.reads.Load()
	if now%2 == 0 && now > 0 && now == w.seen {
		w.abort(errUnread)
		return
	}
	w.seen = now
	select {
	case <-w.failed:
	default:
		w.looker.Reset(stallLimit)
	}
}

// abort closes the socket at once.
func (w *wire) abort(err error) {
	w.mu.Lock()
	w.failLocked(err)
	w.mu.Unlock()
	w.Conn.Close()
}

func (w *wire) failLocked(err error) {
	if w.err == nil {
		w.err = err
		close(w.failed)
	}
	w.work.Signal()
	w.room.Broadcast()
}

// Close writes out what is left, for a second at most, and closes the socket. It
// does not wait.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return nil
	}
	w.closing = true
	w.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // an error means that it is closed
	w.work.Signal()
	return nil
}

// SetDeadline bounds reads alone: writes have the watchdog.
func (w *wire) SetDeadline(t time.Time) error { return w.Conn.SetReadDeadline(t) }

// failure is why the connection ended, or nil.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, errWireClosed) {
		return nil
	}
	return w.err
}
