package storm

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// earlierCommit is the commit whose relays and consumers run beside the present ones. It is
// merged into main without its files: a release (2d81d52) in which the mistakes are mended
// that would be taken for those of the present commit.
//
//go:embed earlier.txt
var earlierCommit string

const earlierMain = `package main

import "github.com/outlastmq/outlast/lab/storm/role"

func main() { role.Main() }
`

// ErrNoHistory says that a checkout does not have the earlier commit.
var ErrNoHistory = errors.New("this checkout does not have it")

// BuildEarlier builds the roles of a storm on the library as it was at the earlier commit,
// and returns the program's path in folder. The roles themselves are the present ones: they
// use the public API alone; what the earlier commit does not have of it, they do without by
// the tag outlast_earlier. The checkout must have its history, or it is [ErrNoHistory].
func BuildEarlier(ctx context.Context, folder string) (program string, err error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("find the source of the lab")
	}
	root := filepath.Join(filepath.Dir(here), "..", "..")
	commit := strings.TrimSpace(earlierCommit)
	tree, err := os.MkdirTemp("", "outlast-earlier-")
	if err != nil {
		return "", err
	}
	defer func() { err = firstOf(err, os.RemoveAll(tree)) }()
	if err := unpack(ctx, root, commit, tree); err != nil {
		return "", fmt.Errorf("get commit %s: %w: %w", commit, ErrNoHistory, err)
	}
	at := filepath.Join(tree, "lab", "storm")
	if err := os.RemoveAll(at); err != nil {
		return "", err
	}
	if err := copyFiles(filepath.Join(root, "lab", "storm", "role"), filepath.Join(at, "role")); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(at, "earlier"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(at, "earlier", "main.go"), []byte(earlierMain), 0o644); err != nil {
		return "", err
	}
	program = filepath.Join(folder, "earlier")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", "outlast_earlier", "-o", program, "./storm/earlier")
	build.Dir = filepath.Join(tree, "lab")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build commit %s: %w\n%s", commit, err, out)
	}
	return program, nil
}

// unpack writes the files of a commit to tree.
func unpack(ctx context.Context, root, commit, tree string) error {
	archive := exec.CommandContext(ctx, "git", "-C", root, "archive", "--format=tar", commit)
	var tar, problem bytes.Buffer
	archive.Stdout, archive.Stderr = &tar, &problem
	if err := archive.Run(); err != nil {
		return fmt.Errorf("git archive: %w %s", err, bytes.TrimSpace(problem.Bytes()))
	}
	extract := exec.CommandContext(ctx, "tar", "-x", "-C", tree)
	extract.Stdin = &tar
	if out, err := extract.CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// copyFiles copies the Go files of one folder.
func copyFiles(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return fs.WalkDir(os.DirFS(from), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		data, err := os.ReadFile(filepath.Join(from, path))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), data, 0o644)
	})
}
