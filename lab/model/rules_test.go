package model

import (
	"strings"
	"testing"
)

// broken is a rule switched off, with the promise that then fails first.
type broken struct {
	name  string
	rules Rules
	half  Half
	want  string // the beginning of what does not hold
	same  bool   // all messages have one key
}

var (
	aab = [messages]int{0, 0, 1}
	aba = [messages]int{0, 1, 0}
	aaa = [messages]int{0, 0, 0}
)

var brokenRules = []broken{
	{name: "picks_rows_of_open_transactions", rules: Rules{ReadUncommitted: true}, half: RelayHalf, want: "I2"},
	{name: "picks_above_a_cursor", rules: Rules{MaxCursor: true}, half: RelayHalf, want: "stuck"},
	{name: "a_pick_returns_a_settled_row", rules: Rules{PickSettled: true}, half: RelayHalf, want: "I4"},
	{name: "a_new_owner_goes_on_where_the_old_one_stood", rules: Rules{KeepCursor: true}, half: RelayHalf, want: "I5"},
	{name: "an_owner_begins_with_any_row", rules: Rules{PickAnyRow: true}, half: RelayHalf, want: "I5"},
	{name: "a_takeover_keeps_the_epoch", rules: Rules{SharedEpoch: true}, half: RelayHalf, want: "I9"},
	{name: "settlements_are_not_fenced", rules: Rules{NoFence: true}, half: RelayHalf, want: "I9"},
	{name: "reads_after_the_lease", rules: Rules{ReadAfterLapse: true}, half: RelayHalf, want: "I5"},
	{name: "begins_anew_under_the_same_epoch", rules: Rules{ReuseEpoch: true}, half: RelayHalf, want: "I5"},
	{name: "takes_a_lease_that_lives", rules: Rules{TakeLivingLease: true}, half: RelayHalf, want: "I9"},
	{name: "several_unconfirmed_of_a_key", rules: Rules{ManyPerKey: true}, half: RelayHalf, want: "I5"},
	{name: "later_rows_of_a_held_key_go_on", rules: Rules{LaterRowsGoOn: true}, half: RelayHalf, want: "I5"},
	{name: "held_keys_are_not_loaded_at_takeover", rules: Rules{NoHeldAtTakeover: true}, half: RelayHalf, want: "I5"},
	{name: "a_later_row_is_held_first", rules: Rules{HoldInAnyOrder: true}, half: RelayHalf, want: "I5"},
	{name: "a_key_is_freed_while_rows_move", rules: Rules{FreeKeyEarly: true}, half: RelayHalf, want: "I5"},
	{name: "held_rows_come_back_in_any_order", rules: Rules{HeldInAnyOrder: true}, half: RelayHalf, want: "I5", same: true},
	{name: "one_row_of_a_key_is_put_away", rules: Rules{PutAwayOne: true}, half: RelayHalf, want: "I5"},
	{name: "a_confirm_is_believed_before_its_return", rules: Rules{AckBeforeReturn: true}, half: RelayHalf, want: "I7"},
	{name: "publishes_are_not_mandatory", rules: Rules{NotMandatory: true}, half: RelayHalf, want: "I7"},
	{name: "a_row_is_deleted_when_it_is_sent", rules: Rules{MarkWhenSent: true}, half: RelayHalf, want: "I7"},
	{name: "a_refusal_counts_as_confirm", rules: Rules{NackIsConfirm: true}, half: RelayHalf, want: "I7"},
	{name: "an_unknown_confirm_counts_as_one", rules: Rules{UnknownIsOK: true}, half: RelayHalf, want: "I7"},
	{name: "what_failed_is_deleted", rules: Rules{ForgetHeldFailed: true}, half: RelayHalf, want: "I1"},

	{name: "states_are_read_before_the_mark", rules: Rules{StatesBeforeMark: true}, half: ConsumerHalf, want: "I4"},
	{name: "the_inbox_does_not_know_what_waits", rules: Rules{NoWaitingInInbox: true}, half: ConsumerHalf, want: "I4"},
	{name: "any_waiting_message_of_a_key_runs", rules: Rules{AnyWaitingRow: true}, half: ConsumerHalf, want: "I5"},
	{name: "messages_pass_one_that_waits", rules: Rules{NoBehind: true}, half: ConsumerHalf, want: "I5"},
	{name: "acknowledges_before_the_commit", rules: Rules{AckFirst: true}, half: ConsumerHalf, want: "I1"},
	{name: "an_acknowledgement_counts_on_any_session", rules: Rules{AckAnySession: true}, half: ConsumerHalf, want: "I1"},
	{name: "the_queue_passes_on_with_work_in_hand", rules: Rules{CloseWithWork: true}, half: ConsumerHalf, want: "I5"},
	{name: "two_instances_are_served_at_once", rules: Rules{ManyActive: true}, half: ConsumerHalf, want: "I5"},
	{name: "messages_of_a_key_run_side_by_side", rules: Rules{LanesMix: true}, half: ConsumerHalf, want: "I5"},
	{name: "the_inbox_forgets_what_is_unsettled", rules: Rules{PurgeEarly: true}, half: ConsumerHalf, want: "I4"},
	{name: "what_is_spent_vanishes", rules: Rules{DropDead: true}, half: ConsumerHalf, want: "I1"},
}

// TestEveryRuleIsNeeded takes one rule away at a time: the explorer finds the schedule
// in which the rest of the protocol breaks a promise.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for _, b := range brokenRules {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			keys := aab
			if b.same {
				keys = aaa
			}
			live, faults := b.want == "stuck", 2
			if live { // all states must be visited
				faults = 1
			}
			m := New(Config{Half: b.half, Rules: b.rules, Keys: keys, MaxFaults: faults})
			r, err := Explore(m, Limits{States: 2_000_000, Live: live})
			if err != nil || !strings.HasPrefix(r.Broken, b.want) {
				t.Errorf("%d states, %v: %q, want a violation of %s", r.States, err, r.Broken, b.want)
			}
			t.Logf("%s (%d states, %d steps)\n%s", r.Broken, r.States, len(r.Path), m.Tell(r.Path))
		})
	}
}
