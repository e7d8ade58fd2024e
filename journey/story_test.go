package journey

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func fact(kind outlast.FactKind, group string, after time.Duration, now bool) outlast.Fact {
	return outlast.Fact{Kind: kind, ID: "m", Source: "orders", Group: group, At: start.Add(after), Now: now}
}

func TestFold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		facts []outlast.Fact
		want  State
	}{
		"pending":                   {[]outlast.Fact{fact(outlast.FactCommitted, "", 0, true)}, Pending},
		"held":                      {[]outlast.Fact{fact(outlast.FactCommitted, "", 0, false), fact(outlast.FactHeld, "", 1, true)}, Held},
		"sent":                      {[]outlast.Fact{fact(outlast.FactFailed, "", 1, false), fact(outlast.FactCommitted, "", 0, false), fact(outlast.FactSent, "", 2, false)}, Sent},
		"failed alone":              {[]outlast.Fact{fact(outlast.FactFailed, "", 1, false)}, Unknown},
		"withdrawn":                 {[]outlast.Fact{fact(outlast.FactFailed, "", 1, false), fact(outlast.FactWithdrawn, "", 2, false)}, Withdrawn},
		"sent again and pending":    {[]outlast.Fact{fact(outlast.FactSent, "", 2, false), fact(outlast.FactResent, "", 8, false), fact(outlast.FactCommitted, "", 9, true)}, Pending},
		"waiting":                   {[]outlast.Fact{fact(outlast.FactFailed, "g", 3, false), fact(outlast.FactWaiting, "g", 4, true)}, Waiting},
		"dead":                      {[]outlast.Fact{fact(outlast.FactDead, "g", 5, false), fact(outlast.FactDead, "g", 5, true)}, Dead},
		"discarded":                 {[]outlast.Fact{fact(outlast.FactDead, "g", 5, false), fact(outlast.FactDiscarded, "g", 6, false)}, Discarded},
		"replayed and waiting":      {[]outlast.Fact{fact(outlast.FactReplayed, "g", 6, false), fact(outlast.FactWaiting, "g", 6, true)}, Waiting},
		"discarded, then it is new": {[]outlast.Fact{fact(outlast.FactDiscarded, "g", 6, false), fact(outlast.FactDead, "g", 8, true)}, Dead},
		"handled after a replay":    {[]outlast.Fact{fact(outlast.FactHandled, "g", 9, true), fact(outlast.FactReplayed, "g", 6, false), fact(outlast.FactFailed, "g", 5, false)}, Handled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Fold(c.facts)[0]
			got := s.Send.State
			if len(s.Groups) > 0 {
				got = s.Groups[0].State
			}
			if got != c.want {
				t.Errorf("the state is %s, want %s", got, c.want)
			}
		})
	}
	t.Run("any order and repetition give the same", func(t *testing.T) {
		t.Parallel()
		kinds := []outlast.FactKind{
			outlast.FactFailed, outlast.FactCommitted, outlast.FactHeld, outlast.FactSent, outlast.FactWithdrawn, outlast.FactResent,
			outlast.FactWaiting, outlast.FactDead, outlast.FactReplayed, outlast.FactDiscarded, outlast.FactHandled,
		}
		rapid.Check(t, func(t *rapid.T) {
			facts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) outlast.Fact {
				f := fact(rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom([]string{"", "g", "h"}).Draw(t, "group"),
					time.Duration(rapid.IntRange(0, 3).Draw(t, "at")), rapid.Bool().Draw(t, "now"))
				f.ID = rapid.SampledFrom([]string{"m", "n"}).Draw(t, "id")
				f.Code = rapid.SampledFrom([]string{"", "a"}).Draw(t, "code")
				return f
			}), 1, 12).Draw(t, "facts")
			again := append(slices.Clone(facts), facts[rapid.IntRange(0, len(facts)-1).Draw(t, "twice")])
			again = rapid.Permutation(again).Draw(t, "order")
			if a, b := text(t, Fold(facts)), text(t, Fold(again)); a != b {
				t.Fatalf("%s\nbut in another order\n%s", a, b)
			}
		})
	})
}

