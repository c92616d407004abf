package proxyd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway.internal/proxyd/config"
	"gateway.internal/proxyd/devchain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// syncBuffer is a log for many writers.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// gateway is a whole gateway in this process.
type gateway struct {
	*App
	log    *syncBuffer
	client *http.Client
}

// build parses a configuration and builds the gateway without starting it.
func build(t testing.TB, text string, change func(*Options)) *gateway {
	t.Helper()
	c, _, err := config.Parse(text, config.Options{Env: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{log: new(syncBuffer)}
	o := Options{RPCAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0", Log: Logger(g.log, "debug")}
	if change != nil {
		change(&o)
	}
	if g.App, err = New(c, o); err != nil {
		t.Fatal(err)
	}
	g.client = &http.Client{Transport: new(http.Transport), Timeout: 30 * time.Second}
	return g
}

// start runs a gateway until the test's end.
func start(t testing.TB, text string, change func(*Options)) *gateway {
	t.Helper()
	g := build(t, text, change)
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		_ = g.Stop(context.Background())
	})
	return g
}

// post sends a body and returns the answer with its header.
func (g *gateway) post(path, body string, headers ...string) (status int, header http.Header, answer string, err error) {
	req, err := http.NewRequest("POST", "http://"+g.RPCAddr().String()+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := g.client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(raw), err
}

func (g *gateway) get(t testing.TB, addr net.Addr, path string) (int, string) {
	t.Helper()
	res, err := g.client.Get("http://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

func request(method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":%s,"id":1}`, method, params)
}

// node is an HTTP backend over a dev chain.
type node struct {
	*devchain.Backend
	*httptest.Server
}

func newNode(t testing.TB, name string) node {
	chain := devchain.New(devchain.Options{})
	n := node{Backend: devchain.NewBackend(chain, name)}
	n.Server = httptest.NewServer(n.Backend)
	t.Cleanup(func() { n.Backend.Close(); n.Server.Close(); chain.Close() })
	return n
}

// serving is a backend of one function.
func serving(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// conf is a configuration of one group over the URLs, with more tables.
func conf(more string, urls ...string) string {
	var b strings.Builder
	names := make([]string, len(urls))
	for i, u := range urls {
		names[i] = fmt.Sprintf("%q", fmt.Sprint("b", i+1))
		fmt.Fprintf(&b, "[backends.b%d]\nrpc_url = %q\n", i+1, u)
	}
	fmt.Fprintf(&b, "[backend_groups.main]\nbackends = [%s]\n[rpc_method_mappings]\n\"*\" = \"main\"\n%s\n", strings.Join(names, ","), more)
	return b.String()
}

func TestGatewayAnswersAndStops(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, conf("", n.URL), nil)
	status, _, body, err := g.post("/", request("eth_chainId", "[]"))
	if err != nil || status != 200 || body != `{"jsonrpc":"2.0","result":"0x7a69","id":1}`+"\n" {
		t.Errorf("%d %s %v", status, body, err)
	}
	if _, metrics := g.get(t, g.MetricsAddr(), "/any/path"); !strings.Contains(metrics, "proxyd_up 1\n") || !strings.Contains(metrics, "go_goroutines") {
		t.Error("metrics are not on every path")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error("second stop:", err)
	}
	for _, msg := range []string{`"msg":"started proxyd"`, `"msg":"shutting down proxyd"`} {
		if !strings.Contains(g.log.String(), msg) {
			t.Errorf("the log lacks %s", msg)
		}
	}
}

func TestBuildingStartsNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	g := build(t, conf("[cache]\nenabled = true", "http://127.0.0.1:1"), nil)
	if g.RPCAddr() != nil || g.MetricsAddr() != nil {
		t.Error("listens before Start")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartOnABusyPortCleansUp(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	g := build(t, conf("", "http://127.0.0.1:1"), func(o *Options) { o.RPCAddr = busy.Addr().String() })
	if err := g.Start(); err == nil || !strings.Contains(err.Error(), "rpc listener") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("start: %v", err)
	}
	if g.MetricsAddr() == nil {
		t.Fatal("the metrics listener did not come first")
	}
	if conn, err := net.Dial("tcp", g.MetricsAddr().String()); err == nil {
		conn.Close()
		t.Error("the metrics listener is still open")
	}
	if strings.Contains(g.log.String(), "started proxyd") {
		t.Error("it says that it has started")
	}
}

func TestGroupsAndBackendsShowInReadiness(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, conf(`[backends.gone]
rpc_url = "http://127.0.0.1:1"
[backend_groups.other]
backends = ["gone"]`, n.URL), nil)
	ready := `"groups":[{"group":"main","usable":true,"backends":[{"backend":"b1","state":"well"}]},{"group":"other","usable":%s,"backends":[{"backend":"gone","state":%s}]}]}` + "\n"
	want := func(path string, status int, body string) {
		t.Helper()
		if s, b := g.get(t, g.RPCAddr(), path); s != status || b != body {
			t.Errorf("%s: %d %s\nwant %d %s", path, s, b, status, body)
		}
	}
	want("/readyz", 200, `{"ready":true,"draining":false,`+fmt.Sprintf(ready, "true", `"well"`))
	want("/healthz", 200, "OK")
	gone := start(t, conf("", "http://127.0.0.1:1"), nil)
	if status, _, _, err := gone.post("/", request("eth_chainId", "[]")); status != 503 || err != nil {
		t.Errorf("%d %v", status, err)
	}
	s, b := gone.get(t, gone.RPCAddr(), "/readyz")
	b = regexp.MustCompile(`"20[^"]*Z"`).ReplaceAllString(b, `"T"`)
	if s != 503 || b != `{"ready":false,"draining":false,"groups":[{"group":"main","usable":false,"backends":[{"backend":"b1","state":"out","since":"T","until":"T","unanswered_in_row":1,"last_failure":"refused"}]}]}`+"\n" {
		t.Errorf("%d %s", s, b)
	}
	g.Drain(t.Context()) // graceful_shutdown_seconds is 0
	want("/readyz?strict=1", 503, `{"ready":false,"draining":true,`+fmt.Sprintf(ready, "true", `"well"`))
	want("/healthz", 503, "Server is draining\n")
	if status, _, _, err := g.post("/", request("eth_chainId", "[]")); status != 200 || err != nil {
		t.Errorf("while draining: %d %v", status, err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	g := build(t, conf("[server]\ngraceful_shutdown_seconds = 3600", "http://127.0.0.1:1"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Drain(ctx)
}

// gate is a backend that holds its calls until it is opened.
type gate struct {
	held chan string
	open chan struct{}
	once sync.Once
}

func newGate() *gate { return &gate{held: make(chan string, 1000), open: make(chan struct{})} }

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.held <- string(body)
	select {
	case <-g.open:
		_, id, _ := strings.Cut(string(body), `"id":`)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","result":"0x1","id":%s`, id)
	case <-r.Context().Done():
	}
}

func TestStopWaitsForCallsInFlight(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	hold := newGate()
	backend := httptest.NewServer(hold)
	defer backend.Close()
	g := start(t, conf("", backend.URL), nil)
	answered := make(chan string, 1)
	go func() {
		_, _, body, err := g.post("/", request("eth_chainId", "[]"))
		answered <- fmt.Sprint(body, err)
	}()
	<-hold.held
	stopped := make(chan error, 1)
	go func() { stopped <- g.Stop(context.Background()) }()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", g.RPCAddr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatal("stopped with a call in flight:", err)
	default:
	}
	hold.release()
	if body := <-answered; !strings.HasPrefix(body, `{"jsonrpc":"2.0","result":"0x1","id":1}`) {
		t.Error(body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	g.client.CloseIdleConnections()
}

func TestShutdownTimeoutCutsOffWhatHangsAndLeavesNoGoroutine(t *testing.T) {
	for name, calls := range map[string][]string{
		"read":      {request("eth_getBalance", `["0x1","latest"]`)},
		"send":      {request("eth_sendRawTransaction", `["0x01"]`)},
		"coalesced": {request("eth_chainId", "[]"), request("eth_chainId", "null"), request("eth_chainId", "[ ]")},
		"batch":     {"[" + request("eth_chainId", "[]") + "," + request("eth_call", "[]") + "," + request("eth_sendRawTransaction", `["0x02"]`) + "," + request("eth_gasPrice", "[]") + "]"},
		"body":      {""}, // a client that never sends what it announced
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			hold := newGate()
			backend := httptest.NewServer(hold)
			defer backend.Close()
			g := start(t, conf("[server]\ntimeout_seconds = 60\nshutdown_timeout = \"100ms\"\n[backend]\nresponse_timeout_seconds = 60\n[cache]\nenabled = true", backend.URL, backend.URL+"/second"), nil)
			var wg sync.WaitGroup
			for _, body := range calls {
				if body == "" {
					conn, err := net.Dial("tcp", g.RPCAddr().String())
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
					_, _ = conn.Read(make([]byte, 16)) // 100 Continue: the handler reads
					continue
				}
				wg.Go(func() {
					if status, _, answer, err := g.post("/", body); err == nil && status == 200 && !strings.Contains(answer, "error") {
						t.Errorf("answered: %s", answer)
					}
				})
			}
			if calls[0] != "" {
				<-hold.held
			}
			began := time.Now()
			err := g.Stop(context.Background())
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if err == nil || !strings.Contains(err.Error(), "cut off") || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stop: %v", err)
			}
			wg.Wait()
			g.client.CloseIdleConnections()
		})
	}
}

func TestStopUnderLoadLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, id, _ := strings.Cut(string(body), `"id":`)
		time.Sleep(time.Millisecond) // a backend that takes its time
		fmt.Fprintf(w, `{"jsonrpc":"2.0","result":"0x1","id":%s`, id)
	}))
	defer slow.Close()
	for range 5 {
		g := start(t, conf("[server]\nshutdown_timeout = \"1ms\"\n[cache]\nenabled = true\n[[cache.rules]]\nmethods = [\"eth_blockNumber\"]\nttl = \"1ms\"", slow.URL), nil)
		var wg sync.WaitGroup
		once, begun := sync.Once{}, make(chan struct{})
		for range 16 {
			wg.Go(func() {
				for {
					if _, _, _, err := g.post("/", request("eth_blockNumber", "[]")); err != nil {
						return // the gateway is gone
					}
					once.Do(func() { close(begun) })
				}
			})
		}
		<-begun
		_ = g.Stop(context.Background())
		wg.Wait()
		g.client.CloseIdleConnections()
	}
}

