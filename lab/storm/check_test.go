package storm

import (
	"database/sql"
	"reflect"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outlastmq/outlast/lab/servers"
	"github.com/outlastmq/outlast/lab/storm/role"
	"github.com/outlastmq/outlast/postgres"
)

// planted is what a broken system would have left in its ledgers: for the group audit, one of
// each kind; and a dead letter that was replayed, with good reason.
const planted = `
	INSERT INTO ledger_sent (id, type, key, n, poison) VALUES
		('good', 'order.placed.v1', 'k', 1, false), ('lost', 'order.placed.v1', 'k', 2, false), ('twice', 'order.placed.v1', 'k', 3, false),
		('early', 'order.placed.v1', 'j', 2, false), ('late', 'order.placed.v1', 'j', 1, false), ('other', 'order.changed.v1', 'i', 1, false),
		('across', 'order.placed.v1', 'i', 2, false), ('spared', 'order.placed.v1', 'h', 1, true), ('dead', 'order.placed.v1', 'h', 2, true),
		('innocent', 'order.placed.v1', 'h', 3, false), ('gone', 'order.changed.v1', 'h', 4, false), ('unheard', 'order.noted.v1', '', 0, false),
		('cured', 'order.placed.v1', 'h', 0, true);
	INSERT INTO ledger_cured (id) VALUES ('cured');
	INSERT INTO ledger_effect (grp, source, id, type, key, n, attempt, process, pid)
		SELECT 'audit', 'orders', e.id, 'order.' || e.t || '.v1', e.key, e.n, 1, 'audit-1', 1 FROM (VALUES ('good', 'placed', 'k', 1), ('twice', 'placed', 'k', 3), ('twice', 'placed', 'k', 3),
			('early', 'placed', 'j', 2), ('late', 'placed', 'j', 1), ('across', 'placed', 'i', 2), ('other', 'changed', 'i', 1), ('spared', 'placed', 'h', 1), ('ghost', 'placed', 'g', 1), ('cured', 'placed', 'h', 0)) e (id, t, key, n);
	INSERT INTO outlast_dead (grp, source, id, type, envelope, body, reason) SELECT 'audit', 'orders', d, 'order.placed.v1', '{}', '', 'verdict' FROM unnest(ARRAY['dead', 'innocent']) d;`

func TestLedgersFindWhatIsBroken(t *testing.T) {
	t.Parallel()
	server, err := servers.Postgres(t.Context(), servers.PostgresConfig{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	db, err := postgres.Open(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := role.Prepare(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), planted); err != nil {
		t.Fatal(err)
	}
	// The last but one, and what came before of its type, was written while a binding was gone.
	s := &stage{databases: map[string]*sql.DB{"orders": db, "audit": db}, gaps: []gap{{Group: "audit", Types: []string{"order.changed.v1"}, To: 11, What: "a test"}}}
	// Both were brought back: one whose cause was put right, late; and one that had to die again.
	s.replayed.Store([2]string{"audit", "cured"}, true)
	s.replayed.Store([2]string{"audit", "spared"}, true)
	c := course{inOrder: map[string]bool{}}
	got, err := s.account(t.Context(), "audit", &c, true)
	if err != nil {
		t.Fatal(err)
	}
	got.judgeOrder(0, []course{c}, s.gaps)
	want := Account{Group: "audit", Committed: 12, Effects: 10, Dead: 2, Lost: 1, Explained: 1, Ghosts: 1, Doubled: 1, Inverted: 1, Across: 1, Innocent: 1, Spared: 1}
	stories := got.Stories
	got.Stories = nil
	if !reflect.DeepEqual(got, want) || len(stories) != 6 {
		t.Errorf("found %+v\nwant  %+v\nstories %q, want 6", got, want, stories)
	}
	if broken := got.Broken(); len(broken) != 6 {
		t.Errorf("broken: %q, want 6 kinds", broken)
	}

	// A run that did not come to rest may have left it in a queue, which is what it is then told for.
	rabbit, err := servers.RabbitMQ(t.Context(), servers.RabbitConfig{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rabbit.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.rabbit = rabbit
	err = s.onChannel(t.Context(), func(ch *amqp.Channel) error {
		for partition := range role.Partitions {
			if _, err := ch.QueueDeclare(groupTopology("audit").Queue(partition), true, false, false, false, nil); err != nil {
				return err
			}
		}
		return ch.Publish("", groupTopology("audit").Queue(1), false, false, amqp.Publishing{MessageId: "lost"})
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		stuck, err := s.account(t.Context(), "audit", &course{inOrder: map[string]bool{}}, false)
		if err != nil {
			t.Fatal(err)
		}
		if stuck.Lost != 0 || stuck.Waiting != 1 {
			t.Errorf("of what lies in a queue, %d count as lost and %d as waiting; want 0 and 1", stuck.Lost, stuck.Waiting)
		}
	}
}

// TestOrderIsExcusedOnlyByWhatWeDid: a message that came late is excused when we kept its first copy
// from the group, and another group had it in order; nothing less excuses it.
func TestOrderIsExcusedOnlyByWhatWeDid(t *testing.T) {
	gaps := []gap{{Group: "audit", Types: []string{"order.placed.v1"}, To: 7}}
	late := func(seq int64) course {
		return course{inverted: []inversion{{id: "m", typ: "order.placed.v1", seq: seq}}}
	}
	elsewhere := course{inOrder: map[string]bool{"m": true}}
	for _, c := range []struct {
		what    string
		courses []course
		excused bool
	}{
		{"missed by our hand, in order elsewhere", []course{late(7), elsewhere}, true},
		{"missed by our hand, late elsewhere too", []course{late(7), late(7)}, false},
		{"written after all was there, in order elsewhere", []course{late(8), elsewhere}, false},
	} {
		a := Account{Group: "audit"}
		if a.judgeOrder(0, c.courses, gaps); (a.Delayed == 1) != c.excused || a.Delayed+a.Inverted != 1 {
			t.Errorf("%s: %+v", c.what, a)
		}
	}
}

// TestWhatAFaultConcerns: the checker excuses a commit that failed by what was broken then.
func TestWhatAFaultConcerns(t *testing.T) {
	for name, want := range map[string]string{
		"kill rabbit1": "broker", "kill all nodes": "broker", "restart every node in turn": "broker", "isolate rabbit2": "broker", "alarm: disk of rabbit1": "broker",
		"delete queue audit.0": "broker", "delete bindings of billing to order.placed.v1": "broker", wrong: "broker",
		"restart every database in turn": "database", "end sessions of audit": "database", "migrate the tables": "database", "kill standby": "database", "freeze pgbouncer1": "database",
		"fill the disk of postgres2": "database", "clock of the databases +12 s": "clock", "kill relay-1": "relay", "kill late-1": "consumer", "freeze billing-2": "consumer",
		"replay dead letters of audit": "consumer", "cut producer-1 - postgres": "producer", "restart every process in turn": "producer",
	} {
		if got := concern(name); got != want {
			t.Errorf("%q concerns the %s, want the %s", name, got, want)
		}
	}
}
