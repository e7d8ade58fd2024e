package console_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/console"
)

// TestAuditIsReadToItsFirstRecord: what is no longer in memory is read from the file.
func TestAuditIsReadToItsFirstRecord(t *testing.T) {
	t.Parallel()
	var log *console.AuditLog
	f := newFixture(t, func(c *console.Config) { log = c.Audit })
	for n := range 1060 {
		f.must(log.Write(console.AuditRecord{Who: "boss", What: "look", Target: fmt.Sprint("target ", n+1), Result: strings.Repeat("x", n%300)}))
	}
	next := regexp.MustCompile(`rel="next" href="(audit\?before=[0-9]+)"`)
	number := regexp.MustCompile(`<tr><td class="n" title="[0-9a-f]{64}">([0-9]+)</td>`)
	want, path := 1060, "audit"
	for path != "" {
		a := f.page(path)
		for _, m := range number.FindAllStringSubmatch(a.text, -1) {
			if m[1] != fmt.Sprint(want) || !strings.Contains(a.text, fmt.Sprintf(">target %d<", want)) {
				t.Fatalf("%s shows record %s, want %d", path, m[1], want)
			}
			want--
		}
		path = ""
		if m := next.FindStringSubmatch(a.text); m != nil {
			path = m[1]
		}
	}
	if want != 0 {
		t.Errorf("the links end before record %d", want)
	}
	f.page("audit?before=1", "There is no record before this one.", "Newest records")
	f.page("audit?before=99999", "target 1060")

	text, err := os.ReadFile(f.log)
	f.must(err)
	changed := strings.Replace(string(text), `"target 17"`, `"target 71"`, 1)
	f.must(os.WriteFile(f.log, []byte(changed), 0o600))
	f.page("audit?before=60", "It could not be read", "line 17 does not follow", "outlast console verify")
	f.page("audit", "target 1060")
}
