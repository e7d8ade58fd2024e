package journey_test

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/rabbitmq"
)

// TestTruthEdited edits a dead letter of one of two groups on the page: that group alone
// handles the new message, with the new body; the other one has handled the old one and
// hears of nothing. Nothing is called lost.
func TestTruthEdited(t *testing.T) {
	s := newStage(t)
	s.open("--allow-edit", "--audit", filepath.Join(t.TempDir(), "another.jsonl"))
	s.relay(s.world.Broker)
	s.group("stock", s.broker, nil)
	s.consume(outlast.ConsumerConfig{Group: "billing", Store: s.billing.store, Broker: rabbitmq.Broker(s.broker), Handlers: []outlast.Handler{
		outlast.Handle(orderPlaced, func(ctx context.Context, tx outlast.Tx, m outlast.Received[placed]) error {
			if m.Body.OrderID == "" {
				return outlast.DeadLetter(errors.New("an order without an id"))
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO effect (grp, id) VALUES ('billing', $1)", m.ID+" "+m.Body.OrderID+" "+m.CausationID)
			return err
		})}})
	s.hears(2)
	old := s.publish(1, 0)[0]
	s.handles("stock", 1)
	eventually(t, "it is dead", func() bool { return s.billing.number(t, "SELECT count(*) FROM outlast_dead") == 1 })

	link, err := url.Parse(html.UnescapeString(regexp.MustCompile(`failure\?[^"]*`).FindString(s.raw("failures"))))
	must(t, err)
	db := link.Query().Get("db")
	code, text, header := s.post("edit", "db", db, "group", "billing", "id", old, "body", `{"order_id":"o-7"}`, "reason", "the shop forgot it")
	if code != http.StatusSeeOther {
		t.Fatalf("edited: %d %s", code, text)
	}
	page, err := url.Parse(header.Get("Location"))
	must(t, err)
	id := page.Query().Get("id")
	s.handles("billing", 1)
	if n := s.billing.number(t, "SELECT count(*) FROM effect WHERE id = '"+id+" o-7 "+old+"'"); n != 1 {
		t.Errorf("%d effects of the edited message", n)
	}
	s.handles("stock", 1)
	s.tell(id, "billing: handled", "!stock", "!ORPHAN", "!LOST", "!STUCK")
	s.tell(old, "orders: sent", "stock: handled", "billing: discarded", "!LOST", "!ORPHAN")
	s.says("the page of the old one", s.page("message?id="+old), id+": the shop forgot it")
	_, out, _ := s.world.Try("actions", "--database", s.billingURL())
	s.says("actions", out, "dead edit", old+" as ")
}
