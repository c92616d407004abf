package integration_tests

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// provider stands in front of a node as a hosted one does: the path and query carry a key, which it ignores, and
// instead of the node's answer it can give the other things that providers give.
type provider struct {
	node   *node
	server *httptest.Server

	mu      sync.Mutex
	misdeed http.HandlerFunc // instead of the node's answer
	method  string           // calls to it are held
	gate    chan struct{}    // until this is closed
	waiting int
}

func newProvider(t *testing.T, n *node) *provider {
	t.Helper()
	p := &provider{node: n}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

func (p *provider) url(path string) string { return p.server.URL + path }

// misbehave answers everything by the handler; nil ends that.
func (p *provider) misbehave(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.misdeed = h
}

// hold keeps calls of the method waiting until released.
func (p *provider) hold(method string) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gate := make(chan struct{})
	p.method, p.gate = method, gate
	return func() { close(gate) }
}

func (p *provider) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p.mu.Lock()
	misdeed, gate := p.misdeed, p.gate
	hold := gate != nil && strings.Contains(string(body), fmt.Sprintf("%q", p.method))
	if hold {
		p.waiting++
	}
	p.mu.Unlock()
	if misdeed != nil {
		misdeed(w, r)
		return
	}
	if hold {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	resp, err := p.node.http.Post(p.node.url, "application/json", bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}
