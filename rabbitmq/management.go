package rabbitmq

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/outlastmq/outlast"
)

const (
	managementTimeout = 10 * time.Second
	maxManagementSize = 64 << 20
)

// Management gives the address of the broker's management API, such as
// https://user:password@host:15671. With it, Check compares bindings and refuses
// policies with a small delivery limit, which AMQP alone cannot show. Without user
// and password those of the first AMQP address are taken. The URL parameter
// management does the same.
func Management(url string) Option { return func(b *broker) { b.managementURL = url } }

// management asks the HTTP API of the management plugin. It only reads.
type management struct {
	base     url.URL // without user
	user     string
	password secret
	vhost    string
	b        *broker
	address  address // for TLS
	// ask stands for the network, in tests.
	ask func(*http.Request) (*http.Response, error)
}

func (b *broker) checkManagement(bad *problems) {
	raw := b.managementURL
	for _, a := range b.addresses {
		if raw == "" {
			raw = a.management
		}
	}
	if raw == "" || len(b.addresses) == 0 {
		return
	}
	a := b.addresses[0]
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		bad.add("management", "a URL such as https://user:password@host:15671", "something else, not shown")
		return
	}
	m := &management{user: a.user, password: a.password, vhost: a.vhost, b: b}
	if u.User != nil {
		password, _ := u.User.Password()
		m.user, m.password = u.User.Username(), newSecret(password)
	}
	m.base = url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	m.address = address{host: u.Hostname(), caFile: a.caFile, certFile: a.certFile, keyFile: a.keyFile}
	if u.Scheme == "http" && !m.address.loopback() && !b.allowPlain && !a.allowPlain {
		bad.add("management", "https:// beyond loopback, unless AllowPlain() or allow_plain=true is given", "http:// to "+strconv.Quote(u.Hostname()))
		return
	}
	b.management = m
}

func (m *management) get(ctx context.Context, result any, path ...string) error {
	ctx, cancel := context.WithTimeout(ctx, managementTimeout)
	defer cancel()
	for i := range path {
		path[i] = url.PathEscape(path[i])
	}
	address := m.base.JoinPath(append([]string{"api"}, path...)...)
	op := "ask " + m.base.String()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeInternal, Err: err}
	}
	request.SetBasicAuth(m.user, m.password())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if m.base.Scheme == "https" {
		config, err := m.b.tlsConfig(m.address)
		if err != nil {
			return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
		}
		client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
	}
	// A redirect could take the password elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ask := client.Do
	if m.ask != nil {
		ask = m.ask
	}
	response, err := ask(request)
	if err != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: err}
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return &outlast.Error{Op: op, Code: outlast.CodeDenied, Err: fmt.Errorf("status %s", response.Status), Hint: "the user needs the tag monitoring or management"}
	case http.StatusNotFound:
		return &outlast.Error{Op: op, Code: outlast.CodeNotFound, Err: fmt.Errorf("status %s", response.Status)}
	default:
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: fmt.Errorf("status %s", response.Status)}
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxManagementSize)).Decode(result); err != nil {
		return &outlast.Error{Op: op, Code: outlast.CodeUnavailable, Err: fmt.Errorf("decode the answer: %w", err)}
	}
	return nil
}

// queueDifferences are those of a queue that exists which AMQP cannot show.
func (m *management) queueDifferences(ctx context.Context, g outlast.GroupTopology, partition int) ([]outlast.TopologyDifference, error) {
	name := g.Queue(partition)
	object := fmt.Sprintf("queue %q", name)
	var bound []struct {
		Source string `json:"source"`
		Key    string `json:"routing_key"`
	}
	if err := m.get(ctx, &bound, "queues", m.vhost, name, "bindings"); err != nil {
		return nil, err
	}
	type place struct{ exchange, key string }
	have := map[place]bool{}
	for _, b := range bound {
		have[place{b.Source, b.Key}] = true
	}
	var all []outlast.TopologyDifference
	for _, b := range g.Bindings {
		keys := g.RoutingKeys(b, partition)
		n := 0
		for _, key := range keys {
			if have[place{b.Exchange, key}] {
				n++
			}
		}
		if n < len(keys) {
			all = append(all, outlast.TopologyDifference{
				Object: object, Property: fmt.Sprintf("bindings to exchange %q for %s", b.Exchange, b.Type),
				Want: strconv.Itoa(len(keys)), Have: strconv.Itoa(n), Hint: "outlast topology apply",
			})
		}
	}
	limit, err := m.policyDifference(ctx, name)
	if limit != nil {
		limit.Object = object
		all = append(all, *limit)
	}
	return all, err
}

type policy struct {
	Name       string         `json:"name"`
	Pattern    string         `json:"pattern"`
	Definition map[string]any `json:"definition"`
}

// smallLimit is a delivery limit at which the broker would drop messages.
func smallLimit(definition map[string]any) (float64, bool) {
	limit, ok := definition["delivery-limit"].(float64)
	return limit, ok && limit < outlast.DeliveryLimit
}

const policyHint = "take delivery-limit out of the policy: the broker would drop messages that were redelivered so often"

func (m *management) policyDifference(ctx context.Context, queue string) (*outlast.TopologyDifference, error) {
	var q struct {
		Policy    string `json:"policy"`
		Effective any    `json:"effective_policy_definition"` // an empty one is a list
	}
	if err := m.get(ctx, &q, "queues", m.vhost, queue); err != nil {
		return nil, err
	}
	definition, _ := q.Effective.(map[string]any)
	limit, small := smallLimit(definition)
	if !small {
		return nil, nil
	}
	return &outlast.TopologyDifference{Property: fmt.Sprintf("delivery-limit by policy %q", q.Policy),
		Want: strconv.Itoa(outlast.DeliveryLimit), Have: fmt.Sprint(limit), Hint: policyHint}, nil
}

// findings tells of policies that break a promise.
func (m *management) findings(ctx context.Context) []outlast.Finding {
	subject := "rabbitmq management " + m.base.String()
	var policies []policy
	if err := m.get(ctx, &policies, "policies", m.vhost); err != nil {
		return []outlast.Finding{finding(outlast.FindingWarn, subject, err.Error(), "", "")}
	}
	var all []outlast.Finding
	for _, p := range policies {
		if limit, small := smallLimit(p.Definition); small {
			all = append(all, finding(outlast.FindingFail, fmt.Sprintf("policy %q", p.Name),
				fmt.Sprintf("a delivery limit of %v for queues like %q", limit, p.Pattern), policyHint, "No loss"))
		}
	}
	if len(all) == 0 {
		all = append(all, finding(outlast.FindingOK, subject, fmt.Sprintf("none of %d policies drops messages by a delivery limit", len(policies)), "", ""))
	}
	return all
}
