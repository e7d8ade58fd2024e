package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/memory"
)

func declared(partitions int) outlast.Topology {
	return outlast.Topology{Exchanges: []outlast.Exchange{{Name: outlast.EventExchange}}, Groups: []outlast.GroupTopology{
		{Group: group, Partitions: partitions, Generation: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: typ}}}}}
}

// withBroker gives the console a broker with what is declared for so many partitions.
func withBroker(t *testing.T, partitions int, change ...func(*console.Config)) (*fixture, *memory.Broker) {
	t.Helper()
	b := memory.NewBroker()
	f := newFixture(t, append([]func(*console.Config){func(c *console.Config) { c.Broker = b }}, change...)...)
	if partitions > 0 {
		f.must(b.Topology().Apply(t.Context(), declared(partitions)))
	}
	return f, b
}

func declare(partitions int) func(*console.Config) {
	return func(c *console.Config) { c.Declared = declared(partitions) }
}

func lacks(t *testing.T, a answer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.words(), text) {
			t.Errorf("it says %q:\n%s", text, a.words())
		}
	}
}

// rowOf is the row of a table that begins with a name.
func rowOf(t *testing.T, a answer, name string) string {
	t.Helper()
	for row := range strings.SplitSeq(a.text, "<tr>") {
		if strings.HasPrefix(row, `<th scope="row">`+name+"<") {
			row, _, _ = strings.Cut(row, "</tr>")
			return answer{text: strings.ReplaceAll(row, "</t", " </t")}.words()
		}
	}
	t.Fatalf("no row of %q in\n%s", name, a.words())
	return ""
}

func TestQueuesOfKnownGroups(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 2)
	f.must(f.billing.Journal().Hear(t.Context(), "stock", []string{typ}))
	b.PublishForeign(outlast.EventExchange, typ+".0", nil, "", []byte("{}"))
	a := f.page("queues", "1 message in billing.0, and nobody consumes it: is billing up?", "stock has no queue stock.0")
	for name, want := range map[string]string{"billing.0": "billing there 1 0", "billing.1": "billing there 0 0", "stock.0": "stock missing none none"} {
		if got := strings.Join(strings.Fields(rowOf(t, a, name)), " "); got != name+" "+want {
			t.Errorf("the row of %s is %q, want %q", name, got, want)
		}
	}
	lacks(t, a, "billing.2", "stock.1")
	f, _ = withBroker(t, 1)
	f.page("queues", "Every queue is there and is consumed, or empty.")
	f, b = withBroker(t, 1)
	f.must(f.billing.Operator().SetPaused(t.Context(), group, true, outlast.Action{Who: "ada"}))
	b.PublishForeign(outlast.EventExchange, typ+".0", nil, "", []byte("{}"))
	f.page("queues", "1 message in billing.0, while billing is paused by ada.")
}

// A queue that is declared is missing when it is not there, also behind others.
func TestQueuesThatAreDeclared(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 3, declare(3))
	f.must(b.DeleteQueue("billing.1"))
	a := f.page("queues", "billing.1 is missing: messages for billing cannot get there.")
	if !strings.Contains(rowOf(t, a, "billing.2"), "there") {
		t.Error("what is behind a missing queue is not looked at")
	}
}

// What the broker does not say is unknown, and never 0 or fine.
func TestABrokerThatIsDownIsUnknown(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 2, declare(2))
	b.Die()
	a := f.page("queues", "The broker does not say anything of its queues", "What lies in them is not known", "the broker is down")
	if got := strings.Join(strings.Fields(rowOf(t, a, "billing.0")), " "); got != "billing.0 billing unknown unknown unknown" {
		t.Errorf("its row is %q", got)
	}
	lacks(t, a, "Every queue is there", "missing")
	a = f.page("topology", "The broker does not answer, so whether anything differs is unknown", "the broker is down")
	lacks(t, a, "No difference", "missing")
	undeclared, b := withBroker(t, 2)
	b.Die()
	lacks(t, undeclared.page("topology", "whether anything differs is unknown"), "No difference", "There is no queue")
	lacks(t, undeclared.page("queues", "does not say anything"), "missing")
}

func TestTopologyDeclaredAgainstObserved(t *testing.T) {
	t.Parallel()
	f, _ := withBroker(t, 2, declare(2))
	f.page("topology", "Declared against observed", "No difference: 2 queues as declared.", "Who hears what", "hears it")
	f, b := withBroker(t, 2, declare(2))
	f.must(b.DeleteQueue("billing.1"))
	f.must(b.Unbind("billing.0", outlast.EventExchange, typ+".2"))
	a := f.page("topology", `Queue "billing.1" is missing.`, `Queue "billing.0" binding `+typ+`.2 on outlast.events is not bound, and should be bound.`,
		"outlast topology apply declares what is missing")
	lacks(t, a, "No difference")
	f, _ = withBroker(t, 0, declare(1))
	f.page("topology", `Exchange "outlast.events" is missing.`, `Queue "billing.0" is missing.`)
	f, _ = withBroker(t, 1, declare(1), func(c *console.Config) {
		c.Declared.Groups = append(c.Declared.Groups, outlast.GroupTopology{Group: "mail", Partitions: 1, Bindings: c.Declared.Groups[0].Bindings})
	})
	f.must(f.billing.Journal().Hear(t.Context(), group, []string{"order.paid.v1"}))
	f.page("topology", "No database that was asked knows the group mail.", "billing says that it hears order.paid.v1, which is not declared.")
}

