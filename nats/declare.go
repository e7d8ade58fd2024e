package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
)

// Metadata that Outlast leaves on what it creates, for people and for itself.
const (
	metaExchange = "outlast-exchange"
	metaQueue    = "outlast-queue"
)

// maxAckPending bounds what all instances of a group have in hand together. Each
// instance bounds itself by its prefetch.
const maxAckPending = 65_535

func (b *broker) wantStream(exchange string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              StreamName(exchange),
		Subjects:          []string{streamSubject(exchange)},
		Retention:         jetstream.InterestPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardNew,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		Replicas:          max(1, b.replicas),
		Metadata:          map[string]string{metaExchange: exchange},
	}
}

func (b *broker) wantConsumer(queue string, ordered bool, filters []string, level int) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Name:           DurableName(queue),
		Durable:        DurableName(queue),
		DeliverPolicy:  jetstream.DeliverNewPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        b.ackWait,
		MaxDeliver:     -1,
		MaxAckPending:  maxAckPending,
		FilterSubjects: filters,
		Metadata:       map[string]string{metaQueue: queue},
	}
	if ordered && level < resetLevel {
		c.MaxAckPending = 1
	}
	return c
}

// differ collects the properties in which something is not as wanted.
type differ struct {
	object string
	found  []outlast.TopologyDifference
}

func (d *differ) check(property string, want, have any, hint string) {
	if w, h := fmt.Sprint(want), fmt.Sprint(have); w != h {
		d.found = append(d.found, outlast.TopologyDifference{Object: d.object, Property: property, Want: w, Have: h, Hint: hint})
	}
}

// conflict is the error for what must not differ.
func (d *differ) conflict() error {
	if len(d.found) == 0 {
		return nil
	}
	var text []string
	var hint string
	for _, f := range d.found {
		text = append(text, fmt.Sprintf("%s: want %s, have %s", f.Property, f.Want, f.Have))
		if f.Hint != "" {
			hint = f.Hint
		}
	}
	return &outlast.Error{Op: "declare " + d.object, Code: outlast.CodeConflict, Err: errors.New(strings.Join(text, "; ")), Hint: hint}
}

func (b *broker) compareStream(exchange string, have jetstream.StreamConfig) *differ {
	want := b.wantStream(exchange)
	d := &differ{object: fmt.Sprintf("stream %q", want.Name)}
	d.check("subjects", want.Subjects, have.Subjects, "")
	d.check("retention", want.Retention, have.Retention, "the server cannot change it: drain and recreate the stream")
	d.check("storage", want.Storage, have.Storage, "the server cannot change it: drain and recreate the stream")
	d.check("discard", want.Discard, have.Discard, "a full stream must refuse messages, not drop old ones")
	d.check("max_age", want.MaxAge, have.MaxAge, "an age limit drops messages that a group has not handled")
	d.check("max_msgs_per_subject", want.MaxMsgsPerSubject, have.MaxMsgsPerSubject, "it would drop messages that a group has not handled")
	d.check("no_ack", false, have.NoAck, "nothing could be confirmed")
	d.check("sealed", false, have.Sealed, "")
	d.check("max_consumers", want.MaxConsumers, have.MaxConsumers, "")
	if b.replicas != 0 {
		d.check("replicas", want.Replicas, have.Replicas, "")
	}
	return d
}

// compareConsumer compares everything but the filters, which can be added to.
func compareConsumer(want, have jetstream.ConsumerConfig, stream string) *differ {
	d := &differ{object: queueObject(want, stream)}
	d.check("ack_policy", want.AckPolicy, have.AckPolicy, "")
	d.check("deliver_subject", "", have.DeliverSubject, "a pull consumer is needed")
	d.check("max_deliver", want.MaxDeliver, have.MaxDeliver, "a limit drops messages; Outlast counts attempts itself")
	d.check("inactive_threshold", want.InactiveThreshold, have.InactiveThreshold, "it would delete the group's consumer while the group is away")
	d.check("headers_only", false, have.HeadersOnly, "")
	d.check("backoff", 0, len(have.BackOff), "it replaces the wait for signs of life")
	d.check(metaQueue, want.Metadata[metaQueue], have.Metadata[metaQueue], "a consumer that Outlast did not create")
	if (want.MaxAckPending == 1) != (have.MaxAckPending == 1) {
		d.check("max_ack_pending", want.MaxAckPending, have.MaxAckPending, "whether it is 1 decides how order is kept; change it with the group stopped")
	}
	return d
}

// queueObject names a durable by its queue as well.
func queueObject(c jetstream.ConsumerConfig, stream string) string {
	return fmt.Sprintf("queue %q (consumer %q of stream %q)", c.Metadata[metaQueue], c.Durable, stream)
}