func TestCoalescedElementsThatWereAnsweredInTimeSurviveTheDeadline(t *testing.T) {
	hash := func(i int) string { return fmt.Sprintf(`["0x%064x",false]`, i) }
	leavesOneOut := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var out []string
		for _, part := range strings.SplitAfter(string(body), "}") {
			if _, id, ok := strings.Cut(part, `"id":`); ok && !strings.Contains(part, hash(11)) {
				out = append(out, `{"jsonrpc":"2.0","result":{"ok":1},"id":`+id)
			}
		}
		fmt.Fprintf(w, "[%s]", strings.Join(out, ","))
	})
	hangs := serving(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	g := start(t, conf("[server]\ntimeout_seconds = \"2500ms\"\n[cache]\nenabled = true", leavesOneOut, hangs), nil)
	var calls []string
	for i := range 15 {
		calls = append(calls, request("eth_getBlockByHash", hash(i)))
	}
	status, _, body, err := g.post("/", "["+strings.Join(calls, ",")+"]")
	if err != nil || status != 200 || strings.Count(body, `"result":{"ok":1}`) != 14 || strings.Count(body, `"error"`) != 1 {
		t.Errorf("%d %s %v", status, body, err)
	}
}

func TestCacheOfNoBytesKeepsNothing(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, conf("[cache]\nenabled = true\nmax_size_bytes = 0", n.URL), nil)
	for range 3 {
		if status, h, _, err := g.post("/", request("eth_chainId", "[]")); status != 200 || err != nil || h.Get("X-Proxyd-Cache-Status") != "MISS" {
			t.Errorf("%d %v %v", status, h, err)
		}
	}
	if got := n.CallsOf("eth_chainId"); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
}

