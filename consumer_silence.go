package outlast

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// storeLimit is how long the database may be silent while a message is in hand. A connection
// that swallows the answers (a proxy that lost its way) would be waited for without end, and
// the key of the message with it; the step is then taken again on another connection.
const storeLimit = time.Minute

var errSilent = fmt.Errorf("the database has not answered for %v: another connection is tried", storeLimit)

type silenceKey struct{}

// impatient returns a context that ends when the database is silent for longer than
// storeLimit; the first answer may take wait besides, as it does while another transaction
// has the message. The time of handlers does not count: see untimed. The caller ends it with end.
func impatient(ctx context.Context, wait time.Duration) (_ context.Context, end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(wait+storeLimit, func() { cancel(errSilent) })
	return context.WithValue(ctx, silenceKey{}, timer), func() {
		timer.Stop()
		cancel(nil)
	}
}

// untimed runs f, which is no call of the database, and gives it its time anew afterwards.
func untimed(ctx context.Context, f func() error) error {
	timer, ok := ctx.Value(silenceKey{}).(*time.Timer)
	if !ok {
		return f()
	}
	timer.Stop()
	defer timer.Reset(storeLimit)
	return f()
}

// silence is err, or says that it came of the database's silence.
func silence(ctx context.Context, err error) error {
	if err == nil || !errors.Is(context.Cause(ctx), errSilent) {
		return err
	}
	return &Error{Op: "wait for the database", Code: CodeOf(err), Err: errors.Join(errSilent, err)}
}

// inTime gives one call of the database its time.
func inTime(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, storeLimit, errSilent)
	defer cancel()
	return silence(ctx, call(ctx))
}
