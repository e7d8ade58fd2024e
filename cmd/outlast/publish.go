package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/spf13/cobra"
)

// publishFlags is one message, or where many come from.
type publishFlags struct {
	line     messageLine
	body     string
	bodyFile string
	headers  []string
	find     []string
	delay    time.Duration
	due      string
	lifetime time.Duration
	file     string
	batch    int
	skip     int
	dryRun   bool
	maxBody  size
	unheard  bool
}

func (p *program) publishCommand() *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish",
		Short: "Write one message, or a file of them, into the outbox",
		Long: `Publish writes messages into the outbox of the database, from where the relay sends
them; the broker may be down. It writes one message from flags, or many from --file
(- is stdin), one JSON object a line:

  {"type":"order.placed.v1","key":"order-7","body":{"order_id":"order-7"}}

Members: type and body (any JSON value), or body_text (text as it is) or body_base64;
optional: key, id, kind, subject, headers, time, content_type, data_schema,
correlation_id, causation_id, delay ("10m"), due (RFC 3339), lifetime, exchange,
routing_key, may_be_unheard, find.

A Go contract gives a message its business keys, by which outlast find finds it. What
this command writes has those that --find or the member find give it:
{"order_id":"order-7"}; without them it is found by its id, flow and ordering key.

A file is written in transactions of --batch lines. When a line is wrong, what came
before its batch is written, the error names the line, and --skip continues there.`,
		Example: `  outlast publish --type order.placed.v1 --key order-7 --body '{"order_id":"order-7"}'
  outlast publish --type order.placed.v1 --find order_id=order-7 --body '{"order_id":"order-7"}'
  outlast publish --file orders.jsonl --batch 1000
  zcat orders.jsonl.gz | outlast publish --file - --dry-run`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.publish(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.line.Type, "type", "", "type with its major version: order.placed.v1")
	fl.StringVar(&f.line.Key, "key", "", "ordering key")
	fl.StringVar(&f.line.ID, "id", "", "id, a UUID: a repeat with it takes effect once (default a new one)")
	fl.StringVar((*string)(&f.line.Kind), "kind", "", "event or command (default event)")
	fl.StringVar(&f.line.Subject, "subject", "", "what the message concerns")
	fl.StringVar(&f.line.ContentType, "content-type", "", "of the body (default application/json)")
	fl.StringVar(&f.line.CorrelationID, "correlation", "", "flow that the message belongs to")
	fl.StringVar(&f.body, "body", "", "the body")
	fl.StringVar(&f.bodyFile, "body-file", "", "file with the body, - for stdin")
	fl.StringArrayVar(&f.headers, "header", nil, "NAME=VALUE, may be repeated")
	fl.StringArrayVar(&f.find, "find", nil, "NAME=VALUE, a business key to find the message by; may be repeated")
	fl.DurationVar(&f.delay, "delay", 0, "keep the message back for so long")
	fl.StringVar(&f.due, "due", "", "keep the message back until this time (RFC 3339)")
	fl.DurationVar(&f.lifetime, "lifetime", 0, "drop the message when it was not handled by then")
	fl.BoolVar(&f.unheard, "may-be-unheard", false, "settle the message even when no queue is bound")
	fl.StringVar(&f.file, "file", "", "file of messages, one JSON object a line; - for stdin")
	fl.IntVar(&f.batch, "batch", 500, "lines in one transaction, 1 to 10000")
	fl.IntVar(&f.skip, "skip", 0, "lines to skip at the beginning of the file")
	fl.BoolVar(&f.dryRun, "dry-run", false, "only check the messages")
	fl.Var(&f.maxBody, "max-body", "greatest body, at most 16 MiB")
	fl.Lookup("max-body").DefValue = "1 MiB" // the outbox's own, which 0 stands for
	return cmd
}

func (p *program) publish(cmd *cobra.Command, f *publishFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	source, done, err := p.messageSource(cmd, f)
	if err != nil {
		return err
	}
	defer done()
	w := publishing{p: p, source: source, max: int(f.maxBody), batch: f.batch, fromFile: f.file != ""}
	if f.dryRun {
		return w.run(cmd.Context(), nil)
	}
	return p.withDatabase(cmd.Context(), func(ctx context.Context, db *database) error {
		return w.run(ctx, db)
	})
}