func TestCachedAndUncachedAnswersAreEqual(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, conf("[cache]\nenabled = true\n[[cache.rules]]\nmethods = [\"eth_getBlockByNumber\"]\nttl = \"1h\"", n.URL), nil)
	var bodies []string
	for _, params := range []string{`["0x0",true]`, `[ "0x0" , true ]`} {
		_, h, body, err := g.post("/", request("eth_getBlockByNumber", params))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, h.Get("X-Proxyd-Cache-Status"), body)
	}
	if bodies[0] != "MISS" || bodies[2] != "HIT" || bodies[1] != bodies[3] || n.Calls() != 1 {
		t.Errorf("%q, asked %d times", bodies, n.Calls())
	}
}

func TestRateLimitCountsHitsAndBatchElements(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, conf("[cache]\nenabled = true\n[rate_limit]\nbase_rate = 4\nbase_interval = \"876000h\"", n.URL), nil)
	one := request("eth_chainId", "[]")
	if _, _, body, _ := g.post("/", "["+one+","+one+","+one+"]"); strings.Contains(body, "error") {
		t.Error(body)
	}
	_, _, body, _ := g.post("/", "["+one+","+one+"]")
	if strings.Count(body, `"result"`) != 1 || strings.Count(body, `{"code":-32016,"message":"over rate limit"}`) != 1 {
		t.Error(body)
	}
	if status, h, _, _ := g.post("/", one); status != 429 || h.Get("RateLimit-Limit") != "4" || h.Get("Retry-After") == "" {
		t.Errorf("%d %v", status, h)
	}
	if status, _, _, _ := g.post("/", one, "X-Forwarded-For", "9.9.9.9"); status != 200 {
		t.Errorf("another client: %d", status)
	}
}

