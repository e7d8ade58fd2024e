package fakebroker

import "sync/atomic"

// Channel is one channel of a connection. Its methods may be called from any goroutine.
type Channel struct {
	*Conn
	number  uint16
	tag     uint64
	publish *Publish // one that is not complete
	size    uint64
	headed  bool
	closing atomic.Bool
}

// Number is the channel's.
func (ch *Channel) Number() uint16 { return ch.number }

// Ack and Nack confirm a publish, or with multiple all up to it.
func (ch *Channel) Ack(tag uint64, multiple bool)  { ch.Send(ch.ack(80, tag, multiple)) }
func (ch *Channel) Nack(tag uint64, multiple bool) { ch.Send(ch.ack(120, tag, multiple)) }

func (ch *Channel) ack(method uint16, tag uint64, multiple bool) []byte {
	var bit byte
	if multiple {
		bit = 1
	}
	return Method(ch.number, 60, method, LongLong(tag), Octet(bit))
}

// Return gives a message back that no queue took.
func (ch *Channel) Return(p Publish) {
	ch.Send(Method(ch.number, 60, 50, Short(312), ShortText("NO_ROUTE"), ShortText(p.Exchange), ShortText(p.Key)), ch.frames(p))
}

// Deliver sends a message to a consumer.
func (ch *Channel) Deliver(consumer string, tag uint64, redelivered bool, p Publish) {
	var bit byte
	if redelivered {
		bit = 1
	}
	ch.Send(Method(ch.number, 60, 60, ShortText(consumer), LongLong(tag), Octet(bit), ShortText(p.Exchange), ShortText(p.Key)), ch.frames(p))
}

func (ch *Channel) frames(p Publish) []byte {
	b := Frame(KindHeader, ch.number, p.Header)
	if len(p.Body) > 0 {
		b = append(b, Frame(KindBody, ch.number, p.Body)...)
	}
	return b
}

// CloseChannel ends the channel with a reason: a channel exception.
func (ch *Channel) CloseChannel(code uint16, text string) {
	ch.closing.Store(true)
	ch.Send(Method(ch.number, 20, 40, Short(code), ShortText(text), Short(60), Short(40)))
}

// answers are the replies to methods that the server has nothing to do for.
var answers = map[uint32][]byte{
	20<<16 | 10: Method(0, 20, 11, LongText("")), // open
	40<<16 | 10: Method(0, 40, 11),               // exchange: declare
	40<<16 | 20: Method(0, 40, 21),
	50<<16 | 20: Method(0, 50, 21), // queue: bind
	50<<16 | 50: Method(0, 50, 51),
	60<<16 | 10: Method(0, 60, 11), // basic: qos
	60<<16 | 70: Method(0, 60, 72, ShortText("")),
}

func (ch *Channel) method(class, method uint16, r *reader) {
	if ch.closing.Load() && !(class == 20 && method == 41) {
		return // a server drops what comes before the close was answered
	}
	if answer, ok := answers[uint32(class)<<16|uint32(method)]; ok {
		answer = append([]byte{}, answer...)
		answer[1], answer[2] = byte(ch.number>>8), byte(ch.number)
		ch.Send(answer)
		return
	}
	switch uint32(class)<<16 | uint32(method) {
	case 20<<16 | 40: // channel.close
		ch.Send(Method(ch.number, 20, 41))
		delete(ch.channels, ch.number)
	case 20<<16 | 41, 20<<16 | 21: // channel.close-ok, flow-ok
		if method == 41 {
			delete(ch.channels, ch.number)
		}
	case 50<<16 | 10: // queue.declare
		r.short()
		queue, messages, consumers := r.shorttext(), 0, 1
		if f := ch.server.script.Messages; f != nil {
			messages = f(queue)
		}
		if f := ch.server.script.Consumers; f != nil {
			consumers = f(queue)
		}
		ch.Send(Method(ch.number, 50, 11, ShortText(queue), Long(uint32(messages)), Long(uint32(consumers))))
	case 60<<16 | 20: // basic.consume
		ch.consume(r)
	case 60<<16 | 30: // basic.cancel
		ch.Send(Method(ch.number, 60, 31, ShortText(r.shorttext())))
	case 60<<16 | 40: // basic.publish
		r.short()
		ch.publish = &Publish{Exchange: r.shorttext(), Key: r.shorttext(), Mandatory: r.octet()&1 != 0}
	case 60<<16 | 80: // basic.ack
		tag, multiple := r.longlong(), r.octet()&1 != 0
		if f := ch.server.script.Acked; f != nil {
			f(ch, tag, multiple)
		}
	case 85<<16 | 10: // confirm.select
		if r.octet()&1 == 0 {
			ch.Send(Method(ch.number, 85, 11))
		}
	default:
		ch.server.violation("method %d.%d on channel %d", class, method, ch.number)
	}
}

func (ch *Channel) consume(r *reader) {
	r.short()
	queue, consumer := r.shorttext(), r.shorttext()
	if consumer == "" {
		ch.server.violation("a consumer without a tag")
	}
	ch.Send(Method(ch.number, 60, 21, ShortText(consumer)))
	if f := ch.server.script.Consumed; f != nil {
		f(ch, queue, consumer)
	}
}

func (ch *Channel) content(kind byte, payload []byte) {
	p := ch.publish
	switch {
	case kind == KindHeader && !ch.headed:
		id, size, ok := messageID(payload)
		if !ok {
			ch.server.violation("a content header that is too short")
		}
		p.ID, ch.size, p.Header, ch.headed = id, size, payload, true
	case kind == KindBody && ch.headed:
		p.Body = append(p.Body, payload...)
	default:
		ch.server.violation("content out of order on channel %d", ch.number)
	}
	if uint64(len(p.Body)) < ch.size {
		return
	}
	if uint64(len(p.Body)) > ch.size {
		ch.server.violation("%d bytes of body, %d were announced", len(p.Body), ch.size)
	}
	ch.publish, ch.headed = nil, false
	ch.tag++
	p.Tag = ch.tag
	if f := ch.server.script.Published; f != nil {
		f(ch, *p)
		return
	}
	ch.Ack(p.Tag, false)
}
