package fakebroker_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fakebroker"
)

// word is one thing that the broker says about a lane, when `after` of its messages have
// arrived.
type word struct {
	after    int
	kind     int // of the words below
	tag      int
	multiple bool
}

const (
	sayAck = iota
	sayNack
	sayReturn
)

// lanePlan is what becomes of the messages of one lane. What no word is about is
// swallowed.
type lanePlan struct {
	messages int
	words    []word
}

func drawLane(t *rapid.T) lanePlan {
	p := lanePlan{messages: rapid.IntRange(1, 12).Draw(t, "messages")}
	for range rapid.IntRange(0, 16).Draw(t, "words") {
		w := word{after: rapid.IntRange(1, p.messages).Draw(t, "after")}
		w.kind = rapid.SampledFrom([]int{sayAck, sayAck, sayNack, sayReturn}).Draw(t, "kind")
		w.tag = rapid.IntRange(1, w.after).Draw(t, "tag")
		w.multiple = rapid.Bool().Draw(t, "multiple")
		p.words = append(p.words, w)
	}
	return p
}

// truth is what the broker has said of the messages of a lane: the first word about a
// message counts, and a return comes before its confirm.
type truth struct {
	settled  map[int]outlast.Outcome
	returned map[int]bool
}

// say sends a word and remembers it. A return is only said of what is open, as brokers
// do; the other way round is TestF37_AReturnAfterItsConfirm.
func (tr *truth) say(ch *fakebroker.Channel, w word, arrived []fakebroker.Publish) {
	if w.kind == sayReturn {
		if _, done := tr.settled[w.tag]; !done && !tr.returned[w.tag] {
			tr.returned[w.tag] = true
			ch.Return(arrived[w.tag-1])
		}
		return
	}
	first := w.tag
	if w.multiple {
		first = 1
	}
	for tag := first; tag <= w.tag; tag++ {
		if _, done := tr.settled[tag]; done {
			continue
		}
		switch {
		case tr.returned[tag]:
			tr.settled[tag] = outlast.OutcomeUnroutable
		case w.kind == sayAck:
			tr.settled[tag] = outlast.OutcomeConfirmed
		default:
			tr.settled[tag] = outlast.OutcomeNacked
		}
	}
	if w.kind == sayAck {
		ch.Ack(uint64(w.tag), w.multiple)
	} else {
		ch.Nack(uint64(w.tag), w.multiple)
	}
}

// TestF37_F45_F35_EveryPublishHasItsOwnTrueOutcome: whatever the broker says, in whatever
// order, with and without multiple, with and without returns, or does not say, each publish
// is resolved exactly once: as the broker said, and as unknown when it said nothing until
// the lane, the channel, the connection or the publisher ended.
func TestF37_F45_F35_EveryPublishHasItsOwnTrueOutcome(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		plans := make([]lanePlan, rapid.IntRange(1, 3).Draw(t, "lanes"))
		for i := range plans {
			plans[i] = drawLane(t)
		}
		end := rapid.SampledFrom([]string{"drop", "channel", "connection", "cut", "stop"}).Draw(t, "end")
		checkPlans(t, plans, end)
	})
}

