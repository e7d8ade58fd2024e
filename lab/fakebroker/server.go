// Package fakebroker is an AMQP 0-9-1 server that does what a test's script says: it
// confirms out of order, returns, swallows, delays, blocks, and breaks connections and
// frames at any byte. It speaks the protocol on a real socket, routes nothing and keeps
// nothing.
package fakebroker

import (
	"fmt"
	"net"
	"sync"
	"testing"
)

// Script is what the server does. The zero value accepts everything and confirms every
// publish. Functions are called on the goroutine that reads the connection, one at a time
// for each connection; what they send is on its way when they return.
type Script struct {
	// FrameMax and Heartbeat (in seconds) are offered in connection.tune. 131,072 and 60.
	FrameMax  uint32
	Heartbeat uint16
	// Hello, when it returns bytes, is sent in place of connection.start. Connections are
	// counted from 1.
	Hello func(connection int) []byte
	// CutAfter is the number of bytes after which the server cuts a connection on its
	// own side; 0 is never.
	CutAfter func(connection int) int
	// Opened is called when a connection is usable.
	Opened func(*Conn)
	// Published is called for every message; nil confirms it.
	Published func(*Channel, Publish)
	// Consumed is called when a subscription was answered.
	Consumed func(ch *Channel, queue, consumer string)
	// Consumers is how many consumers a queue is said to have; nil: one.
	Consumers func(queue string) int
	// Messages is how many messages a queue is said to have; nil: none.
	Messages func(queue string) int
	// Acked is called for every acknowledgement.
	Acked func(ch *Channel, tag uint64, multiple bool)
	// Instead, when it returns true, has dealt with a method of the client, which the
	// server then does not answer.
	Instead func(ch *Channel, class, method uint16) bool
}

// Publish is a message that came in full.
type Publish struct {
	Tag           uint64 // by order on its channel, from 1
	Exchange, Key string
	Mandatory     bool
	ID            string
	Header, Body  []byte // the content header's payload, and the body
}

// Server listens on a free port of the loopback interface.
type Server struct {
	script   Script
	listener net.Listener
	work     sync.WaitGroup

	mu         sync.Mutex
	accepted   int
	conns      map[*Conn]bool
	violations []string
}

// New starts a server that ends with the test, which fails when a client broke the
// protocol.
func New(t testing.TB, script Script) *Server {
	t.Helper()
	s, err := Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, v := range s.Close() {
			t.Error("the client broke the protocol: " + v)
		}
	})
	return s
}

// Start starts a server.
func Start(script Script) (*Server, error) {
	if script.FrameMax == 0 {
		script.FrameMax = 131072
	}
	if script.Heartbeat == 0 {
		script.Heartbeat = 60
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{script: script, listener: l, conns: map[*Conn]bool{}}
	s.work.Go(s.accept)
	return s, nil
}

// URL is where the server is.
func (s *Server) URL() string { return fmt.Sprintf("amqp://guest:guest@%s/", s.listener.Addr()) }

// Close ends everything, waits for it, and tells how clients broke the protocol.
func (s *Server) Close() (violations []string) {
	s.listener.Close()
	s.CutAll()
	s.work.Wait()
	return s.violations
}

// CutAll cuts all connections, as a killed server would.
func (s *Server) CutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.socket.Close()
	}
}

// Accepted is the number of connections so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Conns are the connections that are open.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) accept() {
	for {
		socket, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted++
		c := &Conn{server: s, socket: socket, number: s.accepted, channels: map[uint16]*Channel{}}
		s.conns[c] = true
		s.mu.Unlock()
		if s.script.CutAfter != nil {
			c.left = s.script.CutAfter(c.number)
			c.cut = c.left > 0
		}
		s.work.Go(func() {
			c.serve()
			socket.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}
