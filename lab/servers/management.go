package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// managementAPI speaks to the HTTP API of RabbitMQ's management plugin. It is used only
// for brokers that are not ours, where rabbitmqctl is out of reach.
type managementAPI struct {
	base *url.URL
	user string // who gets the rights to new virtual hosts
}

func newManagementAPI(address, user string) (*managementAPI, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("%s: must be a URL such as http://guest:guest@127.0.0.1:15672", envAPI)
	}
	return &managementAPI{base: base, user: user}, nil
}

func (a *managementAPI) addVHost(ctx context.Context, name string) error {
	if a == nil {
		return errNoAPI
	}
	if err := a.do(ctx, http.MethodPut, struct{}{}, nil, "vhosts", name); err != nil {
		return err
	}
	rights := map[string]string{"configure": ".*", "write": ".*", "read": ".*"}
	return a.do(ctx, http.MethodPut, rights, nil, "permissions", name, a.user)
}

func (a *managementAPI) deleteVHost(ctx context.Context, name string) error {
	return a.do(ctx, http.MethodDelete, nil, nil, "vhosts", name)
}

func (a *managementAPI) get(ctx context.Context, result any, path ...string) error {
	return a.do(ctx, http.MethodGet, nil, result, path...)
}

func (a *managementAPI) do(ctx context.Context, method string, body, result any, path ...string) error {
	if a == nil {
		return errNoAPI
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	address := a.base.JoinPath(append([]string{"api"}, path...)...)
	address.User = nil // so that no error shows the password
	request, err := http.NewRequestWithContext(ctx, method, address.String(), bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	password, _ := a.base.User.Password()
	request.SetBasicAuth(a.base.User.Username(), password)
	request.Header.Set("Content-Type", "application/json")
	// No idle connection may outlive the call: tests check for leaked goroutines.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, address, err)
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, address, response.Status, answer)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return fmt.Errorf("%s %s: decode the answer: %w", method, address, err)
	}
	return nil
}
