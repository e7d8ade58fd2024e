package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
	"github.com/spf13/cobra"
)

// promise is one of the documentation's, and whether it needs the broker: all of
// them need the database.
type promise struct {
	name   string
	broker bool
}

// promises are in the documentation's order.
var promises = []promise{
	{"No loss", true}, {"No ghost", false}, {"One effect", false}, {"Key order", true},
	{"Independence", false}, {"Self-healing", true}, {"Honesty", true}, {"Fair retry", false},
}

// isPromise tells the name of a promise from an adapter's free text.
func isPromise(text string) bool {
	return slices.ContainsFunc(promises, func(p promise) bool { return strings.EqualFold(p.name, text) })
}

// promiseState is whether a promise holds with this set-up.
type promiseState struct {
	Promise string `json:"promise"`
	State   string `json:"state"` // "holds", "at risk", "unknown"
	Because string `json:"because,omitempty"`
}

// diagnosis is what doctor prints.
type diagnosis struct {
	Findings []outlast.Finding `json:"findings"`
	Promises []promiseState    `json:"promises"`
	// Why the promises that need a server are unknown; empty when they are known.
	databaseBlind, brokerBlind string
}

func (p *program) doctorCommand() *cobra.Command {
	var f topologyFlags
	warn := defaultThresholds()
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the database and the broker, and say which promises hold",
		Long: `Doctor connects to the database and the broker, checks versions, rights, settings,
alarms and clocks, compares the topology when one is given, and says which of
Outlast's promises hold with this set-up and which do not. It changes nothing.
Without a broker URL only the database is checked, and the other way round; the
promises that need what was not checked are then unknown.

Exit code 1 when a check fails.`,
		Example: "  outlast doctor\n  outlast doctor --file topology.json --json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := warn.check(cmd.CommandPath()); err != nil {
				return err
			}
			return p.doctor(cmd, &f, warn)
		},
	}
	f.register(cmd)
	warn.flags(cmd)
	return cmd
}

func (p *program) doctor(cmd *cobra.Command, f *topologyFlags, warn thresholds) error {
	hasDatabase := p.databaseURL != "" || p.getenv(databaseServer.env) != ""
	hasBroker := p.brokerURL != "" || p.getenv(brokerServer.env) != ""
	if !hasDatabase && !hasBroker {
		return usage(cmd.CommandPath(), "--database or --broker", "given", "not given", "or set "+databaseServer.env+" and "+brokerServer.env)
	}
	var topology *outlast.Topology
	if f.file != "" || f.group != "" {
		t, err := p.topology(cmd.CommandPath(), f)
		if err != nil {
			return err
		}
		topology = &t
	}
	d := diagnosis{Findings: []outlast.Finding{}, databaseBlind: "the database was not checked", brokerBlind: "the broker was not checked"}
	if hasDatabase {
		if err := p.examineDatabase(cmd.Context(), &d, warn); err != nil {
			return err
		}
		d.databaseBlind = blindness(d.Findings, "database")
	}
	if hasBroker {
		before := len(d.Findings)
		if err := p.examineBroker(cmd.Context(), &d, topology); err != nil {
			return err
		}
		d.brokerBlind = blindness(d.Findings[before:], "broker")
	}
	d.judge()
	if err := p.printDiagnosis(&d); err != nil {
		return err
	}
	if failed := d.count(outlast.FindingFail); failed > 0 {
		return &outlast.Error{Op: "doctor", Code: outlast.CodeConflict, Err: errors.New(plural(failed, "check") + " failed")}
	}
	return nil
}

func (d *diagnosis) add(subject string, level outlast.FindingLevel, promise, hint, format string, args ...any) {
	d.Findings = append(d.Findings, outlast.Finding{Subject: subject, Level: level, Text: fmt.Sprintf(format, args...), Hint: hint, Promise: promise})
}

// addError turns an error into a finding.
func (d *diagnosis) addError(subject string, err error) {
	text, hint := err.Error(), ""
	var e *outlast.Error
	if errors.As(err, &e) && e.Hint != "" {
		text, hint = strings.TrimSuffix(text, " ("+e.Hint+")"), e.Hint
	}
	d.add(subject, outlast.FindingFail, "", hint, "%s", text)
}

func (d *diagnosis) count(level outlast.FindingLevel) int {
	n := 0
	for _, f := range d.Findings {
		if f.Level == level {
			n++
		}
	}
	return n
}

