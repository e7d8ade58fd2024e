package memory

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/outlasttest"
)

// The bugs that the suite for stores must find: each is a store with one fault,
// and the subtest that is there for it.
var brokenStores = []struct {
	name, caughtBy string
	wrap           func(s *Store) outlast.Store
}{
	{"reads by a cursor", "Pick_finds_a_late_commit_before_what_followed_it", func(s *Store) outlast.Store {
		return brokenStore{Store: s, relay: cursorRelay{s.Relay()}}
	}},
	{"forgets what it picked", "Pick_returns_no_row_twice", func(s *Store) outlast.Store {
		return brokenStore{Store: s, relay: forgetfulRelay{s.Relay()}}
	}},
	{"settles without a fence", "F15_Settle_does_nothing_for_a_stale_lease", func(s *Store) outlast.Store {
		return brokenStore{Store: s, relay: unfencedRelay{s.Relay(), s}}
	}},
	{"settled-before is now", "SettledBefore_is_never_after_an_unsettled_row", func(s *Store) outlast.Store {
		return brokenStore{Store: s, relay: hastyRelay{s.Relay()}}
	}},
	{"renews expired leases", "Lease_does_not_renew_an_expired_record", func(s *Store) outlast.Store {
		return brokenStore{Store: s, leases: reviving{s.Leases(), s}}
	}},
	{"loses a field", "Insert_keeps_every_field", func(s *Store) outlast.Store {
		return brokenStore{Store: s, outbox: losing{s.Outbox()}}
	}},
	{"withdraws at once", "Withdraw_takes_part_in_the_transaction", func(s *Store) outlast.Store {
		return brokenStore{Store: s, outbox: hastyOutbox{s.Outbox(), s}}
	}},
	{"does not wait for a mark", "F58_F67_Inbox_Begin_waits_for_another_transaction_of_the_message", func(s *Store) outlast.Store {
		return brokenStore{Store: s, inbox: impatient{s.Inbox(), s}}
	}},
	{"keeps effects of a rollback", "Inbox_rolls_back_mark_and_effect_together", func(s *Store) outlast.Store {
		return brokenStore{Store: s, inbox: keeping{s.Inbox()}}
	}},
	{"ignores the order of a key", "Retry_runs_only_the_lowest_of_a_key", func(s *Store) outlast.Store {
		return brokenStore{Store: s, inbox: unordered{s.Inbox()}}
	}},
	{"undoes nothing", "Retry_Undo_keeps_the_lock_and_loses_the_effects", func(s *Store) outlast.Store {
		return brokenStore{Store: s, inbox: notUndoing{s.Inbox()}}
	}},
	{"purges by age alone", "F59_Purge_forgets_only_what_is_old_and_settled", func(s *Store) outlast.Store {
		return brokenStore{Store: s, inbox: ageing{s.Inbox()}}
	}},
}

const brokenVariable = "OUTLAST_BROKEN_STORE"

// TestStoreSuiteFindsBugs runs the suite over every broken store, in a process of
// its own because it must fail.
func TestStoreSuiteFindsBugs(t *testing.T) {
	for _, b := range brokenStores {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			run := "^TestBrokenStore$/^" + b.caughtBy + "$"
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=6s")
			cmd.Env = append(os.Environ(), brokenVariable+"="+b.name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("the suite passed over a store that %s:\n%s", b.name, out)
			}
			if !strings.Contains(string(out), "--- FAIL: TestBrokenStore/"+b.caughtBy) {
				t.Fatalf("the store that %s was not caught by %s: %v\n%s", b.name, b.caughtBy, err, out)
			}
		})
	}
}

// TestBrokenStore does something only in the processes of TestStoreSuiteFindsBugs.
func TestBrokenStore(t *testing.T) {
	for _, b := range brokenStores {
		if b.name != os.Getenv(brokenVariable) {
			continue
		}
		outlasttest.Store(t, func(*testing.T) outlasttest.StoreUnderTest {
			s := NewStore()
			return outlasttest.StoreUnderTest{
				Store:             b.wrap(s),
				Begin:             func(context.Context) (outlasttest.ProducerTx, error) { return s.Begin(), nil },
				ConcurrentWriters: true,
			}
		})
	}
}

// brokenStore replaces some roles.
type brokenStore struct {
	*Store
	outbox outlast.OutboxStore
	leases outlast.LeaseStore
	relay  outlast.RelayStore
	inbox  outlast.InboxStore
}

func (b brokenStore) Outbox() outlast.OutboxStore {
	if b.outbox != nil {
		return b.outbox
	}
	return b.Store.Outbox()
}

func (b brokenStore) Leases() outlast.LeaseStore {
	if b.leases != nil {
		return b.leases
	}
	return b.Store.Leases()
}

func (b brokenStore) Relay() outlast.RelayStore {
	if b.relay != nil {
		return b.relay
	}
	return b.Store.Relay()
}

func (b brokenStore) Inbox() outlast.InboxStore {
	if b.inbox != nil {
		return b.inbox
	}
	return b.Store.Inbox()
}

type cursorRelay struct{ outlast.RelayStore }

