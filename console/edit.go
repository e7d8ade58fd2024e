package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

const (
	// mostEdited bounds a body that is edited here, in bytes.
	mostEdited = 256 << 10
	// maxEditForm is a form with such a body: each byte may take three.
	maxEditForm = 3*mostEdited + maxForm
)

// EditSource is the source of messages that a person wrote in the place of a dead letter.
// No service has sent them, so no service's books and no verdict count them.
const EditSource = "operator"

// editData is the form for a body.
type editData struct {
	spot
	Text    string
	Problem string
	Reason  string
}

// edit sends what a person made of the body of a dead letter as a new message, to the
// group of the dead letter alone, which is discarded. It changes nothing when the body or
// the reason are not as they must be: then it shows the form again.
func (x *Console) edit(w http.ResponseWriter, r *http.Request) {
	if err := x.readForm(r); err != nil {
		x.fail(w, r, err)
		return
	}
	d, item, err := x.editDeed(r.Context(), r)
	if err != nil {
		x.fail(w, r, err)
		return
	}
	who, reason := whoOf(r), r.PostFormValue("reason")
	if !who.May(Edit, d.service, d.typ) {
		x.fail(w, r, denied(Edit))
		return
	}
	text := strings.ReplaceAll(r.PostFormValue("body"), "\r\n", "\n")
	problem := editProblem(text, item)
	if problem == "" && strings.TrimSpace(reason) == "" {
		problem = "Say why."
	}
	if problem != "" {
		x.render(w, r, http.StatusBadRequest, &view{Title: "Edit as a new message", Template: "edit",
			Data: editData{spot: spot{Item: *item, Place: d.place}, Text: text, Problem: problem, Reason: reason}})
		return
	}
	edited := editedFrom(item, text)
	d.target += " as " + edited.ID
	d.back = "message?id=" + url.QueryEscape(edited.ID)
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return "sent as " + edited.ID, d.place.Store.Operator().Dead().Edit(ctx, d.group, item.Envelope.ID, edited, by)
	}
	if err := x.commit(r.Context(), who, d, reason); err != nil {
		x.fail(w, r, err)
		return
	}
	w.Header().Set("Location", withNotice(d.back, "edit"))
	w.WriteHeader(http.StatusSeeOther)
}

// editDeed finds the dead letter that a form names.
func (x *Console) editDeed(ctx context.Context, r *http.Request) (*deed, *outlast.Item, error) {
	if !x.c.AllowEdit {
		return nil, nil, &outlast.Error{Op: "edit", Code: outlast.CodeDenied, Err: errors.New("this console does not let anybody edit: it was not started with --allow-edit")}
	}
	if err := needsGroup(r); err != nil {
		return nil, nil, err
	}
	d, err := x.row(ctx, r, func(s outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
		return s.Dead().List
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	item, err := d.place.Store.Operator().Dead().Show(ctx, d.group, d.target)
	if err != nil {
		return nil, nil, err
	}
	d.permission, d.what = Edit, "edit"
	d.typ = item.Envelope.Type // of what is edited, should another one have taken its place
	return d, item, nil
}

// editProblem says in words why a body cannot be sent in the place of another; empty: it can.
func editProblem(text string, old *outlast.Item) string {
	switch {
	case old.Body == nil:
		return "The body of this message is not JSON: it cannot be edited here."
	case old.BodySize > mostEdited:
		return fmt.Sprintf("The body of this message has %s bytes; at most %s can be edited here.", grouped(old.BodySize), grouped(mostEdited))
	case len(text) > mostEdited:
		return fmt.Sprintf("The body has %s bytes; it may have %s.", grouped(len(text)), grouped(mostEdited))
	case strings.TrimSpace(text) == "":
		return "The body is empty."
	case text == strings.ReplaceAll(string(old.Body), "\r\n", "\n"):
		return "The body is the same as before: retry the message instead."
	}
	var value any
	err := json.Unmarshal([]byte(text), &value)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := text[:min(int(max(syntax.Offset-1, 0)), len(text))]
		line := 1 + strings.Count(before, "\n")
		return fmt.Sprintf("The body is not JSON: line %d, byte %d of it: %s.", line, len(before)-strings.LastIndex(before, "\n"), syntax)
	}
	if err != nil {
		return "The body is not JSON: " + err.Error() + "."
	}
	return ""
}

// editedFrom is the new message: with an id of its own, caused by the old one, in its flow.
func editedFrom(old *outlast.Item, text string) *outlast.Message {
	m := &outlast.Message{Envelope: old.Envelope, Body: []byte(text)}
	m.ID, m.CausationID, m.Source = outlast.NewID(), old.Envelope.ID, EditSource
	if m.CorrelationID == "" {
		m.CorrelationID = old.Envelope.ID
	}
	m.EnqueuedAt, m.ExpiresAt, m.SettledBefore = time.Now().UTC(), time.Time{}, time.Time{}
	return m
}
