package proxyd

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"gateway.internal/proxyd/devchain"
)

var hashes = regexp.MustCompile(`0x[0-9a-f]{64}`)

// TestFailuresReachTheClientWithTheirBytes brings the failures about by real backends.
func TestFailuresReachTheClientWithTheirBytes(t *testing.T) {
	failed := func(object string) string { return `{"jsonrpc":"2.0","error":` + object + `,"id":1}` + "\n" }
	nobody := failed(`{"code":-32011,"message":"no backend is currently healthy to serve traffic"}`)
	timedOut := failed(`{"code":-32015,"message":"gateway timeout"}`)
	send := request("eth_sendRawTransaction", `["0xc0"]`)
	for _, row := range []struct {
		name   string
		fault  devchain.Fault
		server string // lines of [server] and other tables
		body   string
		status int
		answer string
	}{
		{"status", devchain.Fault{Kind: devchain.FaultStatus, Status: 500}, "", request("eth_chainId", "[]"), 503, nobody},
		{"garbage", devchain.Fault{Kind: devchain.FaultGarbage}, "", request("eth_chainId", "[]"), 503, nobody},
		{"wrong id", devchain.Fault{Kind: devchain.FaultWrongID}, "", request("eth_chainId", "[]"), 503, nobody},
		{"cut", devchain.Fault{Kind: devchain.FaultClose}, "", request("eth_chainId", "[]"), 503, nobody},
		{"cut to half", devchain.Fault{Kind: devchain.FaultTruncate}, "", request("eth_chainId", "[]"), 503, nobody},
		{"429", devchain.Fault{Kind: devchain.FaultRateLimited}, "", request("eth_chainId", "[]"), 503, nobody},
		{"revert", devchain.Fault{Kind: devchain.FaultRPCError, RPCCode: 3, RPCMessage: "execution reverted: <no>"}, "", request("eth_call", "[]"), 200, failed(`{"code":3,"message":"execution reverted: \u003cno\u003e"}`)},
		{"response timeout", devchain.Fault{Kind: devchain.FaultHang}, "[backend]\nresponse_timeout_milliseconds = 50", request("eth_chainId", "[]"), 504, timedOut},
		{"deadline", devchain.Fault{Kind: devchain.FaultHang}, "[server]\ntimeout_seconds = \"50ms\"", request("eth_call", "[]"), 504, timedOut},
		{"deadline of a shared call", devchain.Fault{Kind: devchain.FaultHang}, "[server]\ntimeout_seconds = \"50ms\"\n[cache]\nenabled = true", request("eth_chainId", "[]"), 504, timedOut},
		{"unknown outcome", devchain.Fault{Kind: devchain.FaultHang}, "[server]\ntimeout_seconds = \"50ms\"", send, 504,
			failed(`{"code":-32015,"message":"outcome unknown: the transaction may have been accepted","data":"HASH"}`)},
		{"too large", devchain.Fault{}, "[backend]\nmax_response_size_bytes = 20", request("eth_getBlockByNumber", `["0x0",true]`), 500, failed(`{"code":-32020,"message":"backend response too large"}`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t, "one")
			n.SetFault(row.fault)
			g := start(t, conf(row.server, n.URL), nil)
			status, h, answer, err := g.post("/", row.body)
			answer = hashes.ReplaceAllString(answer, "HASH") // tested where it is computed
			if err != nil || status != row.status || answer != row.answer {
				t.Errorf("%d %s%v\nwant %d %s", status, answer, err, row.status, row.answer)
			}
			if (status == 503 || status == 429) != (h.Get("Retry-After") != "") {
				t.Errorf("HTTP %d with Retry-After %q", status, h.Get("Retry-After"))
			}
			if batch := "[" + row.body + "]"; row.fault.Kind != devchain.FaultRateLimited {
				if row.fault.Kind != devchain.FaultHang { // which would let go what still hangs
					n.SetFault(row.fault)
				}
				status, _, answer, err := g.post("/", batch)
				answer = hashes.ReplaceAllString(answer, "HASH")
				if err != nil || status != 200 || answer != "["+strings.TrimSpace(row.answer)+"]\n" {
					t.Errorf("in a batch: %d %s%v", status, answer, err)
				}
			}
		})
	}
}

