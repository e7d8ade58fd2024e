package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
)

// statusReport is what status prints, and one sample of it.
type statusReport struct {
	*outlast.StoreStatus
	Database string `json:"database"`
	// OutboxBytes is the room that the outbox takes on disk; 0 when it is not known.
	OutboxBytes int64 `json:"outbox_bytes,omitempty"`
	// RatePerSecond is by how much the backlog shrank: negative while it grows. It is
	// missing when a count reached its limit.
	RatePerSecond *float64 `json:"rate_per_second,omitempty"`
	// DrainSeconds is how long what is pending lasts at this rate; missing when the
	// backlog does not shrink, and when so little is pending that there is no trend. What
	// is held is not in it: it waits for something other than its turn.
	DrainSeconds *float64 `json:"drain_seconds,omitempty"`
	// Known are the groups of which the database has a trace. KnownInPart says why some may
	// be missing: the account may not read who runs and who received something, for example.
	Known       []knownGroup `json:"groups"`
	KnownInPart string       `json:"groups_in_part,omitempty"`
	// Broker says how the broker is, when its URL is set.
	Broker *brokerAnswer `json:"broker,omitempty"`
	// Unbalanced is what the books lack, when they lack something.
	Unbalanced *journey.Imbalance `json:"unbalanced,omitempty"`
	Warnings   []string           `json:"warnings"`
}

// brokerAnswer is the broker's state: Problem is empty when it answers and nothing is wrong.
type brokerAnswer struct {
	Address string `json:"address"`
	Problem string `json:"problem,omitempty"`
}

func (p *program) statusCommand() *cobra.Command {
	var (
		watch    bool
		interval time.Duration
		warn     = defaultThresholds()
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what waits in a database, how old it is, and how fast it drains",
		Long: `Status counts what is pending, held, in retry and dead, with the age of the oldest,
and shows the relays alive, every group with its instances and the time since one of them
gave a sign of life, and the groups and relays that are paused. It looks twice, a second
apart (--interval), to tell the rate: by how much the backlog shrank, with what was
enqueued meanwhile counted against it, and how long what is pending lasts at it. Counting stops at 1,000,000 of a kind.
With a broker's URL set it also asks that broker, and warns when something is wrong there.

It warns too when the books name messages that are missing.

Thresholds warn of an outbox that grows towards a full disk in a long outage; they
change nothing else. 0 turns one off.`,
		Example: "  outlast status\n  outlast status --watch\n  outlast status --json --warn-age 1m --warn-bytes 500MiB",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond || interval > time.Hour {
				return usage(cmd.CommandPath(), "--interval", "100ms to 1h", interval.String(), "")
			}
			if err := warn.check(cmd.CommandPath()); err != nil {
				return err
			}
			return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
				return p.showStatus(ctx, db, warn, interval, watch)
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until Ctrl-C")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two looks, 100ms to 1h")
	warn.flags(cmd)
	return cmd
}

func (p *program) showStatus(ctx context.Context, db *database, warn thresholds, interval time.Duration, watch bool) error {
	before, err := p.sample(ctx, db, warn)
	if err != nil {
		return err
	}
	for shown := 0; ; shown++ {
		if !pause(ctx, interval) {
			if shown == 0 {
				return p.printStatus(before) // one look is better than none
			}
			return nil
		}
		now, err := p.sample(ctx, db, warn)
		if ctx.Err() != nil && shown > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		now.compare(before)
		if now.Broker = p.askBroker(ctx); now.Broker != nil && now.Broker.Problem != "" {
			now.Warnings = append(now.Warnings, "broker: "+now.Broker.Problem)
		}
		if watch && !p.json && shown > 0 {
			p.printf("\n")
		}
		if err := p.printStatus(now); err != nil || !watch {
			return err
		}
		before = now
	}
}

