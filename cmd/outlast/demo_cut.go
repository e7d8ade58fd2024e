package main

import (
	"io"
	"net"
	"net/url"
	"sync"

	"github.com/outlastmq/outlast"
)

// cutter is a TCP proxy in front of a broker, to cut the way to it: a demo has no
// right to kill a server that is not its own.
type cutter struct {
	target   string
	address  string
	work     sync.WaitGroup
	mu       sync.Mutex
	listener net.Listener // nil while cut
	conns    map[net.Conn]struct{}
}

// newCutter returns the proxy and the broker's URL by way of it.
func newCutter(brokerURL string) (*cutter, string, error) {
	u, err := url.Parse(brokerURL)
	if err != nil {
		return nil, "", err
	}
	c := &cutter{target: u.Host, conns: map[net.Conn]struct{}{}}
	if u.Port() == "" {
		c.target = net.JoinHostPort(u.Hostname(), "5672")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", &outlast.Error{Op: "demo", Code: outlast.CodeUnavailable, Err: err}
	}
	c.address = listener.Addr().String()
	c.serve(listener)
	u.Host = c.address
	return c, u.String(), nil
}

// cut resets all connections and refuses new ones.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener == nil {
		return
	}
	c.listener.Close()
	c.listener = nil
	for conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as the peer's death would be
		}
		conn.Close()
	}
	clear(c.conns)
}

// restore lets connections through again.
func (c *cutter) restore() error {
	listener, err := net.Listen("tcp", c.address)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serve(listener)
	return nil
}

// close cuts for good and waits until nothing of the proxy is alive.
func (c *cutter) close() {
	c.cut()
	c.work.Wait()
}

// serve needs c.mu, except in newCutter.
func (c *cutter) serve(listener net.Listener) {
	c.listener = listener
	c.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // cut
			}
			c.work.Go(func() { c.forward(listener, client) })
		}
	})
}

func (c *cutter) forward(of net.Listener, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.keep(of, client, server) {
		return
	}
	defer c.drop(client, server)
	var back sync.WaitGroup
	back.Go(func() { c.pump(client, server) })
	c.pump(server, client)
	back.Wait()
}

// pump ends both directions when one ends: AMQP uses no half-closed connections.
func (c *cutter) pump(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}

// keep reports whether no cut came since the listener accepted.
func (c *cutter) keep(of net.Listener, conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != of {
		return false
	}
	for _, conn := range conns {
		c.conns[conn] = struct{}{}
	}
	return true
}

func (c *cutter) drop(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}
