package planted_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outlastmq/outlast/internal/planted"
)

// A build without the tag contains nothing of the bugs, not even their names.
func TestReleaseBuildsContainNoPlantedBug(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := `package main

import (
	"github.com/outlastmq/outlast"
	"github.com/outlastmq/outlast/postgres"
	"github.com/outlastmq/outlast/rabbitmq"
)

func main() {
	_, _ = outlast.NewService(outlast.ServiceConfig{Store: postgres.Store(nil), Broker: rabbitmq.Broker("")})
}
`
	folder, err := os.MkdirTemp(".", "build") // inside the module, whose packages it uses
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.WriteFile(filepath.Join(folder, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./"+folder)
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, bug := range planted.Bugs {
		if strings.Contains(string(data), string(bug)) {
			t.Errorf("the program contains %q", bug)
		}
	}
	if strings.Contains(string(data), "OUTLAST_PLANTED") {
		t.Error("the program looks for OUTLAST_PLANTED")
	}
}
