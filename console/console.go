package console

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/collector"
	"github.com/outlastmq/outlast/internal/settings"
	"github.com/outlastmq/outlast/journey"
)

// Config is what a console shows, and to whom.
type Config struct {
	// Places are the databases. Their names are shown and hold no secrets.
	Places []journey.Place
	// Authenticate says who asks. Nil only with Loopback.
	Authenticate Authenticator
	// Loopback, without Authenticate, lets in whoever connects from this machine by a
	// name of this machine, with all permissions. Everybody else is refused.
	Loopback bool
	// Audit records who did what before it is done. Without one there are no actions, and
	// nobody sees a body.
	Audit *AuditLog
	// Operations keeps operations beyond a restart: what was under way goes on when Run
	// begins. Nil: they are in memory, and end with the console.
	Operations *OperationLog
	// Collector, when set, is asked about databases that do not answer. What it says is
	// shown with its time, and is never taken for the truth.
	Collector *collector.Store
	// Broker, when set, is asked for its queues and for what it has of the topology. It is
	// only looked at. Without it those pages say nothing of the broker.
	Broker outlast.Broker
	// Declared is the topology that the broker should have, such as [outlast.Service.Topology]
	// of each service. Of a group that is not in it only the name is known, from its
	// database: whether it has queues is then shown, and nothing is compared.
	Declared outlast.Topology
	// AllowEdit lets people with the permission to edit put a new message with another body
	// into the place of a dead letter. Default: nobody may.
	AllowEdit bool
	// Grace is how long what should happen may take before pages call it late. Default: five
	// minutes.
	Grace time.Duration
	// Patience bounds the answer of each database. Range 100ms to 1m; default 5s.
	Patience time.Duration
	// MostRate bounds the messages a second of an operation. Range 1 to 10000; default 100.
	MostRate int
	// Redact takes secrets out of what drivers say. Default: nothing.
	Redact func(string) string
	// Log gets what went wrong. Default: nothing is logged.
	Log *slog.Logger
}

func (c *Config) validate() error {
	settings.Default(&c.Patience, 5*time.Second)
	settings.Default(&c.Grace, 5*time.Minute)
	settings.Default(&c.MostRate, 100)
	if c.Redact == nil {
		c.Redact = func(s string) string { return s }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var bad settings.Bad
	bad.Unless(len(c.Places) > 0, "Places", "at least one database", 0)
	bad.Unless(c.Authenticate != nil || c.Loopback, "Authenticate", "set, unless Loopback is", "nil")
	bad.Unless(c.Authenticate == nil || !c.Loopback, "Loopback", "false with Authenticate", true)
	settings.Within(&bad, "Patience", c.Patience, 100*time.Millisecond, time.Minute)
	bad.Unless(c.Grace > 0, "Grace", "positive", c.Grace)
	settings.Within(&bad, "MostRate", c.MostRate, 1, 10_000)
	bad.Unless(c.Operations == nil || c.Audit != nil, "Audit", "set with Operations", "nil")
	return bad.Err("open the console")
}

// Console is the handler. Mount it below a path that ends in "/", with
// [http.StripPrefix], or at the root.
type Console struct {
	c       Config
	handler http.Handler
	places  []*place
	asker   *journey.Asker
	busy    chan struct{} // requests that may ask the databases at once
	streams chan struct{} // event streams at once
	jobs    jobs

	mu       sync.Mutex
	statuses []placeStatus
	read     time.Time

	broker   sync.Mutex // held while the broker is asked
	observed *observed

	looking sync.Mutex // held while the stamp of a page is made
	looked  map[string]looked
}

const (
	mostBusy    = 8
	mostStreams = 64
	pageSize    = 50
	maxForm     = 64 << 10
)

//go:embed static
var static embed.FS

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(functions).ParseFS(templateFiles, "templates/*.html"))

// New returns a console, or every bad field in one error. It starts nothing: [Console.Run]
// runs the operations, and without it there are none.
func New(c Config) (*Console, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Authenticate == nil {
		c.Authenticate = onThisMachine
	}
	x := &Console{
		c: c, places: placesOf(c.Places), busy: make(chan struct{}, mostBusy), streams: make(chan struct{}, mostStreams),
		asker: &journey.Asker{Places: c.Places, Patience: c.Patience, Grace: c.Grace},
	}
	if c.Collector != nil {
		x.asker.Memory = c.Collector
	}
	x.jobs.queue, x.looked = make(chan *job, mostJobs), map[string]looked{}
	x.recall()
	mux := http.NewServeMux()
	mux.Handle("GET /static/", cached(http.FileServerFS(static)))
	mux.HandleFunc("GET /events", x.events)
	for pattern, page := range map[string]pageFunc{
		"GET /{$}": x.health, "GET /find": x.find, "GET /message": x.message, "GET /outbox": x.outbox, "GET /failures": x.failures,
		"GET /failure": x.failure, "GET /waiting": x.waiting, "GET /audit": x.audit, "GET /flow": x.flow, "GET /books": x.books,
		"GET /minute": x.minute, "GET /operations": x.operations, "GET /operation": x.operation, "GET /topology": x.topology,
		"GET /collected": x.collected, "GET /queues": x.queues,
	} {
		mux.Handle(pattern, x.page(page))
	}
	for pattern, act := range map[string]actFunc{
		"POST /retry": x.retry, "POST /retry-now": x.retryNow, "POST /discard": x.discard, "POST /release": x.release, "POST /withdraw": x.withdraw,
		"POST /pause": x.pause, "POST /resume": x.resume, "POST /resend": x.resend, "POST /sign-off": x.signOff,
		"POST /pause-relays": x.pauseRelays, "POST /resume-relays": x.resumeRelays, "POST /declare": x.declare,
		"POST /operation-plan": x.plan, "POST /operation-start": x.start, "POST /operation-stop": x.stop,
	} {
		mux.Handle(pattern, x.act(act))
	}
	mux.Handle("POST /body", x.bounded(x.body))
	mux.Handle("POST /edit", x.bounded(x.edit))
	x.handler = http.NewCrossOriginProtection().Handler(x.guard(mux))
	return x, nil
}