func TestOverloadRefusesWithoutBlame(t *testing.T) {
	hold := newGate()
	url := serving(t, hold.ServeHTTP)
	g := start(t, conf("[server]\nmax_concurrent_rpcs = 1\nqueue_timeout = \"1ms\"", url), nil)
	first := make(chan string, 1)
	go func() {
		_, _, body, _ := g.post("/", request("eth_call", "[]"))
		first <- body
	}()
	<-hold.held
	for range 5 {
		status, h, body, err := g.post("/", request("eth_call", "[]"))
		if err != nil || status != 429 || body != `{"jsonrpc":"2.0","error":{"code":-32024,"message":"too many requests"},"id":1}`+"\n" || h.Get("Retry-After") != "1" {
			t.Errorf("%d %v %s %v", status, h, body, err)
		}
	}
	if _, ready := g.get(t, g.RPCAddr(), "/readyz"); !strings.Contains(ready, `"state":"well"`) {
		t.Error(ready)
	}
	hold.release()
	if body := <-first; !strings.Contains(body, `"result":"0x1"`) {
		t.Error(body)
	}
}

func TestStrictLimitOfABackendRefuses(t *testing.T) {
	n := newNode(t, "one")
	g := start(t, fmt.Sprintf("[backends.b1]\nrpc_url = %q\nmax_rps = 0.001\nmax_rps_strict = true\n[backend_groups.main]\nbackends = [\"b1\"]\n[rpc_method_mappings]\n\"*\" = \"main\"", n.URL), nil)
	if status, _, body, err := g.post("/", request("eth_chainId", "[]")); status != 200 || err != nil {
		t.Errorf("%d %s %v", status, body, err)
	}
	status, h, body, err := g.post("/", request("eth_chainId", "[]"))
	if err != nil || status != 429 || body != `{"jsonrpc":"2.0","error":{"code":-32012,"message":"backend is over capacity"},"id":1}`+"\n" || h.Get("Retry-After") == "" {
		t.Errorf("%d %v %s %v", status, h, body, err)
	}
}

func TestNothingOfTheClientGoesUpstreamButWhatMay(t *testing.T) {
	seen := make(chan http.Header, 10)
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Header.Clone()
		_, id, _ := strings.Cut(string(body), `"id":`)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","result":"0x1","id":%s`, id)
	})
	g := start(t, conf("[authentication]\nk = \"a\"\n[cache]\nenabled = true", url), func(o *Options) { o.ProxyIP = "7.7.7.7" })
	headers := []string{"Authorization", "Bearer k", "Cookie", "c=1", "X-Api-Key", "k", "X-Forwarded-For", "1.2.3.4", "X-Optimism-Signature", "sig", "Origin", "https://x", "X-Custom", "y", "X-Request-Id", "id1"}
	for method, want := range map[string]map[string]string{
		"eth_call":    {"X-Forwarded-For": "1.2.3.4, 7.7.7.7", "X-Optimism-Signature": "sig"},
		"eth_chainId": {"X-Forwarded-For": "", "X-Optimism-Signature": ""}, // asked on behalf of all
	} {
		if status, _, body, err := g.post("/", request(method, "[]"), headers...); status != 200 || err != nil {
			t.Fatalf("%d %s %v", status, body, err)
		}
		h := <-seen
		for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "Origin", "X-Custom"} {
			if h.Get(name) != "" {
				t.Errorf("%s: %s went upstream", method, name)
			}
		}
		for name, value := range want {
			if h.Get(name) != value {
				t.Errorf("%s: %s is %q, want %q", method, name, h.Get(name), value)
			}
		}
	}
}