func (l *link) ensureStream(ctx context.Context, exchange string) error {
	if err := checkExchange(exchange); err != nil {
		return err
	}
	want := l.b.wantStream(exchange)
	info, err := l.streamInfo(ctx, want.Name)
	if outlast.CodeOf(err) == outlast.CodeNotFound {
		err = l.call(ctx, "STREAM.CREATE."+want.Name, want, nil)
		var api *apiError
		if err == nil || !errors.As(err, &api) || jetstream.ErrorCode(api.ErrCode) != jetstream.JSErrCodeStreamNameInUse {
			return err
		}
		info, err = l.streamInfo(ctx, want.Name) // somebody was quicker
	}
	if err != nil {
		return err
	}
	return l.b.compareStream(exchange, info.Config).conflict()
}

// ensureQueue declares the durables of one partition and adds filters that are
// missing. changed says that an existing one was changed.
func (l *link) ensureQueue(ctx context.Context, g outlast.GroupTopology, partition, level int) (changed bool, err error) {
	queue := g.Queue(partition)
	filters := filtersOf(g, partition)
	for _, exchange := range slices.Sorted(maps.Keys(filters)) {
		if err := l.ensureStream(ctx, exchange); err != nil {
			return changed, err
		}
		want := l.b.wantConsumer(queue, g.Ordered, filters[exchange], level)
		did, err := l.ensureConsumer(ctx, StreamName(exchange), want)
		changed = changed || did
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// ensureConsumer runs again when another instance changes the consumer meanwhile.
func (l *link) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) (changed bool, err error) {
	for range 5 {
		info, err := l.consumerInfo(ctx, stream, want.Durable)
		if outlast.CodeOf(err) == outlast.CodeNotFound {
			err = l.putConsumer(ctx, stream, "create", want)
			if err == nil || outlast.CodeOf(err) != outlast.CodeConflict {
				return false, err
			}
			continue
		}
		if err != nil {
			return changed, err
		}
		if err := compareConsumer(want, info.Config, stream).conflict(); err != nil {
			return changed, err
		}
		have := filtersOfConsumer(info.Config)
		if have == nil || len(missingFilters(have, want.FilterSubjects)) == 0 {
			return changed, nil
		}
		info.Config.FilterSubject = ""
		info.Config.FilterSubjects = mergeFilters(have, want.FilterSubjects)
		if err := l.putConsumer(ctx, stream, "update", info.Config); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, &outlast.Error{Op: fmt.Sprintf("declare consumer %q of stream %q", want.Durable, stream), Code: outlast.CodeUnavailable,
		Err: errors.New("somebody else keeps changing it")}
}

// durable names a consumer.
type durable struct{ stream, name string }

// feed is one durable that a queue consists of.
type feed struct {
	durable
	strict  bool // one message in hand at a time, by the server's setting
	ackWait time.Duration

	// delivered is the last sequence that some earlier session was given.
	delivered uint64
	// next and last follow the deliveries of an ordered session.
	next, last uint64

	room, inHand int
	// asked is what is left of the request under way, which is named by token and
	// must be used up or called over before the deadline.
	asked    int
	token    string
	deadline time.Time
}

// feedsOf finds the durables of a queue: on the streams of its bindings, where each
// must exist, and on any other that carries this queue's name, so that messages of
// a type that is no longer bound are still taken.
func (l *link) feedsOf(ctx context.Context, queue string, exchanges []string) ([]*feed, error) {
	var feeds []*feed
	needed := map[string]bool{}
	for _, exchange := range exchanges {
		needed[StreamName(exchange)] = true
	}
	streams := slices.Sorted(maps.Keys(needed))
	names, err := l.streamNames(ctx)
	if err != nil && outlast.CodeOf(err) != outlast.CodeDenied {
		return nil, err
	}
	for _, name := range names {
		if !needed[name] {
			streams = append(streams, name)
		}
	}
	for _, stream := range streams {
		info, err := l.consumerInfo(ctx, stream, DurableName(queue))
		if outlast.CodeOf(err) == outlast.CodeNotFound && !needed[stream] {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !needed[stream] && info.Config.Metadata[metaQueue] != queue {
			continue
		}
		feeds = append(feeds, newFeed(stream, info))
	}
	if len(feeds) == 0 {
		return nil, &outlast.Error{Op: fmt.Sprintf("find queue %q", queue), Code: outlast.CodeNotFound,
			Err: fmt.Errorf("no stream has a consumer %q", DurableName(queue))}
	}
	return feeds, nil
}

func newFeed(stream string, info *jetstream.ConsumerInfo) *feed {
	return &feed{
		durable: durable{stream, info.Name}, strict: info.Config.MaxAckPending == 1,
		ackWait: info.Config.AckWait, delivered: info.Delivered.Stream,
	}
}
