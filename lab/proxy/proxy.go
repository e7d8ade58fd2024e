// Package proxy is a TCP proxy whose link a test can cut, stall, or cut in the middle of a
// message: the network faults that a killed server cannot show.
package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Direction names one half of a connection.
type Direction int

const (
	// Up is from the client to the target.
	Up Direction = iota
	// Down is from the target to the client.
	Down
)

func (d Direction) String() string {
	if d == Up {
		return "up"
	}
	return "down"
}

// Proxy forwards TCP connections from a loopback port to one target. Its methods may be
// called concurrently.
type Proxy struct {
	target  string
	address string
	cuts    chan struct{}
	work    sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond
	listener net.Listener // nil while cut
	links    map[*link]struct{}
	stalled  bool
	closed   bool
	budgets  [2]budget // by Direction
}

// budget is what may still pass before the cut that CutAfter asked for.
type budget struct {
	limited bool
	left    int64
}

// link is one client's connection and its counterpart at the target.
type link struct {
	mu     sync.Mutex
	closed bool
	deaf   bool
	ends   []net.Conn
}

// New returns a proxy that listens on a free loopback port and forwards to target, a
// host:port. The target is dialed for each connection, so it need not be up yet. The
// caller must Close the proxy.
func New(target string) (*Proxy, error) {
	listener, err := listen()
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	p := &Proxy{
		target:  target,
		address: listener.Addr().String(),
		cuts:    make(chan struct{}, 1),
		links:   make(map[*link]struct{}),
	}
	p.changed = sync.NewCond(&p.mu)
	p.serve(listener)
	return p, nil
}

// listen takes a port from below the range for outgoing connections: from there another
// program could take it between Cut and Restore, or a client that redials meet itself.
func listen() (net.Listener, error) {
	const first, last = 10000, 15000
	var err error
	for range 100 {
		var listener net.Listener
		listener, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first)))
		if err == nil {
			return listener, nil
		}
	}
	return nil, err
}

// Address is the proxy's own host:port. It stays the same over Cut and Restore.
func (p *Proxy) Address() string { return p.address }

// Target is the host:port that the proxy forwards to.
func (p *Proxy) Target() string { return p.target }

// Cut resets all connections and refuses new ones until Restore. Cutting twice is no error.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked()
}

// CutAfter cuts the proxy once n further bytes have passed in direction d, counted over all
// connections; exactly n bytes are handed on. A second call for the same direction replaces
// the first; Restore forgets it.
func (p *Proxy) CutAfter(d Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budgets[d] = budget{limited: true, left: n}
	if n <= 0 {
		p.cutLocked()
	}
}

// Cuts receives a value when the proxy has been cut. Cuts that nobody waited for are
// counted as one.
func (p *Proxy) Cuts() <-chan struct{} { return p.cuts }

// Stall keeps all connections open, and takes new ones, but passes nothing on until
// Restore. What is on its way waits; nothing is lost.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = true
}

// Deafen discards from now on what the target says on the connections of now, for good;
// what their clients say passes on, and new connections are not affected. A client
// without deadlines of its own waits on such a connection for ever.
func (p *Proxy) Deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.deafen()
	}
}

// Restore ends every fault: the proxy listens again on its old port, a stalled connection
// goes on, and a CutAfter that has not struck is forgotten. Connections that were cut
// or are deaf stay so.
func (p *Proxy) Restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("restore the proxy to %s: %w", p.target, net.ErrClosed)
	}
	p.stalled, p.budgets = false, [2]budget{}
	p.changed.Broadcast()
	if p.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp4", p.address)
	if err != nil {
		return fmt.Errorf("restore the proxy to %s: %w", p.target, err)
	}
	p.serve(listener)
	return nil
}

// Close cuts the proxy for good and returns when nothing that it started is alive.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.cutLocked()
	p.mu.Unlock()
	p.work.Wait()
	return nil
}

// cutLocked needs p.mu.
func (p *Proxy) cutLocked() {
	if p.listener != nil {
		p.listener.Close() // it holds nothing that could be lost
		p.listener = nil
	}
	for l := range p.links {
		l.reset()
	}
	clear(p.links)
	p.changed.Broadcast()
	select {
	case p.cuts <- struct{}{}:
	default:
	}
}

// serve needs p.mu, except in New.
func (p *Proxy) serve(listener net.Listener) {
	p.listener = listener
	p.work.Go(func() {
		for {
			client, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // the client has gone already
			}
			p.work.Go(func() { p.forward(client) })
		}
	})
}

// forward lives as long as the connection.
func (p *Proxy) forward(client net.Conn) {
	l := &link{ends: []net.Conn{client}}
	if !p.register(l) || !p.awaitFlow(l) {
		l.reset()
		return
	}
	defer p.forget(l)
	target, err := net.Dial("tcp", p.target)
	if err != nil || !l.add(target) {
		return
	}
	p.work.Go(func() { p.pump(l, Down, client, target) })
	p.pump(l, Up, target, client)
}

// register reports whether the connection came before any cut.
func (p *Proxy) register(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) forget(l *link) {
	l.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// pump copies one direction until either end is closed, and then closes both: no protocol
// that Outlast speaks uses half-closed connections.
func (p *Proxy) pump(l *link, d Direction, to, from net.Conn) {
	defer p.forget(l)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.pass(l, d, to, buffer[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass hands data on as far as stalls and budgets allow, and reports whether the
// connection lives on.
func (p *Proxy) pass(l *link, d Direction, to net.Conn, data []byte) bool {
	if !p.awaitFlow(l) {
		return false
	}
	if d == Down && l.isDeaf() {
		return true
	}
	allowed, last := p.spend(d, len(data))
	if _, err := to.Write(data[:allowed]); err != nil {
		return false
	}
	if !last {
		return true
	}
	l.finish() // a reset would discard the bytes that were to arrive
	p.Cut()
	return false
}

// awaitFlow waits while the proxy is stalled and reports whether the link still exists.
func (p *Proxy) awaitFlow(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled && !l.isClosed() {
		p.changed.Wait()
	}
	return !l.isClosed()
}

// spend takes n bytes from the direction's budget, as far as it goes, and reports whether
// that was the last of it.
func (p *Proxy) spend(d Direction, n int) (allowed int, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &p.budgets[d]
	if !b.limited {
		return n, false
	}
	allowed = int(min(int64(n), b.left))
	b.left -= int64(allowed)
	return allowed, b.left == 0
}

// add reports false, and closes conn, when the link was cut in the meantime.
func (l *link) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		conn.Close()
		return false
	}
	l.ends = append(l.ends, conn)
	return true
}

// reset ends both connections with a RST, as a broken network path does once noticed.
func (l *link) reset() { l.close(0) }

// finish ends both connections with a FIN after what was written.
func (l *link) finish() { l.close(-1) }

func (l *link) close(linger int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for _, conn := range l.ends {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(linger) // without it the close is gentler, and still a close
		}
		conn.Close()
	}
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *link) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

func (l *link) isDeaf() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deaf
}
