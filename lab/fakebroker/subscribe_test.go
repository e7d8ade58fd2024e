package fakebroker_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/lab/fakebroker"
	"github.com/outlastmq/outlast/rabbitmq"
)

// receive runs a subscriber to a foreign queue and hands over what it delivers.
func receive(t *testing.T, b outlast.Broker) (deliveries chan *outlast.Delivery, links chan outlast.Link, stop func()) {
	t.Helper()
	deliveries, links = make(chan *outlast.Delivery, 100), make(chan outlast.Link, 100)
	s := b.Subscriber(outlast.SubscriberConfig{
		Foreign: &outlast.ForeignQueue{Queue: "q", Type: "legacy.v1"}, Prefetch: 100,
		Deliver: func(d *outlast.Delivery) { deliveries <- d },
		Link:    func(l outlast.Link) { links <- l },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx) // only settings make it fail
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	return deliveries, links, stop
}

func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited for %s in vain", what)
		panic("unreachable")
	}
}

func plain(id string, fields ...[]byte) fakebroker.Publish {
	return fakebroker.Publish{Exchange: "e", Key: "k", Header: fakebroker.Properties(4, id, fields...), Body: []byte("body")}
}

// ackSeen is an acknowledgement as the server sees it.
type ackSeen struct {
	connection int
	tag        uint64
	multiple   bool
}

// TestF50_F61_AcksBelongToTheirSession: a delivery is acknowledged once, and on the
// connection that it came from or not at all, although tags begin anew on the next one.
// One command may tell of several: they are done then, and of its own connection.
func TestF50_F61_AcksBelongToTheirSession(t *testing.T) {
	t.Parallel()
	acks := make(chan ackSeen, 100)
	conns := make(chan *fakebroker.Conn, 10)
	server := fakebroker.New(t, fakebroker.Script{
		Consumed: func(ch *fakebroker.Channel, _, consumer string) {
			for tag := range uint64(50) {
				ch.Deliver(consumer, tag+1, ch.Conn.Number() > 1, plain(fmt.Sprintf("%d-%d", ch.Conn.Number(), tag+1)))
			}
			conns <- ch.Conn
		},
		Acked: func(ch *fakebroker.Channel, tag uint64, multiple bool) {
			acks <- ackSeen{ch.Conn.Number(), tag, multiple}
		},
	})
	b := broker(server.URL())
	deliveries, _, _ := receive(t, b)
	var old, fresh []*outlast.Delivery
	for range 50 {
		old = append(old, next(t, "a delivery", deliveries))
	}
	old[0].Ack()
	old[0].Ack() // the second is nothing
	if got := next(t, "an acknowledgement", acks); got != (ackSeen{1, 1, false}) {
		t.Fatalf("%v", got)
	}
	next(t, "the connection", conns).Cut()
	for range 50 {
		fresh = append(fresh, next(t, "a delivery again", deliveries))
	}
	var work sync.WaitGroup
	for _, d := range old { // fifty slow handlers that end now
		work.Go(func() { d.Ack() })
	}
	work.Wait()
	fresh[49].Ack()
	if got := next(t, "an acknowledgement", acks); got != (ackSeen{2, 50, false}) {
		t.Errorf("an acknowledgement of the old session settled %v", got)
	}
	if n := b.(interface{ StaleAcks() uint64 }).StaleAcks(); n != 49 {
		t.Errorf("%d stale acknowledgements were counted, want 49", n)
	}
	settled := map[uint64]bool{50: true}
	settle := func(done ...uint64) {
		t.Helper()
		for _, tag := range done {
			fresh[tag-1].Ack()
		}
		for left := len(done); left > 0; {
			got := next(t, "an acknowledgement", acks)
			for tag := uint64(1); tag <= got.tag; tag++ {
				switch {
				case settled[tag] || tag < got.tag && !got.multiple:
				case !slices.Contains(done, tag):
					t.Fatalf("%+v settles %d, which is not done", got, tag)
				default:
					settled[tag] = true
					left--
				}
			}
			if !settled[got.tag] || got.connection != 2 {
				t.Fatalf("%+v settles nothing", got)
			}
		}
	}
	settle(9, 7, 3)       // with gaps before and between them
	settle(5, 4, 2, 1, 6) // from the first one on, up to 7
	var rest []uint64
	for tag := uint64(10); tag < 50; tag++ {
		rest = append(rest, tag)
	}
	settle(append(rest, 8)...) // all that is left
	if len(settled) != 50 {
		t.Errorf("%d are settled, want 50", len(settled))
	}
}

