package console_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
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
