package journey

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outlastmq/outlast"
)

// Books compares, minute by minute, what a service has sent with what the groups that
// hear it have seen. Both sides hold the ids anyway, so that nothing is written for it
// when messages are sent or handled.
type Books struct {
	// Service is the source whose books these are, Store its database.
	Service string
	Store   outlast.Store
	// Others are the databases of those who receive, Store among them or not. One that
	// cannot be asked leaves the minutes of its groups open.
	Others []Place
	// Elsewhere are types whose receivers keep no books: programs that do not use Outlast.
	// Nothing is compared for them. A type that is sent, that no database knows a group for
	// and that is not named here leaves its minutes open: whoever got it was not asked.
	Elsewhere []string
	// Grace is how long after the end of a minute its messages count as on their way.
	// Default: five minutes.
	Grace time.Duration
	// Limit is of minutes for one Close. Default: 1,000.
	Limit int
}

// Closing is what a Close did.
type Closing struct {
	// Before is the instant up to which everything is committed and out of the outbox.
	Before     time.Time            `json:"before,omitzero"`
	Minutes    []outlast.BookMinute `json:"minutes"`
	Balanced   int                  `json:"balanced"`
	Unbalanced int                  `json:"unbalanced"`
	Open       int                  `json:"open"`
	// Missing counts the ids that unbalanced minutes name.
	Missing int `json:"missing"`
	// Judged is the instant up to which every minute is balanced, unbalanced or signed off.
	Judged time.Time `json:"judged,omitzero"`
	// Unasked are types of these minutes that no database which was asked knows a group for.
	Unasked []string     `json:"unasked,omitempty"`
	Places  []PlaceState `json:"places"`
}

// hearerAt is a group with the store that its inbox is in.
type hearerAt struct {
	group string
	store outlast.Store
	place int
	types map[string]outlast.Hearer
}

