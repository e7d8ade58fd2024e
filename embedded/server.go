// Package embedded runs a NATS server with JetStream inside the process: for demos,
// for users' tests, and for small installations on one host that want no broker to
// look after. It listens on the loopback interface only, asks for a token that it
// keeps in its directory, and writes every message to disk before it acknowledges
// it. A directory has one owner at a time; other processes find its address with
// [Connect].
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/ownfile"
)

const (
	addressFile = "outlast-nats.url"
	lockFile    = "outlast-nats.lock"
	host        = "127.0.0.1"

	// By its name outlast doctor knows a server that syncs every message.
	syncedName   = "outlast-embedded"
	unsyncedName = "outlast-embedded-unsynced"

	startTimeout = 30 * time.Second
	// maxPayload leaves room for the largest body with its headers.
	maxPayload = outlast.MaxBody + 128<<10
)

// Option refines a server.
type Option func(*settings)

type settings struct {
	port   int
	log    *slog.Logger
	noSync bool
}

// Port is where to listen on 127.0.0.1. Without it the port of the last time on the
// same directory is used, and a free one at the first time.
func Port(port int) Option { return func(s *settings) { s.port = port } }

// Logger gets the server's log. Without it the server is silent.
func Logger(l *slog.Logger) Option { return func(s *settings) { s.log = l } }

// WithoutSync leaves it to the operating system when messages reach the disk. They
// survive the death of the process, but not that of the machine. For tests that
// want speed.
func WithoutSync() Option { return func(s *settings) { s.noSync = true } }

// Server is a running server.
type Server struct {
	dir  string
	url  string
	ns   *server.Server
	lock *os.File
	once sync.Once
}

// Start runs a server on a directory, which is made when missing, and returns when
// it takes connections and has written its address for [Connect]. No signal is
// handled. Messages acknowledged before the process died, in whatever way, are
// there again. A directory that another process owns is a CodeConflict, one that this
// user may not write a CodeDenied; a port that somebody else has taken is a
// CodeUnavailable.
func Start(dir string, opts ...Option) (*Server, error) {
	var set settings
	for _, o := range opts {
		o(&set)
	}
	op := fmt.Sprintf("start embedded broker in %q", dir)
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeInvalid, Err: err}
	}
	if set.port < 0 || set.port > 65535 {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: "Port", Limit: "0 to 65535", Given: strconv.Itoa(set.port)}}}
	}
	if err := os.MkdirAll(dir, 0o700); errors.Is(err, fs.ErrPermission) {
		return nil, denied(op, err)
	} else if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeInvalid, Err: err}
	}
	lock, err := ownfile.Take(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrPermission) {
		return nil, denied(op, err)
	}
	if err != nil {
		return nil, &outlast.Error{Op: op, Code: outlast.CodeConflict, Err: err, Hint: "another process runs it; use its address (embedded.Connect)"}
	}
	s := &Server{dir: dir, lock: lock}
	if err := s.run(set); err != nil {
		_ = lock.Close()
		return nil, &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	}
	return s, nil
}

// run starts the server on the port and with the token of the last time.
func (s *Server) run(set settings) error {
	token, port := rand.Text(), 0
	if last, err := readAddress(s.dir); err == nil {
		token = last.User.Username()
		port, _ = strconv.Atoi(last.Port())
	}
	if set.port != 0 {
		port = set.port
	}
	port, err := freePort(port)
	if err != nil {
		return fmt.Errorf("%w (delete %q to get another port)", err, addressFile)
	}
	name := syncedName
	if set.noSync {
		name = unsyncedName
	}
	ns, err := server.NewServer(&server.Options{
		ServerName:            name,
		Host:                  host,
		Port:                  port,
		Authorization:         token,
		JetStream:             true,
		StoreDir:              s.dir,
		JetStreamMaxMemory:    64 << 20,
		SyncAlways:            !set.noSync,
		MaxPayload:            maxPayload,
		MaxPending:            256 << 20,
		NoSigs:                true,
		NoLog:                 true,
		NoSystemAccount:       false,
		DisableShortFirstPing: true,
	})
	if err != nil {
		return err
	}
	problems := &serverLog{to: set.log}
	ns.SetLogger(problems, false, false)
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) || !ns.JetStreamEnabled() {
		ns.Shutdown()
		ns.WaitForShutdown()
		return fmt.Errorf("the server did not get ready: %s", problems.lastError())
	}
	u := url.URL{Scheme: "nats", User: url.User(token), Host: net.JoinHostPort(host, strconv.Itoa(port))}
	if err := writeAddress(s.dir, u.String()); err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return err
	}
	s.ns, s.url = ns, u.String()
	return nil
}

// freePort checks that the port can be had; 0 chooses one.
func freePort(port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// URL is the address for nats.Broker. It holds the token: do not log it.
func (s *Server) URL() string { return s.url }

// Close ends the server and gives the directory free. Calling it again does nothing.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
		_ = s.lock.Close()
	})
	return nil
}

// Wait returns when the server has ended.
func (s *Server) Wait() { s.ns.WaitForShutdown() }

// Run keeps the server until ctx ends, then closes it.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Wait()
	}()
	select {
	case <-ctx.Done():
		err := s.Close()
		<-ended
		return err
	case <-ended:
		return errors.Join(s.Close(), &outlast.Error{Op: "run embedded broker", Code: outlast.CodeUnavailable, Err: errors.New("the server ended by itself")})
	}
}

// Connect returns the address of the server that runs, or last ran, on a directory.
// It stays the same over restarts. A directory where none ever ran is a
// CodeNotFound, one that this user may not read a CodeDenied. The address holds the token: do not log it.
func Connect(dir string) (string, error) {
	op := fmt.Sprintf("find embedded broker in %q", dir)
	u, err := readAddress(dir)
	if errors.Is(err, fs.ErrPermission) {
		return "", denied(op, err)
	}
	if err != nil {
		return "", &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: err,
			Hint: "start the process that owns the directory first"}
	}
	return u.String(), nil
}

// denied is an error of the system, which names the path, about missing permission.
func denied(op string, err error) error {
	return &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: err,
		Hint: "run as the user who owns the directory; it and its files are for that one user alone"}
}

func readAddress(dir string) (*url.URL, error) {
	data, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(strings.TrimSpace(string(data)))
	if err != nil || u.User == nil || u.Port() == "" {
		return nil, fmt.Errorf("%q is damaged; delete it to get a new address", addressFile)
	}
	return u, nil
}

// writeAddress puts the file in place whole, readable for this user only.
func writeAddress(dir, address string) error {
	f, err := os.CreateTemp(dir, addressFile+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(address + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, addressFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
