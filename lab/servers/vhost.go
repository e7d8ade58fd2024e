package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// vhostBatch is how many virtual hosts one rabbitmqctl makes: starting it costs far more
// than the work.
const vhostBatch = 8

// VHost is an empty virtual host of a cluster: a broker of one's own, as far as queues and
// exchanges go.
type VHost struct {
	cluster *RabbitCluster
	name    string
}

// NewVHost makes a virtual host on which the user guest may do everything. On a broker
// that is not ours it needs the management API.
func (c *RabbitCluster) NewVHost(ctx context.Context) (*VHost, error) {
	c.vhostMu.Lock()
	defer c.vhostMu.Unlock()
	if len(c.freeVHosts) == 0 {
		names, err := c.addVHosts(ctx)
		if err != nil {
			return nil, fmt.Errorf("make a virtual host: %w", err)
		}
		c.freeVHosts = names
	}
	name := c.freeVHosts[0]
	c.freeVHosts = c.freeVHosts[1:]
	return &VHost{cluster: c, name: name}, nil
}

func (c *RabbitCluster) addVHosts(ctx context.Context) ([]string, error) {
	if len(c.epmds) == 0 {
		name := newVHostName()
		return []string{name}, c.api.addVHost(ctx, name)
	}
	names := make([]string, 0, vhostBatch)
	for range vhostBatch {
		names = append(names, newVHostName())
	}
	output, err := c.Ctl(ctx, "eval", addVHostsExpr(names, c.config.host(0).user()))
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(output) != "ok" {
		return nil, fmt.Errorf("rabbitmqctl eval: %s", output)
	}
	return names, nil
}

// addVHostsExpr is what add_vhost and set_permissions do, for many at a time.
func addVHostsExpr(names []string, user string) string {
	binaries := make([]string, 0, len(names))
	for _, name := range names {
		binaries = append(binaries, `<<"`+name+`">>`)
	}
	return `[begin ` +
		`ok = rabbit_vhost:add(V, <<"lab">>), ` +
		`ok = rabbit_auth_backend_internal:set_permissions(` +
		`<<"` + user + `">>, V, <<".*">>, <<".*">>, <<".*">>, <<"lab">>) ` +
		`end || V <- [` + strings.Join(binaries, ",") + `]], ok.`
}

func newVHostName() string { return "lab-" + strings.ToLower(rand.Text()) }

// Name is the virtual host's name.
func (v *VHost) Name() string { return v.name }

// URL is the virtual host's AMQP address on the first node.
func (v *VHost) URL() string { return v.URLs()[0] }

// URLs are the virtual host's AMQP addresses on all nodes.
func (v *VHost) URLs() []string {
	urls := v.cluster.URLs()
	for i := range urls {
		urls[i] = withVHost(urls[i], v.name)
	}
	return urls
}

// Queues returns all queues of the virtual host, in the order of the broker's choice.
func (v *VHost) Queues(ctx context.Context) ([]Queue, error) {
	var queues []Queue
	if len(v.cluster.epmds) == 0 {
		err := v.cluster.api.get(ctx, &queues, "queues", v.name)
		return queues, err
	}
	err := v.cluster.CtlJSON(ctx, &queues, "--vhost", v.name, "list_queues", "name", "type", "durable",
		"messages", "messages_ready", "messages_unacknowledged", "consumers", "state",
		"leader", "members", "arguments")
	return queues, err
}

// Queue returns one queue of the virtual host; not finding it is an error.
func (v *VHost) Queue(ctx context.Context, name string) (Queue, error) {
	queues, err := v.Queues(ctx)
	if err != nil {
		return Queue{}, err
	}
	for _, queue := range queues {
		if queue.Name == name {
			return queue, nil
		}
	}
	return Queue{}, fmt.Errorf("find queue %q in virtual host %q: there is none", name, v.name)
}

// Delete removes the virtual host with all that is in it and ends its connections.
func (v *VHost) Delete(ctx context.Context) error {
	if len(v.cluster.epmds) == 0 {
		return v.cluster.api.deleteVHost(ctx, v.name)
	}
	_, err := v.cluster.Ctl(ctx, "delete_vhost", v.name)
	return err
}

// withVHost replaces the path of an AMQP URL.
func withVHost(amqpURL, vhost string) string {
	address, err := url.Parse(amqpURL)
	if err != nil {
		return amqpURL // ours, or checked when the environment was read
	}
	address.Path = "/" + vhost
	return address.String()
}

var errNoAPI = errors.New("a virtual host on a broker that is not ours needs the management API: set " + envAPI +
	" to http://user:password@host:15672")
