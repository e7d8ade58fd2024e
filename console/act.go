package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

// notices are all that a link can make a page say.
var notices = map[string]string{
	"retry":         "It will be tried again. It is resolved when its group has handled it.",
	"retry-now":     "It is due now. It is resolved when its group has handled it.",
	"discard":       "The dead letter is discarded.",
	"release":       "The relay tries to send it again.",
	"withdraw":      "It is withdrawn.",
	"uncertain":     "It is withdrawn, but a relay was running: it may have been sent already.",
	"pause":         "The group is paused; it finishes what it has in hand.",
	"resume":        "The group goes on.",
	"pause-relays":  "The relays pause within seconds; what they have sent they settle, nothing is lost.",
	"resume-relays": "The relays go on within seconds.",
	"resend":        "What is in the sent log with its body, and young enough, is sent again.",
	"declare":       "What was missing is declared. What is bound from now on comes; what was sent before does not.",
	"edit":          "The new message waits for its group alone; the dead letter is discarded.",
	"sign-off":      "The minute is signed off.",
	"signed":        "Nothing was left to do: the minute is balanced, or signed off already.",
	"nothing":       "Nothing was left to do: the message has moved on.",
}

// deed is one thing that a person does.
type deed struct {
	permission               Permission
	what, group, typ, target string
	service                  string // whose permissions count
	place                    *place
	do                       func(ctx context.Context, by outlast.Action) (result string, err error)
	back                     string
	notice                   string
	reason                   string
}

// actFunc reads a form and says what is to be done, without doing it.
type actFunc func(ctx context.Context, who *Identity, r *http.Request) (*deed, error)

// act does a deed: permission first, then the record, then the deed, then its result.
func (x *Console) act(f actFunc) http.Handler {
	return x.bounded(func(w http.ResponseWriter, r *http.Request) {
		if err := x.readForm(r); err != nil {
			x.fail(w, r, err)
			return
		}
		who := whoOf(r)
		d, err := f(r.Context(), who, r)
		if err != nil {
			x.fail(w, r, err)
			return
		}
		if err := x.commit(r.Context(), who, d, r.PostFormValue("reason")); err != nil {
			x.fail(w, r, err)
			return
		}
		w.Header().Set("Location", withNotice(d.back, d.notice))
		w.WriteHeader(http.StatusSeeOther)
	})
}

func withNotice(back, notice string) string {
	if notice == "" {
		return back
	}
	join := "?"
	if strings.Contains(back, "?") {
		join = "&"
	}
	return back + join + "notice=" + url.QueryEscape(notice)
}

// readForm takes the one kind of body that our forms have.
func (x *Console) readForm(r *http.Request) error {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/x-www-form-urlencoded" {
		return invalid("Content-Type", "application/x-www-form-urlencoded", "another one")
	}
	if err := r.ParseForm(); err != nil {
		return invalid("form", fmt.Sprintf("at most %d bytes of a form", maxForm), "another one")
	}
	return nil
}

const maxReason = 1000

// acts: without an audit log the console only looks.
func (x *Console) acts() bool { return x.c.Audit != nil }

func (x *Console) commit(ctx context.Context, who *Identity, d *deed, reason string) error {
	if !who.May(d.permission, d.service, d.typ) {
		return denied(d.permission)
	}
	if !x.acts() {
		return &outlast.Error{Op: d.what, Code: outlast.CodeDenied, Err: errors.New("this console only looks: it has no audit log")}
	}
	if d.reason = strings.TrimSpace(reason); d.reason == "" || len(d.reason) > maxReason {
		return invalid("reason", fmt.Sprintf("1 to %d bytes, for the record", maxReason), fmt.Sprintf("of %d bytes", len(d.reason)))
	}
	rec := AuditRecord{Who: who.Name, What: d.what, Group: d.group, Type: d.typ, Target: d.target, Reason: d.reason, Result: "begun"}
	if d.place != nil {
		rec.Place = d.place.Name
	}
	if err := x.c.Audit.write(rec); err != nil {
		return &outlast.Error{Op: d.what, Code: outlast.CodeUnavailable, Err: err, Hint: "nothing was done"}
	}
	// Once begun, it is not cut off by a browser that goes away.
	do, cancel := x.brief(context.WithoutCancel(ctx))
	defer cancel()
	result, err := d.do(do, outlast.Action{Who: who.Name, Reason: d.reason})
	if rec.Result = result; err != nil {
		rec.Result = "failed: " + x.c.Redact(err.Error())
	}
	x.forgetStatus()
	return errors.Join(err, x.c.Audit.write(rec))
}

