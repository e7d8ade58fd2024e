package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outlastmq/outlast"
)

// job is one operation on all dead letters of one cause: first counted, then, when a
// person says so, done at a rate.
type job struct {
	Place *place // nil: its database is not among those of this console

	mu sync.Mutex
	jobRecord
	stopped bool
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

// Run runs operations until ctx ends; then those under way pause after the messages that
// they have in hand, and go on with the next Run of a console on the same
// Config.Operations, or stop when there is none. First it goes on with those that were
// under way before. Call it once. Without it, operations are refused.
func (x *Console) Run(ctx context.Context) error {
	x.jobs.mu.Lock()
	if x.jobs.running {
		x.jobs.mu.Unlock()
		return &outlast.Error{Op: "run the console", Code: outlast.CodeConflict, Err: errors.New("it runs already")}
	}
	x.jobs.running = true
	x.jobs.mu.Unlock()
	x.goOn()
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

// count counts what is selected, page by page, and remembers the last of it. It looks one
// message further than the operation goes, to say whether there are more.
func (x *Console) count(ctx context.Context, j *job) error {
	most := cmp.Or(j.Most, mostSelected)
	f := j.filter()
	for f.Limit = 1000; ; {
		page, err := x.deadPage(ctx, j, f)
		if err != nil {
			return err
		}
		whole := len(page) < f.Limit
		if left := most - j.Selected; len(page) > left {
			page, j.More = page[:left], true
		}
		j.Selected += len(page)
		if len(page) > 0 {
			f.After = page[len(page)-1].Seq
			j.Cutoff = f.After
		}
		if whole || j.More {
			return nil
		}
	}
}

func (x *Console) deadPage(ctx context.Context, j *job, f outlast.Filter) ([]outlast.Item, error) {
	ctx, cancel := x.brief(ctx)
	defer cancel()
	return j.Place.Store.Operator().Dead().List(ctx, f)
}

// work does a job in parts of a second's worth.
func (x *Console) work(ctx context.Context, j *job) {
	end, text := ended, ""
	err := x.set(j, running, "")
	for more := true; err == nil && more; {
		if j.stopping() || ctx.Err() != nil {
			end = stopped
			break
		}
		limit := min(j.Rate, 500)
		if more, err = x.part(ctx, j, limit); err != nil || !more {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(float64(limit) / float64(j.Rate) * float64(time.Second))):
		}
	}
	result := string(end)
	switch {
	case err != nil:
		end, text = failed, x.c.Redact(err.Error())
		result = string(end)
	case end == stopped && !j.stopping() && x.c.Operations != nil:
		end, result = queued, "paused with the console" // the file still says that it runs
	}
	if end == queued {
		j.mu.Lock()
		j.State = queued
		j.mu.Unlock()
	} else if err := x.set(j, end, text); err != nil {
		x.c.Log.Error("record the end of an operation", "error", err)
	}
	v := j.now()
	if err := x.c.Audit.write(j.record(fmt.Sprintf("%s: %d of %d", result, v.Done, v.Selected))); err != nil {
		x.c.Log.Error("record the end of an operation", "error", err)
	}
	x.forgetStatus()
}

// part does the next messages, and reports whether there may be more. A part is recorded
// before it is done, and what was done behind it: of one that a crash cut off, those that
// are not dead any more were done.
func (x *Console) part(ctx context.Context, j *job, limit int) (bool, error) {
	ids, ahead, again := j.Part, j.Ahead, j.Part != nil
	more := true
	if !again {
		f := j.filter()
		f.After, f.Limit = j.After, limit
		page, err := x.deadPage(ctx, j, f)
		if err != nil {
			return false, err
		}
		more = len(page) == limit
		for _, i := range page {
			if i.Seq > j.Cutoff {
				more = false
				break
			}
			ids, ahead = append(ids, i.Envelope.ID), i.Seq
		}
		if len(ids) == 0 {
			return false, nil
		}
		if err := x.c.Operations.write(operationLine{ID: j.ID, Begin: ids, Ahead: ahead}); err != nil {
			return false, err
		}
		j.mu.Lock()
		j.Part, j.Ahead = ids, ahead
		j.mu.Unlock()
	}
	// What was begun is finished, so that what was done is known.
	n, err := x.finish(context.WithoutCancel(ctx), j, ids, again)
	if err != nil {
		return false, err
	}
	if err := x.c.Operations.write(operationLine{ID: j.ID, Did: &n}); err != nil {
		return false, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.did(n)
	return more, nil
}

// finish does a part. Again: it was begun before, and some of it may be done.
func (x *Console) finish(ctx context.Context, j *job, ids []string, again bool) (done int, err error) {
	if again {
		f := j.filter()
		f.IDs, f.Limit = ids, len(ids)
		page, err := x.deadPage(ctx, j, f)
		if err != nil {
			return 0, err
		}
		left := page[:0]
		for _, i := range page {
			if i.Seq <= j.Cutoff { // another one died again
				left = append(left, i)
			}
		}
		done, ids = len(ids)-len(left), nil
		for _, i := range left {
			ids = append(ids, i.Envelope.ID)
		}
	}
	if len(ids) == 0 {
		return done, nil
	}
	do := outlast.DeadOperator.Replay
	if j.Deed == "discard" {
		do = outlast.DeadOperator.Discard
	}
	f := j.filter()
	f.IDs, f.Limit = ids, len(ids)
	ctx, cancel := x.brief(ctx)
	defer cancel()
	n, err := do(j.Place.Store.Operator().Dead(), ctx, f, outlast.Action{Who: j.Who, Reason: j.Reason})
	return done + n, err
}

// set changes the state of a job, on the disk first.
func (x *Console) set(j *job, s jobState, text string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return x.setLocked(j, s, text)
}

func (x *Console) setLocked(j *job, s jobState, text string) error {
	next := j.jobRecord
	next.State, next.Err = s, text
	next.Done, next.After, next.IDs, next.Part, next.Ahead = 0, 0, nil, nil, 0 // the lines of parts tell
	if err := x.c.Operations.write(operationLine{Job: &next}); err != nil {
		return err
	}
	j.State, j.Err = s, text
	return nil
}

// recall takes the operations of the file into the list.
func (x *Console) recall() {
	if x.c.Operations == nil {
		return
	}
	for _, r := range x.c.Operations.jobs {
		j := &job{jobRecord: *r}
		for _, p := range x.places {
			if p.Name == r.Place {
				j.Place = p
			}
		}
		if j.Place == nil && (r.State == queued || r.State == running) {
			j.State, j.Err = failed, "its database is not among those of this console"
		}
		x.jobs.list = append(x.jobs.list, j)
	}
}

// goOn takes up what was under way when the last console ended.
func (x *Console) goOn() {
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	for _, j := range x.jobs.list {
		v := j.now()
		if v.State != string(queued) && v.State != string(running) || len(x.jobs.queue) == cap(x.jobs.queue) {
			continue
		}
		if x.c.Operations != nil {
			if err := x.c.Audit.write(j.record(fmt.Sprintf("goes on after a restart: %d of %d", v.Done, v.Selected))); err != nil {
				x.c.Log.Error("record that an operation goes on", "error", err)
				continue
			}
			x.jobs.queue <- j
		}
	}
}

func (j *job) stopping() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stopped
}

func (j *job) record(result string) AuditRecord {
	return AuditRecord{Who: j.Who, What: j.Deed + " group", Place: j.jobRecord.Place, Group: j.Group, Type: j.Type,
		Target: j.target() + ", operation " + j.ID, Reason: j.Reason, Result: result}
}

// target is what the records say that an operation is about.
func (j *job) target() string {
	if j.Most > 0 {
		return fmt.Sprintf("fingerprint %s, at most %d", j.Print, j.Most)
	}
	return "fingerprint " + j.Print
}

func (x *Console) job(id string) (*job, error) {
	x.jobs.mu.Lock()
	defer x.jobs.mu.Unlock()
	for _, j := range x.jobs.list {
		if j.ID == id {
			return j, nil
		}
	}
	return nil, notFound("operation")
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
	if err := x.set(j, planned, ""); err != nil {
		return err
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
	j := &job{Place: p, jobRecord: jobRecord{ID: newID(), Deed: r.PostFormValue("deed"), Place: p.Name, Group: r.PostFormValue("group"), Type: r.PostFormValue("type"),
		Print: r.PostFormValue("fingerprint"), Who: who.Name, Reason: r.PostFormValue("reason"), At: time.Now().UTC(), State: planned}}
	if j.Deed != "retry" && j.Deed != "discard" {
		return nil, invalid("deed", "retry or discard", "another text")
	}
	if j.Group == "" || j.Type == "" || j.Print == "" {
		return nil, invalid("group, type and fingerprint", "set", "nothing")
	}
	if j.Rate, err = strconv.Atoi(r.PostFormValue("rate")); err != nil || j.Rate < 1 || j.Rate > x.c.MostRate {
		return nil, invalid("rate", fmt.Sprintf("1 to %d messages a second", x.c.MostRate), "another one")
	}
	if text := strings.TrimSpace(r.PostFormValue("most")); text != "" {
		if j.Most, err = strconv.Atoi(text); err != nil || j.Most < 1 || j.Most > mostSelected {
			return nil, invalid("most", fmt.Sprintf("1 to %d messages, or empty for all", mostSelected), "another number")
		}
	}
	return &deed{permission: j.permission(), what: "plan " + j.Deed + " of a group", group: j.Group, typ: j.Type, service: j.Group, place: p,
		target: j.target(), back: "operation?id=" + j.ID,
		do: func(ctx context.Context, _ outlast.Action) (string, error) {
			if err := x.count(ctx, j); err != nil {
				return "", err
			}
			return plural(j.Selected, "message"), x.keep(j)
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
		defer x.jobs.mu.Unlock()
		if !x.jobs.running {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeUnavailable, Err: errors.New("the program does not run the console's operations")}
		}
		if other := x.jobs.busy(j); other != nil {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeConflict, Err: fmt.Errorf("operation %s is at work on the same dead letters", other.ID)}
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.Place == nil {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeUnavailable, Err: errors.New("its database is not among those of this console")}
		}
		if !j.startable() {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeConflict, Err: fmt.Errorf("it is %s", j.State)}
		}
		if len(x.jobs.queue) == cap(x.jobs.queue) {
			return "", &outlast.Error{Op: "start an operation", Code: outlast.CodeUnavailable, Err: errors.New("too many wait")}
		}
		if err := x.setLocked(j, queued, ""); err != nil {
			return "", err
		}
		j.stopped = false
		x.jobs.queue <- j
		return "queued", nil
	}
	return d, nil
}

// startable: it was planned, or stopped or failed before its end. The caller holds the lock.
func (j *job) startable() bool {
	return j.State == planned || (j.State == stopped || j.State == failed) && j.Done < j.Selected
}

// busy returns another operation at work on the same dead letters. The caller holds the lock.
func (s *jobs) busy(j *job) *job {
	for _, other := range s.list {
		if v := other.now(); other != j && (v.State == string(queued) || v.State == string(running)) &&
			other.Place == j.Place && other.Group == j.Group && other.Type == j.Type && other.Print == j.Print {
			return other
		}
	}
	return nil
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
		if j.State == planned {
			return "stopped before it began", x.setLocked(j, stopped, "")
		}
		return "stops after what it has in hand", nil
	}
	return d, nil
}