func (p *program) examineDatabase(ctx context.Context, d *diagnosis, warn thresholds) error {
	db, err := p.openDatabase(ctx)
	if err != nil {
		var u usageError
		if errors.As(err, &u) {
			return err
		}
		d.addError("database", err)
		return nil
	}
	defer db.close()
	ctx, cancel := p.brief(ctx)
	defer cancel()
	if err := db.Check(ctx); err != nil {
		d.addError("database", err)
		return nil
	}
	version, err := db.Migrations().Version(ctx)
	if err != nil {
		d.addError("tables", err)
		return nil
	}
	d.add("tables", outlast.FindingOK, "", "", "%s: version %d, and this role may work on them", db.at, version)
	examineTracking(ctx, db, d)
	d.examineRights(ctx, db.Store)
	if err := db.examine(ctx, d); err != nil {
		d.addError("database settings", err)
	}
	asked := time.Now()
	s, err := db.Operator().Status(ctx)
	if err != nil {
		d.addError("status", err)
		return nil
	}
	d.examineClock(s.Now, asked, time.Now())
	bytes, err := db.outboxBytes(ctx)
	if err != nil {
		d.add("outbox size", outlast.FindingWarn, "", "", "cannot be learnt: %s", err)
	}
	d.examineStatus(s, warn, bytes)
	d.examineBooks(ctx, db, s)
	return nil
}

// examineTracking says what is missing for the sent log and the books. Messages flow
// without them.
func examineTracking(ctx context.Context, db *database, d *diagnosis) {
	switch err := db.Journal().Tracking(ctx); outlast.CodeOf(err) {
	case "":
		d.add("tracking", outlast.FindingOK, "", "", "what is sent goes into the sent log")
	case outlast.CodeSchema, outlast.CodeDenied:
		var e *outlast.Error
		errors.As(err, &e)
		d.add("tracking", outlast.FindingWarn, "", e.Hint, "nothing is tracked: %s", e.Err)
	default:
		d.addError("tracking", err)
	}
}

// booksLate is how old what was sent may be before somebody who keeps the books would have
// looked at it.
const booksLate = 6 * time.Hour

// examineBooks says what the books lack, and when nobody keeps them: that is a choice, and
// no failure.
func (d *diagnosis) examineBooks(ctx context.Context, db *database, s *outlast.StoreStatus) {
	if db.Journal().Tracking(ctx) != nil {
		return // said before
	}
	lack, err := journey.Unbalanced(ctx, db, nil)
	if err != nil {
		d.addError("books", err)
		return
	}
	if text := lack.Text(serviceOf(s)); text != "" {
		d.add("books", outlast.FindingWarn, "No loss", "outlast books list --state unbalanced", "%s", text)
		return
	}
	kept, err := db.Books().Minutes(ctx, outlast.MinuteQuery{Limit: 1})
	if err != nil {
		d.addError("books", err)
		return
	}
	if len(kept) > 0 {
		d.add("books", outlast.FindingOK, "", "", "no minute is unbalanced; the newest was looked at %s", timeText(kept[0].At))
		return
	}
	due, err := db.Books().Due(ctx, s.Now, 1)
	switch {
	case err != nil:
		d.addError("books", err)
	case len(due) > 0 && s.Now.Sub(due[0].Minute) > booksLate:
		d.add("books", outlast.FindingOK, "", "", "nobody keeps them: whether what was sent since %s has arrived is not known; outlast books close would say", timeText(due[0].Minute))
	}
}

// examineRights tells what this connection's role may do, where the database has roles.
func (d *diagnosis) examineRights(ctx context.Context, store outlast.Store) {
	s, ok := store.(interface {
		May(ctx context.Context) ([]string, error)
	})
	if !ok {
		return
	}
	may, err := s.May(ctx)
	if err != nil {
		d.addError("rights", err)
		return
	}
	d.add("rights", outlast.FindingOK, "", "", "this role may do the work of: %s", strings.Join(may, ", "))
}

// clockTolerance is the skew that only makes shown ages wrong. Nothing of Outlast
// depends on this machine's clock, so more is a warning and no failure.
const clockTolerance = 2 * time.Second

func (d *diagnosis) examineClock(theirs, asked, answered time.Time) {
	var skew time.Duration
	switch {
	case theirs.Before(asked):
		skew = theirs.Sub(asked)
	case theirs.After(answered):
		skew = theirs.Sub(answered)
	}
	if skew.Abs() <= clockTolerance {
		d.add("clock", outlast.FindingOK, "", "", "the database's clock agrees with this machine's")
		return
	}
	d.add("clock", outlast.FindingWarn, "", "set both by NTP; Outlast goes by the database's clock, your own timestamps may not",
		"the database's clock differs from this machine's by %s", durationText(skew))
}

