package memory

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
)

type operator struct{ s *Store }

func (x operator) Outbox() outlast.OutboxOperator { return outboxOperator(x) }
func (x operator) Retries() outlast.RetryOperator { return retryOperator(x) }
func (x operator) Dead() outlast.DeadOperator     { return deadOperator(x) }

const (
	defaultLimit = 100
	maxLimit     = 10_000
)

// limited returns f with its limit filled in.
func limited(op string, f outlast.Filter) (outlast.Filter, error) {
	if f.Limit == 0 {
		f.Limit = defaultLimit
	}
	if f.Limit < 1 || f.Limit > maxLimit {
		return f, invalid(op, "limit", fmt.Sprintf("1 to %d", maxLimit), fmt.Sprint(f.Limit))
	}
	return f, nil
}

// facts are what a filter looks at.
type facts struct {
	seq                 int64
	msg                 *outlast.Message
	group, reason, mark string
	at                  time.Time
}

func matches(f *outlast.Filter, x facts, now time.Time) bool {
	age := now.Sub(x.at)
	return x.seq > f.After &&
		(len(f.IDs) == 0 || slices.Contains(f.IDs, x.msg.ID)) &&
		(f.Type == "" || f.Type == x.msg.Type) &&
		(f.Key == "" || f.Key == x.msg.Envelope.Key) &&
		(f.Group == "" || f.Group == x.group) &&
		(f.Reason == "" || f.Reason == x.reason) &&
		(f.Fingerprint == "" || f.Fingerprint == x.mark) &&
		(f.OlderThan == 0 || age > f.OlderThan) &&
		(f.NewerThan == 0 || age < f.NewerThan)
}

// target is the text of a filter for the record of an action.
func target(f outlast.Filter) string {
	if len(f.IDs) == 1 {
		return f.IDs[0]
	}
	var parts []string
	add := func(name, v string) {
		if v != "" {
			parts = append(parts, name+"="+v)
		}
	}
	add("ids", strings.Join(f.IDs, ","))
	add("type", f.Type)
	add("key", f.Key)
	add("group", f.Group)
	add("reason", f.Reason)
	add("fingerprint", f.Fingerprint)
	if f.OlderThan != 0 {
		add("older", f.OlderThan.String())
	}
	if f.NewerThan != 0 {
		add("newer", f.NewerThan.String())
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " ")
}

// record is called with mu held.
func (s *Store) record(by outlast.Action, what, target string, n int) {
	s.actions = append(s.actions, outlast.ActionRecord{
		Seq: int64(len(s.actions)) + 1, At: time.Now(), Who: by.Who, What: what, Target: target, Count: n, Reason: by.Reason})
}

// setBody shows the body as what it is.
func setBody(item *outlast.Item, body []byte) {
	if len(body) > 0 && json.Valid(body) {
		item.Body = slices.Clone(body)
		return
	}
	item.BodyBytes = slices.Clone(body)
}

