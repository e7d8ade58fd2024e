package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/outlasttest/check"
)

// FuzzFiles: whatever a file holds, checking it ends with a report or an error that names
// the file, and says the same the second time.
func FuzzFiles(f *testing.F) {
	const open = `{"t":1,"e":"open","v":1,"p":"orders","pid":7}` + "\n"
	for _, lines := range []string{
		"", open, open + `{"t":2,"e":"cla`, "no history", open + "no event\n" + `{"t":3,"e":"close"}`,
		open + `{"t":2,"e":"begin","tx":"a","name":"orders"}` + "\n" + `{"t":3,"e":"enqueue","tx":"a","m":"1","type":"x.v1","key":"k","ks":1,"h":"ab"}` + "\n" +
			`{"t":4,"e":"commit","tx":"a","o":"ok"}` + "\n" + `{"t":5,"e":"claim","m":"1","src":"orders","slot":1,"ep":1}` + "\n" +
			`{"t":6,"e":"publish","m":"1","slot":1,"ep":1,"try":1}` + "\n" + `{"t":7,"e":"mark","m":"1","ep":1,"o":"ok"}` + "\n" + `{"t":8,"e":"quiesce","o":"ok"}`,
		open + `{"t":2,"e":"begin"}` + "\n" + `{"t":3,"e":"commit"}` + "\n" + `{"t":4,"e":"close"}`, // found by fuzzing
		open + `{"t":2,"e":"deliver","m":"1","g":"billing","s":"s1","tag":1,"h":"ab"}` + "\n" + `{"t":3,"e":"settle","m":"1","g":"billing","s":"s2","tag":18446744073709551615,"o":"ack"}` + "\n" +
			`{"t":4,"e":"dead","m":"1","g":"billing","o":"ok","n":-1,"at":-9223372036854775808}` + "\n" + `{"t":5,"e":"left","name":"dead","m":"1","g":"billing","at":9223372036854775807,"last":1}`,
		open + `{"t":-9223372036854775808,"e":"gauge","name":"files","value":1e308}` + "\n" + `{"t":9223372036854775807,"e":"gauge","name":"files","value":-1e308}` + "\n" +
			`{"t":5,"e":"lease","scope":"relay","owner":"a","o":"gained","slots":[[-1,9223372036854775807],[]],"at":1,"exp":-1}` + "\n" + `{"t":5,"e":"fault","name":"broker","o":"on"}`,
		open + `{"t":2,"e":"bind","g":"a","o":"off"}` + "\n" + `{"t":2,"e":"bind","g":"a","type":"x.v1","o":"on","why":"ordered"}` + "\n" + `{"t":2,"e":"purge","g":"a","src":"orders","n":1,"at":5,"o":"ok"}`,
	} {
		f.Add([]byte(lines))
	}
	path := filepath.Join(f.TempDir(), "fuzz.jsonl")
	f.Fuzz(func(t *testing.T, history []byte) {
		if err := os.WriteFile(path, history, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := check.Files(t.Context(), check.Options{}, path)
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Fatalf("%q: the error does not name the file: %v", history, err)
		}
		again, errAgain := check.Files(t.Context(), check.Options{}, path)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || !reflect.DeepEqual(counts(r), counts(again)) {
			t.Fatalf("%q: once %+v, %v, then %+v, %v", history, r, err, again, errAgain)
		}
		if r == nil {
			return
		}
		for _, v := range r.Verdicts {
			if (v.State == check.Violated) != (v.Violations > 0) || v.Violations > 0 && len(v.Examples) == 0 {
				t.Fatalf("%q: %+v", history, v)
			}
		}
	})
}

// counts are what a report says without its stories.
func counts(r *check.Report) (n []int) {
	if r == nil {
		return nil
	}
	n = []int{r.Processes, r.Killed, r.Torn, r.Events, r.Messages}
	for _, v := range r.Verdicts {
		n = append(n, v.Violations)
	}
	return n
}