func (d *diagnosis) examineStatus(s *outlast.StoreStatus, warn thresholds, bytes int64) {
	if s.Source == "" {
		d.add("outbox", outlast.FindingWarn, "", "outlast migrate up --service NAME", "belongs to no service yet")
	} else {
		d.add("outbox", outlast.FindingOK, "", "", "belongs to %s", s.Source)
	}
	for _, text := range warn.warnings(s, bytes) {
		d.add("backlog", outlast.FindingWarn, "", "outlast status shows what waits and why", "%s", text)
	}
	pending, _ := toSend(s)
	switch {
	case len(s.Relays) == 0 && pending > 0:
		d.add("relay", outlast.FindingFail, "Self-healing", "run the service's own relay, or outlast relay", "no relay is alive, and %s to be sent", plural(pending, "message")+" waiting")
	case len(s.Relays) == 0:
		d.add("relay", outlast.FindingWarn, "", "run the service's own relay, or outlast relay", "no relay is alive")
	default:
		d.add("relay", outlast.FindingOK, "", "", "%s alive", plural(len(s.Relays), "relay"))
	}
	for _, h := range s.Held {
		if h.Reason == outlast.HeldRefused {
			d.add("held", outlast.FindingWarn, "", "outlast outbox list --why refused", "%s of %s refused: %s", plural(h.Count, "message"), h.Type, firstLine(h.Error))
		}
		if h.Reason == outlast.HeldUnroutable {
			d.add("held", outlast.FindingWarn, "", "start the service that handles it, or outlast topology apply", "no queue is bound to %s: %s held", h.Type, plural(h.Count, "message"))
		}
	}
	for _, r := range s.Retry {
		if r.Spent > 0 {
			d.add("retry", outlast.FindingWarn, "", "outlast retry list --group "+r.Group+" --why spent, then outlast retry now", "%s of %s in %s cannot succeed and hold their keys", plural(r.Spent, "message"), r.Type, r.Group)
		}
	}
	for _, g := range s.Groups {
		d.add("group "+g.Group, outlast.FindingWarn, "", "outlast resume "+g.Group, "paused since %s by %s", timeText(g.Since), g.Who)
	}
}

func (p *program) examineBroker(ctx context.Context, d *diagnosis, topology *outlast.Topology) error {
	b, err := p.openBroker(ctx)
	if err != nil {
		var u usageError
		if errors.As(err, &u) {
			return err
		}
		d.addError("broker", err)
		return nil
	}
	defer b.close()
	ctx, cancel := p.brief(ctx)
	defer cancel()
	findings, err := b.Topology().Examine(ctx)
	d.Findings = append(d.Findings, findings...)
	if err != nil {
		d.addError("broker", err)
		return nil
	}
	if len(findings) == 0 {
		d.add("broker", outlast.FindingOK, "", "", "%s at %s answers", b.Name(), b.Address())
	}
	if topology == nil {
		return nil
	}
	differences, err := b.Topology().Check(ctx, *topology)
	if err != nil {
		d.addError("topology", err)
		return nil
	}
	for _, diff := range differences {
		d.add("topology", outlast.FindingFail, "No loss", dash(diff.Hint), "%s", diff.String())
	}
	if len(differences) == 0 {
		d.add("topology", outlast.FindingOK, "", "", "the broker has all of it%s", b.unchecked())
	}
	return nil
}

// blindness says why nobody knows about the promises that need a server: a check of
// it failed, and it was not about one promise.
func blindness(findings []outlast.Finding, noun string) string {
	at := slices.IndexFunc(findings, func(f outlast.Finding) bool {
		return f.Level == outlast.FindingFail && !isPromise(f.Promise)
	})
	if at < 0 {
		return ""
	}
	return fmt.Sprintf("a check of the %s failed: %s", noun, findings[at].Subject)
}

// judge says of each promise whether it holds: not when a finding speaks against
// it, and nobody knows when a server that it needs was not checked, or could not be.
func (d *diagnosis) judge() {
	for _, promise := range promises {
		s := promiseState{Promise: promise.name, State: "holds"}
		blind := d.databaseBlind
		if blind == "" && promise.broker {
			blind = d.brokerBlind
		}
		if blind != "" {
			s.State, s.Because = "unknown", blind
		}
		at := slices.IndexFunc(d.Findings, func(f outlast.Finding) bool {
			return f.Level != outlast.FindingOK && strings.EqualFold(f.Promise, promise.name)
		})
		if at >= 0 {
			s.State, s.Because = "at risk", d.Findings[at].Subject+": "+d.Findings[at].Text
		}
		d.Promises = append(d.Promises, s)
	}
}

func (p *program) printDiagnosis(d *diagnosis) error {
	for i := range d.Findings {
		f := &d.Findings[i]
		f.Text, f.Hint = p.secrets.hide(oneLine(f.Text)), p.secrets.hide(oneLine(f.Hint))
	}
	for i := range d.Promises {
		d.Promises[i].Because = p.secrets.hide(oneLine(d.Promises[i].Because))
	}
	if p.json {
		return p.printJSON(d)
	}
	for _, f := range d.Findings {
		p.printf("%-4s  %s: %s\n", f.Level, printable(f.Subject), printable(f.Text))
		if f.Hint != "" && f.Hint != "-" && f.Level != outlast.FindingOK {
			p.printf("      hint: %s\n", printable(f.Hint))
		}
	}
	p.printf("\n")
	t := newTable("PROMISE", "STATE", "BECAUSE")
	for _, s := range d.Promises {
		t.add(s.Promise, s.State, dash(s.Because))
	}
	t.write(p.out)
	return nil
}
