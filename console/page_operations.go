package console

import (
	"context"
	"net/http"
	"slices"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/journey"
)

// jobView is a job as a page shows it.
type jobView struct {
	*job
	State          string
	Selected, Done int
	More           bool
	Err            string
	Startable      bool
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
	return jobView{job: j, State: string(j.State), Selected: j.Selected, Done: j.Done, More: j.More, Err: j.Err, Startable: j.Place != nil && j.startable()}
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
	return &view{Title: "Operations", Template: "operations", Data: struct {
		Stored bool
		List   []jobView
	}{x.c.Operations != nil, views}}, nil
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
	v.May = x.mayOf(who, j.Group, j.Type)
	if j.Deed == "retry" && v.Done > 0 && j.Place != nil {
		if v.Outcome, err = x.outcome(ctx, j); err != nil {
			return nil, err
		}
	}
	return &view{Title: "Operation", Template: "operation", Data: v}, nil
}

func (x *Console) outcome(ctx context.Context, j *job) (*outcome, error) {
	j.mu.Lock()
	ids := slices.Clone(j.IDs)
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
