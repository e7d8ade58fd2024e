package postgres

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall does not name.
const tcpUserTimeout = 18

// boundSilence ends a connection whose peer has acknowledged nothing for silenceLimit. The
// probes of an idle connection do not run while data is under way: without this the kernel
// repeats the data for a quarter of an hour.
func boundSilence(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		// A Unix socket has no such thing, and needs none.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silenceLimit.Milliseconds()))
	})
}
