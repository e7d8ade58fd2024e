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
	cmd.Env = append(n.common(),
		fmt.Sprintf("RABBITMQ_CTL_DIST_PORT_MIN=%d", port),
		fmt.Sprintf("RABBITMQ_CTL_DIST_PORT_MAX=%d", port),
		"RABBITMQ_CTL_ERL_ARGS="+n.distribution())
	cmd.Dir = n.cluster.folder.path
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	if err := into(cmd.SysProcAttr); err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.host.enter(cmd.Run); err != nil {
		return "", fmt.Errorf("rabbitmqctl %s on %s: %w\n%s%s",
			strings.Join(args, " "), n.name, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Flush makes every running node write down now what it saves with a delay. RabbitMQ keeps
// the directory of its quorum queues in such a table: a node that is killed in the half
// second after a queue was declared starts that queue from scratch, without its confirmed
// messages. A test that is not about this flushes between its declarations and its Kill.
func (c *RabbitCluster) Flush(ctx context.Context) error {
	for _, node := range c.nodes {
		if node.process == nil {
			return fmt.Errorf("flush: %w", ErrNotOurs)
		}
		if !node.process.running() {
			continue
		}
		if _, err := node.Ctl(ctx, "eval", "[ok = dets:sync(Table) || Table <- dets:all()], ok."); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	return nil
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
	Arguments      QueueArguments `json:"arguments"` // as declared
}

// QueueArguments are the arguments that a queue was declared with.
type QueueArguments map[string]any

// UnmarshalJSON reads both forms that exist: rabbitmqctl writes a list of
// [name, type, value], the management API an object.
func (a *QueueArguments) UnmarshalJSON(data []byte) error {
	object := make(map[string]any)
	if err := json.Unmarshal(data, &object); err == nil {
		*a = object
		return nil
	}
	var list [][3]any
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("read queue arguments: %w", err)
	}
	for _, entry := range list {
		name, ok := entry[0].(string)
		if !ok {
			return fmt.Errorf("read queue arguments: name %v: must be a string", entry[0])
		}
		object[name] = entry[2]
	}
	*a = object
	return nil
}