// TestS05_S04_S06_EveryKindOfHeader: a header of each type that AMQP knows arrives as text without
// loss; one of a type that nobody knows costs the message its headers and nothing else.
func TestS05_S04_S06_EveryKindOfHeader(t *testing.T) {
	t.Parallel()
	bits := func(n uint64, size int) []byte { return binary.BigEndian.AppendUint64(nil, n)[8-size:] }
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	kinds := []struct {
		kind  byte
		value []byte
		want  string
	}{
		{'t', bits(1, 1), "true"}, {'b', bits(0x80, 1), "-128"}, {'B', bits(0xff, 1), "255"},
		{'s', bits(0x8000, 2), "-32768"}, {'u', bits(0xffff, 2), "65535"},
		{'I', bits(0x8000_0000, 4), "-2147483648"}, {'i', bits(0xffff_ffff, 4), "4294967295"},
		{'l', bits(1<<63, 8), "-9223372036854775808"},
		{'f', bits(uint64(math.Float32bits(1.5)), 4), "1.5"}, {'d', bits(math.Float64bits(0.1), 8), "0.1"},
		{'D', append([]byte{2}, bits(999, 4)...), ""}, {'S', fakebroker.LongText("text ä"), "text ä"},
		{'x', fakebroker.LongText("bytes"), "bytes"}, {'T', bits(uint64(at.Unix()), 8), "2026-01-02T03:04:05Z"}, {'V', nil, ""},
		{'F', fakebroker.Table(fakebroker.Field("a", 'S', fakebroker.LongText("b"))), ""},
		{'A', fakebroker.LongText(string(fakebroker.Field("", 'V', nil)[1:])), ""},
	}
	var all [][]byte
	for _, k := range kinds {
		all = append(all, fakebroker.Field("kind-"+string(k.kind), k.kind, k.value))
	}
	many := make([][]byte, 300)
	for i := range many {
		many[i] = fakebroker.Field(fmt.Sprint("h", i), 'V', nil)
	}
	server := fakebroker.New(t, fakebroker.Script{Consumed: func(ch *fakebroker.Channel, _, consumer string) {
		for i, p := range []fakebroker.Publish{
			plain("all", all...),
			plain("unknown", fakebroker.Field("a", '?', []byte("x"))),
			plain("deep", deep(500)),
			plain("many", many...),
			plain("big", fakebroker.Field("a", 'S', fakebroker.LongText(strings.Repeat("v", 100_000)))),
			plain("last"),
		} {
			ch.Deliver(consumer, uint64(i+1), false, p)
		}
	}})
	deliveries, links, _ := receive(t, broker(server.URL()))
	d := next(t, "all kinds", deliveries)
	if d.Problem != nil || string(d.Message.Body) != "body" || d.Message.ID != "all" {
		t.Errorf("%+v, %v", d.Message, d.Problem)
	}
	for _, k := range kinds {
		got, ok := d.Message.Headers["kind-"+string(k.kind)]
		if !ok || k.want != "" && got != k.want {
			t.Errorf("type %q: %q, want %q", k.kind, got, k.want)
		}
	}
	for id, reason := range []string{"unknown type '?'", "nested deeper than 8", "at most 128", "at most 32768 bytes"} {
		d := next(t, reason, deliveries)
		if d.Problem == nil || !strings.Contains(d.Problem.Error(), reason) || string(d.Message.Body) != "body" {
			t.Errorf("%d: %+v, %v, want %q", id, d.Message, d.Problem, reason)
		}
	}
	if d := next(t, "the last", deliveries); d.Problem != nil || d.Message.ID != "last" {
		t.Errorf("%+v, %v", d.Message, d.Problem)
	}
	if l := next(t, "the link", links); l.State != outlast.LinkUp || len(links) > 0 || server.Accepted() != 1 {
		t.Errorf("the connection did not outlive the headers: %v, %d connections", l, server.Accepted())
	}
}

