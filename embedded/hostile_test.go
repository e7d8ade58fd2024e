package embedded

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/nats"
)

// hostile is what a broken or malicious server may send to a client.
var hostile = map[string]string{
	"negative size":         "MSG a 1 -1\r\n",
	"huge size":             "MSG a 1 9223372036854775807\r\nx",
	"size beyond numbers":   "MSG a 1 99999999999999999999999\r\n",
	"negative header":       "HMSG a 1 -5 4\r\nabcd\r\n",
	"header beyond message": "HMSG a 1 900 4\r\nabcd\r\n",
	"broken header":         "HMSG a 1 10 10\r\nNATS/9\r\n\r\n\r\n",
	"endless line":          strings.Repeat("M", 1<<20),
	"endless arguments":     "MSG " + strings.Repeat("a ", 1<<19) + "\r\n",
	"unknown operation":     "FROB a b c\r\n",
	"a client's operation":  "SUB a 1\r\nPUB a 1\r\nx\r\n",
	"unknown subscription":  "MSG a 4711 1\r\nx\r\n",
	"subscription 0":        "MSG a 0 1\r\nx\r\n",
	"endless error":         "-ERR '" + strings.Repeat("e", 1<<20) + "'\r\n",
	"refusal":               "-ERR 'Authorization Violation'\r\n",
	"greeting of nothing":   "INFO\r\n",
	"greeting not in JSON":  "INFO {\"max_payload\":\r\n",
	"greeting of extremes":  `INFO {"max_payload":-1,"connect_urls":["` + strings.Repeat("x", 4096) + `"],"headers":false}` + "\r\n",
	"deep greeting":         "INFO " + strings.Repeat("[", 100_000) + "\r\n",
	"another protocol":      "HTTP/1.1 400 Bad Request\r\n\r\n",
	"zeros":                 string(make([]byte, 4096)),
}

// turned is a way to a server that, once it is armed, answers the next thing that the
// client says with something else, and ends. Later connections are as the server is.
type turned struct {
	net.Listener
	armed atomic.Bool
	bytes string
}

func turn(t *testing.T, s *Server, bytes string) (way *turned, address string) {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	way = &turned{Listener: l, bytes: bytes}
	to := u.Host
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { way.carry(c, to) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	u.Host = l.Addr().String()
	return way, u.String()
}

func (w *turned) carry(c net.Conn, to string) {
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(c, server) })
	defer back.Wait()
	defer server.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		if w.armed.CompareAndSwap(true, false) {
			_ = server.Close()
			back.Wait()
			_, _ = io.WriteString(c, w.bytes)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the client ends it
			return
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// TestS22_HostileServer: nothing of it makes the client panic, take memory for what was
// only announced, or confirm what was not; and when the server is itself again, so is the
// client.
func TestS22_HostileServer(t *testing.T) { // not parallel: it measures memory
	const memoryCap = 32 << 20
	s := startServer(t)
	apply(t, brokerAt(s), group("billing", false))
	for name, bytes := range hostile {
		t.Run(name, func(t *testing.T) {
			way, address := turn(t, s, bytes)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p := publisher(t, nats.Broker(address, nats.MaxBackoff(100e6)))
			p.confirm(messages(1, 1)...)
			way.armed.Store(true)
			if x := p.outcomes(messages(2, 1)...)[0]; x.Outcome == outlast.OutcomeConfirmed {
				t.Errorf("was confirmed: %+v", x)
			}
			// That the link is down may be said after the outcome.
			for n, end := 3, time.Now().Add(deadline); p.outcomes(messages(n, 1)...)[0].Outcome != outlast.OutcomeConfirmed; n++ {
				if time.Now().After(end) {
					t.Fatal("the client does not publish again")
				}
				time.Sleep(10 * time.Millisecond)
			}
			p.stop()
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > memoryCap {
				t.Errorf("%d bytes were allocated", took)
			}
		})
	}
}

// TestS23_S24_LogsHoldNeitherSecretsNorBodies: at the finest level, of a server that takes
// messages, of one that refuses the client, and of a message that nobody is bound for.
func TestS23_S24_LogsHoldNeitherSecretsNorBodies(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	apply(t, brokerAt(s))
	var mu sync.Mutex
	var log bytes.Buffer
	note := func(v any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&log, "%+v\n", v)
	}
	logger := slog.New(slog.NewTextHandler(writer(func(b []byte) { note(string(b)) }), &slog.HandlerOptions{Level: slog.LevelDebug}))
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	wrong := "nats://hunter2secret@" + u.Host
	for _, address := range []string{s.URL(), wrong} {
		told := make(chan struct{}, 1000)
		p := nats.Broker(address, nats.Logger(logger), nats.MaxBackoff(100e6)).Publisher(outlast.PublisherConfig{Logger: logger,
			Results: func(list []outlast.Result) {
				for _, r := range list {
					note(r.Err)
				}
				told <- struct{}{}
			},
			Link: func(l outlast.Link) { note(l); told <- struct{}{} }})
		stop := background(t, p.Run)
		<-told
		ps := messages(1, 1)
		ps[0].Message.Body = []byte(`{"card":"4111-planted-body"}`)
		p.Send(0, ps) // nobody is bound, or there is no link
		<-told
		stop()
	}
	text := log.String()
	if !strings.Contains(text, "up") || !strings.Contains(strings.ToLower(text), "authorization") {
		t.Errorf("too little was told: %s", text)
	}
	for _, secret := range []string{"hunter2secret", "4111-planted-body", u.User.Username()} {
		if strings.Contains(text, secret) {
			t.Errorf("%q was logged: %s", secret, text)
		}
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }
