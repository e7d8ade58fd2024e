package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/outlastmq/outlast"
)

// resetLevel is the JetStream API level from which a consumer can be reset to its
// first unacknowledged message.
const resetLevel = 4

// call makes a request of the JetStream API: in as JSON, the answer into out.
func (l *link) call(ctx context.Context, api string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	op := "nats " + api
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return l.b.fault(op, outlast.CodeInternal, err)
		}
	}
	subject := "$JS.API." + api
	m, err := l.RequestWithContext(ctx, subject, body)
	if err != nil {
		return l.callFault(op, subject, err)
	}
	var fail struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &fail); err != nil {
		return l.b.fault(op, outlast.CodeInternal, err)
	}
	if fail.Error != nil {
		return l.b.fault(op, fail.Error.kind(), fail.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Data, out); err != nil {
		return l.b.fault(op, outlast.CodeInternal, err)
	}
	return nil
}

func (l *link) callFault(op, subject string, err error) error {
	if errors.Is(err, client.ErrNoResponders) {
		e := l.b.fault(op, outlast.CodeUnavailable, err)
		e.Hint = "is JetStream enabled for this account?"
		return e
	}
	// A missing right shows as an error of the connection and a request that is never
	// answered.
	for {
		select {
		case denied := <-l.denied:
			if denied == subject {
				return &outlast.Error{Op: op, Code: outlast.CodeDenied, Hint: fmt.Sprintf("grant publishing to %q", subject)}
			}
			continue
		default:
		}
		return l.b.fault(op, outlast.CodeUnavailable, err)
	}
}

// apiLevel returns what the server's JetStream can do; 0 for old servers.
func (l *link) apiLevel(ctx context.Context) (int, error) {
	var info struct {
		API struct {
			Level int `json:"level"`
		} `json:"api"`
	}
	err := l.call(ctx, "INFO", nil, &info)
	return info.API.Level, err
}

func (l *link) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	var info jetstream.StreamInfo
	if err := l.call(ctx, "STREAM.INFO."+stream, nil, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

func (l *link) streamNames(ctx context.Context) ([]string, error) {
	var names []string
	for {
		var page struct {
			Total   int      `json:"total"`
			Streams []string `json:"streams"`
		}
		if err := l.call(ctx, "STREAM.NAMES", map[string]int{"offset": len(names)}, &page); err != nil {
			return nil, err
		}
		names = append(names, page.Streams...)
		if len(page.Streams) == 0 || len(names) >= page.Total {
			return names, nil
		}
	}
}

func (l *link) consumerInfo(ctx context.Context, stream, durable string) (*jetstream.ConsumerInfo, error) {
	var info jetstream.ConsumerInfo
	if err := l.call(ctx, "CONSUMER.INFO."+stream+"."+durable, nil, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// putConsumer creates or updates: action is "create" or "update".
func (l *link) putConsumer(ctx context.Context, stream, action string, c jetstream.ConsumerConfig) error {
	in := map[string]any{"stream_name": stream, "action": action, "config": c}
	return l.call(ctx, "CONSUMER.CREATE."+stream+"."+c.Durable, in, nil)
}

// resetConsumer sets a consumer back to its first unacknowledged message. What it
// had given to anybody counts as never given; its delivery numbers start at 1.
func (l *link) resetConsumer(ctx context.Context, stream, durable string) error {
	return l.call(ctx, "CONSUMER.RESET."+stream+"."+durable, nil, nil)
}

// filtersOfConsumer returns what a consumer wants; nil means everything.
func filtersOfConsumer(c jetstream.ConsumerConfig) []string {
	if len(c.FilterSubjects) > 0 {
		return c.FilterSubjects
	}
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return nil
}

// durableFilters returns the filter subjects of a stream's durable consumers by
// their names. Other consumers keep nothing for a group that is away, so they do
// not count. missing are durables that did not answer in time (in a cluster).
func (l *link) durableFilters(ctx context.Context, stream string) (filters map[string][]string, missing []string, err error) {
	filters = map[string][]string{}
	for seen := 0; ; {
		var page struct {
			Total     int                       `json:"total"`
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
			Missing   []string                  `json:"missing"`
		}
		if err := l.call(ctx, "CONSUMER.LIST."+stream, map[string]int{"offset": seen}, &page); err != nil {
			return nil, nil, err
		}
		for _, c := range page.Consumers {
			if c.Config.Durable == "" {
				continue
			}
			f := filtersOfConsumer(c.Config)
			if f == nil {
				f = []string{">"}
			}
			filters[c.Name] = f
		}
		missing = append(missing, page.Missing...)
		seen += len(page.Consumers) + len(page.Missing)
		if len(page.Consumers) == 0 || seen >= page.Total {
			return filters, missing, nil
		}
	}
}
