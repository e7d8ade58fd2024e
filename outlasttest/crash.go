package outlasttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
)

// CrashStep is an instant on the way of a message at which [Crash] kills the program.
type CrashStep string

const (
	// CrashEnqueued: the message is written, and its transaction has not committed.
	CrashEnqueued CrashStep = "enqueued"
	// CrashClaimed: the transaction has committed; the relay has the row and sent nothing.
	CrashClaimed CrashStep = "claimed"
	// CrashSending: just before the publish.
	CrashSending CrashStep = "sending"
	// CrashSent: just after the publish; as a rule its confirm is still on the way.
	CrashSent CrashStep = "sent"
	// CrashConfirmed: the broker has confirmed; the row is still in the outbox.
	CrashConfirmed CrashStep = "confirmed"
	// CrashMarked: the row is gone from the outbox.
	CrashMarked CrashStep = "marked"
	// CrashDelivered: a message has come, and nothing was done about it.
	CrashDelivered CrashStep = "delivered"
	// CrashTrying: the inbox mark is written, and the handler is about to be called.
	CrashTrying CrashStep = "trying"
	// CrashTried: the handler has returned nil, and its transaction has not committed.
	CrashTried CrashStep = "tried"
	// CrashCommitted: the effects are committed, and the message is not acknowledged.
	CrashCommitted CrashStep = "committed"
	// CrashAcked: it is acknowledged.
	CrashAcked CrashStep = "acked"
)

// CrashSteps are all of them, in the order of a message's way.
var CrashSteps = []CrashStep{
	CrashEnqueued, CrashClaimed, CrashSending, CrashSent, CrashConfirmed, CrashMarked,
	CrashDelivered, CrashTrying, CrashTried, CrashCommitted, CrashAcked,
}

// CrashProgram is the program under test: services with the user's own handlers. It
// gives hooks to every service, consumer, relay and outbox that it makes, and returns
// when ctx ends.
type CrashProgram func(ctx context.Context, hooks []outlast.Hook) error

const (
	crashProgramEnv = "OUTLAST_CRASH_PROGRAM"
	crashStepEnv    = "OUTLAST_CRASH_STEP"
	crashNthEnv     = "OUTLAST_CRASH_NTH"
)

// CrashMain is what TestMain calls in a package that uses [Crash]: there it runs the
// tests, and in the processes that Crash starts it runs the program of that name. It
// returns the exit code.
//
//	func TestMain(m *testing.M) {
//		os.Exit(outlasttest.CrashMain(m, map[string]outlasttest.CrashProgram{"billing": run}))
//	}
func CrashMain(m *testing.M, programs map[string]CrashProgram) int {
	name, child := os.LookupEnv(crashProgramEnv)
	if !child {
		return m.Run()
	}
	program := programs[name]
	if program == nil {
		fmt.Fprintf(os.Stderr, "outlasttest: CrashMain was given no program %q\n", name)
		return 2
	}
	var hooks []outlast.Hook
	if step := os.Getenv(crashStepEnv); step != "" {
		nth, _ := strconv.Atoi(os.Getenv(crashNthEnv))
		hooks = []outlast.Hook{newCrashHook(CrashStep(step), nth)}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := program(ctx, hooks); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// CrashConfig says what to crash.
type CrashConfig struct {
	// Program is its name in [CrashMain].
	Program string
	// Steps to kill at; default [CrashSteps]. A step that the program never comes to is
	// skipped by default, with a word in the log, and an error when it was asked for.
	Steps []CrashStep
	// Nth is at which message to kill. Default 1, the first to come to the step.
	Nth int
	// Prepare makes what one run needs: databases with nothing in them, a broker, the
	// services around. It is called once for each step, with that step's t.
	Prepare func(t *testing.T) CrashRun
	// Patience ends a run that does not come to its end. Default one minute.
	Patience time.Duration
	// Quiet is how long the program goes on after Done, so that a second effect has the
	// time to happen. Default one second.
	Quiet time.Duration
}

// CrashRun is one run: the program is started, killed at the step, and started again.
type CrashRun struct {
	// Env are variables for the program, as "NAME=value": where its database and broker
	// are.
	Env []string
	// Begin does what leads to the effects, once the program has been started; nil when
	// nothing need be done.
	Begin func(ctx context.Context) error
	// Done reports whether all effects have happened. It is asked over and over.
	Done func(ctx context.Context) (bool, error)
	// Check looks for what must not be, such as an effect that happened twice.
	Check func(t testing.TB)
}

// Crash kills a program at every step of a message's way and starts it again, each
// step in a subtest of its own with a run of its own. The program is a process, the
// kill is SIGKILL, and database and broker outlive it, so that what is shown is what
// a crash in production does. Every effect must happen all the same, and once.
//
// The subtests run in parallel, on systems that have SIGKILL. A service that was killed is replaced only when its
// leases have ended: short ones (RelayConfig.LeaseTTL, ConsumerConfig.LeaseTTL and
// HeartbeatInterval) make the test quick.
func Crash(t *testing.T, c CrashConfig) {
	t.Helper()
	asked := len(c.Steps) > 0
	if !asked {
		c.Steps = CrashSteps
	}
	c.Nth = max(c.Nth, 1)
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Quiet == 0 {
		c.Quiet = time.Second
	}
	for _, step := range c.Steps {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			run := c.Prepare(t)
			if killed := c.run(t, run, step); !killed && asked {
				t.Errorf("the program never came to the step %q", step)
			} else if !killed {
				t.Skipf("the program never came to the step %q", step)
			}
			run.Check(t)
		})
	}
}