func (f *publishFlags) check(cmd *cobra.Command) error {
	op := cmd.CommandPath()
	switch {
	case f.file != "" && (f.line.Type != "" || f.body != "" || f.bodyFile != ""):
		return usage(op, "--file", "given without --type and --body", "given with them", "")
	case f.file == "" && f.line.Type == "":
		return usage(op, "--type", "given, or --file for many messages", "not given", "")
	case f.file == "" && (f.body == "") == (f.bodyFile == ""):
		return usage(op, "--body and --body-file", "one of the two", "both or none", "--body '{}' is the shortest JSON body")
	case f.batch < 1 || f.batch > maxPage:
		return usage(op, "--batch", "1 to 10000", fmt.Sprint(f.batch), "")
	case f.skip < 0:
		return usage(op, "--skip", "positive", fmt.Sprint(f.skip), "")
	case f.maxBody > outlast.MaxBody:
		return usage(op, "--max-body", "at most 16 MiB", f.maxBody.String(), "")
	}
	return nil
}

// messageSource returns where the messages come from.
func (p *program) messageSource(cmd *cobra.Command, f *publishFlags) (source *lineReader, done func(), err error) {
	if f.file == "" {
		m, err := p.oneMessage(cmd.CommandPath(), f)
		if err != nil {
			return nil, nil, err
		}
		return &lineReader{single: &m}, func() {}, nil
	}
	r, closeFile, err := p.openInput(cmd.CommandPath(), "--file", f.file)
	if err != nil {
		return nil, nil, err
	}
	lines := newLineReader(r)
	if err := lines.skip(f.skip); err != nil {
		closeFile()
		return nil, nil, err
	}
	return lines, closeFile, nil
}

// openInput opens a file named by a flag, or stdin for "-".
func (p *program) openInput(op, flag, name string) (r io.Reader, done func(), err error) {
	if name == "-" {
		return p.in, func() {}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, usageError{&outlast.Error{Op: op + ": " + flag, Code: outlast.CodeNotFound, Err: err}}
	}
	return file, func() { _ = file.Close() }, nil
}

func (p *program) oneMessage(op string, f *publishFlags) (outlast.Message, error) {
	m := f.line.Message
	m.Key, m.Delay, m.Lifetime, m.MayBeUnheard = f.line.Key, f.delay, f.lifetime, f.unheard
	m.Body = []byte(f.body)
	if f.bodyFile != "" {
		r, done, err := p.openInput(op, "--body-file", f.bodyFile)
		if err != nil {
			return m, err
		}
		defer done()
		if m.Body, err = io.ReadAll(io.LimitReader(r, outlast.MaxBody+1)); err != nil {
			return m, &outlast.Error{Op: op + ": read the body", Code: outlast.CodeUnavailable, Err: err}
		}
	}
	if m.ContentType == "" && len(m.Body) <= cmp.Or(int(f.maxBody), outlast.DefaultMaxBody) && !json.Valid(m.Body) {
		return m, usage(op, "body", "JSON, or --content-type given", "text that is not JSON", "--content-type text/plain sends it as it is")
	}
	if f.due != "" {
		due, err := time.Parse(time.RFC3339, f.due)
		if err != nil {
			return m, usage(op, "--due", "a time like 2026-03-01T08:00:00Z", fmt.Sprintf("%q", cut(f.due, 40)), "")
		}
		m.Due = due
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return m, usage(op, "--header", "NAME=VALUE", "a text without '='", "")
		}
		outlast.Header(name, value)(&m)
	}
	for _, key := range f.find {
		name, value, ok := strings.Cut(key, "=")
		if !ok {
			return m, usage(op, "--find", "NAME=VALUE", "a text without '='", "")
		}
		if m.Find == nil {
			m.Find = map[string]string{}
		}
		m.Find[name] = value
	}
	return m, nil
}

// publishing writes what a source gives, batch by batch.
type publishing struct {
	p        *program
	source   *lineReader
	max      int
	batch    int
	fromFile bool

	published int
	lastID    string
	warned    map[string]bool // types
}

func (w *publishing) run(ctx context.Context, db *database) error {
	deed := "published"
	if db == nil {
		deed = "checked"
	}
	line := w.p.newProgress(deed, 0)
	err := w.loop(ctx, db, line)
	line.end(w.published)
	if printErr := w.report(deed, err != nil); printErr != nil && err == nil {
		return printErr
	}
	return err
}

