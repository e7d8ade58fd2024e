package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitNode is one node of a cluster. Its methods may be called concurrently.
type RabbitNode struct {
	cluster  *RabbitCluster
	host     Host
	name     string // rabbit1@localhost, or with the host's address
	folder   string
	url      string
	port     int
	distPort int
	process  *process // nil: not started by us
}

func newRabbitNode(c *RabbitCluster, i, port, distPort int) *RabbitNode {
	short := fmt.Sprintf("rabbit%d", i+1)
	host := c.config.host(i)
	name := short + "@localhost"
	if host.IP != "" {
		name = short + "@" + host.IP
	}
	n := &RabbitNode{
		cluster:  c,
		host:     host,
		name:     name,
		folder:   c.folder.join(short),
		url:      fmt.Sprintf("amqp://%s:%[1]s@%s/", host.user(), host.address(port)),
		port:     port,
		distPort: distPort,
	}
	n.process = &process{
		name:       n.name,
		path:       filepath.Join(c.sbin, "rabbitmq-server"),
		env:        n.environment(),
		dir:        c.folder.path,
		log:        filepath.Join(n.folder, "output.log"),
		otherLogs:  []string{filepath.Join(n.folder, "log", "node.log")},
		stopSignal: syscall.SIGTERM,
		deathSig:   syscall.SIGKILL,
		host:       host,
	}
	return n
}

