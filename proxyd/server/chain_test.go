package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/jsonrpc"
)

// newChains builds a listening server with the chains base and op beside the top level, each of which answers
// its name. change may leave the top level out.
func newChains(t testing.TB, change func(*Options)) (*front, *httptest.Server) {
	t.Helper()
	reg := prometheus.NewRegistry()
	in := func(name string) prometheus.Registerer {
		return prometheus.WrapRegistererWith(prometheus.Labels{"chain": name}, reg)
	}
	f := newFront(t, func(o *Options) {
		o.Routes, o.Metrics = named(t, "top"), NewMetrics(in(""))
		o.Chains = map[string]Chain{
			"base": {Routes: named(t, "base"), Metrics: NewMetrics(in("base"))},
			"op":   {Routes: named(t, "op"), Metrics: NewMetrics(in("op"))},
		}
		if change != nil {
			change(o)
		}
	}, nil)
	f.reg = reg
	gateway := httptest.NewServer(f)
	t.Cleanup(gateway.Close)
	return f, gateway
}

// named are routes of eth_* to a handler that answers the name of the chain. Further methods show what
// becomes of calls that fail.
func named(t testing.TB, chain string) *Routes {
	t.Helper()
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	routes := NewRoutes(table)
	routes.Map("eth_*", &Target{Group: chain, Handler: jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
		for _, c := range calls {
			switch c.Method {
			case "eth_panics":
				panic("boom")
			case "eth_late":
				c.Err = context.DeadlineExceeded
			case "eth_streams":
				c.Answer = &jsonrpc.Answer{Stream: whole(t, `"`+chain+`"`), Backend: chain + "1", Group: chain}
			default:
				c.Answer = &jsonrpc.Answer{Result: fmt.Appendf(nil, "%q", chain), Backend: chain + "1", Group: chain}
			}
		}
	})})
	return routes
}

// send sends a request to a listening server and returns the status, the body and the header; headers are
// pairs of name and value.
func send(t testing.TB, gateway *httptest.Server, method, target, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, gateway.URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	client := *gateway.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(text), w.Header
}

