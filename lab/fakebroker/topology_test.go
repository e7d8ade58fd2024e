package fakebroker_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fakebroker"
)

// applying applies a topology of two queues to a broker that fails within itself at the
// first of so many declarations.
func applying(t *testing.T, failures int64) (declared int64, err error) {
	var n atomic.Int64
	server := fakebroker.New(t, fakebroker.Script{Instead: func(ch *fakebroker.Channel, class, method uint16) bool {
		if class != 50 || method != 10 || n.Add(1) > failures {
			return false
		}
		ch.Close(541, "INTERNAL_ERROR")
		return true
	}})
	group := func(name string) outlast.GroupTopology {
		return outlast.GroupTopology{Group: name, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}}
	}
	err = broker(server.URL()).Topology().Apply(t.Context(), outlast.Topology{Groups: []outlast.GroupTopology{group("billing"), group("mail")}})
	return n.Load(), err
}

// TestABrokerThatFailsWithinItselfIsAskedAgain: a loaded node may not start a quorum
// queue in its time, which ends the connection and leaves the rest undeclared.
func TestABrokerThatFailsWithinItselfIsAskedAgain(t *testing.T) {
	t.Parallel()
	if declared, err := applying(t, 1); err != nil || declared != 3 {
		t.Errorf("%d declarations, %v", declared, err)
	}
	declared, err := applying(t, 100)
	if outlast.CodeOf(err) != outlast.CodeUnavailable || !strings.Contains(err.Error(), "541") || declared != 4 {
		t.Errorf("%d declarations, %v", declared, err)
	}
}
