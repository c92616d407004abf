package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"gateway.internal/proxyd/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// front is a server with a stub behind it.
type front struct {
	*Server
	reg *prometheus.Registry
	log *syncBuffer

	mu    sync.Mutex
	asked []*jsonrpc.Call
}

// syncBuffer is a buffer for many writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
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

// newFront builds a server that maps eth_* to a stub: it answers "ok", or what answer does.
func newFront(t testing.TB, change func(*Options), answer func(context.Context, *jsonrpc.Call)) *front {
	t.Helper()
	f := &front{reg: prometheus.NewRegistry(), log: new(syncBuffer)}
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	routes := NewRoutes(table)
	stub := jsonrpc.HandlerFunc(func(ctx context.Context, calls []*jsonrpc.Call) {
		f.mu.Lock()
		f.asked = append(f.asked, calls...)
		f.mu.Unlock()
		for _, c := range calls {
			if answer == nil {
				c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`), Backend: "b1", Group: "main"}
			} else {
				answer(ctx, c)
			}
		}
	})
	routes.Map("eth_*", &Target{Group: "main", Handler: stub})
	routes.Map("net_*", &Target{Group: "other", Handler: stub})
	routes.Map("eth_refused", &Target{})
	o := Options{
		Routes: routes, Ready: func(bool) (bool, []GroupStatus) { return true, nil },
		Metrics: NewMetrics(f.reg), Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&o)
	}
	f.Server = New(o)
	return f
}

// client is the Client of the only call that came through.
func (f *front) client(t testing.TB) *jsonrpc.Client {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		t.Fatal("no call came through")
	}
	return f.asked[len(f.asked)-1].Client
}

func (f *front) metrics() string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(f.reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String()
}

// do sends a request; headers are pairs of name and value.
func (f *front) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://gateway", strings.NewReader(body))
	u, err := r.URL.Parse("http://gateway" + target)
	if err != nil {
		panic(err)
	}
	r.URL = u
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *front) post(body string, headers ...string) *httptest.ResponseRecorder {
	return f.do("POST", "/", body, headers...)
}

const chainID = `{"jsonrpc":"2.0","method":"eth_chainId","params":[],"id":1}`

// is checks the status and the exact body.
func is(t testing.TB, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("HTTP %d %q\nwant %d %q", w.Code, w.Body, status, body)
	}
}

const okAnswer = `{"jsonrpc":"2.0","result":"ok","id":1}` + "\n"

func TestPaths(t *testing.T) {
	f := newFront(t, nil, nil)
	for _, row := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"POST", "/", 200, okAnswer},
		{"POST", "/anykey", 200, okAnswer}, // accepted and ignored without authentication
		{"POST", "/healthz", 200, okAnswer},
		{"POST", "/readyz", 200, okAnswer},
		{"POST", "/?x=1", 200, okAnswer},
		{"GET", "/healthz", 200, "OK"},
		{"GET", "/health", 200, "OK"},
		{"HEAD", "/healthz", 405, ""},
		{"GET", "/", 405, ""},
		{"GET", "/anything", 405, ""},
		{"PUT", "/", 405, ""},
		{"DELETE", "/", 405, ""},
		{"OPTIONS", "/", 405, ""},
		{"POST", "/a/b", 404, "404 page not found\n"},
		{"POST", "/key/", 404, "404 page not found\n"},
		{"GET", "/a/b", 404, "404 page not found\n"},
		{"POST", "//", 301, ""},
	} {
		t.Run(row.method+" "+row.target, func(t *testing.T) { is(t, f.do(row.method, row.target, chainID), row.status, row.body) })
	}
}

func TestEmptySegmentsAreRedirectedWithinTheGateway(t *testing.T) {
	f := newFront(t, nil, nil)
	for target, to := range map[string]string{"//": "/", "/a//b": "/a/b", "/a//": "/a/", "//evil.example/x": "/evil.example/x", "/..//evil": "/evil"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "http://gateway/", strings.NewReader(chainID))
		r.URL.Path = target
		f.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != 301 || got != to {
			t.Errorf("%s: %d %s, want 301 %s", target, w.Code, got, to)
		}
	}
}

// TestErrorsHaveTheirBytes lists every error that a client can see, with its exact answer.
func TestErrorsHaveTheirBytes(t *testing.T) {
	failing := map[string]error{}
	f := newFront(t, func(o *Options) { o.MaxBody, o.MaxBatch = 400, 3 }, func(_ context.Context, c *jsonrpc.Call) {
		if c.Err = failing[c.Method]; c.Err == nil {
			c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
		}
	})
	for _, row := range envelopeErrors {
		t.Run("body "+row.body[:min(len(row.body), 40)], func(t *testing.T) { is(t, f.post(row.body), row.status, row.answer+"\n") })
	}
	for i, row := range stageErrors {
		method := fmt.Sprint("eth_fails", i)
		failing[method] = fmt.Errorf("stage: %w", row.err)
		for _, id := range []string{"7", `"a b"`, "null", "1.50", "true", "12345678901234567890"} {
			body := fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"id":%s}`, method, id)
			answer := fmt.Sprintf(`{"jsonrpc":"2.0","error":%s,"id":%s}`, row.object, id)
			w := f.post(body)
			is(t, w, row.status, answer+"\n")
			if got := w.Header().Get("Retry-After"); got != row.retryAfter {
				t.Errorf("%v: Retry-After %q, want %q", row.err, got, row.retryAfter)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
			is(t, f.post("["+body+"]"), 200, "["+answer+"]\n")
		}
	}
}

func TestUnexpectedErrorsKeepTheirText(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Err = errors.New("dial tcp: secret.example") })
	is(t, f.post(chainID), 500, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":1}`+"\n")
	if !strings.Contains(f.log.String(), "secret.example") {
		t.Error("the log does not say what it was")
	}
}

func TestCallThatNobodyEndedIsAnInternalError(t *testing.T) {
	f := newFront(t, nil, func(context.Context, *jsonrpc.Call) {})
	is(t, f.post(chainID), 500, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":1}`+"\n")
}

func TestPanicIsAnInternalErrorOfItsCallsOnly(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		if c.Method == "eth_panics" {
			panic("boom")
		}
		c.Answer = &jsonrpc.Answer{Result: []byte(`"ok"`)}
	})
	internal := `{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":%s}`
	is(t, f.post(`{"jsonrpc":"2.0","method":"eth_panics","id":"x"}`), 500, fmt.Sprintf(internal, `"x"`)+"\n")
	is(t, f.post(`[`+chainID+`,{"jsonrpc":"2.0","method":"eth_panics","id":2},{"jsonrpc":"2.0","method":"eth_chainId","id":3},{"jsonrpc":"2.0","method":"net_version","id":4}]`), 200,
		`[`+strings.TrimSpace(okAnswer)+`,`+fmt.Sprintf(internal, "2")+`,`+fmt.Sprintf(internal, "3")+`,{"jsonrpc":"2.0","result":"ok","id":4}]`+"\n")
	is(t, f.post(chainID), 200, okAnswer)
	if got := strings.Count(f.log.String(), `"msg":"panic while serving"`); got != 2 {
		t.Errorf("%d lines about panics, want 2", got)
	}
}