func checkPlans(t *rapid.T, plans []lanePlan, end string) {
	var mu sync.Mutex
	truths := make([]*truth, len(plans))
	channels := make([]*fakebroker.Channel, len(plans))
	arrived := make([][]fakebroker.Publish, len(plans))
	all := make(chan struct{})
	left := 0
	for i, p := range plans {
		truths[i] = &truth{settled: map[int]outlast.Outcome{}, returned: map[int]bool{}}
		left += p.messages
	}
	server, err := fakebroker.Start(fakebroker.Script{Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		mu.Lock()
		defer mu.Unlock()
		var lane, n int
		if _, err := fmt.Sscanf(p.ID, "lane%d-%d", &lane, &n); err != nil {
			ch.Ack(p.Tag, false)
			return
		}
		channels[lane] = ch
		arrived[lane] = append(arrived[lane], p)
		for _, w := range plans[lane].words {
			if w.after == len(arrived[lane]) {
				truths[lane].say(ch, w, arrived[lane])
			}
		}
		if left--; left == 0 {
			close(all)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, v := range server.Close() {
			t.Errorf("the client broke the protocol: %s", v)
		}
	}()
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	var known, open []*outlast.Publishing
	want := map[*outlast.Publishing]outlast.Outcome{}
	lanes := make([][]*outlast.Publishing, len(plans))
	for i, p := range plans {
		lanes[i] = publishings(fmt.Sprintf("lane%d", i), p.messages)
		s.Send(i, lanes[i])
	}
	<-all
	mu.Lock()
	for i, lane := range lanes {
		for n, p := range lane {
			switch o, said := truths[i].settled[n+1]; {
			case said:
				known, want[p] = append(known, p), o
			case truths[i].returned[n+1] && end == "channel":
				open, want[p] = append(open, p), outlast.OutcomeUnroutable
			case end == "channel":
				open, want[p] = append(open, p), outlast.OutcomeLaneError
			default:
				open, want[p] = append(open, p), outlast.OutcomeUnknown
			}
		}
	}
	mu.Unlock()
	s.resolved(known)
	s.mu.Lock()
	for _, p := range open {
		if len(s.got[p]) > 0 {
			t.Errorf("%s is %v, and the broker said nothing", p.Message.ID, s.got[p])
		}
	}
	s.mu.Unlock()
	switch end {
	case "drop":
		for i := range plans {
			s.Drop(i)
		}
	case "channel":
		for _, ch := range channels {
			ch.CloseChannel(406, "PRECONDITION_FAILED")
		}
	case "connection":
		channels[0].Conn.Close(320, "CONNECTION_FORCED")
	case "cut":
		server.CutAll()
	case "stop":
		s.stop()
	}
	s.resolved(open)
	if end != "stop" {
		s.delivers()
	}
	s.stop()
	for p, o := range want {
		if got := s.outcome(p); got != o {
			t.Fatalf("%s: %v, want %v", p.Message.ID, got, o)
		}
	}
}

// TestF37_AReturnAfterItsConfirm: no broker sends one; when it comes, nothing else of the
// channel is believed any more, and nothing is resolved twice.
func TestF37_AReturnAfterItsConfirm(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		switch p.ID {
		case "late-0":
			ch.Ack(p.Tag, false)
		case "late-1":
			p.ID = "late-0"
			p.Header = fakebroker.Properties(0, "late-0")
			p.Body = nil
			ch.Return(p)
		default:
			ch.Ack(p.Tag, false)
		}
	}})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	ps := publishings("late", 2)
	s.Send(0, ps[:1])
	s.resolved(ps[:1])
	s.Send(0, ps[1:])
	s.resolved(ps)
	s.once(ps[:1], outlast.OutcomeConfirmed)
	s.once(ps[1:], outlast.OutcomeUnknown)
	s.link(outlast.LinkUp)
	s.delivers()
}

// TestF35_CutAtAnyByte: wherever in the broker's bytes the connection ends, each publish
// is resolved once, confirmed only when the broker had taken it, and the publisher comes
// back by itself.
func TestF35_CutAtAnyByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(1, 700).Draw(t, "bytes")
		n := rapid.IntRange(1, 20).Draw(t, "messages")
		var mu sync.Mutex
		taken := map[string]bool{}
		server, err := fakebroker.Start(fakebroker.Script{
			CutAfter: func(connection int) int {
				if connection == 1 {
					return at
				}
				return 0
			},
			Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
				mu.Lock()
				defer mu.Unlock()
				taken[p.ID] = true
				ch.Ack(p.Tag, false)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		s := send(t, broker(server.URL()))
		defer s.stop()
		s.until("a link", func() bool { return len(s.links) > 0 })
		var all []*outlast.Publishing
		for i := range n {
			ps := publishings(fmt.Sprint("m", i), 1)
			s.Send(i%3, ps)
			all = append(all, ps...)
		}
		s.until("the cut or the end", func() bool {
			open := 0
			for _, p := range all {
				if len(s.got[p]) == 0 {
					open++
				}
			}
			return open == 0
		})
		s.link(outlast.LinkUp)
		s.delivers()
		s.stop()
		mu.Lock()
		defer mu.Unlock()
		for _, p := range all {
			switch o := s.outcome(p); {
			case o == outlast.OutcomeConfirmed && !taken[p.Message.ID]:
				t.Fatalf("%s is confirmed, and the broker never had it", p.Message.ID)
			case o == outlast.OutcomeNotSent && taken[p.Message.ID]:
				t.Fatalf("%s is not sent, and the broker has it", p.Message.ID)
			case o != outlast.OutcomeConfirmed && o != outlast.OutcomeNotSent && o != outlast.OutcomeUnknown:
				t.Fatalf("%s: %v", p.Message.ID, o)
			}
		}
	})
}