func (p *program) sample(ctx context.Context, db *database, warn thresholds) (*statusReport, error) {
	ctx, cancel := p.brief(ctx)
	defer cancel()
	s, err := db.Operator().Status(ctx)
	if err != nil {
		return nil, err
	}
	s.Pending, s.Held, s.Retry = notNil(s.Pending), notNil(s.Held), notNil(s.Retry)
	s.Dead, s.Relays, s.Groups = notNil(s.Dead), notNil(s.Relays), notNil(s.Groups)
	r := &statusReport{StoreStatus: s, Database: db.at}
	if size, err := db.outboxBytes(ctx); err == nil {
		r.OutboxBytes = size
	}
	groups, err := db.knownGroups(ctx, s)
	if r.Known = notNil(groups); err != nil {
		r.KnownInPart = err.Error()
	}
	r.Warnings = notNil(warn.warnings(s, r.OutboxBytes))
	lack, err := journey.Unbalanced(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	if text := lack.Text(serviceOf(s)); text != "" {
		r.Unbalanced = &lack
		r.Warnings = append(r.Warnings, "books: "+printable(text))
	}
	return r, nil
}

// serviceOf names the service of an outbox for a sentence.
func serviceOf(s *outlast.StoreStatus) string {
	if s.Source == "" {
		return "this outbox"
	}
	return s.Source
}

// askBroker asks the broker whether it is there; nil without a URL of one.
func (p *program) askBroker(ctx context.Context) *brokerAnswer {
	if p.brokerURL == "" && p.getenv(brokerServer.env) == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(p.timeout, 3*time.Second))
	defer cancel()
	b, err := p.openBroker(ctx)
	if err != nil {
		return &brokerAnswer{"its URL", p.secrets.hide(oneLine(err.Error()))}
	}
	defer b.close()
	a := &brokerAnswer{Address: b.Address()}
	findings, err := b.Topology().Examine(ctx)
	if err != nil {
		a.Problem = p.secrets.hide(oneLine(err.Error()))
	}
	for _, f := range findings {
		if f.Level == outlast.FindingFail && a.Problem == "" {
			a.Problem = p.secrets.hide(oneLine(f.Text))
		}
	}
	return a
}

// compare works out the rate since an earlier sample, by the database's clock.
func (r *statusReport) compare(before *statusReport) {
	was, wasExact := toSend(before.StoreStatus)
	is, exact := toSend(r.StoreStatus)
	elapsed := r.Now.Sub(before.Now).Seconds()
	if !exact || !wasExact || elapsed <= 0 {
		return
	}
	rate := float64(was-is) / elapsed
	r.RatePerSecond = &rate
	if n := pending(r.StoreStatus); rate > 0 && n >= leastTrend {
		drain := float64(n) / rate
		r.DrainSeconds = &drain
	}
}

// leastTrend is the least number of pending messages that has a trend: of fewer, two
// looks show chance.
const leastTrend = 10

// pending counts what only waits for its turn.
func pending(s *outlast.StoreStatus) (n int) {
	for _, r := range s.Pending {
		n += r.Count
	}
	return n
}

// toSend counts what the relay has still to send: pending, and held but not for a
// later time. exact is false when counting stopped at its limit.
func toSend(s *outlast.StoreStatus) (n int, exact bool) {
	exact = true
	for _, r := range s.Pending {
		n += r.Count
		exact = exact && r.Count < outlast.CountLimit
	}
	for _, h := range s.Held {
		if h.Reason != outlast.HeldDue {
			n += h.Count
			exact = exact && h.Count < outlast.CountLimit
		}
	}
	return n, exact
}

// oldestToSend is the age of the oldest of what toSend counts.
func oldestToSend(s *outlast.StoreStatus) time.Duration {
	var oldest time.Duration
	for _, r := range s.Pending {
		oldest = max(oldest, r.Oldest)
	}
	for _, h := range s.Held {
		if h.Reason != outlast.HeldDue {
			oldest = max(oldest, h.Oldest)
		}
	}
	return oldest
}

func (p *program) printStatus(r *statusReport) error {
	if p.json {
		return p.printJSONLine(r)
	}
	source := r.Source
	if source == "" {
		source = "nobody's yet (a relay or `outlast migrate up --service NAME` names its service)"
	}
	p.printf("outbox of %s, %s, at %s\n", printable(source), r.Database, timeText(r.Now))
	for _, w := range r.Warnings {
		p.printf("WARNING: %s\n", w)
	}
	p.printBacklog(r)
	p.printHeld(r.Held)
	p.printReceived("retry", r.Retry)
	p.printReceived("dead", r.Dead)
	p.printRelays(r)
	p.printGroups(r)
	if g := r.RelaysPaused; g != nil {
		p.printf("\nPAUSED: the relays, nothing is sent, since %s by %s: %s\n", timeText(g.Since), printable(g.Who), printable(dash(g.Reason)))
	}
	for _, g := range r.Groups {
		p.printf("\nPAUSED: group %s since %s by %s: %s\n", printable(g.Group), timeText(g.Since), printable(g.Who), printable(dash(g.Reason)))
	}
	return nil
}