// ServeHTTP answers a request.
func (x *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if r.URL.Path == "" { // mounted without its last slash
		full, _, _ := strings.Cut(r.RequestURI, "?")
		w.Header().Set("Location", path.Base(full)+"/")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	x.handler.ServeHTTP(w, r)
}

// secure sets what keeps a page of ours a page: nothing but our own files runs or is
// loaded, and nobody frames it.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func cached(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		h.ServeHTTP(w, r)
	})
}

type identityKey struct{}

// guard lets in who may look at something.
func (x *Console) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := x.c.Authenticate(w, r)
		if who == nil {
			return
		}
		if !who.Somewhere(View) {
			http.Error(w, "you may look at nothing here", http.StatusForbidden)
			return
		}
		most := int64(maxForm)
		if r.URL.Path == "/edit" && x.c.AllowEdit {
			most = maxEditForm
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

func whoOf(r *http.Request) *Identity {
	who, _ := r.Context().Value(identityKey{}).(*Identity)
	return who
}

// bounded lets a few requests at a time ask the databases.
func (x *Console) bounded(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*x.c.Patience)
		defer cancel()
		select {
		case x.busy <- struct{}{}:
			defer func() { <-x.busy }()
			next(w, r.WithContext(ctx))
		case <-ctx.Done():
			http.Error(w, "too many questions at once", http.StatusServiceUnavailable)
		}
	})
}

// view is what a page shows.
type view struct {
	Title    string
	Template string
	Data     any
	// JSON is what a program gets of it; nil: this page is for people alone.
	JSON any
	// Frame is filled by render.
	Frame frame
}

// frame is what is around every page.
type frame struct {
	Who       *Identity
	Active    string
	LookOnly  bool
	Collector bool
	Broker    bool
	Notice    string
	Everybody bool
}

type pageFunc func(ctx context.Context, who *Identity, r *http.Request) (*view, error)

func (x *Console) page(f pageFunc) http.Handler {
	return x.bounded(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r.Context(), whoOf(r), r)
		if err != nil {
			x.fail(w, r, err)
			return
		}
		if forProgram(r) {
			x.renderJSON(w, r, http.StatusOK, v.JSON)
			return
		}
		v.Frame = frame{Active: cmp.Or(strings.TrimPrefix(r.URL.Path, "/"), "health"), Notice: notices[r.URL.Query().Get("notice")]}
		x.render(w, r, http.StatusOK, v)
	})
}

func (x *Console) render(w http.ResponseWriter, r *http.Request, status int, v *view) {
	v.Frame.Who, v.Frame.LookOnly, v.Frame.Everybody, v.Frame.Collector, v.Frame.Broker = whoOf(r), !x.acts(), x.c.Loopback, x.c.Collector != nil, x.c.Broker != nil
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, "page", v); err == nil {
		// The parts of a page are templates of their own names.
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write(out.Bytes())
	} else {
		x.c.Log.Error("draw a page of the console", "page", v.Template, "error", err)
		http.Error(w, "this page could not be drawn", http.StatusInternalServerError)
	}
}

// fail says what went wrong, in words.
func (x *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch outlast.CodeOf(err) {
	case outlast.CodeInvalid:
		status = http.StatusBadRequest
	case outlast.CodeDenied:
		status = http.StatusForbidden
	case outlast.CodeNotFound:
		status = http.StatusNotFound
	case outlast.CodeConflict:
		status = http.StatusConflict
	case outlast.CodeUnavailable, outlast.CodeUnknown:
		status = http.StatusServiceUnavailable
	}
	if status >= 500 {
		x.c.Log.Warn("answer a request of the console", "path", r.URL.Path, "error", x.c.Redact(err.Error()))
	}
	if forProgram(r) {
		x.renderJSON(w, r, status, map[string]string{"error": x.c.Redact(err.Error()), "code": string(outlast.CodeOf(err))})
		return
	}
	x.render(w, r, status, &view{Title: http.StatusText(status), Template: "error", Data: x.c.Redact(err.Error())})
}

func denied(p Permission) error {
	return &outlast.Error{Op: "ask the console", Code: outlast.CodeDenied, Err: fmt.Errorf("your permissions do not include %q here", p)}
}

func notFound(what string) error {
	return &outlast.Error{Op: "ask the console", Code: outlast.CodeNotFound, Err: fmt.Errorf("there is no such %s", what)}
}

func invalid(field, limit, given string) error {
	return &outlast.Error{Op: "ask the console", Code: outlast.CodeInvalid, Fields: []outlast.FieldError{{Field: field, Limit: limit, Given: given}}}
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
