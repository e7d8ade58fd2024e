package nats

import (
	"strings"
	"testing"
)

// However what a server sends is cut into reads, the guard says the same.
func TestGuardDoesNotMindHowBytesArrive(t *testing.T) {
	t.Parallel()
	const good = "INFO {\"max_payload\":1048576}\r\nPONG\r\nMSG a 1 5\r\nMSG x\r\nMSG a.b 1 reply 0\r\n\r\nHMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n"
	for text, want := range map[string]bool{
		good: true, good + "MSG a 1 -1\r\n": false, good + "MSG a 1 9223372036854775807\r\n": false, good + "MSG a 1\r\n": false,
		good + "hmsg a 1 15 14\r\n": false, good + strings.Repeat("x", maxServerLine+1): false,
		good + "INFO {\"tls_required\":true}\r\nMSG a 1 -1\r\n": false, // only the first greeting begins TLS
		"INFO {\"tls_required\":true}\r\nMSG a 1 -1\r\n":        true,
	} {
		for _, size := range []int{1, 2, 7, len(text)} {
			g, allowed := &guard{}, true
			for rest := text; rest != "" && allowed; {
				n := min(size, len(rest))
				allowed, rest = g.through || g.allow([]byte(rest[:n])), rest[n:]
			}
			if allowed != want {
				t.Errorf("in parts of %d bytes: %v of %.200q", size, allowed, text)
			}
		}
	}
}