// TestS13_NothingIsDecompressed: a body is handed over as it came, whatever its encoding is
// said to be, so that no bomb goes off here.
func TestS13_NothingIsDecompressed(t *testing.T) {
	t.Parallel()
	packed := []byte("\x1f\x8b\x08\x00 anything")
	server := fakebroker.New(t, fakebroker.Script{Consumed: func(ch *fakebroker.Channel, _, consumer string) {
		header := append([]byte{0, 60, 0, 0}, fakebroker.LongLong(uint64(len(packed)))...)
		header = append(header, 0x40, 0x80) // content encoding, message id
		header = append(append(header, fakebroker.ShortText("gzip")...), fakebroker.ShortText("id-1")...)
		ch.Deliver(consumer, 1, false, fakebroker.Publish{Header: header, Body: packed})
	}})
	deliveries, _, _ := receive(t, broker(server.URL()))
	if d := next(t, "the delivery", deliveries); !bytes.Equal(d.Message.Body, packed) || d.Message.ID != "id-1" {
		t.Errorf("%q, %+v", d.Message.Body, d.Message)
	}
}

// TestF55_AHerdSpreads: clients of several nodes, one of them dead, all find a living one,
// and when theirs is killed all find another.
func TestF55_AHerdSpreads(t *testing.T) {
	t.Parallel()
	first, second := fakebroker.New(t, fakebroker.Script{}), fakebroker.New(t, fakebroker.Script{})
	dead, err := fakebroker.Start(fakebroker.Script{})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	urls := strings.Join([]string{dead.URL(), first.URL(), second.URL()}, ",")
	senders := make([]*sender, 50)
	for i := range senders {
		senders[i] = send(t, broker(urls))
		defer senders[i].stop()
	}
	for _, s := range senders {
		s.link(outlast.LinkUp)
	}
	if first.Accepted() == 0 || second.Accepted() == 0 {
		t.Errorf("%d and %d clients on two nodes", first.Accepted(), second.Accepted())
	}
	first.Close()
	for _, s := range senders {
		s.until("a node that lives", func() bool { return s.links[len(s.links)-1].State == outlast.LinkUp })
		s.delivers()
	}
	if n := second.Conns(); n != len(senders) {
		t.Errorf("%d of %d clients are on the node that lives", n, len(senders))
	}
}

// TestF48_AForgottenSubscriptionIsMadeAnew: a broker that has lost a consumer without a word,
// as with a queue that was deleted while it had no leader, is noticed by its own count. One
// such answer is not enough. A queue that is gone counts as one without a consumer.
func TestF48_AForgottenSubscriptionIsMadeAnew(t *testing.T) {
	t.Parallel()
	const recheck = 30 * time.Millisecond
	var asked, consumed atomic.Int32
	answers := []int{1, 0, 1, 0, 0} // after them always 1
	subscribed := make(chan *fakebroker.Channel, 10)
	server := fakebroker.New(t, fakebroker.Script{
		Consumers: func(string) int {
			if n := int(asked.Add(1)); n <= len(answers) {
				return answers[n-1]
			}
			return 1
		},
		Consumed: func(ch *fakebroker.Channel, _, _ string) {
			consumed.Store(asked.Load())
			subscribed <- ch
		},
	})
	_, links, stop := receive(t, rabbitmq.Broker(server.URL(), rabbitmq.Recheck(recheck)))
	next(t, "a subscription", subscribed)
	next(t, "another subscription", subscribed)
	if n := consumed.Load(); n != int32(len(answers)) {
		t.Errorf("it subscribed again after %d answers, want %d", n, len(answers))
	}
	for asked.Load() < int32(len(answers))+5 { // five more answers that are good
		time.Sleep(recheck)
	}
	stop()
	if len(subscribed) != 0 {
		t.Error("it subscribed once more")
	}
	reasons := ""
	for len(links) > 0 {
		reasons += (<-links).Reason + ";"
	}
	if !strings.Contains(reasons, "the queue has no consumer") {
		t.Errorf("the reasons are %q", reasons)
	}
}