// environment points everything that RabbitMQ would look for in /etc and /var to the
// node's own folder.
func (n *RabbitNode) environment() []string {
	erlang := n.distribution()
	if tick := n.cluster.config.NetTick; tick > 0 {
		erlang += fmt.Sprintf(" -kernel net_ticktime %d", int(tick.Seconds()))
	}
	return append(n.common(),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", n.distPort),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(n.folder, "data"),
		"RABBITMQ_LOG_BASE="+filepath.Join(n.folder, "log"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+filepath.Join(n.folder, "generated"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(n.folder, "rabbitmq.conf"),
		"RABBITMQ_CONFIG_FILES="+filepath.Join(n.folder, "conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(n.folder, "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(n.folder, "enabled_plugins"),
		"RABBITMQ_PID_FILE="+filepath.Join(n.folder, "pid"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+erlang,
		// Makes the script replace itself by the node, so that the child's pid is the
		// node's: a shell in between would turn signals into its own idea of a stop.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

// distribution keeps a node, or rabbitmqctl, on its host's address alone; epmd is ours, and
// nobody may start another.
func (n *RabbitNode) distribution() string {
	return fmt.Sprintf("-kernel inet_dist_use_interface {%s} -start_epmd false", strings.ReplaceAll(n.host.ip(), ".", ","))
}

// common is what a node and its rabbitmqctl have in common.
func (n *RabbitNode) common() []string {
	c := n.cluster
	env := []string{
		"RABBITMQ_NODENAME=" + n.name,
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
		"HOME=" + c.folder.join("home"),
		fmt.Sprintf("ERL_EPMD_PORT=%d", c.epmdPort),
		"ERL_EPMD_ADDRESS=" + n.host.ip(),
		"RABBITMQ_CONF_ENV_FILE=" + c.folder.join("rabbitmq-env.conf"),
	}
	if n.host.IP != "" {
		env = append(env, "RABBITMQ_USE_LONGNAME=true") // Erlang takes an address only as a long name
	}
	return env
}

func (n *RabbitNode) writeFiles() error {
	for _, name := range []string{"data", "log", "generated", "conf.d"} {
		if err := os.MkdirAll(filepath.Join(n.folder, name), 0o700); err != nil {
			return err
		}
	}
	files := map[string]string{
		"rabbitmq.conf": n.conf(),
		// Counts of a quorum queue are refreshed by this timer alone, every 5 s by default:
		// too slow for a test that watches them.
		"advanced.config": "[{rabbit, [{quorum_tick_interval, 500}]}].\n",
		"enabled_plugins": "[" + quoteAtoms(n.cluster.config.Plugins) + "].\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(n.folder, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (n *RabbitNode) conf() string {
	var conf strings.Builder
	fmt.Fprintf(&conf, "listeners.tcp.1 = %s\n", n.host.address(n.port))
	if n.host.IP != "" {
		fmt.Fprintf(&conf, "default_user = %s\ndefault_pass = %[1]s\n", n.host.user())
	}
	conf.WriteString("log.file = node.log\nlog.file.level = info\nlog.console = false\n")
	conf.WriteString("disk_free_limit.absolute = 50MB\n")
	// A smaller write-ahead log is rolled over, and its memory given back, sooner.
	conf.WriteString("raft.wal_max_size_bytes = 67108864\n")
	if n.cluster.config.Nodes > 1 {
		// Each node joins the first one, which looks for nobody: it would wait five seconds
		// for peers that have not been started.
		conf.WriteString("cluster_formation.peer_discovery_backend = classic_config\n")
		conf.WriteString("cluster_formation.classic_config.nodes.1 = " + n.cluster.nodes[0].name + "\n")
		if n != n.cluster.nodes[0] {
			conf.WriteString("cluster_formation.classic_config.nodes.2 = " + n.name + "\n")
		}
	}
	conf.WriteString(n.cluster.config.Config + "\n")
	return conf.String()
}

// Name is the node's Erlang name, such as rabbit1@localhost.
func (n *RabbitNode) Name() string { return n.name }

// URL is the AMQP address of the node's default virtual host.
func (n *RabbitNode) URL() string { return n.url }

// Logs are the files that the node writes what it does to.
func (n *RabbitNode) Logs() []string {
	if n.process == nil {
		return nil
	}
	return n.process.otherLogs
}

// Running reports whether the node has been started and has not ended.
func (n *RabbitNode) Running() bool { return n.process != nil && n.process.running() }

// Start starts a node that was stopped or killed, on its ports and data, and returns when
// it accepts AMQP connections. A node of a cluster may wait for peers that ran when it
// ended: start those as well, or bound the wait by ctx. Starting one that runs is an error.
func (n *RabbitNode) Start(ctx context.Context) error {
	if n.process == nil {
		return fmt.Errorf("start rabbitmq: %w", ErrNotOurs)
	}
	return n.process.startAndWait(ctx, n.ping)
}

// Stop ends the node in good order and returns when it has ended.
func (n *RabbitNode) Stop(ctx context.Context) error {
	if n.process == nil {
		return fmt.Errorf("stop rabbitmq: %w", ErrNotOurs)
	}
	return n.process.stop(ctx)
}

// Kill sends SIGKILL to the node and its helpers and returns when they are gone.
func (n *RabbitNode) Kill() error {
	if n.process == nil {
		return fmt.Errorf("kill rabbitmq: %w", ErrNotOurs)
	}
	return n.process.kill()
}

// Wipe removes the data of a node that does not run: what it had is lost for good, as with a
// broken disk, and the next Start begins with nothing.
func (n *RabbitNode) Wipe() error {
	if n.process == nil {
		return fmt.Errorf("wipe rabbitmq: %w", ErrNotOurs)
	}
	if n.process.running() {
		return fmt.Errorf("wipe %s: it runs", n.name)
	}
	data := filepath.Join(n.folder, "data")
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("wipe %s: %w", n.name, err)
	}
	return os.Mkdir(data, 0o700)
}

// Restart is Stop and Start.
func (n *RabbitNode) Restart(ctx context.Context) error {
	if err := n.Stop(ctx); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Pause freezes the node with SIGSTOP: connections stay open, and nothing answers. Its
// peers notice after RabbitConfig.NetTick.
func (n *RabbitNode) Pause() error {
	if n.process == nil {
		return fmt.Errorf("pause rabbitmq: %w", ErrNotOurs)
	}
	return n.process.pause()
}

// Continue ends a Pause.
func (n *RabbitNode) Continue() error {
	if n.process == nil {
		return fmt.Errorf("continue rabbitmq: %w", ErrNotOurs)
	}
	return n.process.resume()
}

func (n *RabbitNode) ping(ctx context.Context) error {
	conn, err := amqp.DialConfig(n.url, amqp.Config{
		Dial: func(network, address string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: 5 * time.Second}
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			// The client clears it once the connection is open.
			return conn, conn.SetDeadline(time.Now().Add(5 * time.Second))
		},
	})
	if err != nil {
		return err
	}
	return conn.Close()
}

func probeTCP(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp4", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
