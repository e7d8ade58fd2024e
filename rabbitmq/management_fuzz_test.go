package rabbitmq

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/outlastmq/outlast"
)

// FuzzManagement: whatever the management API answers, what is made of it can be shown, and
// nothing of it makes a binding appear that the answer does not name.
func FuzzManagement(f *testing.F) {
	f.Add([]byte(`[{"source":"outlast.events","routing_key":"order.placed.v1.*"}]`), []byte(`{"policy":"p","effective_policy_definition":{"delivery-limit":3}}`), 200)
	f.Add([]byte(`[{"name":"p","pattern":"^q","definition":{"delivery-limit":1e300}}]`), []byte(`{"effective_policy_definition":[]}`), 200)
	f.Add([]byte(`[{"definition":null,"name":"\u001b[2J\u202e"}]`), []byte(`{"policy":"\u0000","effective_policy_definition":{"delivery-limit":-0.0}}`), 200)
	f.Add([]byte(`[{"source":7}]`), []byte(`{"policy":[]}`), 200)
	f.Add([]byte(`[`), []byte(``), 200)
	f.Add([]byte(`{"error":"no"}`), []byte(`{}`), 401)
	g := outlast.GroupTopology{Group: "billing", Partitions: 1, Generation: 1, Bindings: []outlast.Binding{{Exchange: outlast.EventExchange, Type: "order.placed.v1"}}}
	f.Fuzz(func(t *testing.T, list, object []byte, status int) {
		m := &management{base: url.URL{Scheme: "http", Host: "broker"}, password: newSecret("p"), vhost: "/", ask: func(r *http.Request) (*http.Response, error) {
			body := list
			if strings.HasSuffix(r.URL.EscapedPath(), g.Queue(0)) {
				body = object
			}
			return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(bytes.NewReader(body))}, nil
		}}
		differences, err := m.queueDifferences(context.Background(), g, 0)
		switch {
		case err != nil:
			if text := err.Error(); outlast.CleanErrorText(text) != text || outlast.CodeOf(err) == outlast.CodeInternal {
				t.Fatalf("%q and %q: %q", list, object, text)
			}
		case status != http.StatusOK:
			t.Fatalf("status %d counts as an answer", status)
		case !bytes.Contains(list, []byte(`routing`)) && !bytes.ContainsAny(list, `\Kk`) && len(differences) == 0:
			t.Fatalf("%q counts as a binding", list)
		}
		for _, d := range differences {
			if d.Object == "" || d.Want == "" || d.Have == "" || !printable(d.Object+d.Property+d.Want+d.Have) {
				t.Fatalf("%q and %q: %+v", list, object, d)
			}
		}
		findings := m.findings(context.Background())
		if len(findings) == 0 {
			t.Fatalf("%q says nothing", list)
		}
		for _, x := range findings {
			if !printable(x.Subject + x.Text) {
				t.Fatalf("%q: %+v", list, x)
			}
		}
	})
}
