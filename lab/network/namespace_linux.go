package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolated tells a process that Isolate has started it.
const isolated = "OUTLAST_LAB_ISOLATED"

// Lacks says why namespaces cannot be made here; empty when they can.
func Lacks() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is missing: apt-get install -y iproute2 nftables"
		}
	}
	// A container may forbid it even to root.
	cmd := exec.Command("nft", "list", "ruleset")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("network namespaces are not allowed here: %v %s", err, bytes.TrimSpace(out))
	}
	return ""
}

// Isolate starts this program again in a network namespace and a mount namespace of its
// own, waits for it, and exits with its code; in the program that was so started it returns
// at once. Where [Lacks] has a reason it returns that as an error.
func Isolate() error {
	if os.Getenv(isolated) != "" {
		return run("ip", "link", "set", "lo", "up")
	}
	if why := Lacks(); why != "" {
		return errors.New(why)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	// This thread is the child's parent, and must live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("isolate the process: %w", err)
	}
	go func() {
		for s := range signals {
			// A terminal's Ctrl-C has reached the child by itself; twice does no harm.
			_ = cmd.Process.Signal(s)
		}
	}()
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		return err
	}
	os.Exit(max(cmd.ProcessState.ExitCode(), 0) | boolInt(cmd.ProcessState.ExitCode() < 0))
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// New makes the bridge. The process must be isolated.
func New() (*Net, error) {
	if os.Getenv(isolated) == "" {
		return nil, errors.New("make a network: call Isolate first")
	}
	// Mounts of this process are its own from here on.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	for _, args := range []string{"link add bridge type bridge", "addr add " + subnet + "1/24 dev bridge", "link set bridge up"} {
		if err := run("ip", strings.Fields(args)...); err != nil {
			return nil, fmt.Errorf("make a network: %w", err)
		}
	}
	return &Net{}, nil
}

// namespace is kept alive by the open file.
type namespace struct{ file *os.File }

func newNamespace() (namespace, error) {
	var made namespace
	err := aside(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		file, err := os.Open(ownNamespace())
		made.file = file
		return err
	})
	return made, err
}

func (n namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n namespace) enter(f func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

func (n namespace) close() error { return n.file.Close() }

func ownNamespace() string { return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()) }

// aside calls f on a thread that may change its network namespace, and brings the thread
// back: children that were started on it would be told of its death.
func aside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(ownNamespace())
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave a network namespace: %w", back)) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

func run(program string, args ...string) error { return runWith("", program, args...) }

func runWith(input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// Started here, on this thread: Run of a command with buffers starts no other one before.
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w %s", program, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
