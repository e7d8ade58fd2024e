package console

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/outlastmq/outlast"
)

// forProgram reports whether a request asks for JSON, by format=json in its address.
func forProgram(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Get("format") == "json"
}

// renderJSON answers a program. A page that has no JSON says so.
func (x *Console) renderJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	if v == nil {
		status, v = http.StatusBadRequest, map[string]string{"error": "this page is not there as JSON", "code": string(outlast.CodeInvalid)}
	}
	text, err := json.Marshal(v)
	if err != nil {
		x.c.Log.Error("write a page of the console as JSON", "path", r.URL.Path, "error", err)
		http.Error(w, "this page could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// healthJSON is the page Health for programs.
type healthJSON struct {
	At        time.Time   `json:"at"`
	Words     []string    `json:"words"`
	Databases []placeJSON `json:"databases"`
}

// placeJSON is a database: Status is missing, and Unknown says why, when it did not answer.
// Remembered is then what a collector last heard of it, at RememberedAt.
type placeJSON struct {
	Name         string               `json:"name"`
	Unknown      string               `json:"unknown,omitempty"`
	Groups       []string             `json:"groups"`
	Status       *outlast.StoreStatus `json:"status,omitempty"`
	Remembered   *outlast.StoreStatus `json:"remembered,omitempty"`
	RememberedAt time.Time            `json:"remembered_at,omitzero"`
}

func (d *healthData) forProgram() healthJSON {
	j := healthJSON{At: d.At, Words: notNil(d.Words), Databases: []placeJSON{}}
	for _, b := range d.Books {
		j.Words = append(j.Words, b.Text)
	}
	for _, p := range d.Places {
		j.Databases = append(j.Databases, placeJSON{p.Name, p.Unknown, notNil(p.Groups), p.StoreStatus, p.Old, p.OldAt})
	}
	return j
}

// failuresJSON is a page of Failures for programs. Next continues it as the field before.
type failuresJSON struct {
	Failures []failureJSON `json:"failures"`
	Unknown  []gapJSON     `json:"unknown"`
	Next     string        `json:"next,omitempty"`
}

type failureJSON struct {
	outlast.Failure
	Database string `json:"database"`
}

// gapJSON is a database that did not answer.
type gapJSON struct {
	Database string `json:"database"`
	Why      string `json:"why"`
}

func (d *failuresData) forProgram() failuresJSON {
	j := failuresJSON{Failures: []failureJSON{}, Unknown: gapsJSON(d.Gaps), Next: d.Next}
	for _, f := range d.List {
		j.Failures = append(j.Failures, failureJSON{f.Failure, f.Place.Name})
	}
	return j
}

// queuesJSON is the page Queues for programs.
type queuesJSON struct {
	Broker  string      `json:"broker"`
	At      time.Time   `json:"at"`
	Words   []string    `json:"words"`
	Queues  []queueJSON `json:"queues"`
	Unknown []gapJSON   `json:"unknown"`
}

// queueJSON is a queue. Messages and Consumers are there only when State is "there".
type queueJSON struct {
	Queue     string `json:"queue"`
	Group     string `json:"group"`
	State     string `json:"state"`
	Why       string `json:"why,omitempty"`
	Messages  *int   `json:"messages,omitempty"`
	Consumers *int   `json:"consumers,omitempty"`
	Paused    bool   `json:"paused,omitempty"`
}

func (d *queuesData) forProgram() queuesJSON {
	j := queuesJSON{Broker: d.Broker, At: d.At, Words: notNil(d.Words), Queues: []queueJSON{}, Unknown: gapsJSON(d.Gaps)}
	for _, r := range d.Rows {
		q := queueJSON{Queue: r.Queue, Group: r.Group, State: r.State, Why: r.Why, Paused: r.Paused != nil}
		if r.State == "there" {
			q.Messages, q.Consumers = &r.Messages, &r.Consumers
		}
		j.Queues = append(j.Queues, q)
	}
	return j
}

func gapsJSON(gaps []gap) []gapJSON {
	list := []gapJSON{}
	for _, g := range gaps {
		list = append(list, gapJSON{g.Name, g.Why})
	}
	return list
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
