package console_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/console"
	"github.com/outlastmq/outlast/journey"
	"github.com/outlastmq/outlast/memory"
)

var nextPage, messageLink = regexp.MustCompile(`rel="next" href="([^"]+)"`), regexp.MustCompile(`<a class="id" href="message\?id=([^"]+)"|<span class="id">([^<]+)</span>`)

// follow reads a list from page to page, as the links lead, and returns what each shows.
func (f *fixture) follow(path string) (pages [][]string) {
	f.Helper()
	for path != "" && len(pages) < 1000 {
		a := f.page(path)
		var ids []string
		for _, m := range messageLink.FindAllStringSubmatch(a.text, -1) {
			ids = append(ids, m[1]+m[2])
		}
		pages = append(pages, ids)
		path = ""
		if m := nextPage.FindStringSubmatch(a.text); m != nil {
			path = html.UnescapeString(m[1])
		}
	}
	return pages
}

func TestFlowAndFindShowEveryMessagePageByPage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var ids []string
	flow := outlast.NewID()
	for range 250 {
		m := message()
		m.CorrelationID, m.Find = flow, map[string]string{"customer": "c-1"}
		ids = append(ids, f.publish(m).ID)
	}
	slices.Sort(ids)
	for _, path := range []string{"flow?id=" + flow, "find?q=c-1"} {
		pages := f.follow(path)
		if len(pages) != 3 || len(pages[0]) != 100 || len(pages[1]) != 100 {
			t.Fatalf("%s has %d pages", path, len(pages))
		}
		all := slices.Concat(pages...)
		slices.Sort(all)
		if !slices.Equal(all, ids) {
			t.Errorf("the pages of %s show %d messages, and not each of the %d once", path, len(all), len(ids))
		}
		f.page(path, "Messages 1–100 of 250, counted from the newest.")
		second := path + "&before=" + ids[150]
		a := f.page(second, "Messages 101–200 of 250, counted from the newest.", "Newest messages")
		if !strings.Contains(a.text, ids[149]) || strings.Contains(a.text, ">"+ids[151]+"<") {
			t.Errorf("%s is not the page before %s", second, ids[150])
		}
		f.page(path+"&before="+ids[50], "Messages 201–250 of 250", "Later messages")
		f.page(path+"&before="+ids[0], "Nothing comes after this one: all 250 are later.", "Newest messages")
		if a := f.get(path + "&before=" + url.QueryEscape("x\x00")); a.status != http.StatusBadRequest {
			t.Errorf("a place that cannot be is answered %d", a.status)
		}
	}
	if a := f.page("flow?id=" + flow + "&as=graph&before=" + ids[150]); strings.Count(a.text, fmt.Sprintf("before=%s", ids[150])) != 3 {
		t.Error("the pictures of a page do not lead to each other")
	}
}

func TestAFlowShowsTheCausesOfAPage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.publish(message())
	for range 100 {
		m := message()
		m.CorrelationID, m.CausationID = root.ID, root.ID
		f.publish(m)
	}
	f.page("flow?id="+root.ID, "Messages 1–100 of 101", "1 cause of these is shown too, and counted on another page.", "cause, of another page")
	if a := f.page("find?q=" + root.ID); strings.Contains(a.text, "cause, of another page") {
		t.Error("a list has causes aside")
	}
}

// TestFailuresOfOneTimeAreAllShown: groups that were last seen at the very time of the one
// at a page's edge are on the next page.
func TestFailuresOfOneTimeAreAllShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time stands still
		store := memory.NewStore()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for n := range 120 {
			m := message()
			tx, err := store.Inbox().Begin(t.Context(), group, []outlast.Mark{{Source: m.Source, ID: m.ID, Hash: 1, EnqueuedAt: m.EnqueuedAt}})
			must(err)
			must(tx.Bury(t.Context(), &outlast.DeadLetterRecord{Group: group, Message: m, Reason: "verdict", Error: "x", Attempts: 1, Fingerprint: fmt.Sprintf("f%03d", 119-n)}))
			must(tx.Commit(t.Context()))
		}
		x, err := console.New(console.Config{Authenticate: byHeader, Places: []journey.Place{{Name: "billing-db", Store: store}}})
		must(err)
		get := func(path string, status int) string {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+path, nil)
			r.Header.Set("X-Test-Who", "boss")
			w := httptest.NewRecorder()
			x.ServeHTTP(w, r)
			if w.Code != status {
				t.Fatalf("%s answers %d: %s", path, w.Code, w.Body)
			}
			return w.Body.String()
		}
		var seen []string
		pages := 0
		for path := "failures"; path != "" && pages < 10; pages++ {
			text := get(path, http.StatusOK)
			for _, m := range regexp.MustCompile(`<code>(f[0-9]{3})</code>`).FindAllStringSubmatch(text, -1) {
				seen = append(seen, m[1])
			}
			path = ""
			if m := regexp.MustCompile(`class="more" href="([^"]+)"`).FindStringSubmatch(text); m != nil {
				path = html.UnescapeString(m[1])
			}
		}
		if len(seen) != 120 || pages != 3 || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 120 {
			t.Errorf("%d pages show %d failures of 120", pages, len(seen))
		}
		get("failures?before="+url.QueryEscape(time.Now().UTC().Format(time.RFC3339Nano)), http.StatusOK) // a time alone
		for _, bad := range []string{"x", "2026-01-02T15:04:05Z a", "2026-01-02T15:04:05Z a b \x00"} {
			get("failures?before="+url.QueryEscape(bad), http.StatusBadRequest)
		}
	})
}