// Close looks at every minute that is over and not closed, the oldest first, and writes
// down how it stands. It may be called by several programs at once, and repeated: what
// it writes follows from what is there.
func (b *Books) Close(ctx context.Context) (*Closing, error) {
	if err := b.Store.Journal().Tracking(ctx); err != nil {
		return nil, err
	}
	c := &Closing{Minutes: []outlast.BookMinute{}}
	var err error
	if c.Before, err = Closed(ctx, b.Store); err != nil || c.Before.IsZero() {
		return c, err
	}
	limit := b.Limit
	if limit < 1 {
		limit = 1000
	}
	due, err := b.Store.Books().Due(ctx, c.Before, limit)
	if err != nil {
		return nil, err
	}
	c.Judged = c.Before.Truncate(time.Minute)
	if len(due) == limit { // there may be more
		c.Judged = earlier(c.Judged, due[limit-1].Minute.Add(time.Minute))
	}
	hearers, states := b.hearers(ctx)
	c.Places = states
	for _, m := range due {
		minute, lines, err := b.minute(ctx, m, hearers, c)
		if err != nil {
			return c, err
		}
		if err := b.Store.Books().Write(ctx, minute, lines); err != nil {
			return c, err
		}
		c.Minutes = append(c.Minutes, minute)
		switch minute.State {
		case outlast.MinuteBalanced:
			c.Balanced++
		case outlast.MinuteUnbalanced:
			c.Unbalanced++
			for _, l := range lines {
				c.Missing += len(l.Missing)
			}
		default:
			c.Open++
			c.Judged = earlier(c.Judged, minute.Minute)
		}
	}
	return c, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Closed asks a store a few times for the instant before which everything is committed and
// out of the outbox: the first answers may only prepare the next one. Zero when it is not
// known yet.
func Closed(ctx context.Context, store outlast.Store) (t time.Time, err error) {
	for range 5 {
		if t, err = store.Books().Closed(ctx); err != nil || !t.IsZero() {
			return t, err
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return t, nil
}

// hearers asks every place for its groups. A place that fails is an unknown one.
func (b *Books) hearers(ctx context.Context) (list []hearerAt, states []PlaceState) {
	a := &Asker{Places: b.Others}
	r := a.round()
	found := make([][]outlast.Hearer, len(b.Others))
	r.each(ctx, func(ctx context.Context, i int, store outlast.Store) (err error) {
		found[i], err = store.Journal().Hearers(ctx)
		return err
	})
	for i, hs := range found {
		for _, h := range hs {
			at := slices.IndexFunc(list, func(x hearerAt) bool { return x.group == h.Group && x.place == i })
			if at < 0 {
				at = len(list)
				list = append(list, hearerAt{group: h.Group, store: b.Others[i].Store, place: i, types: map[string]outlast.Hearer{}})
			}
			list[at].types[h.Type] = h
		}
	}
	return list, r.states
}

// minute balances one minute.
func (b *Books) minute(ctx context.Context, due outlast.DueMinute, hearers []hearerAt, c *Closing) (outlast.BookMinute, []outlast.BookLine, error) {
	m := outlast.BookMinute{Minute: due.Minute, State: outlast.MinuteBalanced}
	sent := map[string]*Sketch{} // by type, of what groups should get
	err := b.Store.Books().Sent(ctx, due.Minute, func(x outlast.SentMessage) error {
		m.Sent++
		if x.Fate != outlast.FateSent {
			return nil
		}
		if sent[x.Type] == nil {
			sent[x.Type] = &Sketch{}
		}
		sent[x.Type].Add(x.ID)
		return nil
	})
	if err != nil {
		return m, nil, err
	}
	var lines []outlast.BookLine
	missing, forgotten := false, false
	for i := range hearers {
		part, err := b.group(ctx, due.Minute, &hearers[i], sent)
		if err != nil && ctx.Err() != nil {
			return m, nil, ctx.Err()
		}
		if err != nil {
			c.Places[hearers[i].place].Unknown = err.Error()
			part = unknownLines(due.Minute, &hearers[i], sent)
		}
		for _, l := range part {
			missing = missing || len(l.Missing) > 0 || l.More
			forgotten = forgotten || l.Received < 0
		}
		lines = append(lines, part...)
	}
	gap := forgotten || slices.ContainsFunc(c.Places, func(p PlaceState) bool { return p.Unknown != "" })
	for _, typ := range slices.Sorted(maps.Keys(sent)) {
		known := func(h hearerAt) bool { _, ok := h.types[typ]; return ok }
		if slices.ContainsFunc(hearers, known) || slices.Contains(b.Elsewhere, typ) {
			continue
		}
		gap = true
		if !slices.Contains(c.Unasked, typ) {
			c.Unasked = append(c.Unasked, typ)
		}
	}
	grace := b.grace()
	switch {
	case due.Held > 0:
		m.State = outlast.MinuteOpen
	case missing && c.Before.Sub(due.Minute.Add(time.Minute)) < grace, gap && !missing:
		m.State = outlast.MinuteOpen
	case missing:
		m.State = outlast.MinuteUnbalanced
	}
	return m, lines, nil
}

// expected is what a group should have got of a minute, type by type.
func expected(minute time.Time, h *hearerAt, sent map[string]*Sketch) map[string]*Sketch {
	list := map[string]*Sketch{}
	for typ, sketch := range sent {
		if record, ok := h.types[typ]; ok && expects(record, typ, minute) && (record.Until.IsZero() || !record.Until.Before(minute.Add(time.Minute))) {
			list[typ] = sketch
		}
	}
	return list
}

func unknownLines(minute time.Time, h *hearerAt, sent map[string]*Sketch) (lines []outlast.BookLine) {
	for typ, sketch := range expected(minute, h, sent) {
		lines = append(lines, outlast.BookLine{Type: typ, Group: h.group, Sent: int(sketch.Count), Received: -1})
	}
	return sorted(lines)
}

func sorted(lines []outlast.BookLine) []outlast.BookLine {
	slices.SortFunc(lines, func(a, b outlast.BookLine) int {
		if a.Type < b.Type {
			return -1
		}
		return 1
	})
	return lines
}

// group balances what one group should have got.
func (b *Books) group(ctx context.Context, minute time.Time, h *hearerAt, sent map[string]*Sketch) ([]outlast.BookLine, error) {
	want := expected(minute, h, sent)
	if len(want) == 0 {
		return nil, nil
	}
	all, got := &Sketch{}, &Sketch{}
	for _, s := range want {
		all.merge(s)
	}
	if err := h.store.Journal().Seen(ctx, h.group, b.Service, minute, func(id string) error { got.Add(id); return nil }); err != nil {
		return nil, err
	}
	all.Subtract(got)
	var unknown map[string]bool
	var missing map[string][]string
	more := false
	if !all.Empty() {
		var err error
		if missing, more, err = b.missing(ctx, minute, h, want, all); err != nil {
			return nil, err
		}
		if unknown, err = b.forgotten(ctx, minute, h, missing); err != nil {
			return nil, err
		}
	}
	var lines []outlast.BookLine
	for typ, s := range want {
		if unknown[typ] {
			lines = append(lines, outlast.BookLine{Type: typ, Group: h.group, Sent: int(s.Count), Received: -1})
			continue
		}
		lines = append(lines, outlast.BookLine{Type: typ, Group: h.group, Sent: int(s.Count),
			Received: int(s.Count) - len(missing[typ]), Missing: missing[typ], More: more && len(missing[typ]) > 0})
	}
	return sorted(lines), nil
}

// forgotten leaves of what is missing, of a minute that the group's inbox may have forgotten,
// only what was missing when the books looked before: of the rest nobody can say whether the
// group has handled it. It returns the types of which nothing is left.
func (b *Books) forgotten(ctx context.Context, minute time.Time, h *hearerAt, missing map[string][]string) (map[string]bool, error) {
	bench := Bench{Now: time.Now(), Grace: b.grace()}
	unknown := map[string]bool{}
	var before []outlast.BookLine
	for typ, ids := range missing {
		if remembers(h.types[typ], minute, bench) {
			continue
		}
		if before == nil {
			var err error
			if before, err = b.Store.Books().Lines(ctx, minute); err != nil {
				return nil, err
			}
		}
		i := slices.IndexFunc(before, func(l outlast.BookLine) bool { return l.Type == typ && l.Group == h.group })
		was := func(id string) bool { return i >= 0 && slices.Contains(before[i].Missing, id) }
		missing[typ] = slices.DeleteFunc(ids, func(id string) bool { return !was(id) })
		unknown[typ] = len(missing[typ]) == 0
	}
	return unknown, nil
}

func (b *Books) grace() time.Duration {
	if b.Grace == 0 {
		return 5 * time.Minute
	}
	return b.Grace
}

// missing names the ids that the group has not seen. What is left of the sketches names
// the suspects, by their hashes; when they are too many, everything is suspect. Each is
// then looked up: a message that was sent again is seen in another minute.
func (b *Books) missing(ctx context.Context, minute time.Time, h *hearerAt, want map[string]*Sketch, left *Sketch) (missing map[string][]string, more bool, err error) {
	in, _, decoded := left.Decode()
	type suspect struct{ id, typ string }
	var suspects []suspect
	err = b.Store.Books().Sent(ctx, minute, func(x outlast.SentMessage) error {
		if x.Fate == outlast.FateSent && want[x.Type] != nil && (!decoded || in[Hash(x.ID)]) {
			suspects = append(suspects, suspect{x.ID, x.Type})
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	missing = map[string][]string{}
	total := 0
	for part := range slices.Chunk(suspects, 1000) {
		ids := make([]string, len(part))
		for i, x := range part {
			ids[i] = x.id
		}
		known, err := h.store.Journal().Known(ctx, h.group, b.Service, ids)
		if err != nil {
			return nil, false, err
		}
		seen := make(map[string]bool, len(known))
		for _, id := range known {
			seen[id] = true
		}
		for _, x := range part {
			if seen[x.id] {
				continue
			}
			if total++; total > outlast.MaxMissing {
				return missing, true, nil
			}
			missing[x.typ] = append(missing[x.typ], x.id)
		}
	}
	for typ, ids := range missing {
		slices.Sort(ids)
		missing[typ] = slices.Compact(ids) // sent twice in one minute
	}
	return missing, false, nil
}

// Run closes the books and keeps the sent log at intervals until ctx ends. An error of
// a database is told to report, and the next turn tries again.
func (b *Books) Run(ctx context.Context, every time.Duration, r outlast.Retention, report func(*Closing, outlast.Kept, error)) error {
	r.Books = true
	for {
		closing, err := b.Close(ctx)
		var kept outlast.Kept
		if err == nil {
			kept, err = b.Store.Journal().Keep(ctx, r)
		}
		if ctx.Err() == nil && report != nil {
			report(closing, kept, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// Missing returns the ids that are missing in a minute, without repetition.
func (b *Books) Missing(ctx context.Context, minute time.Time) ([]string, error) {
	lines, err := b.Store.Books().Lines(ctx, minute)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range lines {
		ids = append(ids, l.Missing...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// String is the closing in words.
func (c *Closing) String() string {
	return fmt.Sprintf("%d balanced, %d unbalanced, %d open", c.Balanced, c.Unbalanced, c.Open)
}