func TestPanicOutsideOfTheHandlersIsAnInternalError(t *testing.T) {
	f := newFront(t, nil, nil)
	r := httptest.NewRequest("POST", "/", nil)
	r.Body = panicBody{}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	is(t, w, 500, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"internal error"},"id":null}`+"\n")
}

type panicBody struct{ io.ReadCloser }

func (panicBody) Read([]byte) (int, error) { panic("boom") }

func TestAbortedHandlerStaysAborted(t *testing.T) {
	f := newFront(t, nil, nil)
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("recovered %v", v)
		}
	}()
	r := httptest.NewRequest("POST", "/", nil)
	r.Body = abortBody{}
	f.ServeHTTP(httptest.NewRecorder(), r)
}

type abortBody struct{ io.ReadCloser }

func (abortBody) Read([]byte) (int, error) { panic(http.ErrAbortHandler) }

func TestConfiguredMessagesReplaceTheTexts(t *testing.T) {
	f := newFront(t, func(o *Options) {
		o.WhitelistMessage, o.BatchMessage, o.MaxBatch = `no "such" <method> é`, "too many", 1
	}, nil)
	is(t, f.post(`{"jsonrpc":"2.0","method":"debug_x","id":1}`), 403, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"no \"such\" \u003cmethod\u003e é"},"id":1}`+"\n")
	is(t, f.post("["+chainID+","+chainID+"]"), 413, `{"jsonrpc":"2.0","error":{"code":-32014,"message":"too many"},"id":null}`+"\n")
}