// by is the answer of a chain to chainID.
func by(chain string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","result":%q,"id":1}`+"\n", chain) }

var (
	noSuchChain = invalid("no such chain") + "\n"
	nameAChain  = invalid("no chain here: the path must name a chain") + "\n"
	noValidKey  = invalid("unauthorized: no valid key") + "\n"
)

const pageNotFound = "404 page not found\n"

func TestEachPathIsServedByItsChain(t *testing.T) {
	_, gateway := newChains(t, nil)
	for _, row := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"POST", "/", 200, by("top")},
		{"POST", "/?x=1", 200, by("top")},
		{"POST", "/base", 200, by("base")},
		{"POST", "/base/", 200, by("base")},
		{"POST", "/base?x=1", 200, by("base")},
		{"POST", "/base/anykey", 200, by("base")}, // accepted and ignored without authentication
		{"POST", "/base/op", 200, by("base")},
		{"POST", "/base/any%2Fkey", 200, by("base")},
		{"POST", "/op", 200, by("op")},
		{"POST", "/op/anykey", 200, by("op")},
		{"GET", "/base", 405, ""},
		{"GET", "/base/anykey", 405, ""},
		{"GET", "/unknown", 405, ""},
		{"POST", "/base/key/more", 404, pageNotFound},
		{"POST", "/base/key/", 404, pageNotFound},
		{"POST", "/unknown/key", 404, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"no such chain"},"id":null}` + "\n"},
		{"POST", "//base", 301, ""},
		{"POST", "/base//key", 301, ""},
		{"GET", "/healthz", 200, "OK"},
		{"GET", "/health", 200, "OK"},
		{"GET", "/readyz", 200, `{"ready":true,"draining":false,"groups":null}` + "\n"},
		{"GET", "/base/healthz", 405, ""},
	} {
		t.Run(row.method+" "+row.target, func(t *testing.T) {
			if status, body, _ := send(t, gateway, row.method, row.target, chainID); status != row.status || body != row.body {
				t.Errorf("HTTP %d %q\nwant %d %q", status, body, row.status, row.body)
			}
		})
	}
}

func TestUnknownChainIs404(t *testing.T) {
	f, gateway := newChains(t, nil)
	for _, target := range []string{"/unknown", "/bas", "/based", "/basement", "/o", "/BASE", "/healthz", "/x%2Fbase", "/%62ase"} {
		status, body, h := send(t, gateway, "POST", target, chainID)
		if status != 404 || body != noSuchChain || h.Get("Content-Type") != "application/json" || len(h.Get("X-Request-Id")) != 20 {
			t.Errorf("%s: HTTP %d %q %v", target, status, body, h)
		}
	}
	gateway.Close() // what is counted is counted by then
	if line := `proxyd_http_response_codes_total{chain="",status_code="404"} 9`; !strings.Contains(f.metrics(), line+"\n") {
		t.Errorf("no line %s", line)
	}
}

func TestWithoutATopLevelThePathMustNameAChain(t *testing.T) {
	for _, keys := range []map[string]string{nil, {"k1": "alice"}} {
		_, gateway := newChains(t, func(o *Options) { o.Routes, o.Keys = nil, keys })
		for _, target := range []string{"/", "/k1", "/unknown", "/bas"} {
			if status, body, _ := send(t, gateway, "POST", target, chainID); status != 404 || body != nameAChain {
				t.Errorf("%s: HTTP %d %q", target, status, body)
			}
		}
		if status, body, _ := send(t, gateway, "POST", "/base/k1", chainID); status != 200 || body != by("base") {
			t.Errorf("HTTP %d %q", status, body)
		}
	}
}

func TestChainsTakeTheKeysOfAll(t *testing.T) {
	for _, row := range []struct {
		target  string
		public  bool
		headers []string
		status  int
		body    string
	}{
		{"/", false, nil, 401, noValidKey},
		{"/", true, nil, 200, by("top")},
		{"/", false, []string{"X-Api-Key", "k1secret"}, 200, by("top")},
		{"/k1secret", false, nil, 200, by("top")},
		{"/k%31secret", false, nil, 200, by("top")},
		{"/basement", false, nil, 200, by("top")}, // a key that begins like a chain
		{"/base", false, nil, 401, noValidKey},
		{"/base/", false, nil, 401, noValidKey},
		{"/base", true, nil, 200, by("base")},
		{"/base", false, []string{"Authorization", "Bearer k1secret"}, 200, by("base")},
		{"/base/k1secret", false, nil, 200, by("base")},
		{"/base/a%2Fb", false, nil, 200, by("base")},
		{"/base/k9secret", false, nil, 401, noValidKey},
		{"/base/k9secret", true, []string{"X-Api-Key", "k1secret"}, 401, noValidKey}, // a key in the path decides alone
		{"/base/base", false, nil, 401, noValidKey},
		{"/k9secret", false, nil, 404, noSuchChain},
		{"/k9secret", true, nil, 404, noSuchChain},
		{"/k9secret", false, []string{"X-Api-Key", "k1secret"}, 404, noSuchChain},
		{"/noname", false, nil, 404, noSuchChain}, // a key without an alias is none
	} {
		t.Run(fmt.Sprint(row.target, row.public, row.headers), func(t *testing.T) {
			f, gateway := newChains(t, func(o *Options) {
				o.Keys, o.PublicAccess = map[string]string{"k1secret": "alice", "basement": "bob", "a/b": "carol", "noname": ""}, row.public
			})
			status, body, h := send(t, gateway, "POST", row.target, chainID, row.headers...)
			if status != row.status || body != row.body {
				t.Errorf("HTTP %d %q\nwant %d %q", status, body, row.status, row.body)
			}
			if got := h.Get("WWW-Authenticate"); (got != "") != (status == 401) {
				t.Errorf("HTTP %d with WWW-Authenticate %q", status, got)
			}
			gateway.Close()
			if seen := f.metrics() + f.log.String() + fmt.Sprint(h); strings.Contains(seen, "secret") || strings.Contains(seen, "noname") {
				t.Errorf("a key, or what was meant as one, is shown in %s", seen)
			}
		})
	}
}

func TestEachChainCountsItsCalls(t *testing.T) {
	f, gateway := newChains(t, nil)
	for chain, times := range map[string]int{"": 1, "base": 2, "op": 3} {
		for range times {
			for _, body := range []string{chainID, `{"jsonrpc":"2.0","method":"eth_accounts","id":1}`, `[{"jsonrpc":"2.0","method":"eth_late","id":1}]`, `{"jsonrpc":"2.0","method":"eth_streams","id":1}`, "{"} {
				send(t, gateway, "POST", "/"+chain, body)
			}
		}
	}
	gateway.Close() // what is counted is counted by then
	metrics := f.metrics()
	for chain, times := range map[string]int{"": 1, "base": 2, "op": 3} {
		in, backend := fmt.Sprintf("chain=%q", chain), cmp.Or(chain, "top")+"1"
		for _, line := range []string{
			fmt.Sprintf(`rpc_calls_total{backend_name=%q,%s,method_name="eth_chainId",status_code="200",transport="http"} %d`, backend, in, times),
			fmt.Sprintf(`rpc_calls_total{backend_name=%q,%s,method_name="eth_*",status_code="200",transport="http"} %d`, backend, in, times),
			fmt.Sprintf(`rpc_calls_total{backend_name="proxyd",%s,method_name="eth_*",status_code="504",transport="http"} %d`, in, times),
			fmt.Sprintf(`rpc_call_duration_seconds_count{%s,method_name="eth_chainId"} %d`, in, times),
			fmt.Sprintf(`rpc_call_duration_seconds_count{%s,method_name="<batch>"} %d`, in, times),
			fmt.Sprintf(`http_response_codes_total{%s,status_code="200"} %d`, in, 4*times),
			fmt.Sprintf(`http_response_codes_total{%s,status_code="400"} %d`, in, times),
			fmt.Sprintf(`request_payload_sizes_count{auth="none",%s} %d`, in, 5*times),
			fmt.Sprintf(`response_payload_sizes_count{auth="none",%s} %d`, in, 5*times),
			fmt.Sprintf(`batch_size_summary_count{%s} %d`, in, times),
			fmt.Sprintf(`batch_rpc_short_circuits_total{%s} %d`, in, times),
			fmt.Sprintf(`rpc_local_answers_total{%s,method_name="eth_accounts"} %d`, in, times),
		} {
			if !strings.Contains(metrics, "\nproxyd_"+line+"\n") {
				t.Errorf("no line proxyd_%s", line)
			}
		}
	}
	if line := `proxyd_http_request_duration_seconds_count{chain=""} 30`; !strings.Contains(metrics, "\n"+line+"\n") {
		t.Errorf("no line %s: the requests of the process are counted in one place", line)
	}
}

func TestLogNamesTheChain(t *testing.T) {
	for target, chain := range map[string]any{"/": nil, "/base": "base", "/op/anykey": "op"} {
		f, gateway := newChains(t, func(o *Options) { o.LogBodies = 100 })
		for _, body := range []string{"{", `{"jsonrpc":"2.0","method":"eth_late","id":1}`, `{"jsonrpc":"2.0","method":"eth_panics","id":1}`} {
			send(t, gateway, "POST", target, body)
		}
		seen := map[any]bool{}
		for line := range strings.Lines(f.log.String()) {
			var l map[string]any
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			if seen[l["msg"]] = true; l["chain"] != chain {
				t.Errorf("%s: %s", target, line)
			}
		}
		for _, msg := range []string{"request refused", "call failed", "panic while serving", "Raw RPC request"} {
			if !seen[msg] {
				t.Errorf("%s: no line %q", target, msg)
			}
		}
	}
}

// What bounds the lines about a method is each chain's own.
func TestFailuresOfOneChainHideNoneOfAnother(t *testing.T) {
	f, gateway := newChains(t, nil)
	late := `{"jsonrpc":"2.0","method":"eth_late","id":1}`
	for range 100 {
		send(t, gateway, "POST", "/base", late)
	}
	send(t, gateway, "POST", "/op", late)
	if got := strings.Count(f.log.String(), `"chain":"op"`); got != 1 {
		t.Errorf("%d lines about op, want 1", got)
	}
}

func TestChainsHaveOneBodyLimitAndCORS(t *testing.T) {
	_, gateway := newChains(t, func(o *Options) { o.MaxBody, o.CORS = 100, CORS{Origins: []string{"https://a.example"}} })
	for _, target := range []string{"/", "/base", "/op/anykey"} {
		status, body, h := send(t, gateway, "POST", target, strings.Repeat(" ", 101), "Origin", "https://a.example")
		if status != 413 || !strings.Contains(body, "-32021") || h.Get("Access-Control-Allow-Origin") != "https://a.example" {
			t.Errorf("%s: HTTP %d %q %v", target, status, body, h)
		}
	}
}

func TestStreamsOfAClientAreCountedOverAllChains(t *testing.T) {
	slow := newTap(t)
	slow.pieces <- strings.Repeat("1", 64<<10) // enough for the head to go out
	_, gateway := newChains(t, func(o *Options) {
		o.MaxStreams = 1
		o.Chains["base"].Routes.Map("eth_slow", &Target{Group: "base", Handler: jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
			calls[0].Answer = &jsonrpc.Answer{Stream: slow, Backend: "base1", Group: "base"}
		})})
	})
	r, err := http.NewRequestWithContext(t.Context(), "POST", gateway.URL+"/base", strings.NewReader(`{"jsonrpc":"2.0","method":"eth_slow","id":1}`))
	if err != nil {
		t.Fatal(err)
	}
	w, err := gateway.Client().Do(r) // returns with the head
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	for _, target := range []string{"/", "/base", "/op/anykey"} {
		status, body, _ := send(t, gateway, "POST", target, `{"jsonrpc":"2.0","method":"eth_streams","id":1}`)
		if status != 429 || !strings.Contains(body, "too many large answers") {
			t.Errorf("%s: HTTP %d %q", target, status, body)
		}
	}
}

func TestWithoutChainsAnySegmentIsAKey(t *testing.T) {
	_, gateway := newChains(t, func(o *Options) { o.Chains = nil })
	for _, target := range []string{"/", "/base", "/anything"} {
		if status, body, _ := send(t, gateway, "POST", target, chainID); status != 200 || body != by("top") {
			t.Errorf("%s: HTTP %d %q", target, status, body)
		}
	}
}