func (r cursorRelay) Reader() outlast.OutboxReader { return &cursorReader{r.RelayStore.Reader(), 0} }

type cursorReader struct {
	outlast.OutboxReader
	max int64
}

func (r *cursorReader) Pick(ctx context.Context, ls []outlast.Lease, rows, size int) ([]*outlast.Row, error) {
	all, err := r.OutboxReader.Pick(ctx, ls, rows, size)
	var above []*outlast.Row
	for _, row := range all {
		if row.Seq > r.max {
			above = append(above, row)
			r.max = row.Seq
		}
	}
	return above, err
}

type forgetfulRelay struct{ outlast.RelayStore }

func (r forgetfulRelay) Reader() outlast.OutboxReader {
	return forgetfulReader{r.RelayStore.Reader(), r.RelayStore}
}

type forgetfulReader struct {
	outlast.OutboxReader
	relay outlast.RelayStore
}

func (r forgetfulReader) Pick(ctx context.Context, ls []outlast.Lease, rows, size int) ([]*outlast.Row, error) {
	return r.relay.Reader().Pick(ctx, ls, rows, size)
}

type unfencedRelay struct {
	outlast.RelayStore
	s *Store
}

func (r unfencedRelay) Settle(ctx context.Context, set *outlast.Settlement) ([]outlast.Lease, error) {
	forged := *set
	forged.Leases = nil
	r.s.mu.Lock()
	for _, l := range set.Leases {
		forged.Leases = append(forged.Leases, outlast.Lease{Slot: l.Slot, Epoch: r.s.scopes[outlast.RelayScope].slots[l.Slot].epoch})
	}
	r.s.mu.Unlock()
	return r.RelayStore.Settle(ctx, &forged)
}

type hastyRelay struct{ outlast.RelayStore }

func (hastyRelay) SettledBefore(context.Context) (time.Time, error) { return time.Now(), nil }

type reviving struct {
	outlast.LeaseStore
	s *Store
}

func (r reviving) Lease(ctx context.Context, q outlast.LeaseRequest) (outlast.LeaseGrant, error) {
	r.s.mu.Lock()
	if sc := r.s.scopes[q.Scope]; sc != nil {
		if _, ok := sc.owners[q.Owner]; ok {
			sc.owners[q.Owner] = time.Now().Add(q.TTL)
		}
	}
	r.s.mu.Unlock()
	return r.LeaseStore.Lease(ctx, q)
}

type losing struct{ outlast.OutboxStore }

func (l losing) Insert(ctx context.Context, tx outlast.LiveTx, msgs []*outlast.Message) error {
	for _, m := range msgs {
		c := *m
		c.TraceState = ""
		if err := l.OutboxStore.Insert(ctx, tx, []*outlast.Message{&c}); err != nil {
			return err
		}
	}
	return nil
}

type hastyOutbox struct {
	outlast.OutboxStore
	s *Store
}

func (h hastyOutbox) Withdraw(ctx context.Context, _ outlast.LiveTx, id string) (bool, error) {
	tx := h.s.Begin()
	did, err := h.OutboxStore.Withdraw(ctx, tx, id)
	_ = tx.Commit()
	return did, err
}

type impatient struct {
	outlast.InboxStore
	s *Store
}

func (i impatient) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	i.s.mu.Lock()
	busy := false
	for _, m := range marks {
		if have := i.s.marks[markKey{group, m.Source, m.ID}]; have != nil && have.by != nil {
			busy = true
		}
	}
	i.s.mu.Unlock()
	if busy {
		marks = nil
	}
	return i.InboxStore.Begin(ctx, group, marks)
}

type keeping struct{ outlast.InboxStore }

func (k keeping) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	tx, err := k.InboxStore.Begin(ctx, group, marks)
	return keepingTx{tx}, err
}

type keepingTx struct{ outlast.InboxTx }

func (k keepingTx) Rollback() { _ = k.Commit(context.Background()) }

type unordered struct{ outlast.InboxStore }

func (u unordered) Begin(ctx context.Context, group string, marks []outlast.Mark) (outlast.InboxTx, error) {
	tx, err := u.InboxStore.Begin(ctx, group, marks)
	return unorderedTx{tx}, err
}

type unorderedTx struct{ outlast.InboxTx }

func (u unorderedTx) Wait(ctx context.Context, w *outlast.Waiting) error {
	c := *w
	c.Ordered = false
	return u.InboxTx.Wait(ctx, &c)
}

type notUndoing struct{ outlast.InboxStore }

func (n notUndoing) BeginRetry(ctx context.Context, group string, types []string) (outlast.RetryTx, time.Duration, error) {
	tx, wait, err := n.InboxStore.BeginRetry(ctx, group, types)
	if tx == nil {
		return nil, wait, err
	}
	return notUndoingTx{tx}, wait, err
}

type notUndoingTx struct{ outlast.RetryTx }

func (notUndoingTx) Undo(context.Context) error { return nil }

type ageing struct{ outlast.InboxStore }

func (a ageing) Purge(ctx context.Context, p outlast.PurgeRequest) (int, error) {
	p.SettledBefore = time.Now().Add(time.Hour)
	return a.InboxStore.Purge(ctx, p)
}