func (x operator) SetPaused(ctx context.Context, group string, paused bool, by outlast.Action) error {
	if err := x.s.enter(ctx, fmt.Sprintf("pause group %q", group), RoleOperator); err != nil {
		return err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	what := "group resume"
	if paused {
		what = "group pause"
		x.s.paused[group] = outlast.PausedGroup{Group: group, Since: time.Now(), Who: by.Who, Reason: by.Reason}
	} else {
		delete(x.s.paused, group)
	}
	x.s.record(by, what, group, 1)
	return nil
}

func (x operator) Actions(ctx context.Context, q outlast.ActionQuery) ([]outlast.ActionRecord, error) {
	if err := x.s.enter(ctx, "read actions", RoleOperator); err != nil {
		return nil, err
	}
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	newest := slices.Clone(x.s.actions)
	slices.Reverse(newest)
	if q.Before > 0 {
		newest = slices.DeleteFunc(newest, func(a outlast.ActionRecord) bool { return a.Seq >= q.Before })
	}
	return newest[:min(q.Limited(), len(newest))], nil
}

func (x operator) Status(ctx context.Context) (*outlast.StoreStatus, error) {
	s := x.s
	if err := s.enter(ctx, "read status", RoleOperator); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	st := &outlast.StoreStatus{Source: s.source, Now: now}
	s.outboxStatus(st, now)
	s.unattended(st, now)
	groups := func(to *[]outlast.GroupStatus, group, typ string, at time.Time) {
		g := entry(to, func(g *outlast.GroupStatus) bool { return g.Group == group && g.Type == typ })
		g.Group, g.Type = group, typ
		g.Count++
		g.Oldest = max(g.Oldest, now.Sub(at))
	}
	for _, w := range s.retries {
		groups(&st.Retry, w.Group, w.Message.Type, w.FirstAt)
	}
	s.overdue(st, now)
	for _, d := range s.dead {
		groups(&st.Dead, d.Group, d.Message.Type, d.lastAt)
	}
	if sc := s.scopes[outlast.RelayScope]; sc != nil {
		for owner := range sc.owners {
			if !sc.isAlive(owner, now) {
				continue
			}
			r := outlast.RelayStatus{Owner: owner}
			for _, l := range sc.slots {
				if l.owner == owner {
					r.Slots++
				}
			}
			st.Relays = append(st.Relays, r)
		}
	}
	for _, p := range s.paused {
		st.AddPaused(p)
	}
	sort.Slice(st.Relays, func(i, j int) bool { return st.Relays[i].Owner < st.Relays[j].Owner })
	sort.Slice(st.Groups, func(i, j int) bool { return st.Groups[i].Group < st.Groups[j].Group })
	return st, nil
}

// outboxStatus is called with mu held.
func (s *Store) outboxStatus(st *outlast.StoreStatus, now time.Time) {
	for i := range s.outbox {
		for _, r := range s.outbox[i] {
			p := entry(&st.Pending, func(p *outlast.RouteStatus) bool { return p.Type == r.msg.Type })
			p.Type = r.msg.Type
			p.Count++
			p.Oldest = max(p.Oldest, now.Sub(r.msg.EnqueuedAt))
		}
	}
	for _, r := range s.held {
		h := entry(&st.Held, func(h *outlast.HeldStatus) bool { return h.Type == r.msg.Type && h.Reason == r.reason })
		h.Type, h.Reason = r.msg.Type, r.reason
		h.Count++
		h.Oldest = max(h.Oldest, now.Sub(r.since))
		if h.Error == "" {
			h.Error = r.err
		}
	}
}

// overdue counts what is late, and what a person must move; it is called with mu held.
func (s *Store) overdue(st *outlast.StoreStatus, now time.Time) {
	type groupKey struct{ group, key string }
	behind := map[groupKey]bool{}
	for _, w := range s.retries {
		k := groupKey{w.Group, w.Message.Envelope.Key}
		if w.Reason == outlast.WaitSpent && w.next.After(now) {
			entry(&st.Retry, func(g *outlast.GroupStatus) bool { return g.Group == w.Group && g.Type == w.Message.Type }).Spent++
		}
		first := !w.Ordered || k.key == "" || !behind[k]
		behind[k] = behind[k] || w.Ordered
		if first && w.Reason != "behind" && now.Sub(w.next) > outlast.OverdueAfter {
			entry(&st.Retry, func(g *outlast.GroupStatus) bool { return g.Group == w.Group && g.Type == w.Message.Type }).Overdue++
		}
	}
}

// unattended is called with mu held.
func (s *Store) unattended(st *outlast.StoreStatus, now time.Time) {
	sc := s.scopes[outlast.RelayScope]
	for slot := range s.outbox {
		if sc != nil && slot < len(sc.slots) && sc.isAlive(sc.slots[slot].owner, now) {
			continue
		}
		for _, r := range s.outbox[slot] {
			st.Unattended.Count++
			st.Unattended.Oldest = max(st.Unattended.Oldest, now.Sub(r.msg.EnqueuedAt))
		}
	}
}

// entry returns the element of list that is wanted, adding one when there is none.
func entry[E any](list *[]E, wanted func(*E) bool) *E {
	for i := range *list {
		if wanted(&(*list)[i]) {
			return &(*list)[i]
		}
	}
	*list = append(*list, *new(E))
	return &(*list)[len(*list)-1]
}
