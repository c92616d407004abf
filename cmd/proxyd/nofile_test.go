package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"gateway.internal/proxyd"
	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/devchain"
)

// described returns the configuration that flags describe.
func described(args ...string) (*config.Config, []config.Problem, error) {
	var f noFileFlags
	c := new(cobra.Command)
	f.define(c)
	if err := c.ParseFlags(args); err != nil {
		return nil, nil, err
	}
	return f.config()
}

func TestConfigurationWithoutAFile(t *testing.T) {
	const odd = `https://u:p$a@node.example/v2/${HOME}\x'"`
	for _, c := range []struct {
		args                 []string
		strategy, names      string
		dial, request, total time.Duration
		last                 string
	}{
		{[]string{"--upstream", "http://a"}, "fallback", "upstream1", 5 * time.Second, 10 * time.Second, 10 * time.Second, "http://a"},
		{[]string{"--upstream=http://a,http://b", "--upstream", odd}, "fallback", "upstream1 upstream2 upstream3", 5 * time.Second, 10 * time.Second, 30 * time.Second, odd},
		{[]string{"--rollup.sequencer-http", "http://seq1:8545,http://seq2:8545", "--rollup.sequencer-dial-timeout", "3s", "--rollup.sequencer-request-timeout", "1500ms"},
			"sticky", "seq1 seq2", 3 * time.Second, 1500 * time.Millisecond, 3 * time.Second, "http://seq2:8545"},
	} {
		got, warnings, err := described(c.args...)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%v: %v %v", c.args, warnings, err)
			continue
		}
		g, s := got.BackendGroups["main"], got.Server
		names := strings.Join(g.Backends, " ")
		if g.RoutingStrategy != c.strategy || names != c.names || len(got.Backends) != len(g.Backends) {
			t.Errorf("%v: %s over %s of %d", c.args, g.RoutingStrategy, names, len(got.Backends))
		}
		if got.Backend.DialTimeout.D() != c.dial || got.Backend.ResponseTimeout.D() != c.request || s.Timeout.D() != c.total || s.WriteTimeout <= s.Timeout {
			t.Errorf("%v: dial %s, request %s, total %s, write %s", c.args, got.Backend.DialTimeout, got.Backend.ResponseTimeout, s.Timeout, s.WriteTimeout)
		}
		if last := got.Backends[g.Backends[len(g.Backends)-1]].RPCURL.Reveal(); last != c.last {
			t.Errorf("%v: the last URL is %s", c.args, last)
		}
		if s.RPCHost != "127.0.0.1" || *s.RPCPort != 8545 || got.Metrics.Enabled || len(s.CORSAllowedOrigins) > 0 {
			t.Errorf("%v: %s:%d, metrics %t, origins %v", c.args, s.RPCHost, *s.RPCPort, got.Metrics.Enabled, s.CORSAllowedOrigins)
		}
	}
}

func TestAllowingWhatIsServedAnyhowWarns(t *testing.T) {
	c, warnings, err := described("--upstream", "http://a", "--allow-method", "eth_call,debug_traceCall")
	if err != nil || len(warnings) != 1 || warnings[0].Key != "--allow-method" || !strings.HasPrefix(warnings[0].Text, "eth_call does nothing: ") {
		t.Fatal(warnings, err)
	}
	if c.RPCMethodMappings["debug_traceCall"] != "main" || c.RPCMethodMappings["debug_*"] != config.Refuse {
		t.Error(c.RPCMethodMappings)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// gateway is one that flags describe, in this process.
type gateway struct {
	*proxyd.App
	log lockedBuffer
}

func startGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	c, _, err := described(args...)
	if err != nil {
		t.Fatal(err)
	}
	c.Server.EnableServedByHeader = true
	g := new(gateway)
	if g.App, err = proxyd.New(c, proxyd.Options{Log: proxyd.Logger(&g.log, "debug"), RPCAddr: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(t.Context()); err != nil {
			t.Log(err)
		}
	})
	return g
}

// call posts a call, as a page at an origin would, and returns the answer.
func (g *gateway) call(t *testing.T, method, params string) (*http.Response, string) {
	t.Helper()
	return g.send(t, "POST", fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params))
}

func (g *gateway) send(t *testing.T, verb, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, "http://"+g.RPCAddr().String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://page.example")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Access-Control-Request-Method", "POST")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(raw)
}

