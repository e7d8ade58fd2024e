package nats

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/internal/tlsfile"
)

const (
	// peekScan bounds how many messages of a stream a Peek looks at.
	peekScan = 10_000
	// presenceWait is how long Depth waits for further subscribers to answer.
	presenceWait = 200 * time.Millisecond
)

type topology struct{ b *broker }

// Topology connects for each call.
func (b *broker) Topology() outlast.TopologyBroker { return topology{b} }

func (t topology) with(ctx context.Context, role string, do func(*link) error) error {
	l, err := t.b.dial(ctx, role, nil)
	if err != nil {
		return err
	}
	defer l.end()
	return do(l)
}

// exchangesOf returns the exchanges that a topology names, in order.
func exchangesOf(t outlast.Topology) []string {
	set := map[string]bool{}
	for _, e := range t.Exchanges {
		set[e.Name] = true
	}
	for _, g := range t.Groups {
		for _, b := range g.Bindings {
			set[b.Exchange] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (t topology) Apply(ctx context.Context, want outlast.Topology) error {
	return t.with(ctx, "topology apply", func(l *link) error {
		level, err := l.apiLevel(ctx)
		if err != nil {
			return err
		}
		for _, exchange := range exchangesOf(want) {
			if err := l.ensureStream(ctx, exchange); err != nil {
				return err
			}
		}
		for _, g := range want.Groups {
			for p := range max(1, g.Partitions) {
				if _, err := l.ensureQueue(ctx, g, p, level); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (t topology) Check(ctx context.Context, want outlast.Topology) (found []outlast.TopologyDifference, err error) {
	err = t.with(ctx, "topology check", func(l *link) error {
		level, err := l.apiLevel(ctx)
		if err != nil {
			return err
		}
		for _, exchange := range exchangesOf(want) {
			if err := checkExchange(exchange); err != nil {
				return err
			}
			info, err := l.streamInfo(ctx, StreamName(exchange))
			switch outlast.CodeOf(err) {
			case "":
				found = append(found, t.b.compareStream(exchange, info.Config).found...)
			case outlast.CodeNotFound:
				if exchange != outlast.CommandExchange || hearsCommands(want.Groups) { // see examineStream
					found = append(found, missing(fmt.Sprintf("stream %q", StreamName(exchange))))
				}
			default:
				return err
			}
		}
		for _, g := range want.Groups {
			for p := range max(1, g.Partitions) {
				d, err := t.checkQueue(ctx, l, g, p, level)
				if err != nil {
					return err
				}
				found = append(found, d...)
			}
		}
		return nil
	})
	return found, err
}

func hearsCommands(groups []outlast.GroupTopology) bool {
	return slices.ContainsFunc(groups, func(g outlast.GroupTopology) bool {
		_, ok := filtersOf(g, 0)[outlast.CommandExchange]
		return ok
	})
}

func missing(object string) outlast.TopologyDifference {
	return outlast.TopologyDifference{Object: object, Want: "present", Have: "missing", Hint: "outlast topology apply"}
}

func (t topology) checkQueue(ctx context.Context, l *link, g outlast.GroupTopology, partition, level int) ([]outlast.TopologyDifference, error) {
	var found []outlast.TopologyDifference
	filters := filtersOf(g, partition)
	for _, exchange := range slices.Sorted(maps.Keys(filters)) {
		stream := StreamName(exchange)
		want := t.b.wantConsumer(g.Queue(partition), g.Ordered, filters[exchange], level)
		info, err := l.consumerInfo(ctx, stream, want.Durable)
		if outlast.CodeOf(err) == outlast.CodeNotFound {
			found = append(found, missing(queueObject(want, stream)))
			continue
		}
		if err != nil {
			return nil, err
		}
		d := compareConsumer(want, info.Config, stream)
		have := filtersOfConsumer(info.Config)
		if have == nil {
			have = []string{">"}
		}
		hint := ""
		if len(missingFilters(have, want.FilterSubjects)) == 0 {
			hint = "it gets types or buckets that the group does not handle here; Outlast removes no binding"
		}
		d.check("filter_subjects", want.FilterSubjects, mergeFilters(nil, have), hint)
		found = append(found, d.found...)
	}
	return found, nil
}

// Depth counts messages that are ready. Messages in hand are not ready while a
// subscriber lives; without one they are.
func (t topology) Depth(ctx context.Context, queue string) (outlast.QueueDepth, error) {
	depth := outlast.QueueDepth{Queue: queue}
	err := t.with(ctx, "topology depth", func(l *link) error {
		return l.eachConsumer(ctx, queue, func(stream string, c *jetstream.ConsumerInfo) error {
			live, err := l.subscribers(ctx, stream, c.Name)
			if err != nil {
				return err
			}
			depth.Messages += int(c.NumPending)
			if live == 0 {
				depth.Messages += c.NumAckPending
			}
			depth.Consumers = max(depth.Consumers, live)
			return nil
		})
	})
	return depth, err
}

// eachConsumer visits the durables of a queue: by its name, or of a foreign queue
// "STREAM/consumer".
func (l *link) eachConsumer(ctx context.Context, queue string, visit func(stream string, c *jetstream.ConsumerInfo) error) error {
	streams, durable := []string(nil), DurableName(queue)
	if stream, name, foreign := strings.Cut(queue, "/"); foreign {
		streams, durable = []string{stream}, name
	} else {
		var err error
		if streams, err = l.streamNames(ctx); err != nil {
			return err
		}
	}
	visited := false
	for _, stream := range streams {
		c, err := l.consumerInfo(ctx, stream, durable)
		if outlast.CodeOf(err) == outlast.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		visited = true
		if err := visit(stream, c); err != nil {
			return err
		}
	}
	if !visited {
		return &outlast.Error{Op: fmt.Sprintf("find queue %q", queue), Code: outlast.CodeNotFound,
			Err: fmt.Errorf("no stream has a consumer %q", durable)}
	}
	return nil
}

// subscribers counts live sessions by asking them: the server itself knows only
// whether requests for messages are waiting.
func (l *link) subscribers(ctx context.Context, stream, durable string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, presenceWait)
	defer cancel()
	sub, err := l.SubscribeSync(l.NewRespInbox())
	if err != nil {
		return 0, l.b.fault("count subscribers", outlast.CodeUnavailable, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := l.PublishRequest(presence(stream, durable), sub.Subject, nil); err != nil {
		return 0, l.b.fault("count subscribers", outlast.CodeUnavailable, err)
	}
	n := 0
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil || m.Header.Get("Status") == "503" {
			return n, nil
		}
		n++
	}
}

// Peek reads the stream itself, from the queue's first message on that is not
// acknowledged (behind those in hand, while a subscriber lives), so that nothing
// changes. It may show a message that this queue has acknowledged out of order and
// that another one still wants, and it looks at 10,000 messages at most.
func (t topology) Peek(ctx context.Context, queue string, n int) ([]*outlast.Delivery, error) {
	var seen []*outlast.Delivery
	err := t.with(ctx, "topology peek", func(l *link) error {
		return l.eachConsumer(ctx, queue, func(stream string, c *jetstream.ConsumerInfo) error {
			live, err := l.subscribers(ctx, stream, c.Name)
			if err != nil {
				return err
			}
			from := c.AckFloor.Stream
			if live > 0 {
				from = c.Delivered.Stream
			}
			more, err := l.peekStream(ctx, queue, stream, filtersOfConsumer(c.Config), from+1, c.Delivered.Stream, n-len(seen))
			seen = append(seen, more...)
			return err
		})
	})
	return seen, err
}

func (l *link) peekStream(ctx context.Context, queue, stream string, filters []string, from, delivered uint64, n int) ([]*outlast.Delivery, error) {
	var seen []*outlast.Delivery
	next := ">"
	if len(filters) == 1 {
		next = filters[0] // the server then skips what is not for this queue
	}
	for range peekScan {
		if len(seen) >= n {
			break
		}
		var got struct {
			Message struct {
				Subject string `json:"subject"`
				Seq     uint64 `json:"seq"`
				Header  []byte `json:"hdrs"`
				Data    []byte `json:"data"`
			} `json:"message"`
		}
		err := l.call(ctx, "STREAM.MSG.GET."+stream, map[string]any{"seq": from, "next_by_subj": next}, &got)
		if outlast.CodeOf(err) == outlast.CodeNotFound {
			break
		}
		if err != nil {
			return seen, err
		}
		from = got.Message.Seq + 1
		wanted := filters == nil || slices.ContainsFunc(filters, func(f string) bool { return covers(f, got.Message.Subject) })
		if !wanted {
			continue
		}
		var h client.Header
		if len(got.Message.Header) > 0 {
			if h, err = client.DecodeHeadersMsg(got.Message.Header); err != nil {
				return seen, l.b.fault("peek "+queue, outlast.CodeInternal, err)
			}
		}
		m, problem := decode(h, got.Message.Data, nil)
		d := outlast.NewDelivery(m, queue, got.Message.Seq <= delivered, nil)
		d.Problem, d.RoutingKey = problem, got.Message.Subject
		seen = append(seen, d)
	}
	return seen, nil
}

// payloadRoom is what a message of the default limits takes.
const payloadRoom = outlast.DefaultMaxBody + outlast.MaxHeaderBytes + 8<<10

func (t topology) Examine(ctx context.Context) ([]outlast.Finding, error) {
	var found []outlast.Finding
	add := func(level outlast.FindingLevel, subject, text, hint, promise string) {
		found = append(found, outlast.Finding{Subject: subject, Level: level, Text: text, Hint: hint, Promise: promise})
	}
	err := t.with(ctx, "doctor", func(l *link) error {
		add(outlast.FindingOK, "nats", fmt.Sprintf("connected to %s, server %s", t.b.address, l.ConnectedServerVersion()), "", "")
		if state, err := l.TLSConnectionState(); err == nil {
			add(outlast.FindingOK, "nats", "encrypted and verified by TLS", "", "")
			found = append(found, tlsfile.Findings("nats", state, l.config, time.Now())...)
		} else if host := t.b.plainTo(); host != "" {
			add(outlast.FindingWarn, "nats", "password and messages travel readable to "+host, "use tls://", "")
		}
		if l.MaxPayload() < payloadRoom {
			add(outlast.FindingWarn, "max_payload", fmt.Sprintf("the server takes messages of %d bytes; bodies and headers may have %d", l.MaxPayload(), payloadRoom),
				"raise max_payload, or lower the limit of bodies", "")
		}
		level, err := l.apiLevel(ctx)
		if err != nil {
			add(outlast.FindingFail, "jetstream", err.Error(), "enable JetStream for this account", "No loss")
			return nil
		}
		if level < resetLevel {
			add(outlast.FindingWarn, "jetstream", fmt.Sprintf("API level %d: ordered groups take one message at a time", level), "use a server with API level 4", "")
		}
		for _, exchange := range []string{outlast.EventExchange, outlast.CommandExchange} {
			if err := t.examineStream(ctx, l, exchange, add); err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

// syncedServer is the name of an embedded server that syncs every message. No server
// tells its sync interval.
const syncedServer = "outlast-embedded"

func (t topology) examineStream(ctx context.Context, l *link, exchange string, add func(level outlast.FindingLevel, subject, text, hint, promise string)) error {
	name := StreamName(exchange)
	subject := fmt.Sprintf("stream %q", name)
	info, err := l.streamInfo(ctx, name)
	switch {
	case err == nil:
	case outlast.CodeOf(err) != outlast.CodeNotFound:
		return err
	case exchange == outlast.CommandExchange:
		add(outlast.FindingOK, subject, "not there, and not needed without commands; made when a group that handles a command subscribes, or by outlast topology apply", "", "")
		return nil
	default:
		add(outlast.FindingWarn, subject, "missing", "outlast topology apply", "")
		return nil
	}
	for _, d := range t.b.compareStream(exchange, info.Config).found {
		add(outlast.FindingFail, subject, d.String(), d.Hint, "No loss")
	}
	switch {
	case info.Config.Replicas != 1:
	case l.ConnectedServerName() == syncedServer:
		add(outlast.FindingOK, subject, "one copy; the embedded server syncs every message before it confirms it, so only a lost disk loses messages", "", "")
	default:
		add(outlast.FindingWarn, subject, "one copy: a lost disk loses what is in it, and a power failure the last seconds unless the server has sync_interval: always",
			"use 3 replicas in a cluster", "No loss")
	}
	add(outlast.FindingOK, subject, fmt.Sprintf("%d messages, %d consumers", info.State.Msgs, info.State.Consumers), "", "")
	return nil
}
