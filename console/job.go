package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// job is one operation on all dead letters of one cause: first counted, then, when a
// person says so, done at a rate. It is kept in memory: what a restart cuts off is said
// by the audit log, and what was not done is still among the dead letters.
type job struct {
	ID     string
	Deed   string // "retry" or "discard"
	Place  *place
	Group  string
	Type   string
	Print  string // fingerprint
	Cutoff int64  // the last row when it was planned: what dies later is not part of it
	Rate   int    // messages a second
	Who    string
	Reason string
	At     time.Time

	mu       sync.Mutex
	state    jobState
	selected int
	more     bool
	done     int
	ids      []string // what it has done, for the outcome
	err      string
	stopped  bool
}

type jobState string

const (
	planned jobState = "planned"
	queued  jobState = "queued"
	running jobState = "running"
	ended   jobState = "ended"
	stopped jobState = "stopped"
	failed  jobState = "failed"
)

const (
	mostJobs     = 100
	mostSelected = 10_000 // rows of one operation
	mostOutcome  = 2_000
)

type jobs struct {
	mu      sync.Mutex
	list    []*job
	queue   chan *job
	running bool
}

// Run runs operations until ctx ends; then those under way stop after the messages that
// they have in hand. Call it once. Without it, operations are refused.
func (x *Console) Run(ctx context.Context) error {
	x.jobs.mu.Lock()
	if x.jobs.running {
		x.jobs.mu.Unlock()
		return &outlast.Error{Op: "run the console", Code: outlast.CodeConflict, Err: errors.New("it runs already")}
	}
	x.jobs.running = true
	x.jobs.mu.Unlock()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				select {
				case j := <-x.jobs.queue:
					x.work(ctx, j)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	x.jobs.running = false
	return nil
}

func (j *job) filter() outlast.Filter {
	return outlast.Filter{Group: j.Group, Type: j.Type, Fingerprint: j.Print}
}

func (j *job) permission() Permission {
	if j.Deed == "discard" {
		return Discard
	}
	return Retry
}

// count counts what is selected, page by page, and remembers the last of it.
func (x *Console) count(ctx context.Context, j *job) error {
	f := j.filter()
	for f.Limit = 1000; j.selected < mostSelected; {
		page, err := x.deadPage(ctx, j, f)
		if err != nil {
			return err
		}
		j.selected += len(page)
		if len(page) > 0 {
			f.After = page[len(page)-1].Seq
			j.Cutoff = f.After
		}
		if len(page) < f.Limit {
			return nil
		}
	}
	j.more = true
	return nil
}

func (x *Console) deadPage(ctx context.Context, j *job, f outlast.Filter) ([]outlast.Item, error) {
	ctx, cancel := x.brief(ctx)
	defer cancel()
	return j.Place.Store.Operator().Dead().List(ctx, f)
}

// work does a job in parts of a second's worth.
func (x *Console) work(ctx context.Context, j *job) {
	j.set(running)
	end, text := ended, ""
	f := j.filter()
	f.Limit = min(j.Rate, 500)
	for {
		if j.stopping() || ctx.Err() != nil {
			end = stopped
			break
		}
		more, err := x.part(ctx, j, &f)
		if err != nil {
			end, text = failed, x.c.Redact(err.Error())
			break
		}
		if !more {
			break
		}
		pause := time.Duration(float64(f.Limit) / float64(j.Rate) * float64(time.Second))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	j.mu.Lock()
	j.state, j.err = end, text
	result := fmt.Sprintf("%s: %d of %d", end, j.done, j.selected)
	j.mu.Unlock()
	if err := x.c.Audit.write(j.record(result)); err != nil {
		x.c.Log.Error("record the end of an operation", "error", err)
	}
	x.forgetStatus()
}

// part does the next messages, and reports whether there may be more.
func (x *Console) part(ctx context.Context, j *job, f *outlast.Filter) (bool, error) {
	page, err := x.deadPage(ctx, j, *f)
	if err != nil {
		return false, err
	}
	full := len(page) == f.Limit
	if len(page) > 0 {
		f.After = page[len(page)-1].Seq
	}
	all := len(page)
	page = slices.DeleteFunc(page, func(i outlast.Item) bool { return i.Seq > j.Cutoff })
	if len(page) == 0 {
		return false, nil
	}
	ids := make([]string, len(page))
	for i := range page {
		ids[i] = page[i].Envelope.ID
	}
	only := j.filter()
	only.IDs, only.Limit = ids, len(ids)
	do := outlast.DeadOperator.Replay
	if j.Deed == "discard" {
		do = outlast.DeadOperator.Discard
	}
	// What was begun is finished, so that what was done is known.
	ctx, cancel := x.brief(context.WithoutCancel(ctx))
	defer cancel()
	n, err := do(j.Place.Store.Operator().Dead(), ctx, only, outlast.Action{Who: j.Who, Reason: j.Reason})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done += n
	j.ids = append(j.ids, ids...)
	return full && all == len(page), err
}

func (j *job) set(s jobState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state = s
}

func (j *job) stopping() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stopped
}

func (j *job) record(result string) AuditRecord {
	return AuditRecord{Who: j.Who, What: j.Deed + " group", Place: j.Place.Name, Group: j.Group, Type: j.Type,
		Target: "fingerprint " + j.Print + ", operation " + j.ID, Reason: j.Reason, Result: result}
}

func (x *Console) job(id string) (*job, error) {
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	for _, j := range x.jobs.list {
		if j.ID == id {
			return j, nil
		}
	}
	return nil, notFound("operation: they are forgotten when the console restarts")
}

// keep adds a job and forgets the oldest that is over.
func (x *Console) keep(j *job) error {
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	if len(x.jobs.list) >= mostJobs {
		i := slices.IndexFunc(x.jobs.list, func(j *job) bool {
			s := j.now().State
			return s != string(queued) && s != string(running)
		})
		if i < 0 {
			return &outlast.Error{Op: "plan an operation", Code: outlast.CodeUnavailable, Err: errors.New("too many operations are under way")}
		}
		x.jobs.list = slices.Delete(x.jobs.list, i, i+1)
	}
	x.jobs.list = append(x.jobs.list, j)
	return nil
}

// plan counts what an operation would do. It does nothing.
func (x *Console) plan(ctx context.Context, who *Identity, r *http.Request) (*deed, error) {
	p, err := x.place(r.PostFormValue("db"))
	if err != nil {
		return nil, err
	}
	j := &job{ID: newID(), Deed: r.PostFormValue("deed"), Place: p, Group: r.PostFormValue("group"), Type: r.PostFormValue("type"),
		Print: r.PostFormValue("fingerprint"), Who: who.Name, Reason: r.PostFormValue("reason"), At: time.Now().UTC(), state: planned}
	if j.Deed != "retry" && j.Deed != "discard" {
		return nil, invalid("deed", "retry or discard", "another text")
	}
	if j.Group == "" || j.Type == "" || j.Print == "" {
		return nil, invalid("group, type and fingerprint", "set", "nothing")
	}
	if j.Rate, err = strconv.Atoi(r.PostFormValue("rate")); err != nil || j.Rate < 1 || j.Rate > x.c.MostRate {
		return nil, invalid("rate", fmt.Sprintf("1 to %d messages a second", x.c.MostRate), "another one")
	}
	return &deed{permission: j.permission(), what: "plan " + j.Deed + " of a group", group: j.Group, typ: j.Type, service: j.Group, place: p,
		target: "fingerprint " + j.Print, back: "operation?id=" + j.ID,
		do: func(ctx context.Context, _ outlast.Action) (string, error) {
			if err := x.count(ctx, j); err != nil {
				return "", err
			}
			return plural(j.selected, "message"), x.keep(j)
		}}, nil
}

// jobDeed is a deed on a job that is there.
func (x *Console) jobDeed(r *http.Request, what string) (*deed, *job, error) {
	j, err := x.job(r.PostFormValue("id"))
	if err != nil {
		return nil, nil, err
	}
	return &deed{permission: j.permission(), what: what + " " + j.Deed + " of a group", group: j.Group, typ: j.Type, service: j.Group, place: j.Place,
		target: "operation " + j.ID, back: "operation?id=" + url.QueryEscape(j.ID)}, j, nil
}

func (x *Console) start(_ context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, j, err := x.jobDeed(r, "start")
	if err != nil {
		return nil, err
	}
	d.do = func(context.Context, outlast.Action) (string, error) {
		x.jobs.mu.Lock()
		runs := x.jobs.running
		x.jobs.mu.Unlock()
		if !runs {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeUnavailable, Err: errors.New("the program does not run the console's operations")}
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.state != planned {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeConflict, Err: fmt.Errorf("it is %s", j.state)}
		}
		select {
		case x.jobs.queue <- j:
			j.state = queued
			return "queued", nil
		default:
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeUnavailable, Err: errors.New("too many wait")}
		}
	}
	return d, nil
}