func TestLocalAnswers(t *testing.T) {
	f := newFront(t, nil, nil)
	healthz := `{"jsonrpc":"2.0","method":"proxyd_healthz","id":"h"}`
	healthy := `{"jsonrpc":"2.0","result":"OK","id":"h"}`
	is(t, f.post(healthz), 200, healthy+"\n")
	is(t, f.post(`{"method":"proxyd_healthz","id":"h"}`), 200, healthy+"\n")
	is(t, f.post(`{"method":"proxyd_healthz"}`), 200, `{"jsonrpc":"2.0","result":"OK","id":null}`+"\n")
	is(t, f.post("["+healthz+"]"), 200, "["+healthy+"]\n")
	is(t, f.post("["+healthz+","+chainID+"]"), 200, `[{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":"h"},`+strings.TrimSpace(okAnswer)+"]\n")
	is(t, f.post(`{"jsonrpc":"2.0","method":"eth_accounts","id":2}`), 200, `{"jsonrpc":"2.0","result":[],"id":2}`+"\n")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.asked {
		if c.Method != "eth_chainId" {
			t.Errorf("%s went on", c.Method)
		}
	}
	if strings.Contains(f.metrics(), "proxyd_healthz") {
		t.Error("proxyd_healthz is counted")
	}
}

func TestRefusedMethodsNeverReachAHandler(t *testing.T) {
	f := newFront(t, nil, nil)
	for _, method := range []string{"eth_refused", "debug_traceCall", "ETH_chainId", "eth", "eth_chain Id", "eth_" + strings.Repeat("x", 61), "eth_é", "eth_chainId\\u0000", "*"} {
		is(t, f.post(fmt.Sprintf(`{"jsonrpc":"2.0","method":"%s","id":1}`, method)), 403, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":1}`+"\n")
	}
	if len(f.asked) != 0 {
		t.Errorf("asked for %v", f.asked)
	}
}

func TestResultBytesAndIDsPassUntouched(t *testing.T) {
	for _, text := range []string{`{"b":1,"a":12345678901234567890}`, `[1.0, 1e30 ]`, `"<&>"`, "null"} {
		f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(text)} })
		for _, id := range []string{`"\u0041 b"`, "1e2", "-0", "null", "false", `" "`} {
			is(t, f.post(`{"id": `+id+` ,"method":"eth_chainId","jsonrpc":"2.0"}`), 200, `{"jsonrpc":"2.0","result":`+text+`,"id":`+id+"}\n")
		}
	}
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		c.Answer = &jsonrpc.Answer{Error: []byte(`{"message":"x","code":3,"data":"0x"}`), Code: 3, Status: 400}
	})
	is(t, f.post(chainID), 400, `{"jsonrpc":"2.0","error":{"message":"x","code":3,"data":"0x"},"id":1}`+"\n")
	is(t, f.post("["+chainID+"]"), 200, `[{"jsonrpc":"2.0","error":{"message":"x","code":3,"data":"0x"},"id":1}]`+"\n")
}

func TestServedByAndCacheStatus(t *testing.T) {
	f := newFront(t, func(o *Options) { o.ServedBy = true }, func(_ context.Context, c *jsonrpc.Call) {
		by := map[string]string{"eth_hit": "cache", "eth_b": "b2"}[c.Method]
		group := "main"
		if by == "cache" {
			group = ""
		} else if by == "" {
			by = "b1"
		}
		c.Answer = &jsonrpc.Answer{Result: []byte("1"), Backend: by, Group: group}
	})
	call := func(method string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"id":1}`, method) }
	for _, row := range []struct{ body, status, by string }{
		{call("eth_a"), "MISS", "main/b1"},
		{call("eth_hit"), "HIT", ""},
		{"[" + call("eth_a") + "," + call("eth_hit") + "," + call("eth_b") + "," + call("eth_a") + "]", "HIT", "main/b1, main/b2"},
		{call("debug_x"), "MISS", ""},
		{"{", "", ""},
		{"[]", "", ""},
	} {
		w := f.post(row.body)
		if got := w.Header().Get("X-Proxyd-Cache-Status"); got != row.status {
			t.Errorf("%s: X-Proxyd-Cache-Status %q, want %q", row.body, got, row.status)
		}
		if got, ok := w.Header()["X-Served-By"]; !ok || got[0] != row.by {
			t.Errorf("%s: x-served-by %q, want %q", row.body, got, row.by)
		}
	}
	if _, ok := newFront(t, nil, nil).post(chainID).Header()["X-Served-By"]; ok {
		t.Error("x-served-by without being asked for")
	}
}

func TestRequestIDComesBackOnlyWhenHarmless(t *testing.T) {
	f := newFront(t, nil, nil)
	for _, id := range []string{"a", "0123-abc_DEF.9", strings.Repeat("x", 64)} {
		w := f.post(chainID, "X-Request-Id", id)
		if got := w.Header().Get("X-Request-Id"); got != id || f.client(t).RequestID != id {
			t.Errorf("%q became %q, %q", id, got, f.client(t).RequestID)
		}
	}
	seen := map[string]bool{}
	for _, id := range []string{"", " ", strings.Repeat("x", 65), "a b", "<script>", "a\tb", `a"b`, "é", "a/b", "a\\b", "a,b"} {
		got := f.post(chainID, "X-Request-Id", id).Header().Get("X-Request-Id")
		if len(got) != 20 || strings.Trim(got, "0123456789abcdef") != "" || seen[got] {
			t.Errorf("%q became %q, want 20 new hex digits", id, got)
		}
		seen[got] = true
	}
	if got := f.do("POST", "/", "{").Header().Get("X-Request-Id"); len(got) != 20 {
		t.Errorf("a refused request has %q", got)
	}
}