func (w *publishing) loop(ctx context.Context, db *database, line *progressLine) error {
	for {
		if ctx.Err() != nil {
			return interrupted("publish", fmt.Sprintf("--skip %d continues", w.source.done))
		}
		batch, last, err := w.source.next(w.batch, w.max)
		if err != nil {
			return err
		}
		if len(batch) > 0 && db != nil {
			if err := w.write(ctx, db, batch); err != nil {
				return err
			}
		}
		w.source.commit()
		w.warnOfTypes(ctx, db, batch)
		w.published += len(batch)
		line.update(w.published)
		if last {
			return nil
		}
	}
}

// versioned is how a type ends that a contract of Outlast can have.
var versioned = regexp.MustCompile(`\.v[1-9][0-9]*$`)

// warnOfTypes tells, once for each type, that it has no version: no contract has such a
// type, so that only a group of another system can hear it.
func (w *publishing) warnOfTypes(ctx context.Context, db *database, batch []outlast.Message) {
	for _, m := range batch {
		if versioned.MatchString(m.Type) || w.warned[m.Type] {
			continue
		}
		if w.warned == nil {
			w.warned = map[string]bool{}
		}
		if w.warned[m.Type] = true; len(w.warned) > 20 {
			return
		}
		w.p.warn("type %s has no version, as contracts have: no service hears it; %s", printable(m.Type), w.likeType(ctx, db, m.Type))
	}
}

// likeType names the type that may have been meant.
func (w *publishing) likeType(ctx context.Context, db *database, typ string) string {
	best, least := typ+".v1", 4
	if db != nil {
		ctx, cancel := w.p.brief(ctx)
		defer cancel()
		hearers, _ := db.Journal().Hearers(ctx) // a hint, and none when it cannot be had
		for _, h := range hearers {
			if d := edits(typ+".v1", h.Type); d < least {
				best, least = h.Type, d
			}
		}
	}
	return "was " + printable(best) + " meant?"
}

// write commits one batch. It finishes even when ctx ends meanwhile, so that it is
// known what was written.
func (w *publishing) write(ctx context.Context, db *database, batch []outlast.Message) error {
	ctx, cancel := w.p.brief(context.WithoutCancel(ctx))
	defer cancel()
	outbox := outlast.NewOutbox(db, outlast.OutboxConfig{MaxBody: w.max})
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return w.failed(db.connectError(err))
	}
	if err := outbox.Publish(ctx, tx, batch...); err != nil {
		_ = tx.Rollback()
		return w.failed(err)
	}
	if err := commit(tx); err != nil {
		return w.failed(err)
	}
	w.lastID = batch[len(batch)-1].ID
	return nil
}

// commit has three outcomes; without an answer of the server, it is unknown.
func commit(tx *sql.Tx) error {
	err := tx.Commit()
	if err == nil {
		return nil
	}
	if commitRefused(err) {
		return &outlast.Error{Op: "commit", Code: outlast.CodeRefused, Err: err}
	}
	return &outlast.Error{Op: "commit", Code: outlast.CodeUnknown, Err: err,
		Hint: "it may have been written or not; messages that carry ids of their own can be repeated without harm"}
}

func (w *publishing) failed(err error) error {
	if !w.fromFile {
		return err
	}
	from, to := w.source.span()
	op := fmt.Sprintf("lines %d to %d", from, to)
	if outlast.CodeOf(err) == outlast.CodeUnknown {
		return &outlast.Error{Op: op + " may be written or not", Code: outlast.CodeUnknown, Err: err}
	}
	return &outlast.Error{Op: op + " were not written", Code: outlast.CodeOf(err), Err: err, Hint: fmt.Sprintf("--skip %d continues", from-1)}
}

func (w *publishing) report(deed string, partly bool) error {
	if w.p.json {
		return w.p.printJSON(struct {
			Deed  string `json:"deed"`
			Count int    `json:"count"`
			Lines int    `json:"lines,omitempty"`
			ID    string `json:"id,omitempty"` // of a single message
		}{deed, w.published, w.source.done, w.singleID()})
	}
	switch {
	case w.fromFile:
		w.p.printf("%s %s (up to line %s)\n", deed, plural(w.published, "message"), grouped(w.source.done))
	case partly:
	case deed == "checked":
		w.p.printf("the message is good\n")
	default:
		w.p.printf("published %s\n", w.lastID)
	}
	return nil
}

func (w *publishing) singleID() string {
	if w.fromFile {
		return ""
	}
	return w.lastID
}
