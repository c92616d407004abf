package integration_tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// rpcClient speaks JSON-RPC and looks at bytes; it never retries.
type rpcClient struct {
	url  string
	http *http.Client
}

func newRPCClient(t *testing.T, url string) *rpcClient {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &rpcClient{url: url, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// answer is one JSON-RPC answer with its members as they were written.
type answer struct {
	Version json.RawMessage `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   json.RawMessage `json:"error"`
}

// request writes a call with the id as spelled and params as they are.
func request(id, method, params string) string {
	if params == "" {
		return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"id":%s}`, method, id)
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":%s,"id":%s}`, method, params, id)
}

func (c *rpcClient) post(body string) (status int, header http.Header, reply []byte, err error) {
	resp, err := c.http.Post(c.url, "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, reply, err
}

// send posts one call and returns its answer.
func (c *rpcClient) send(body string) (answer, error) {
	var a answer
	status, _, reply, err := c.post(body)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(reply, &a); err != nil {
		return a, fmt.Errorf("HTTP %d, %v: %.300s", status, err, reply)
	}
	if (a.Result == nil) == (a.Error == nil) {
		return a, fmt.Errorf("HTTP %d, neither or both of result and error: %.300s", status, reply)
	}
	return a, nil
}

// sendBatch posts the calls as one batch and returns the answers by position.
func (c *rpcClient) sendBatch(calls []string) ([]answer, error) {
	body := []byte{'['}
	for i, call := range calls {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, call...)
	}
	status, _, reply, err := c.post(string(append(body, ']')))
	if err != nil {
		return nil, err
	}
	var answers []answer
	if err := json.Unmarshal(reply, &answers); err != nil {
		return nil, fmt.Errorf("HTTP %d, %v: %.300s", status, err, reply)
	}
	if len(answers) != len(calls) {
		return nil, fmt.Errorf("HTTP %d, %d answers to %d calls: %.300s", status, len(answers), len(calls), reply)
	}
	return answers, nil
}

// call asks for a result; an error answer is an error.
func (c *rpcClient) call(method, params string) (json.RawMessage, error) {
	a, err := c.send(request("1", method, params))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	if a.Error != nil {
		return nil, fmt.Errorf("%s: %s", method, a.Error)
	}
	return a.Result, nil
}

// must is call for what cannot fail in a healthy test.
func (c *rpcClient) must(t *testing.T, method, params string) json.RawMessage {
	t.Helper()
	result, err := c.call(method, params)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
