package outlasttest

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/outlastmq/outlast"
)

// crashHook kills its own process when a message comes to a step for the nth time.
type crashHook struct {
	step CrashStep
	left atomic.Int64
}

func newCrashHook(step CrashStep, nth int) *crashHook {
	h := &crashHook{step: step}
	h.left.Store(int64(max(nth, 1)))
	return h
}

func (h *crashHook) at(step CrashStep) {
	if step == h.step && h.left.Add(-1) == 0 {
		kill()
	}
}

// kill ends the process at once, as kill -9 does, and does not return.
func kill() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {}
}

func (h *crashHook) OnEnqueued(context.Context, []*outlast.Message) { h.at(CrashEnqueued) }

func (h *crashHook) OnClaimed(*outlast.Row, outlast.Lease) { h.at(CrashClaimed) }

func (h *crashHook) OnSending(outlast.Try, int) {
	h.at(CrashSending)
	if h.step == CrashSent && h.left.Add(-1) == 0 {
		time.AfterFunc(200*time.Microsecond, kill) // it is written when this call has returned
	}
}

func (h *crashHook) OnAnswered(_ outlast.Try, o outlast.Outcome, _ error) {
	if o == outlast.OutcomeConfirmed {
		h.at(CrashConfirmed)
	}
}

func (h *crashHook) OnSettled(s *outlast.Settlement, _ []outlast.Lease) {
	if len(s.Sent) > 0 {
		h.at(CrashMarked)
	}
}

func (h *crashHook) OnDelivered(string, *outlast.Delivery) { h.at(CrashDelivered) }

func (h *crashHook) OnTrying(string, *outlast.Message, int) { h.at(CrashTrying) }

func (h *crashHook) OnTried(_ string, _ *outlast.Message, _ int, end outlast.TryEnd, _ error) {
	if end == outlast.TryOK {
		h.at(CrashTried)
	}
}

func (h *crashHook) OnRecorded(r outlast.Recorded) {
	if r.Err == nil && r.Result == outlast.HandledOK {
		h.at(CrashCommitted)
	}
}

func (h *crashHook) OnAcked(_ string, _ *outlast.Delivery, ok bool) {
	if ok {
		h.at(CrashAcked)
	}
}
