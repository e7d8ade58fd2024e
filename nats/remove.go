package nats

import (
	"context"

	"github.com/outlastmq/outlast"
)

// Remove deletes the durable consumers of a group, and the messages of its types from
// their streams. It is for tools that made the group and its types themselves: other
// groups lose the messages too. A consumer that is not there is no error.
func (t topology) Remove(ctx context.Context, g outlast.GroupTopology) error {
	return t.with(ctx, "topology remove", func(l *link) error {
		for p := range max(1, g.Partitions) {
			for exchange := range filtersOf(g, p) {
				err := l.call(ctx, "CONSUMER.DELETE."+StreamName(exchange)+"."+DurableName(g.Queue(p)), nil, nil)
				if err != nil && outlast.CodeOf(err) != outlast.CodeNotFound {
					return err
				}
			}
		}
		for _, b := range g.Bindings {
			in := map[string]string{"filter": b.Exchange + "." + b.Type + ".>"}
			err := l.call(ctx, "STREAM.PURGE."+StreamName(b.Exchange), in, nil)
			if err != nil && outlast.CodeOf(err) != outlast.CodeNotFound {
				return err
			}
		}
		return nil
	})
}
