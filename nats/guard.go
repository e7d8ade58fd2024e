package nats

import (
	"bytes"
	"errors"
	"net"
	"strconv"
)

// Bounds of what a server may announce: beyond any that a server can be set to.
const (
	maxServerLine    = 1 << 20
	maxServerMessage = 64<<20 + 64<<10
)

var errHostile = errors.New("the server breaks the protocol of NATS")

// guard reads the frames of a server before the client library does, and ends a connection
// on which it announces what cannot be: the library computes with such numbers, and its
// panic, on a goroutine of its own, would end the process. On a connection that TLS
// protects there is nothing to read: who speaks there was verified.
type guard struct {
	net.Conn
	line    []byte
	skip    int // bytes of a message that are still to come
	begun   bool
	through bool
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if !g.through && !g.allow(p[:n]) {
		return 0, errHostile
	}
	return n, err
}

// allow reports whether the bytes may be passed on.
func (g *guard) allow(b []byte) bool {
	for len(b) > 0 && !g.through {
		if g.skip > 0 {
			n := min(g.skip, len(b))
			g.skip, b = g.skip-n, b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			g.line = append(g.line, b...)
			return len(g.line) <= maxServerLine
		}
		g.line, b = append(g.line, b[:end]...), b[end+1:]
		if len(g.line) > maxServerLine || !g.begin() {
			return false
		}
		g.line = g.line[:0]
	}
	return true
}

// begin reads a line and, of a message, how much is to come.
func (g *guard) begin() bool {
	words := bytes.Fields(g.line)
	if len(words) == 0 {
		return true
	}
	first := !g.begun
	g.begun = true
	switch string(bytes.ToUpper(words[0])) {
	case "INFO":
		g.through = first && bytes.Contains(g.line, []byte(`"tls_required":true`)) // TLS begins here
	case "MSG":
		size, ok := number(words[len(words)-1])
		g.skip = size + len("\r\n")
		return ok && (len(words) == 4 || len(words) == 5)
	case "HMSG":
		size, ok := number(words[len(words)-1])
		if !ok || len(words) != 5 && len(words) != 6 {
			return false
		}
		header, ok := number(words[len(words)-2])
		g.skip = size + len("\r\n")
		return ok && header <= size
	}
	return true // what is none of these, the library judges
}

func number(word []byte) (int, bool) {
	n, err := strconv.ParseUint(string(word), 10, 32)
	return int(n), err == nil && n <= maxServerMessage
}
