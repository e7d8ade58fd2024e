package outlast_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/memory"
)

func TestService(t *testing.T) {
	t.Parallel()
	bubble(t, "sends_what_a_handler_publishes_at_once", func(t *testing.T) { testFollowUp(t, (*outlast.Service).Outbox) })
	bubble(t, "sends_at_once_what_a_handler_publishes_with_an_outbox_of_its_own", func(t *testing.T) {
		testFollowUp(t, func(*outlast.Service) *outlast.Outbox { return nil })
	})
	bubble(t, "returns_what_only_a_person_can_change", testPermanent)
	bubble(t, "waits_for_a_database_that_is_down_at_the_start", testLateStore)
	bubble(t, "says_whether_it_is_ready", testHealth)
	bubble(t, "says_that_it_stops", func(t *testing.T) {
		var log strings.Builder
		s, err := outlast.NewService(outlast.ServiceConfig{Name: "orders", Store: memory.NewStore(), Broker: memory.NewBroker(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		stop := runService(t, s)
		if strings.Contains(log.String(), "stopping") {
			t.Errorf("while it runs: %s", log.String())
		}
		if err := stop(); err != nil || !strings.Contains(log.String(), "stopping") {
			t.Errorf("ended with %v: %s", err, log.String())
		}
	})
}

func runService(t *testing.T, s *outlast.Service) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-ended
	}
}

// idleFor runs a service until the test ends, and returns when it has had nothing to do for d.
func idleFor(t *testing.T, s *outlast.Service, d time.Duration) {
	stop := runService(t, s)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(d)
	synctest.Wait()
}

func publish(t *testing.T, store *memory.Store, outbox *outlast.Outbox, msgs ...outlast.Message) {
	t.Helper()
	tx := store.Begin()
	if err := outbox.Publish(context.Background(), tx, msgs...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	outbox.Wake()
}

// testFollowUp uses the outbox that of returns, or one that is made before the
// service when it returns nil.
func testFollowUp(t *testing.T, of func(*outlast.Service) *outlast.Outbox) {
	store := memory.NewStore()
	outbox := outlast.NewOutbox(store)
	var noteAt, orderAt time.Time
	var flow outlast.Envelope
	s, err := outlast.NewService(outlast.ServiceConfig{
		Name: "billing", Store: store, Broker: memory.NewBroker(),
		Relay: outlast.RelayConfig{Interval: time.Hour},
		Handlers: []outlast.Handler{
			outlast.Handle(placed, func(ctx context.Context, tx outlast.Tx, m outlast.Received[order]) error {
				orderAt = time.Now()
				err := outbox.Publish(ctx, tx, noted.Message(note{1}))
				time.Sleep(10*time.Minute + 1500*time.Millisecond) // at the commit the burst of sweeps after Publish is over
				return err
			}, outlast.Deadline(20*time.Minute)),
			outlast.Handle(noted, func(_ context.Context, _ outlast.Tx, m outlast.Received[note]) error {
				noteAt, flow = time.Now(), m.Envelope
				return nil
			}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if o := of(s); o != nil {
		outbox = o
	}
	stop := runService(t, s)
	publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}))
	time.Sleep(15 * time.Minute)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := noteAt.Sub(orderAt); noteAt.IsZero() || took > 10*time.Minute+1600*time.Millisecond {
		t.Errorf("the follow-up came %v after its cause", took)
	}
	if flow.CausationID == "" || flow.CorrelationID != flow.CausationID || flow.Source != "billing" {
		t.Errorf("envelope of the follow-up: %+v", flow)
	}
}

func testPermanent(t *testing.T) {
	store := memory.NewStore()
	if err := store.Migrations().Down(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s, err := outlast.NewService(outlast.ServiceConfig{
		Name: "billing", Store: store, Broker: memory.NewBroker(), WithoutRelay: true, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handlers: []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Errorf("Run returned %v, want the schema's error", err)
	}
	if strings.Contains(log.String(), "trying again") {
		t.Errorf("the log promises what Run does not do: %s", log.String())
	}
	if err := newService(t, store, memory.NewBroker()).Run(context.Background()); outlast.CodeOf(err) != outlast.CodeSchema {
		t.Errorf("with a relay, Run returned %v, want the schema's error", err)
	}
}

func newService(t *testing.T, store *memory.Store, broker *memory.Broker) *outlast.Service {
	t.Helper()
	s, err := outlast.NewService(outlast.ServiceConfig{
		Name: "billing", Store: store, Broker: broker,
		Handlers: []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testLateStore(t *testing.T) {
	store := memory.NewStore(memory.FailNext(memory.RoleCheck, 30), memory.FailNext(memory.RoleInbox, 5))
	stop := runService(t, newService(t, store, memory.NewBroker()))
	time.Sleep(5 * time.Minute)
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func testHealth(t *testing.T) {
	store, broker := memory.NewStore(), memory.NewBroker()
	s := newService(t, store, broker)
	h, err := outlast.NewHealth(s, outlast.HealthConfig{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready before Run: %d", code)
	}
	stop := runService(t, s)
	time.Sleep(time.Minute)
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, body)
	}
	broker.Die()
	time.Sleep(time.Second)
	publish(t, store, s.Outbox(), placed.Message(order{ID: "a"}))
	time.Sleep(2 * time.Minute)
	code, body := get("/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "billing.0") || !strings.Contains(body, "order.placed.v1") {
		t.Errorf("ready without a broker: %d %s", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("live without a broker: %d", code)
	}
	broker.Revive()
	time.Sleep(2 * time.Minute)
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready again: %d %s", code, body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestNewServiceNamesEveryBadField(t *testing.T) {
	t.Parallel()
	type twice struct {
		A string `outlast:"key"`
		B string `outlast:"key"`
	}
	ignore := func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil }
	_, err := outlast.NewService(outlast.ServiceConfig{
		Name: "Bad Name", Store: memory.NewStore(), Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{
			outlast.Handle(placed, ignore),
			outlast.Handle(placed, ignore, outlast.Rate(-1)),
			outlast.Handle(outlast.Event[twice]("twice", 1), func(context.Context, outlast.Tx, outlast.Received[twice]) error { return nil }),
			{},
		},
		Consumer: outlast.ConsumerConfig{Workers: -1, DedupWindow: time.Minute, HandlerDeadline: time.Hour},
		Groups:   []outlast.ConsumerConfig{{Group: "audit"}},
	})
	var e *outlast.Error
	if !errors.As(err, &e) || e.Code != outlast.CodeInvalid {
		t.Fatalf("NewService returned %v", err)
	}
	var fields []string
	for _, f := range e.Fields {
		fields = append(fields, f.Field)
	}
	for _, want := range []string{
		"ServiceConfig.Name", "Handlers[1] order.placed.v1", "Handlers[1] order.placed.v1 Rate", "Handlers[2] twice.v1", "Handlers[3]",
		"ConsumerConfig.Workers", "ConsumerConfig.DedupWindow", "ConsumerConfig.HandlerDeadline", `group "audit": ConsumerConfig.Handlers`,
	} {
		if !slices.ContainsFunc(fields, func(f string) bool { return strings.HasSuffix(f, want) }) {
			t.Errorf("no field %q among %q", want, fields)
		}
	}
}

// badBroker knows without a connection that its settings are wrong.
type badBroker struct {
	*memory.Broker
	address string
}

func (b badBroker) Validate() error {
	return &outlast.Error{Op: "open", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: "address", Limit: "a URL", Given: b.address}}}
}

func TestConstructorsNameTheBadFieldsOfTheBroker(t *testing.T) {
	t.Parallel()
	broker := badBroker{memory.NewBroker(), "first"}
	handlers := []outlast.Handler{outlast.Handle(placed, func(context.Context, outlast.Tx, outlast.Received[order]) error { return nil })}
	store := memory.NewStore()
	_, ofService := outlast.NewService(outlast.ServiceConfig{
		Name: "Bad Name", Store: store, Broker: broker, Handlers: handlers, Relay: outlast.RelayConfig{Lanes: 65},
		Groups: []outlast.ConsumerConfig{{Group: "audit", Handlers: handlers, Broker: badBroker{memory.NewBroker(), "second"}}},
	})
	_, ofRelay := outlast.NewRelay(outlast.RelayConfig{Source: "orders", Store: store, Broker: broker, Lanes: 65})
	_, ofConsumer := outlast.NewConsumer(outlast.ConsumerConfig{Group: "billing", Store: store, Broker: broker, Handlers: handlers, Workers: 2000})
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"service", ofService, []string{"ServiceConfig.Name", "address", "RelayConfig.Lanes", `group "Bad Name": ConsumerConfig.Group`, `group "audit": address`}},
		{"relay", ofRelay, []string{"RelayConfig.Lanes", "address"}},
		{"consumer", ofConsumer, []string{"ConsumerConfig.Workers", "address"}},
	} {
		var e *outlast.Error
		if !errors.As(c.err, &e) || e.Code != outlast.CodeInvalid {
			t.Errorf("%s: %v", c.name, c.err)
			continue
		}
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Field)
		}
		if !slices.Equal(fields, c.want) {
			t.Errorf("%s: fields %q, want %q", c.name, fields, c.want)
		}
	}
}

func TestConsumerTopology(t *testing.T) {
	t.Parallel()
	ignore := func(context.Context, outlast.Tx, outlast.Received[note]) error { return nil }
	c, err := outlast.NewConsumer(outlast.ConsumerConfig{
		Group: "billing", Store: memory.NewStore(), Broker: memory.NewBroker(),
		Handlers: []outlast.Handler{
			outlast.Handle(noted, ignore),
			outlast.Handle(outlast.Command[note]("take.note", 2), ignore),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := c.Topology()
	want := []outlast.Binding{{Exchange: "outlast.events", Type: "note.taken.v1"}, {Exchange: "outlast.commands", Type: "take.note.v2"}}
	if !slices.Equal(g.Bindings, want) || g.Ordered || g.Partitions != 1 || g.Queue(0) != "billing.0" {
		t.Errorf("topology %+v", g)
	}
	if s := c.Settings(); s.Workers != 16 || s.Prefetch != 32 || s.Retry.Attempts != 15 || s.LeaseTTL != 20*time.Second {
		t.Errorf("settings %+v", s)
	}
}
