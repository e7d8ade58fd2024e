package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Ctl runs rabbitmqctl with args against the first node that runs and returns what it
// printed. Each call starts an Erlang virtual machine: about a second of processor time.
func (c *RabbitCluster) Ctl(ctx context.Context, args ...string) (string, error) {
	for _, node := range c.nodes {
		if node.process == nil {
			return "", fmt.Errorf("rabbitmqctl: %w", ErrNotOurs)
		}
		if node.process.running() {
			return node.Ctl(ctx, args...)
		}
	}
	return "", errors.New("rabbitmqctl: no node runs")
}

// Ctl runs rabbitmqctl with args against this node; see [RabbitCluster.Ctl].
func (n *RabbitNode) Ctl(ctx context.Context, args ...string) (string, error) {
	if n.process == nil {
		return "", fmt.Errorf("rabbitmqctl: %w", ErrNotOurs)
	}
	// A port of its own for every call: the default range holds eleven for the machine.
	port, err := freePort()
	if err != nil {
		return "", err
	}
	ctx, cancel := withLimit(ctx, startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(n.cluster.sbin, "rabbitmqctl"),
		append([]string{"--silent", "--node", n.name}, args...)...)
	cmd.Env = append(n.cluster.environment(),
		fmt.Sprintf("RABBITMQ_CTL_DIST_PORT_MIN=%d", port),
		fmt.Sprintf("RABBITMQ_CTL_DIST_PORT_MAX=%d", port),
		"RABBITMQ_CTL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false")
	cmd.Dir = n.cluster.folder.path
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("rabbitmqctl %s on %s: %w\n%s%s",
			strings.Join(args, " "), n.name, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// CtlJSON runs rabbitmqctl with --formatter json and decodes its answer into result.
func (c *RabbitCluster) CtlJSON(ctx context.Context, result any, args ...string) error {
	output, err := c.Ctl(ctx, append([]string{"--formatter", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(output), result); err != nil {
		return fmt.Errorf("read rabbitmqctl %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return nil
}

// Queue is what a broker says about one queue. The counts of a quorum queue lag by up to
// half a second; a passive declare over AMQP asks the queue itself.
type Queue struct {
	Name           string         `json:"name"`
	Type           string         `json:"type"`
	Durable        bool           `json:"durable"`
	Messages       int            `json:"messages"`
	Ready          int            `json:"messages_ready"`
	Unacknowledged int            `json:"messages_unacknowledged"`
	Consumers      int            `json:"consumers"`
	State          string         `json:"state"`
	Leader         string         `json:"leader"`    // quorum queues only
	Members        []string       `json:"members"`   // quorum queues only
	Arguments      map[string]any `json:"arguments"` // as declared
}
