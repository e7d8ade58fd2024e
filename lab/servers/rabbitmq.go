package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxNodes bounds a cluster: more nodes than this on one machine measure the machine.
const maxNodes = 5

// RabbitConfig says how a RabbitMQ cluster is started. The zero value is a single node.
type RabbitConfig struct {
	// Nodes is the size of the cluster. Range 1..5; default 1.
	Nodes int

	// Config is appended to every node's rabbitmq.conf, so that it wins over ours.
	Config string

	// Plugins are enabled on every node, such as "rabbitmq_management".
	Plugins []string

	// NetTick is the time after which a node calls a silent peer dead (net_ticktime), in
	// whole seconds. Default: Erlang's 60 s, which is long for a test that freezes nodes.
	NetTick time.Duration

	// Hosts are where the nodes run, one for each, each with an epmd of its own. Default:
	// all on loopback.
	Hosts []Host
}

func (c RabbitConfig) validate() error {
	var wrong []error
	if c.Nodes < 1 || c.Nodes > maxNodes {
		wrong = append(wrong, fmt.Errorf("RabbitConfig.Nodes %d: must be 1..%d", c.Nodes, maxNodes))
	}
	if c.NetTick < 0 || c.NetTick%time.Second != 0 {
		wrong = append(wrong, fmt.Errorf("RabbitConfig.NetTick %v: must be whole seconds", c.NetTick))
	}
	if n := len(c.Hosts); n > 0 && n != c.Nodes {
		wrong = append(wrong, fmt.Errorf("RabbitConfig.Hosts: %d, must be one for each of %d nodes", n, c.Nodes))
	}
	return errors.Join(wrong...)
}

// host is where node i runs.
func (c RabbitConfig) host(i int) Host {
	if len(c.Hosts) == 0 {
		return Host{}
	}
	return c.Hosts[i]
}

// RabbitCluster is one or more RabbitMQ nodes on loopback ports. The user of their
// URLs may do everything. Its methods may be called concurrently.
type RabbitCluster struct {
	nodes    []*RabbitNode
	epmds    []*process // name Erlang's nodes, one on each host; none: the cluster is not ours
	epmdPort int
	sbin     string
	folder   *folder
	config   RabbitConfig
	api      *managementAPI // of a broker that is not ours; may be nil

	vhostMu    sync.Mutex
	freeVHosts []string // made, and handed to nobody yet
}