func (x *Console) stop(_ context.Context, _ *Identity, r *http.Request) (*deed, error) {
	d, j, err := x.jobDeed(r, "stop")
	if err != nil {
		return nil, err
	}
	d.permission = Operate
	d.do = func(context.Context, outlast.Action) (string, error) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.stopped = true
		if j.state == planned {
			j.state = stopped
		}
		return "stops after what it has in hand", nil
	}
	return d, nil
}

// jobView is a job as a page shows it.
type jobView struct {
	*job
	State          string
	Selected, Done int
	More           bool
	Err            string
	May            map[string]bool
	Outcome        *outcome
}

// outcome is what became of what was retried. Only what was handled is resolved.
type outcome struct {
	Resolved, Waiting, Dead, Unknown int
	Of                               int
}

func (j *job) now() jobView {
	j.mu.Lock()
	defer j.mu.Unlock()
	return jobView{job: j, State: string(j.state), Selected: j.selected, Done: j.done, More: j.more, Err: j.err}
}

func (x *Console) operations(_ context.Context, who *Identity, _ *http.Request) (*view, error) {
	x.jobs.mu.Lock()
	list := slices.Clone(x.jobs.list)
	x.jobs.mu.Unlock()
	var views []jobView
	for _, j := range slices.Backward(list) {
		if who.May(View, j.Group, j.Type) {
			views = append(views, j.now())
		}
	}
	return &view{Title: "Operations", Template: "operations", Data: views}, nil
}