func (x *Console) forgetStatus() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.read = time.Time{}
}

// row finds the row that a form names, and its type: what a person may do depends on it.
func (x *Console) row(ctx context.Context, r *http.Request, list func(outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error)) (*deed, error) {
	p, err := x.place(r.PostFormValue("db"))
	if err != nil {
		return nil, err
	}
	id, group := r.PostFormValue("id"), r.PostFormValue("group")
	if id == "" {
		return nil, invalid("id", "the id of a message", "nothing")
	}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	items, err := list(p.Store.Operator())(ctx, outlast.Filter{IDs: []string{id}, Group: group, Limit: 2})
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, notFound("message in this place: it has moved on")
	}
	d := &deed{place: p, group: group, service: group, typ: items[0].Envelope.Type, target: id, back: "message?id=" + url.QueryEscape(id)}
	if group == "" {
		d.service = x.sourceOf(ctx, p)
	}
	return d, nil
}

func one(d *deed) outlast.Filter {
	return outlast.Filter{IDs: []string{d.target}, Group: d.group, Type: d.typ, Limit: 1}
}

func (d *deed) count(n int, err error) (string, error) {
	if n == 0 && err == nil {
		d.notice = "nothing"
	}
	return plural(n, "message"), err
}

func needsGroup(r *http.Request) error {
	if r.PostFormValue("group") == "" {
		return invalid("group", "the name of a group", "nothing")
	}
	return nil
}

// retry brings back one dead letter. It is then waiting, and no dead letter any more: a
// second press finds nothing to do.
func (x *Console) retry(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.deadDeed(ctx, r, Retry, "retry", outlast.DeadOperator.Replay)
}

// discard throws one dead letter away.
func (x *Console) discard(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.deadDeed(ctx, r, Discard, "discard", outlast.DeadOperator.Discard)
}

func (x *Console) deadDeed(ctx context.Context, r *http.Request, p Permission, what string,
	do func(outlast.DeadOperator, context.Context, outlast.Filter, outlast.Action) (int, error)) (*deed, error) {
	if err := needsGroup(r); err != nil {
		return nil, err
	}
	d, err := x.row(ctx, r, func(s outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
		return s.Dead().List
	})
	if err != nil {
		return nil, err
	}
	d.permission, d.what, d.notice = p, what, what
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return d.count(do(d.place.Store.Operator().Dead(), ctx, one(d), by))
	}
	return d, nil
}

func (x *Console) retryNow(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	if err := needsGroup(r); err != nil {
		return nil, err
	}
	d, err := x.row(ctx, r, func(s outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
		return s.Retries().List
	})
	if err != nil {
		return nil, err
	}
	d.permission, d.what, d.notice = Retry, "retry now", "retry-now"
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return d.count(d.place.Store.Operator().Retries().Now(ctx, one(d), by))
	}
	return d, nil
}

func (x *Console) outboxDeed(ctx context.Context, r *http.Request) (*deed, error) {
	r.PostForm.Del("group")
	return x.row(ctx, r, func(s outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
		return s.Outbox().List
	})
}

func (x *Console) release(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, err := x.outboxDeed(ctx, r)
	if err != nil {
		return nil, err
	}
	d.permission, d.what, d.notice = Operate, "release", "release"
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return d.count(d.place.Store.Operator().Outbox().Release(ctx, one(d), by))
	}
	return d, nil
}

func (x *Console) withdraw(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, err := x.outboxDeed(ctx, r)
	if err != nil {
		return nil, err
	}
	d.permission, d.what, d.notice = Discard, "withdraw", "withdraw"
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		n, uncertain, err := d.place.Store.Operator().Outbox().Withdraw(ctx, one(d), by)
		if len(uncertain) > 0 {
			d.notice = "uncertain"
			return "withdrawn, perhaps sent before", err
		}
		return d.count(n, err)
	}
	return d, nil
}

func (x *Console) pause(_ context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.pauseDeed(r, true, "pause")
}

func (x *Console) resume(_ context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.pauseDeed(r, false, "resume")
}

