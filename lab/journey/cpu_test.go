package journey_test

import (
	"testing"
	"time"
)

// cpu is the processor time that this process and all below it, the servers, have taken.
// It does not depend on what else the machine does, as the time of a clock would.
type cpu struct{ own, postgres, broker time.Duration }

func (c cpu) total() time.Duration { return c.own + c.postgres + c.broker }

func (c cpu) since(was cpu) cpu {
	return cpu{c.own - was.own, c.postgres - was.postgres, c.broker - was.broker}
}

func (c cpu) report(b *testing.B) {
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
	b.ReportMetric(per(c.own), "relay-cpu-us/message")
	b.ReportMetric(per(c.postgres), "postgres-cpu-us/message")
	b.ReportMetric(per(c.broker), "broker-cpu-us/message")
	b.ReportMetric(per(c.total()), "cpu-us/message")
}
