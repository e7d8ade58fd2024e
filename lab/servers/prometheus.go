package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// PrometheusServer is a Prometheus on a loopback port with its own data folder.
type PrometheusServer struct {
	url     string
	client  *http.Client
	folder  *folder
	process *process
}

// Prometheus starts a server with a configuration (prometheus.yml) and returns when it is
// ready. Paths in the configuration are taken as they are. The caller must Close it.
func Prometheus(ctx context.Context, config string) (*PrometheusServer, error) {
	path, err := exec.LookPath("prometheus")
	if err != nil {
		return nil, fmt.Errorf("find prometheus; install it with: apt-get install -y prometheus: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	home, err := newFolder()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(home.join("prometheus.yml"), []byte(config), 0o600); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	s := &PrometheusServer{
		url:    "http://" + loopback(port),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
		folder: home,
		process: &process{
			name: "prometheus",
			path: path,
			args: []string{"--config.file=" + home.join("prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(home.path, "data"),
				"--web.listen-address=" + loopback(port), "--web.enable-lifecycle"},
			dir:        home.path,
			log:        home.join("prometheus.log"),
			stopSignal: syscall.SIGTERM,
			deathSig:   syscall.SIGKILL,
		},
	}
	ready := func(ctx context.Context) error {
		_, err := s.get(ctx, "/-/ready")
		return err
	}
	if err := s.process.startAndWait(ctx, ready); err != nil {
		return nil, errors.Join(err, home.remove())
	}
	return s, nil
}

// Query evaluates an expression now and returns how many series it has, or 1 for a number.
func (s *PrometheusServer) Query(ctx context.Context, expr string) (int, error) {
	var answer struct {
		Data struct {
			ResultType string
			Result     []json.RawMessage
		}
	}
	if err := s.API(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return 0, fmt.Errorf("query %s: %w", expr, err)
	}
	if answer.Data.ResultType == "scalar" {
		return 1, nil
	}
	return len(answer.Data.Result), nil
}

// API asks one of the server's own paths and decodes the answer.
func (s *PrometheusServer) API(ctx context.Context, path string, answer any) error {
	body, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

func (s *PrometheusServer) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, err
}

// Close ends the server and removes its data.
func (s *PrometheusServer) Close() error {
	return errors.Join(s.process.stop(context.Background()), s.folder.remove())
}