func TestBodiesAreLoggedOnlyWhenAskedAndTruncated(t *testing.T) {
	body := `{"jsonrpc":"2.0","method":"eth_chainId","id":"` + strings.Repeat("z", 100) + `"}`
	f := newFront(t, nil, nil)
	f.post(body)
	if strings.Contains(f.log.String(), "Raw RPC request") {
		t.Error("logged without being asked for")
	}
	f = newFront(t, func(o *Options) { o.LogBodies = 30; o.Keys = map[string]string{"thekey": "alice"} }, nil)
	f.do("POST", "/thekey", body)
	f.do("POST", "/thekey", "short")
	f.do("POST", "/wrong", "not read")
	var lines []map[string]any
	for line := range strings.Lines(f.log.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l["msg"] == "Raw RPC request" {
			lines = append(lines, l)
		}
	}
	if len(lines) != 2 || lines[0]["body"] != body[:30]+"..." || lines[1]["body"] != "short" || lines[0]["auth"] != "alice" || lines[0]["level"] != "INFO" || len(fmt.Sprint(lines[0]["req_id"])) != 20 {
		t.Errorf("%v", lines)
	}
	if strings.Contains(f.log.String(), "thekey") {
		t.Error("the log holds the key")
	}
}

func TestDrainFailsTheChecksAndServesCalls(t *testing.T) {
	f := newFront(t, nil, nil)
	f.Drain(t.Context(), 0)
	is(t, f.do("GET", "/healthz", ""), 503, "Server is draining\n")
	is(t, f.do("GET", "/health", ""), 503, "Server is draining\n")
	is(t, f.do("GET", "/readyz", ""), 503, `{"ready":false,"draining":true,"groups":null}`+"\n")
	is(t, f.post(chainID), 200, okAnswer)
}

func TestReadinessListsEveryGroup(t *testing.T) {
	groups := []GroupStatus{
		{Group: "main", Usable: true, Backends: []BackendStatus{{Backend: "b1", State: "well"}}},
		{Group: "other", Backends: []BackendStatus{{Backend: "b2", State: "out"}}},
	}
	f := newFront(t, func(o *Options) { o.Ready = func(strict bool) (bool, []GroupStatus) { return !strict, groups } }, nil)
	list := `"groups":[{"group":"main","usable":true,"backends":[{"backend":"b1","state":"well"}]},{"group":"other","usable":false,"backends":[{"backend":"b2","state":"out"}]}]}` + "\n"
	for _, target := range []string{"/readyz", "/ready", "/readyz?strict=0", "/ready?x=1"} {
		is(t, f.do("GET", target, ""), 200, `{"ready":true,"draining":false,`+list)
	}
	for _, target := range []string{"/readyz?strict=1", "/ready?strict=true"} {
		is(t, f.do("GET", target, ""), 503, `{"ready":false,"draining":false,`+list)
	}
}

func TestReadinessSaysWhatIsKnownOfChainAndBackend(t *testing.T) {
	groups := []GroupStatus{{Chain: "base", Group: "main", Backends: []BackendStatus{{Backend: "b1", State: "out", Reason: "syncing", Head: 7}}}}
	f := newFront(t, func(o *Options) { o.Ready = func(bool) (bool, []GroupStatus) { return true, groups } }, nil)
	is(t, f.do("GET", "/readyz", ""), 200, `{"ready":true,"draining":false,"groups":[{"chain":"base","group":"main","usable":false,"backends":[{"backend":"b1","state":"out","reason":"syncing","head":7}]}]}`+"\n")
}