func text(t interface{ Fatal(...any) }, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEveryOpenStateHasOneReaper lists every state that a track can be in, with every
// reason, and asks who moves it on.
func TestEveryOpenStateHasOneReaper(t *testing.T) {
	t.Parallel()
	var tracks []Track
	for _, reason := range outlast.HeldReasons {
		tracks = append(tracks, Track{State: Held, Code: string(reason)})
	}
	for _, state := range []State{Pending, Sent, Unheard, Expired, Withdrawn} {
		tracks = append(tracks, Track{State: state})
	}
	for _, reason := range outlast.WaitReasons {
		tracks = append(tracks, Track{Group: "g", State: Waiting, Code: reason})
	}
	for _, state := range []State{Dead, Discarded, Handled} {
		tracks = append(tracks, Track{Group: "g", State: state, Code: "verdict"})
	}
	for _, x := range tracks {
		got, want := reapersOf(&x), 1
		if x.State.Final() {
			want = 0
		}
		if len(got) != want {
			t.Errorf("%s %s is moved by %q", x.State, x.Code, got)
		}
	}
	if names := reapersOf(&Track{State: Held, Code: "a reason of tomorrow"}); len(names) != 0 {
		t.Errorf("a reason that nobody knows is moved by %q", names)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	envelope := &outlast.Envelope{ID: "m", Type: "order.placed.v1", EnqueuedAt: start, Within: time.Minute}
	committed := fact(outlast.FactCommitted, "", 0, false)
	committed.Envelope = envelope
	pending := committed
	pending.Now = true
	waiting := fact(outlast.FactWaiting, "g", time.Second, true)
	waiting.Code, waiting.Until, waiting.Envelope = "failed", start.Add(2*time.Second), envelope
	dead := fact(outlast.FactDead, "g", time.Second, true)
	dead.Envelope = envelope
	strange := fact(outlast.FactWaiting, "g", time.Second, true)
	strange.Code = "a reason of tomorrow"
	sent := fact(outlast.FactSent, "", time.Second, false)
	handled := fact(outlast.FactHandled, "g", 2*time.Second, true)
	handled.EnqueuedAt = start
	unknown := handled // nobody says when it was enqueued
	unknown.EnqueuedAt = time.Time{}
	failed := fact(outlast.FactFailed, "", time.Second, false)
	twice := fact(outlast.FactHandled, "g", 3*time.Second, true)
	hears := outlast.Hearer{Group: "g", Type: "order.placed.v1", Since: start.Add(-time.Hour)}
	whole := func(after time.Duration) Bench {
		return Bench{Now: start.Add(after), Complete: true, Sources: map[string]time.Time{"orders": start}, Hearers: []outlast.Hearer{hears}}
	}
	wholeFrom := func(since time.Time) Bench {
		b := whole(time.Hour)
		b.Sources = map[string]time.Time{"orders": since}
		return b
	}
	forgot := func(after, at time.Duration) Bench {
		b := whole(after)
		b.Hearers = slices.Clone(b.Hearers)
		b.Hearers[0].Forgot = start.Add(at)
		return b
	}
	const week = 7 * 24 * time.Hour
	partial := whole(time.Hour)
	partial.Complete, partial.Sources = false, nil
	for name, c := range map[string]struct {
		facts []outlast.Fact
		bench Bench
		want  []VerdictKind
	}{
		"fine":                    {[]outlast.Fact{committed, sent, handled}, whole(time.Hour), nil},
		"on its way":              {[]outlast.Fact{committed, sent}, whole(10 * time.Second), nil},
		"late on its way":         {[]outlast.Fact{committed, sent}, whole(2 * time.Minute), []VerdictKind{Overdue}},
		"lost":                    {[]outlast.Fact{committed, sent}, whole(time.Hour), []VerdictKind{Lost}},
		"lost for a week":         {[]outlast.Fact{committed, sent}, whole(week), []VerdictKind{Lost}},
		"not lost: long ago":      {[]outlast.Fact{committed, sent}, whole(week + time.Second), nil},
		"lost: remembered":        {[]outlast.Fact{committed, sent}, forgot(2*week, -5*time.Minute), []VerdictKind{Lost}},
		"not lost: forgotten":     {[]outlast.Fact{committed, sent}, forgot(time.Hour, -5*time.Minute+time.Second), nil},
		"not lost behind a gap":   {[]outlast.Fact{committed, sent}, partial, nil},
		"stuck pending, overdue":  {[]outlast.Fact{pending}, whole(time.Hour), []VerdictKind{Stuck, Overdue}},
		"stuck retry, overdue":    {[]outlast.Fact{committed, sent, waiting}, whole(time.Hour), []VerdictKind{Stuck, Overdue}},
		"retry in time":           {[]outlast.Fact{committed, sent, waiting}, whole(3 * time.Second), nil},
		"orphan":                  {[]outlast.Fact{handled}, whole(time.Hour), []VerdictKind{Orphan}},
		"orphan that is dead":     {[]outlast.Fact{dead}, whole(time.Hour), []VerdictKind{Orphan}},
		"no orphan: too young":    {[]outlast.Fact{handled}, whole(time.Minute), nil},
		"no orphan: dropped":      {[]outlast.Fact{handled}, wholeFrom(start.Add(time.Microsecond)), nil},
		"no orphan: dead, long":   {[]outlast.Fact{dead}, wholeFrom(start.Add(time.Microsecond)), nil},
		"no orphan: never kept":   {[]outlast.Fact{handled}, wholeFrom(time.Time{}), nil},
		"no orphan: no time":      {[]outlast.Fact{unknown}, whole(time.Hour), nil},
		"no orphan: it failed":    {[]outlast.Fact{failed, handled}, whole(time.Hour), nil},
		"no orphan behind a gap":  {[]outlast.Fact{handled}, partial, nil},
		"doubled":                 {[]outlast.Fact{committed, sent, handled, twice}, whole(time.Hour), []VerdictKind{Doubled}},
		"read twice, not doubled": {[]outlast.Fact{committed, sent, handled, handled}, whole(time.Hour), nil},
		"stranded":                {[]outlast.Fact{committed, sent, strange}, whole(2 * time.Second), []VerdictKind{Stranded}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Fold(c.facts)[0]
			s.Judge(c.bench)
			var got []VerdictKind
			for _, v := range s.Verdicts {
				got = append(got, v.Kind)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("verdicts %v, want %v", s.Verdicts, c.want)
			}
		})
	}
}

// TestLinesTellPastDeaths: that a message is handled does not hide that it died before, and
// a dead one that it had been brought back.
func TestLinesTellPastDeaths(t *testing.T) {
	t.Parallel()
	failed := func(at time.Duration, detail string) outlast.Fact {
		f := fact(outlast.FactFailed, "g", at, false)
		f.Detail = detail
		return f
	}
	replayed := func(at time.Duration) outlast.Fact { return fact(outlast.FactReplayed, "g", at, false) }
	handled := fact(outlast.FactHandled, "g", time.Hour, true)
	other := fact(outlast.FactHandled, "h", time.Hour, true)
	stamp := func(at time.Duration) string { return start.Add(at).UTC().Format(time.RFC3339) }
	long := strings.Repeat("no ", 100)
	for name, c := range map[string]struct {
		facts []outlast.Fact
		want  []string
	}{
		"never":             {[]outlast.Fact{failed(1*time.Second, "no card"), handled, other}, []string{"g: handled", "h: handled"}},
		"once":              {[]outlast.Fact{failed(1*time.Second, "busy"), failed(2*time.Second, "no\n card"), replayed(time.Minute), handled, other}, []string{"g: handled", "g: died once before (last: no card), replayed " + stamp(time.Minute), "h: handled"}},
		"twice":             {[]outlast.Fact{failed(1*time.Second, "a"), replayed(time.Minute), failed(2*time.Minute, "b"), replayed(3 * time.Minute), handled}, []string{"g: handled", "g: died 2 times before (last: b), replayed " + stamp(3*time.Minute)}},
		"failed after it":   {[]outlast.Fact{failed(1*time.Second, "a"), replayed(time.Minute), failed(2*time.Minute, "b"), handled}, []string{"g: handled", "g: died once before (last: a), replayed " + stamp(time.Minute)}},
		"its error is gone": {[]outlast.Fact{replayed(time.Minute), handled}, []string{"g: handled", "g: died once before, replayed " + stamp(time.Minute)}},
		"with a long error": {[]outlast.Fact{failed(1*time.Second, long), replayed(time.Minute), handled}, []string{"g: handled", "g: died once before (last: " + long[:79] + "…), replayed " + stamp(time.Minute)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Fold(c.facts)[0].Lines()[1:]; !slices.Equal(got, c.want) {
				t.Errorf("lines %q, want %q", got, c.want)
			}
		})
	}
}

// TestJudgeWithoutWhatWasCut: a message of which not all was read is unknown, and
// neither lost nor an orphan.
func TestJudgeWithoutWhatWasCut(t *testing.T) {
	t.Parallel()
	sent := fact(outlast.FactSent, "", time.Second, false)
	sent.Envelope = &outlast.Envelope{ID: "m", Type: "order.placed.v1", EnqueuedAt: start, Within: time.Minute}
	b := Bench{Now: start.Add(time.Hour), Complete: true, Sources: map[string]time.Time{"orders": start},
		Hearers: []outlast.Hearer{{Group: "g", Type: "order.placed.v1", Since: start.Add(-time.Hour)}}}
	handled := fact(outlast.FactHandled, "g", time.Second, true)
	handled.EnqueuedAt = start
	for _, f := range []outlast.Fact{sent, handled} {
		s := Fold([]outlast.Fact{f})[0]
		if s.Judge(b); len(s.Verdicts) != 1 {
			t.Errorf("all was read, and the verdicts are %v", s.Verdicts)
		}
		s.Cut = "there is more"
		if s.Judge(b); len(s.Verdicts) != 0 || s.tone() != "unknown" {
			t.Errorf("not all was read, and it is %s: %v", s.tone(), s.Verdicts)
		}
	}
}