// What is missing is declared by whoever may configure the group, and the record says who.
func TestDeclareWhatIsMissing(t *testing.T) {
	t.Parallel()
	fine, _ := withBroker(t, 2, declare(2))
	lacks(t, fine.page("topology"), "Declare what is missing")
	f, b := withBroker(t, 2, declare(2))
	f.must(b.DeleteQueue("billing.1"))
	f.who = "viewer"
	lacks(t, f.page("topology", `Queue "billing.1" is missing.`), "Declare what is missing")
	f.who = "boss"
	f.page("topology", "Declare what is missing")
	lacks(t, f.page(f.done("declare", "group", group, "reason", "deleted by mistake"), "What was missing is declared", "2 queues as declared"), "is missing.")
	f.page("audit", "declare", "queues of billing", "deleted by mistake", "declared")
	if a := f.post("declare", "group", "mail", "reason", "x"); a.status != http.StatusNotFound {
		t.Errorf("a group that is not declared: %d", a.status)
	}
	// An exchange is missing, of which the queues say nothing.
	bare, _ := withBroker(t, 0, declare(1))
	lacks(t, bare.page(bare.done("declare", "group", group, "reason", "a new broker"), "1 queue as declared"), "is missing.", "Declare what is missing")
	b.Die()
	if a := f.post("declare", "group", group, "reason", "x"); a.status < 500 {
		t.Errorf("without the broker: %d", a.status)
	}
}

// Without a declared topology nothing is compared, and the page says so.
func TestTopologyOfGroupsThatAreNotDeclared(t *testing.T) {
	t.Parallel()
	f, _ := withBroker(t, 2)
	f.page("topology", "Nobody has told this console what is declared", "No difference: 2 queues. Nobody has declared what they should be, so nothing was compared.")
	f, _ = withBroker(t, 0)
	f.page("topology", "There is no queue billing.0.", "A consumer of the group makes it when it starts.")
	f = newFixture(t)
	lacks(t, f.page("topology", "outlast topology check"), "Declared against observed")
	if a := f.get("queues"); a.status != http.StatusNotFound {
		t.Errorf("queues without a broker: %d", a.status)
	}
	lacks(t, f.page(""), "Queues")
}

func TestS31_QueuesAndTopologyAskForTheirPermission(t *testing.T) {
	t.Parallel()
	f, b := withBroker(t, 1, declare(1), func(c *console.Config) {
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "down", "***") }
	})
	f.must(b.DeleteQueue("billing.0"))
	for who, want := range map[string]int{"nobody": http.StatusForbidden, "": http.StatusUnauthorized} {
		f.who = who
		if a := f.get("queues"); a.status != want {
			t.Errorf("%q sees queues: %d, want %d", who, a.status, want)
		}
	}
	f.who = "other"
	for _, path := range []string{"queues", "topology"} {
		lacks(t, f.page(path, "within your permissions"), "billing")
	}
	f, b = withBroker(t, 1, func(c *console.Config) {
		c.Redact = func(s string) string { return strings.ReplaceAll(s, "down", "***") }
	})
	b.Die()
	for _, path := range []string{"queues", "topology"} {
		lacks(t, f.page(path, "the broker is ***"), "down")
	}
}

// However many people look, the broker is asked once.
func TestS34_TheBrokerIsAskedOnceForManyLooks(t *testing.T) {
	t.Parallel()
	counted := &countedBroker{Broker: memory.NewBroker(), asked: make(chan string, 1000)}
	f := newFixture(t, func(c *console.Config) { c.Broker, c.Declared, c.Patience = counted, declared(4), time.Minute })
	for range 5 {
		f.page("queues")
		f.page("topology")
	}
	close(counted.asked)
	n := 0
	for range counted.asked {
		n++
	}
	if n > 30 { // of 6 each time: four queues, their group and the exchange
		t.Errorf("%d questions", n)
	}
}

type countedBroker struct {
	*memory.Broker
	asked chan string
}

func (b *countedBroker) Topology() outlast.TopologyBroker {
	return countedTopology{b.Broker.Topology(), b.asked}
}

type countedTopology struct {
	outlast.TopologyBroker
	asked chan string
}

func (c countedTopology) Depth(ctx context.Context, queue string) (outlast.QueueDepth, error) {
	c.asked <- queue
	return c.TopologyBroker.Depth(ctx, queue)
}

func (c countedTopology) Check(ctx context.Context, want outlast.Topology) ([]outlast.TopologyDifference, error) {
	c.asked <- "check"
	return c.TopologyBroker.Check(ctx, want)
}