// TestF36_AFloodOfConfirmsBlocksNothing: confirms that nobody asked for, and thousands at
// once, neither block the session nor resolve anything.
func TestF36_AFloodOfConfirmsBlocksNothing(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		if p.Tag == 1 {
			for tag := range uint64(20_000) {
				ch.Ack(1_000_000+tag, tag%2 == 0)
			}
		}
		ch.Ack(p.Tag, false)
	}})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	ps := publishings("m", 500)
	s.Send(0, ps)
	s.resolved(ps)
	s.once(ps, outlast.OutcomeConfirmed)
}

// TestF36_StopDuringAnAlarm: a publisher ends although the broker blocks it, answers
// nothing and confirms nothing.
func TestF36_StopDuringAnAlarm(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{
		Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
			if p.Tag == 1 {
				ch.Block("low on memory")
			}
		},
		Instead: func(_ *fakebroker.Channel, class, method uint16) bool { return class == 10 && method == 50 },
	})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	ps := publishings("m", 3)
	s.Send(0, ps)
	s.link(outlast.LinkBlocked)
	late := publishings("late", 3)
	s.Send(1, late)
	s.resolved(late)
	s.once(late, outlast.OutcomeNotSent)
	s.stop()
	s.resolved(ps)
	s.once(ps, outlast.OutcomeUnknown, outlast.OutcomeNotSent)
}

// TestF38_BlockedFromTheFirstMoment: an alarm that is told before the publisher is ready
// is shown like any other.
func TestF38_BlockedFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	conns := make(chan *fakebroker.Conn, 1)
	server := fakebroker.New(t, fakebroker.Script{Opened: func(c *fakebroker.Conn) {
		c.Block("low on disk")
		conns <- c
	}})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkBlocked)
	(<-conns).Unblock()
	s.link(outlast.LinkUp)
	s.delivers()
}

// TestF44_ChannelsAreNotShared: many goroutines that send on few lanes interleave no frames,
// which the server would tell, and every message is resolved once.
func TestF44_ChannelsAreNotShared(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{FrameMax: 4096})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	batches := make([][]*outlast.Publishing, 64)
	var work sync.WaitGroup
	for i := range batches {
		batches[i] = publishings(fmt.Sprint("m", i), 10)
		for _, p := range batches[i] {
			p.Message.Body = make([]byte, rand.IntN(12_000)) // up to three frames
		}
		work.Go(func() {
			for _, p := range batches[i] {
				s.Send(i%4, []*outlast.Publishing{p})
			}
		})
	}
	work.Wait()
	for _, ps := range batches {
		s.resolved(ps)
		s.once(ps, outlast.OutcomeConfirmed)
	}
}

// TestF42_OnlyTheChannelOfTheCulpritEnds: a broker that closes a channel over one message
// puts those of its lane in doubt, and no others.
func TestF42_OnlyTheChannelOfTheCulpritEnds(t *testing.T) {
	t.Parallel()
	server := fakebroker.New(t, fakebroker.Script{Published: func(ch *fakebroker.Channel, p fakebroker.Publish) {
		switch {
		case len(p.Body) > 1000:
			ch.CloseChannel(406, "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000")
		case p.ID == "before-0":
			ch.Ack(p.Tag, false)
		case p.ID[0] == 'b': // swallowed
		default:
			ch.Ack(p.Tag, false)
		}
	}})
	s := send(t, broker(server.URL()))
	defer s.stop()
	s.link(outlast.LinkUp)
	before, big, others := publishings("before", 3), publishings("large", 1), publishings("other", 3)
	big[0].Message.Body = make([]byte, 2000)
	s.Send(0, append(before, big...))
	s.Send(1, others)
	s.resolved(append(append(before, big...), others...))
	s.once(before[:1], outlast.OutcomeConfirmed)
	s.once(append(before[1:3:3], big...), outlast.OutcomeLaneError)
	s.once(others, outlast.OutcomeConfirmed)
	again := publishings("again", 1)
	s.Send(0, again)
	s.resolved(again)
	s.once(again, outlast.OutcomeConfirmed)
	if n := server.Accepted(); n != 1 {
		t.Errorf("%d connections for an error of one channel", n)
	}
}
