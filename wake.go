package outlast

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// WakeNotifier is implemented by an [OutboxStore] that can wake relays of other processes:
// that of package postgres.
type WakeNotifier interface {
	// Notify wakes all who listen to this outbox now. It belongs to no transaction of a
	// producer: what wakes takes locks that would make their commits wait for each other.
	Notify(ctx context.Context) error
}

// WakeListener is implemented by a [RelayStore] that hears such wake-ups.
type WakeListener interface {
	// Listen calls heard when it has begun to listen, and then at each wake-up. It returns
	// when ctx has ended or nothing is heard any more; CodeInvalid says that on this way to
	// the database nothing ever will be.
	Listen(ctx context.Context, heard func()) error
}

// WakeUpsLink is the connection on which a relay listens, to a [HookLink].
const WakeUpsLink = "wake-ups"

const wakeUpsRule = "false, or the store one that carries wake-ups: postgres"

const (
	firstRelisten = 100 * time.Millisecond
	lastRelisten  = 30 * time.Second
)

// listen lets other processes wake the relay. Whatever becomes of it, sweeps go on by the
// interval: nothing waits for a wake-up (TestALostListenerComesBack).
func (r *Relay) listen(ctx context.Context) {
	from, ok := r.conf.Store.Relay().(WakeListener)
	if !ok || !r.conf.WakeUps {
		return
	}
	var told LinkState
	// changed tells hooks of a change, and reports whether it is one.
	changed := func(state LinkState, reason error) bool {
		if told == state {
			return false
		}
		told = state
		link := Link{State: state, Since: time.Now()}
		if reason != nil {
			link.Reason = CleanErrorText(reason.Error())
		}
		eachHook(&r.hooks, func(h HookLink) { h.OnLink(WakeUpsLink, link) })
		return true
	}
	for tries := 0; ; tries++ {
		began := time.Now()
		err := from.Listen(ctx, func() {
			if changed(LinkUp, nil) {
				r.conf.Logger.Info("listening for wake-ups of other processes")
			}
			r.Wake()
		})
		if ctx.Err() != nil {
			return
		}
		heard := told == LinkUp
		news := changed(LinkDown, err)
		switch {
		case CodeOf(err) == CodeInvalid:
			r.conf.Logger.Warn("no wake-ups of other processes can be heard here; sweeps go on by the interval", "error", err)
			return
		case news:
			r.conf.Logger.Warn("wake-ups of other processes are not heard now; sweeps go on by the interval", "error", err)
		}
		if heard && time.Since(began) > lastRelisten {
			tries = 0
		}
		if !sleep(ctx, jitter(doubling(firstRelisten, lastRelisten, tries)), nil) {
			return
		}
	}
}

const (
	notifyPause   = 10 * time.Millisecond
	notifyLongest = 5 * time.Second // between wake-ups that fail
	notifyTimeout = 2 * time.Second
)

// notifier wakes the relays of other processes: at most once in notifyPause, beside the
// caller, and only when something was published. A wake-up that is wanted while one is under
// way is sent after it, since that one may have come before the commit.
type notifier struct {
	store  WakeNotifier
	logger *slog.Logger // or nil

	mu     sync.Mutex
	at     time.Time // when to send the next one; zero: none is wanted
	rested time.Time // none is sent before
	busy   bool      // one is under way
	timer  *time.Timer

	failures int // in a row, of the last ones
}

// want has a wake-up sent at a time, or sooner.
func (n *notifier) want(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Before(n.rested) {
		at = n.rested
	}
	if !n.at.IsZero() && !at.Before(n.at) {
		return
	}
	n.at = at
	if !n.busy {
		n.arm()
	}
}

func (n *notifier) arm() {
	if n.timer == nil {
		n.timer = time.AfterFunc(time.Until(n.at), n.send)
		return
	}
	n.timer.Reset(time.Until(n.at))
}

func (n *notifier) send() {
	n.mu.Lock()
	if n.busy || n.at.IsZero() {
		n.mu.Unlock()
		return
	}
	n.busy, n.at = true, time.Time{}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
	err := n.store.Notify(ctx)
	cancel()
	n.tell(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy, n.rested = false, time.Now().Add(doubling(notifyPause, notifyLongest, n.failures))
	if !n.at.IsZero() {
		n.at = n.rested
		n.arm()
	}
}

// tell logs the first failure, and the end of a row of them.
func (n *notifier) tell(err error) {
	was := n.failures
	if n.failures = 0; err != nil {
		n.failures = was + 1
	}
	switch {
	case n.logger == nil || (was > 0) == (n.failures > 0):
	case n.failures > 0:
		n.logger.Warn("cannot wake relays of other processes; they find messages at their next sweeps", "error", err)
	default:
		n.logger.Info("relays of other processes can be woken again")
	}
}