// RabbitMQ makes a new, empty cluster and starts it. It returns when every node accepts
// AMQP connections and all nodes form one cluster; that takes some five seconds a node.
// ctx bounds the start alone; without a deadline the bound is two minutes for each step.
// The caller must Close the cluster.
func RabbitMQ(ctx context.Context, config RabbitConfig) (*RabbitCluster, error) {
	if config.Nodes == 0 {
		config.Nodes = 1
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	sbin, err := rabbitBin()
	if err != nil {
		return nil, err
	}
	epmdPath, err := findEPMD()
	if err != nil {
		return nil, fmt.Errorf("find Erlang's epmd; install it with: apt-get install -y rabbitmq-server: %w", err)
	}
	ports, err := freePorts(1 + 2*config.Nodes)
	if err != nil {
		return nil, err
	}
	home, err := newFolder()
	if err != nil {
		return nil, err
	}
	c := &RabbitCluster{sbin: sbin, folder: home, config: config, epmdPort: ports[0]}
	hosts := config.Hosts
	if len(hosts) == 0 {
		hosts = []Host{{}}
	}
	for i, host := range hosts {
		c.epmds = append(c.epmds, newEPMD(epmdPath, home.join(fmt.Sprintf("epmd%d.log", i+1)), host, c.epmdPort))
	}
	for i := range config.Nodes {
		c.nodes = append(c.nodes, newRabbitNode(c, i, ports[1+2*i], ports[2+2*i]))
	}
	if err := c.startFirst(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func findEPMD() (string, error) {
	if root, err := generation(); root != "" || err != nil {
		return "/usr/bin/epmd", err
	}
	return exec.LookPath("epmd")
}

// newEPMD describes an epmd of our own: the usual one is shared by the whole machine, and
// the first Erlang node would start it for ever.
func newEPMD(path, log string, host Host, port int) *process {
	return &process{
		name:       "epmd",
		path:       path,
		args:       []string{"-address", host.ip(), "-port", fmt.Sprint(port)},
		dir:        filepath.Dir(log),
		log:        log,
		host:       host,
		stopSignal: syscall.SIGTERM,
		deathSig:   syscall.SIGKILL,
	}
}

// startFirst starts the nodes for the first time. The first one goes ahead: nodes that
// start together on empty data may each found a cluster of their own.
func (c *RabbitCluster) startFirst(ctx context.Context) error {
	if err := c.writeHome(); err != nil {
		return err
	}
	for _, epmd := range c.epmds {
		if err := epmd.startAndWait(ctx, probeTCP(epmd.host.address(c.epmdPort))); err != nil {
			return err
		}
	}
	for _, node := range c.nodes {
		if err := node.writeFiles(); err != nil {
			return fmt.Errorf("write the files of %s: %w", node.name, err)
		}
	}
	if err := c.nodes[0].Start(ctx); err != nil {
		return err
	}
	return startAll(ctx, c.nodes[1:])
}

// writeHome gives the nodes and rabbitmqctl the cookie by which they trust each other.
func (c *RabbitCluster) writeHome() error {
	home := c.folder.join("home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return fmt.Errorf("make the home folder: %w", err)
	}
	cookie := filepath.Join(home, ".erlang.cookie")
	if err := os.WriteFile(cookie, []byte("OUTLASTLAB"), 0o400); err != nil {
		return fmt.Errorf("write the Erlang cookie: %w", err)
	}
	return nil
}

// URL is the AMQP address of the first node's default virtual host.
func (c *RabbitCluster) URL() string { return c.nodes[0].URL() }

// URLs are the AMQP addresses of all nodes, for the default virtual host.
func (c *RabbitCluster) URLs() []string {
	urls := make([]string, 0, len(c.nodes))
	for _, node := range c.nodes {
		urls = append(urls, node.URL())
	}
	return urls
}

// Node returns node i, counted from 0. It panics when there is no such node.
func (c *RabbitCluster) Node(i int) *RabbitNode { return c.nodes[i] }

// Nodes returns all nodes.
func (c *RabbitCluster) Nodes() []*RabbitNode { return slices.Clone(c.nodes) }

// Start starts all nodes that do not run, all at once: after a kill of the whole cluster
// each node waits for the others.
func (c *RabbitCluster) Start(ctx context.Context) error {
	var down []*RabbitNode
	for _, node := range c.nodes {
		if node.process == nil {
			return fmt.Errorf("start rabbitmq: %w", ErrNotOurs)
		}
		if !node.process.running() {
			down = append(down, node)
		}
	}
	return startAll(ctx, down)
}

// Kill kills all nodes with SIGKILL.
func (c *RabbitCluster) Kill() error {
	var errs []error
	for _, node := range c.nodes {
		errs = append(errs, node.Kill())
	}
	return errors.Join(errs...)
}

// Close kills all nodes and the cluster's epmd and removes the data. A broker that is not
// ours is left alone.
func (c *RabbitCluster) Close() error {
	if len(c.epmds) == 0 {
		return nil
	}
	errs := []error{c.Kill()}
	for _, epmd := range c.epmds {
		errs = append(errs, epmd.kill())
	}
	return errors.Join(append(errs, c.folder.remove())...)
}

func startAll(ctx context.Context, nodes []*RabbitNode) error {
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		group.Go(func() { errs[i] = node.Start(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// rabbitBin returns the folder of RabbitMQ's own scripts. Debian's commands in PATH are
// wrappers that switch to the user rabbitmq and the system's data, so they come last.
func rabbitBin() (string, error) {
	var found []string
	for _, pattern := range []string{
		"/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
		"/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
		"/opt/rabbitmq/sbin/rabbitmq-server",
		"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
	} {
		found = append(found, globServers(pattern)...)
	}
	return findServer("rabbitmq-server", "rabbitmq-server", envAMQP, found)
}

// findServer returns the folder of the last of the programs found, or else of the one in
// PATH. Without either the error says how to install it.
func findServer(program, debianPackage, variable string, found []string) (string, error) {
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("find %s: it is neither in its usual folders nor in PATH; install it with: "+
			"apt-get update && apt-get install -y %s; or set %s", program, debianPackage, variable)
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	return filepath.Dir(path), nil
}

// quoteAtoms writes names as an Erlang list body of atoms.
func quoteAtoms(names []string) string {
	quoted := make([]string, 0, len(names))
	for _, name := range names {
		quoted = append(quoted, "'"+name+"'")
	}
	return strings.Join(quoted, ",")
}
