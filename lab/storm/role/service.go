package role

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

// Settings that recover quickly; in production the defaults are better.
const (
	lease     = 3 * time.Second
	heartbeat = 1500 * time.Millisecond
	interval  = 200 * time.Millisecond
	// Partitions is the number of queues of each group.
	Partitions = 2
)

var retries = outlast.RetryPolicy{Attempts: 200, First: 50 * time.Millisecond, Longest: 2 * time.Second}

func (s Spec) broker() outlast.Broker {
	return rabbitmq.Broker(s.Broker, rabbitmq.ConnectionName(s.Name), rabbitmq.AllowPlain(), rabbitmq.MaxBackoff(2*time.Second), rabbitmq.Logger(s.logger()))
}

// relay delivers the outbox of orders. It listens for the producers' wake-ups; one behind a
// pooler does so in vain.
func (s Spec) relay(ctx context.Context, r *recording) error {
	db := s.open(ctx)
	if db == nil {
		return nil
	}
	defer db.Close()
	relay, err := outlast.NewRelay(woken(outlast.RelayConfig{
		Source: "orders", Store: postgres.Store(db), Broker: s.broker(), Owner: s.owner(),
		LeaseTTL: lease, Interval: interval, ConfirmDeadline: 5 * time.Second, Hooks: r.hooks(), Logger: s.logger(),
	}))
	if err != nil {
		return err
	}
	end := r.resources(ctx, func(context.Context) bool {
		h := relay.Health()
		return h.Link.State == outlast.LinkUp && h.StoreError == ""
	})
	defer end()
	return relay.Run(ctx)
}

// serve handles what the group hears, and relays what it answers. The outbox of orders
// has relays of its own.
func (s Spec) serve(ctx context.Context, r *recording) error {
	db := s.open(ctx)
	if db == nil {
		return nil
	}
	defer db.Close()
	store := postgres.Store(db)
	service, err := outlast.NewService(outlast.ServiceConfig{
		Name: s.Role, Store: store, Broker: s.broker(), Handlers: s.handlers(outlast.NewOutbox(store, outlast.OutboxConfig{Hooks: r.hooks()})),
		Middleware:   r.middleware(),
		Consumer:     outlast.ConsumerConfig{Partitions: Partitions, Workers: 4, Batch: s.ConsumerBatch, Retry: retries, LeaseTTL: lease, HeartbeatInterval: heartbeat, Instance: s.owner()},
		Relay:        outlast.RelayConfig{LeaseTTL: lease, Interval: interval, Owner: s.owner(), ConfirmDeadline: 5 * time.Second},
		WithoutRelay: s.Role != "billing", Hooks: r.hooks(), Logger: s.logger(),
	})
	if err != nil {
		return err
	}
	health, err := outlast.NewHealth(service, outlast.HealthConfig{})
	if err != nil {
		return err
	}
	end := r.resources(ctx, func(ctx context.Context) bool { return health.Ready(ctx).Ready })
	defer end()
	return service.Run(ctx)
}

// owner names one life of a process.
func (s Spec) owner() string { return s.Name + "/" + outlast.NewID()[24:] }

func (s Spec) handlers(outbox *outlast.Outbox) []outlast.Handler {
	heard := func(c outlast.Contract[Note]) outlast.Handler {
		return outlast.Handle(c, func(ctx context.Context, tx outlast.Tx, m outlast.Received[Note]) error {
			return s.note(ctx, tx, outbox, m)
		})
	}
	switch s.Role {
	case "orders":
		return []outlast.Handler{heard(Billed)}
	case "late":
		return []outlast.Handler{heard(Placed)}
	case "audit":
		return []outlast.Handler{heard(Placed), heard(Changed)}
	}
	loose := outlast.Handle(Noted, func(ctx context.Context, tx outlast.Tx, m outlast.Received[Loose]) error {
		if err := s.noteEffect(ctx, tx, m.Envelope, "", 0, m.Attempt); err != nil {
			return err
		}
		return s.verdict(ctx, tx, m.ID, m.Body.Poison)
	})
	return []outlast.Handler{heard(Placed), heard(Changed), loose}
}

func (s Spec) note(ctx context.Context, tx outlast.Tx, outbox *outlast.Outbox, m outlast.Received[Note]) error {
	if err := s.noteEffect(ctx, tx, m.Envelope, m.Body.Key, m.Body.N, m.Attempt); err != nil {
		return err
	}
	if s.Role == "billing" && m.Type == Placed.Type() && !m.Body.Poison {
		if err := publishNote(ctx, tx, outbox, Billed, m.Body.Key, false); err != nil {
			return err
		}
	}
	return s.verdict(ctx, tx, m.ID, m.Body.Poison)
}

// verdict draws what a handler of real life may come to, after its effects were written.
func (s Spec) verdict(ctx context.Context, tx outlast.Tx, id string, poison bool) error {
	if poison {
		if ill, err := ill(ctx, tx, id); err != nil || !ill {
			return err
		}
		return outlast.DeadLetter(errors.New("poison"))
	}
	if rand.IntN(1000) >= s.Trouble {
		return nil
	}
	switch rand.IntN(10) {
	case 0:
		panic("drawn by lot")
	case 1:
		return outlast.Snooze(300 * time.Millisecond)
	case 2:
		return outlast.Unavailable(errors.New("drawn by lot"))
	case 3, 4:
		pause(ctx, time.Second)
		return nil
	default:
		return errors.New("drawn by lot")
	}
}

// OldTables is the version of Outlast's tables that a storm begins with: the oldest that the
// present build works on.
const OldTables = 1

// Prepare makes the tables of a service.
func Prepare(ctx context.Context, db *sql.DB) error {
	if err := postgres.Store(db).Migrations().Up(ctx, OldTables); err != nil {
		return err
	}
	if err := prepareHistory(ctx, db); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, Tables)
	return err
}