func (x *Console) operation(ctx context.Context, who *Identity, r *http.Request) (*view, error) {
	j, err := x.job(r.FormValue("id"))
	if err != nil {
		return nil, err
	}
	if !who.May(View, j.Group, j.Type) {
		return nil, denied(View)
	}
	v := j.now()
	v.May = mayOf(who, j.Group, j.Type)
	if j.Deed == "retry" && v.Done > 0 {
		if v.Outcome, err = x.outcome(ctx, j); err != nil {
			return nil, err
		}
	}
	return &view{Title: "Operation", Template: "operation", Data: v}, nil
}

func (x *Console) outcome(ctx context.Context, j *job) (*outcome, error) {
	j.mu.Lock()
	ids := slices.Clone(j.ids[:min(len(j.ids), mostOutcome)])
	j.mu.Unlock()
	o := &outcome{Of: len(ids)}
	ctx, cancel := x.brief(ctx)
	defer cancel()
	for part := range slices.Chunk(ids, 500) {
		page, err := j.Place.Store.Journal().Facts(ctx, outlast.FactQuery{IDs: part, Limit: 10_000})
		if err != nil {
			return nil, err
		}
		known := 0
		for _, s := range journey.Fold(page.Facts) {
			for _, t := range s.Groups {
				if t.Group != j.Group {
					continue
				}
				known++
				switch t.State {
				case journey.Handled:
					o.Resolved++
				case journey.Waiting:
					o.Waiting++
				case journey.Dead:
					o.Dead++
				default:
					o.Unknown++
				}
			}
		}
		o.Unknown += len(part) - known
	}
	return o, nil
}