// nodes are backends over one chain.
func nodes(t *testing.T, n int) (backends []*devchain.Backend, urls []string) {
	t.Helper()
	chain := devchain.New(devchain.Options{})
	t.Cleanup(chain.Close)
	for i := range n {
		b := devchain.NewBackend(chain, fmt.Sprint("node", i+1))
		srv := httptest.NewServer(b)
		t.Cleanup(func() { b.Close(); srv.Close() })
		backends, urls = append(backends, b), append(urls, srv.URL)
	}
	return backends, urls
}

// nobody is the URL of a port on which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://user:s3cret@" + l.Addr().String()
}

func (g *gateway) wantServedBy(t *testing.T, name string) {
	t.Helper()
	res, body := g.call(t, "eth_chainId", "[]")
	if by := res.Header.Get("X-Served-By"); res.StatusCode != 200 || by != name || !strings.Contains(body, `"result":"0x`) {
		t.Errorf("%d by %q, want %s: %s", res.StatusCode, by, name, body)
	}
}

func TestSequencersTakeOverAndStay(t *testing.T) {
	b, urls := nodes(t, 2)
	g := startGateway(t, "--rollup.sequencer-http", strings.Join([]string{nobody(t), urls[0], urls[1]}, ","))
	g.wantServedBy(t, "main/seq2")
	b[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus})
	g.wantServedBy(t, "main/seq3")
	b[0].SetFault(devchain.Fault{Kind: devchain.FaultNone})
	before := b[0].Requests()
	g.wantServedBy(t, "main/seq3")
	if b[0].Requests() != before {
		t.Error("a former sequencer was asked before the one that answered last")
	}
	if strings.Contains(g.log.String(), "s3cret") {
		t.Error("a secret in the log")
	}
}

func TestUpstreamsGoBackToTheFirst(t *testing.T) {
	b, urls := nodes(t, 2)
	g := startGateway(t, "--upstream", strings.Join(urls, ","))
	b[0].SetFault(devchain.Fault{Kind: devchain.FaultStatus})
	g.wantServedBy(t, "main/upstream2")
	b[0].SetFault(devchain.Fault{Kind: devchain.FaultNone})
	g.wantServedBy(t, "main/upstream1")
}

func TestGuardedMethodsAndOriginsWithoutAFile(t *testing.T) {
	b, urls := nodes(t, 1)
	g := startGateway(t, "--upstream", urls[0], "--allow-method", "debug_traceTransaction, miner_*")
	for _, method := range []string{"admin_addPeer", "personal_listAccounts", "engine_newPayloadV4", "debug_setHead", "debug_traceCall"} {
		res, body := g.call(t, method, "[]")
		if res.StatusCode != 403 || !strings.Contains(body, `"code":-32601`) {
			t.Errorf("%s: %d %s", method, res.StatusCode, body)
		}
	}
	if n := b[0].Calls(); n != 0 {
		t.Errorf("%d refused calls went upstream", n)
	}
	for i, method := range []string{"debug_traceTransaction", "miner_start", "zz_unknown"} {
		if _, body := g.call(t, method, "[]"); b[0].Calls() <= int64(i) {
			t.Errorf("%s did not go upstream: %s", method, body)
		}
	}
	for _, verb := range []string{"POST", "OPTIONS"} {
		res, _ := g.send(t, verb, `{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`)
		for name := range res.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the answer has %s", verb, name)
			}
		}
	}
	if got := g.MetricsAddr(); got != nil {
		t.Errorf("metrics are served at %s", got)
	}
}

func TestTotalTimeWithoutAFile(t *testing.T) {
	const request = 300 * time.Millisecond
	b, urls := nodes(t, 3)
	g := startGateway(t, "--rollup.sequencer-http", strings.Join(urls, ","), "--rollup.sequencer-request-timeout", request.String())
	for _, b := range b[:2] {
		b.SetFault(devchain.Fault{Kind: devchain.FaultHang})
	}
	// Two endpoints hang and the third has its time.
	begun := time.Now()
	g.wantServedBy(t, "main/seq3")
	if took := time.Since(begun); took < 2*request {
		t.Errorf("two endpoints were given up after %s", took)
	}
	b[2].SetFault(devchain.Fault{Kind: devchain.FaultHang})
	begun = time.Now()
	res, body := g.call(t, "eth_blockNumber", "[]")
	took := time.Since(begun)
	if res.StatusCode != 504 || !strings.Contains(body, `"code":-32015`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if took < 3*request*9/10 || took > 3*request+5*time.Second {
		t.Errorf("the call took %s", took)
	}
	for i, b := range b {
		if n := b.Calls(); n != 2 {
			t.Errorf("endpoint %d was asked %d times in two calls", i+1, n)
		}
	}
}
