package servers

import (
	"net"
	"strconv"
)

// Host is where a server runs. The zero value is this machine's loopback.
type Host struct {
	// IP is the address that the server listens on. Default 127.0.0.1.
	IP string
	// Enter, when set, calls f where processes are to be started: in the network namespace
	// that has the address.
	Enter func(f func() error) error
}

func (h Host) ip() string {
	if h.IP == "" {
		return "127.0.0.1"
	}
	return h.IP
}

func (h Host) address(port int) string { return net.JoinHostPort(h.ip(), strconv.Itoa(port)) }

func (h Host) enter(f func() error) error {
	if h.Enter == nil {
		return f()
	}
	return h.Enter(f)
}

// user is who may do everything on a broker there; guest is for loopback alone.
func (h Host) user() string {
	if h.IP == "" {
		return "guest"
	}
	return "outlast"
}