// TestF48_AQueueThatIsGoneIsSubscribedToAnew: the broker does not know the queue any more, and
// has told nobody.
func TestF48_AQueueThatIsGoneIsSubscribedToAnew(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	subscribed := make(chan *fakebroker.Channel, 10)
	server := fakebroker.New(t, fakebroker.Script{
		Instead: func(ch *fakebroker.Channel, class, method uint16) bool {
			if class != 50 || method != 10 || asked.Add(1) > 2 {
				return false
			}
			ch.CloseChannel(404, "NOT_FOUND - no queue 'q'")
			return true
		},
		Consumed: func(ch *fakebroker.Channel, _, _ string) { subscribed <- ch },
	})
	receive(t, rabbitmq.Broker(server.URL(), rabbitmq.Recheck(30*time.Millisecond)))
	next(t, "a subscription", subscribed)
	next(t, "another subscription", subscribed)
	if n := asked.Load(); n < 2 {
		t.Errorf("it subscribed again after %d answers", n)
	}
}

// TestF48_ANodeThatDeliversNothingIsLeft: a node whose copy of a queue is stuck answers, keeps the
// subscription and delivers nothing of what the queue holds. The subscriber connects anew, with
// growing patience; one with a message in hand is left alone, and so is one whose queue is empty.
func TestF48_ANodeThatDeliversNothingIsLeft(t *testing.T) {
	t.Parallel()
	const recheck = 30 * time.Millisecond
	var asked, waiting atomic.Int32
	waiting.Store(7)
	subscribed, at := make(chan *fakebroker.Channel, 10), make(chan int32, 10)
	server := fakebroker.New(t, fakebroker.Script{
		Messages: func(string) int { asked.Add(1); return int(waiting.Load()) },
		Consumed: func(ch *fakebroker.Channel, _, consumer string) {
			at <- asked.Load()
			if ch.Conn.Number() == 3 {
				ch.Deliver(consumer, 1, false, plain("at-last"))
			}
			subscribed <- ch
		},
	})
	deliveries, links, stop := receive(t, rabbitmq.Broker(server.URL(), rabbitmq.Recheck(recheck)))
	for i, want := range []int32{0, 2, 2 + 4} {
		if n := next(t, "a connection", subscribed).Conn.Number(); n != i+1 {
			t.Errorf("subscription %d is on connection %d", i+1, n)
		}
		if n := next(t, "its checks", at); n != want {
			t.Errorf("it left node %d after %d checks in all, want %d", i, n, want)
		}
	}
	d := next(t, "a delivery", deliveries)
	awaitChecks := func() {
		for end := asked.Load() + 5; asked.Load() < end; {
			time.Sleep(recheck)
		}
	}
	awaitChecks() // with a message in hand
	waiting.Store(0)
	d.Ack()
	awaitChecks() // with nothing to deliver
	stop()
	if len(subscribed) != 0 {
		t.Error("it left a node that it had no reason to leave")
	}
	reasons := ""
	for len(links) > 0 {
		reasons += (<-links).Reason + ";"
	}
	if !strings.Contains(reasons, "this node delivers none") {
		t.Errorf("the reasons are %q", reasons)
	}
}