// authority makes certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	a := authority{}
	a.cert, a.key = a.issue(t, "authority", true)
	return a
}

func (a authority) issue(t *testing.T, name string, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: isCA, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if isCA {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// files writes a certificate and its key, and returns their names.
func files(t *testing.T, cert *x509.Certificate, key *ecdsa.PrivateKey) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert.Raw}, keyFile: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestBackendsOverTLS(t *testing.T) {
	ca := newAuthority(t)
	caFile, _ := files(t, ca.cert, ca.key)
	serverCert, serverKey := ca.issue(t, "server", false)
	clientCert, clientKey := ca.issue(t, "client", false)
	certFile, keyFile := files(t, clientCert, clientKey)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	tlsNode := func(auth tls.ClientAuthType) string {
		chain := devchain.New(devchain.Options{})
		s := httptest.NewUnstartedServer(devchain.NewBackend(chain, "tls"))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}}, ClientAuth: auth, ClientCAs: pool}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(func() { s.Close(); chain.Close() })
		return s.URL
	}
	plain, mutual := tlsNode(tls.NoClientCert), tlsNode(tls.RequireAndVerifyClientCert)
	for _, row := range []struct {
		name, url, keys string
		status          int
	}{
		{"with ca_file", plain, fmt.Sprintf("ca_file = %q", caFile), 200},
		{"without ca_file", plain, "", 503},
		{"client certificate", mutual, fmt.Sprintf("ca_file = %q\nclient_cert_file = %q\nclient_key_file = %q", caFile, certFile, keyFile), 200},
		{"no client certificate", mutual, fmt.Sprintf("ca_file = %q", caFile), 503},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := start(t, fmt.Sprintf("[backends.b1]\nrpc_url = %q\n%s\n[backend_groups.main]\nbackends = [\"b1\"]\n[rpc_method_mappings]\n\"*\" = \"main\"", row.url, row.keys), nil)
			status, _, body, err := g.post("/", request("eth_chainId", "[]"))
			if err != nil || status != row.status {
				t.Errorf("%d %s %v, want %d", status, body, err, row.status)
			}
		})
	}
}

func TestTLSFilesThatHoldNothingAreFaults(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for keys, want := range map[string]string{
		fmt.Sprintf("ca_file = %q", empty):                                       "backend b1: ca_file",
		fmt.Sprintf("client_cert_file = %q\nclient_key_file = %q", empty, empty): "backend b1: client certificate",
	} {
		c, _, err := config.Parse(fmt.Sprintf("[backends.b1]\nrpc_url = \"https://127.0.0.1:1\"\n%s\n[backend_groups.main]\nbackends = [\"b1\"]\n[rpc_method_mappings]\n\"*\" = \"main\"", keys), config.Options{})
		if err == nil {
			_, err = New(c, Options{})
		}
		if err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "_file") {
			t.Errorf("%s: %v, want %s", keys, err, want)
		}
	}
}
