// Package proxy is a TCP proxy whose link a test can cut, stall, or cut in the middle of a
// message: the network faults that a killed server cannot show.
package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
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
	delay    time.Duration
	trigger  *trigger  // nil: none
	budgets  [2]budget // by Direction
}

// trigger waits for bytes that cut the proxy.
type trigger struct {
	in      Direction
	pattern []byte
	cut     Direction
	after   int64
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
	tails  [2][]byte // the last bytes, for a pattern that comes in two pieces
	own    [2]budget // by Direction: what may still pass before the cut of a trigger
}

// New returns a proxy that listens on a free loopback port and forwards to target, a
// host:port. The target is dialed for each connection, so it need not be up yet. The
// caller must Close the proxy.
func New(target string) (*Proxy, error) { return NewOn("127.0.0.1", target) }

// NewOn is New with another address of this machine to listen on.
func NewOn(ip, target string) (*Proxy, error) {
	listener, err := listen(ip)
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
func listen(ip string) (net.Listener, error) {
	const first, last = 10000, 15000
	var err error
	for range 100 {
		var listener net.Listener
		listener, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", ip, first+rand.IntN(last-first)))
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

// CutOn cuts the proxy the next time that pattern has passed in direction in on one of its
// connections: when, after the pattern's last byte, n further bytes have passed in direction
// cut of that connection. With in Up and cut Down it is the reply to a request that is cut
// short; n of 0 lets none of it through. A second call replaces the first; Restore forgets it.
func (p *Proxy) CutOn(in Direction, pattern []byte, cut Direction, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trigger = &trigger{in, slices.Clone(pattern), cut, n}
}

// Delay lets everything that passes wait for d, in both directions, until Restore. As each
// piece of up to 32 KiB waits for itself, it also bounds the throughput.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// IsCut reports whether the proxy is cut now: after Cut, or when what CutAfter or CutOn
// waited for has come.
func (p *Proxy) IsCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listener == nil
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
// goes on, and a CutAfter or CutOn that has not struck is forgotten. Connections that were cut
// or are deaf stay so.
func (p *Proxy) Restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("restore the proxy to %s: %w", p.target, net.ErrClosed)
	}
	p.stalled, p.budgets, p.trigger, p.delay = false, [2]budget{}, nil, 0
	for l := range p.links {
		l.unlimit()
	}
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
	if d := p.latency(); d > 0 && (!l.wait(d) || !p.awaitFlow(l)) { // a stall holds what was delayed
		return false
	}
	p.watch(l, d, data)
	allowed, last := p.spend(l, d, len(data))
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

// watch looks for the trigger's pattern and gives the link a budget when it has come.
func (p *Proxy) watch(l *link, d Direction, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trigger
	if t == nil || t.in != d {
		return
	}
	seen := append(l.tails[d], data...)
	at := bytes.Index(seen, t.pattern)
	if at < 0 {
		l.tails[d] = slices.Clone(seen[max(0, len(seen)-len(t.pattern)+1):])
		return
	}
	left := t.after
	if t.cut == d {
		left += int64(at + len(t.pattern) - len(l.tails[d]))
	}
	l.own[t.cut], l.tails[d], p.trigger = budget{limited: true, left: left}, nil, nil
}

// spend takes n bytes from the budgets of the direction and of the link, as far as they go,
// and reports whether that was the last of one.
func (p *Proxy) spend(l *link, d Direction, n int) (allowed int, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed = n
	for _, b := range []*budget{&p.budgets[d], &l.own[d]} {
		if b.limited {
			allowed = int(min(int64(allowed), b.left))
		}
	}
	for _, b := range []*budget{&p.budgets[d], &l.own[d]} {
		if b.limited {
			b.left -= int64(allowed)
			last = last || b.left == 0
		}
	}
	return allowed, last
}

func (p *Proxy) latency() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// unlimit needs p.mu of the link's proxy.
func (l *link) unlimit() { l.own, l.tails = [2]budget{}, [2][]byte{} }

// wait reports false when the link was closed meanwhile.
func (l *link) wait(d time.Duration) bool {
	if d > 0 {
		time.Sleep(d)
	}
	return !l.isClosed()
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
