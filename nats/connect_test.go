package nats

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// A server that is not there is told as the network tells it, with what to do.
func TestConnectSaysThatNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Broker("nats://"+address).Topology().Check(t.Context(), outlast.Topology{})
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeUnavailable || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(e.Hint, "nothing listens") {
		t.Errorf("got %v", err)
	}
}