func (x *Console) pauseDeed(r *http.Request, paused bool, what string) (*deed, error) {
	if err := needsGroup(r); err != nil {
		return nil, err
	}
	p, err := x.place(r.PostFormValue("db"))
	if err != nil {
		return nil, err
	}
	group := r.PostFormValue("group")
	d := &deed{permission: Operate, what: what, group: group, service: group, target: group, place: p, back: "./", notice: what}
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return what + "d", p.Store.Operator().SetPaused(ctx, group, paused, by)
	}
	return d, nil
}

func (x *Console) pauseRelays(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.relaysDeed(ctx, r, true, "pause")
}

func (x *Console) resumeRelays(ctx context.Context, _ *Identity, r *http.Request) (*deed, error) {
	return x.relaysDeed(ctx, r, false, "resume")
}

// relaysDeed pauses or resumes the relays of an outbox.
func (x *Console) relaysDeed(ctx context.Context, r *http.Request, paused bool, what string) (*deed, error) {
	p, err := x.place(r.PostFormValue("db"))
	if err != nil {
		return nil, err
	}
	d := &deed{permission: Operate, what: what + " relays", service: x.sourceOf(ctx, p), place: p, back: "outbox", notice: what + "-relays"}
	d.target = "relays of " + cmp.Or(d.service, p.Name)
	d.do = func(ctx context.Context, by outlast.Action) (string, error) {
		return what + "d", p.Store.Operator().SetPaused(ctx, outlast.RelaySwitch, paused, by)
	}
	return d, nil
}

// body shows or hands out one body. It is a POST, because it leaves a record.
func (x *Console) body(w http.ResponseWriter, r *http.Request) {
	who := whoOf(r)
	if err := x.readForm(r); err != nil {
		x.fail(w, r, err)
		return
	}
	d, show, err := x.bodyDeed(r.Context(), r)
	if err != nil {
		x.fail(w, r, err)
		return
	}
	var item *outlast.Item
	d.do = func(ctx context.Context, _ outlast.Action) (string, error) {
		item, err = show(ctx)
		return "shown", err
	}
	if err := x.commit(r.Context(), who, d, r.PostFormValue("reason")); err != nil {
		x.fail(w, r, err)
		return
	}
	if item.Envelope.Type != d.typ { // another message took the place of the one that was asked for
		x.fail(w, r, denied(ViewBody))
		return
	}
	if r.PostFormValue("edit") != "" && x.c.AllowEdit && item.Where == "dead" && who.May(Edit, d.service, d.typ) {
		e := editData{spot: spot{Item: *item, Place: d.place}, Text: string(item.Body)}
		if e.Problem = editProblem("{}", item); item.Body != nil && item.BodySize <= mostEdited {
			e.Problem = ""
		}
		x.render(w, r, http.StatusOK, &view{Title: "Edit as a new message", Template: "edit", Data: e})
		return
	}
	if r.PostFormValue("raw") == "" {
		x.render(w, r, http.StatusOK, &view{Title: "Body", Template: "body", Data: spot{Item: *item, Place: d.place, Body: shown(item)}})
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="body.bin"`)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	if item.Body != nil {
		_, _ = w.Write(item.Body)
		return
	}
	_, _ = w.Write(item.BodyBytes)
}

func (x *Console) bodyDeed(ctx context.Context, r *http.Request) (*deed, func(context.Context) (*outlast.Item, error), error) {
	where := r.PostFormValue("where")
	group, id := r.PostFormValue("group"), r.PostFormValue("id")
	switch where {
	case "pending", "held":
		r.PostForm.Del("group")
	case "retry", "dead":
		if group == "" {
			return nil, nil, needsGroup(r)
		}
	default:
		return nil, nil, invalid("where", "pending, held, retry or dead", "another text")
	}
	d, err := x.row(ctx, r, func(s outlast.OperatorStore) func(context.Context, outlast.Filter) ([]outlast.Item, error) {
		return rowsAt(s, where, group).list
	})
	if err != nil {
		return nil, nil, err
	}
	d.permission, d.what = ViewBody, "view body"
	rows := rowsAt(d.place.Store.Operator(), where, group)
	return d, func(ctx context.Context) (*outlast.Item, error) { return rows.show(ctx, id) }, nil
}