func (p *program) printBacklog(r *statusReport) {
	n, exact := toSend(r.StoreStatus)
	if n == 0 {
		p.printf("nothing waits to be sent\n")
		return
	}
	text := grouped(n)
	if !exact {
		text = "more than " + text
	}
	p.printf("%s to send, the oldest for %s%s\n", text, durationText(oldestToSend(r.StoreStatus)), r.heldText(n)+r.drainText())
	if len(r.Pending) == 0 {
		return
	}
	t := newTable("PENDING", "COUNT>", "OLDEST>")
	for _, route := range r.Pending {
		t.add(route.Type, countText(route.Count), durationText(route.Oldest))
	}
	p.printf("\n")
	t.write(p.out)
}

// heldText tells how many of the n messages to send are held.
func (r *statusReport) heldText(n int) string {
	switch held := n - pending(r.StoreStatus); held {
	case 0:
		return ""
	case n:
		return ", all held"
	default:
		return fmt.Sprintf(", %s of them held", grouped(held))
	}
}

func (r *statusReport) drainText() string {
	switch {
	case r.RatePerSecond == nil || pending(r.StoreStatus) < leastTrend:
		return ""
	case r.DrainSeconds != nil && *r.DrainSeconds < math.MaxInt32:
		return fmt.Sprintf("; shrinking by %.0f/s, drained in %s", *r.RatePerSecond, durationText(time.Duration(*r.DrainSeconds*float64(time.Second))))
	case *r.RatePerSecond < 0:
		return fmt.Sprintf("; growing by %.0f/s", -*r.RatePerSecond)
	default:
		return "; not shrinking"
	}
}

func (p *program) printHeld(held []outlast.HeldStatus) {
	if len(held) == 0 {
		return
	}
	t := newTable("HELD", "WHY", "COUNT>", "OLDEST>", "ERROR OF ONE")
	for _, h := range held {
		t.add(h.Type, string(h.Reason), countText(h.Count), durationText(h.Oldest), cut(firstLine(h.Error), 80))
	}
	p.printf("\n")
	t.write(p.out)
}

func (p *program) printReceived(word string, groups []outlast.GroupStatus) {
	if len(groups) == 0 {
		return
	}
	t := newTable(map[string]string{"retry": "RETRY", "dead": "DEAD"}[word], "TYPE", "COUNT>", "OLDEST>")
	for _, g := range groups {
		t.add(g.Group, g.Type, countText(g.Count), durationText(g.Oldest))
	}
	p.printf("\n")
	t.write(p.out)
}

// printGroups shows every group, also those that have nothing to do: who looks for one
// should find it.
func (p *program) printGroups(r *statusReport) {
	if r.KnownInPart != "" {
		p.printf("\nidle groups are not shown, nor instances: %s\n", printable(r.KnownInPart))
	}
	if len(r.Known) == 0 {
		return
	}
	t := newTable("GROUP", "INSTANCES>", "LAST SIGN>", "RETRY>", "DEAD>")
	for _, g := range r.Known {
		sign := "-"
		if g.Quiet != nil {
			sign = durationText(*g.Quiet)
		}
		t.add(g.Group, grouped(g.Instances), sign, countText(g.Waiting), countText(g.Dead))
	}
	p.printf("\n")
	t.write(p.out)
}

func (p *program) printRelays(r *statusReport) {
	if len(r.Relays) == 0 {
		p.printf("\nno relay is alive: nothing is sent until one runs\n")
		return
	}
	t := newTable("RELAY", "SLOTS>")
	for _, relay := range r.Relays {
		t.add(relay.Owner, grouped(relay.Slots))
	}
	p.printf("\n")
	t.write(p.out)
}
