package outlasttest

import (
	"context"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// BrokerUnderTest is a broker that is up. It may be shared by tests: the suite gives
// its groups and types names of their own.
type BrokerUnderTest struct {
	Broker outlast.Broker
	// Stop takes the broker down and Start brings it back with what it had on disk.
	// Where they are nil, the tests of outages are not run. A broker that has them
	// must not be shared.
	Stop, Start func(ctx context.Context) error
	// Foreign declares a queue and publishes into it as a program that does not know
	// Outlast: "message-id" and "correlation-id" among the headers are properties.
	// Where they are nil, the tests of foreign queues are not run.
	DeclareForeign func(ctx context.Context, queue string) error
	PublishForeign func(ctx context.Context, queue string, headers []outlast.WireHeader, contentType string, body []byte) error
	// NoSingleActive says that an ordered queue serves several consumers at once, and
	// that the group itself sees to it that there is one.
	NoSingleActive bool
}

type brokerTest struct {
	name  string
	run   func(f *brokerFixture)
	needs func(u BrokerUnderTest) (bool, string)
}

func needsOutage(u BrokerUnderTest) (bool, string) {
	return u.Stop != nil && u.Start != nil, "this broker cannot be stopped by the test"
}

func needsForeign(u BrokerUnderTest) (bool, string) {
	return u.DeclareForeign != nil && u.PublishForeign != nil, "this broker has no foreign queues"
}

func needsSingleActive(u BrokerUnderTest) (bool, string) {
	return !u.NoSingleActive, "this broker leaves the single consumer to the group"
}

// Broker runs the conformance suite for brokers. open is called once for each
// subtest, with that subtest's t. Subtests run in parallel. That nothing is alive
// after Run is for the caller to check once the suite has ended, with goleak.
func Broker(t *testing.T, open func(t *testing.T) BrokerUnderTest) {
	t.Helper()
	for _, list := range [][]brokerTest{publishTests, subscribeTests, topologyTests, outageTests} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				u := open(t)
				if c.needs != nil {
					if ok, why := c.needs(u); !ok {
						t.Skip(why)
					}
				}
				id := strings.ReplaceAll(outlast.NewID(), "-", "")
				c.run(&brokerFixture{T: t, ctx: t.Context(), u: u, b: u.Broker, id: id[len(id)-12:]})
			})
		}
	}
}
