package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
)

// envelopeErrors are what the front answers by itself, with a body limit of 400 bytes and batches of at
// most 3.
var envelopeErrors = []struct {
	body   string
	status int
	answer string
}{
	{"", 400, parseError},
	{" \n", 400, parseError},
	{"{", 400, parseError},
	{`{"jsonrpc":"2.0"`, 400, parseError},
	{chainID + "x", 400, parseError},
	{chainID + chainID, 400, parseError},
	{`[` + chainID, 400, parseError},
	{`[` + chainID + `,]`, 400, parseError},
	{`"text"`, 400, parseError},
	{"123", 400, parseError},
	{`{"jsonrpc":2,"method":"eth_chainId","id":1}`, 400, parseError},
	{`{"jsonrpc":"2.0","method":5,"id":1}`, 400, parseError},
	{"null", 400, invalid("invalid JSON-RPC version")},
	{"{}", 400, invalid("invalid JSON-RPC version")},
	{`{"method":"eth_chainId","id":1}`, 400, invalid("invalid JSON-RPC version")},
	{`{"jsonrpc":"1.0","method":"eth_chainId","id":1}`, 400, invalid("invalid JSON-RPC version")},
	{`{"jsonrpc":"2.0","id":1}`, 400, invalid("no method specified")},
	{`{"jsonrpc":"2.0","method":"","id":1}`, 400, invalid("no method specified")},
	{`{"jsonrpc":"2.0","method":"eth_chainId"}`, 400, invalid("invalid ID")},
	{`{"jsonrpc":"2.0","method":"eth_chainId","id":[]}`, 400, invalid("invalid ID")},
	{`{"jsonrpc":"2.0","method":"eth_chainId","id":{}}`, 400, invalid("invalid ID")},
	{`{"jsonrpc":"2.0","method":"eth_chainId","id":""}`, 400, invalid("invalid ID")},
	{`{"jsonrpc":"2.0","method":"eth_chainId","METHOD":"admin_addPeer","id":1}`, 400, invalid("duplicate or misspelled envelope member")},
	{`{"jsonrpc":"2.0","method":"eth_chainId","method":"eth_call","id":1}`, 400, invalid("duplicate or misspelled envelope member")},
	{`[]`, 400, invalid("must specify at least one batch call")},
	{` [ ] `, 400, invalid("must specify at least one batch call")},
	{`[1,2,3,4]`, 413, `{"jsonrpc":"2.0","error":{"code":-32014,"message":"too many RPC calls in batch request"},"id":null}`},
	{strings.Repeat(" ", 401), 413, `{"jsonrpc":"2.0","error":{"code":-32021,"message":"request body too large"},"id":null}`},
	{`{"jsonrpc":"2.0","method":"debug_x","id":"i"}`, 403, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":"i"}`},
	{
		`[123,null,{"jsonrpc":"2.0","id":1}]`, 200,
		"[" + parseError + "," + invalid("invalid JSON-RPC version") + "," + invalid("no method specified") + "]",
	},
	{
		`[{"jsonrpc":"2.0","method":"debug_x","id":1},` + chainID + `,{"jsonrpc":"1","id":5}]`, 200,
		`[{"jsonrpc":"2.0","error":{"code":-32601,"message":"rpc method is not whitelisted"},"id":1},{"jsonrpc":"2.0","result":"ok","id":1},` + invalid("invalid JSON-RPC version") + `]`,
	},
}

const parseError = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"parse error"},"id":null}`

func invalid(message string) string {
	return `{"jsonrpc":"2.0","error":{"code":-32600,"message":"` + message + `"},"id":null}`
}

// stageErrors are the errors that stages behind the front end calls with.
var stageErrors = []struct {
	err        error
	status     int
	object     string
	retryAfter string
}{
	{&group.Unserviceable{Group: "main", Reasons: []error{errors.New("x")}}, 503, `{"code":-32011,"message":"no backend is currently healthy to serve traffic"}`, "1"},
	{&group.Unserviceable{RetryAfter: 2500 * time.Millisecond}, 503, `{"code":-32011,"message":"no backend is currently healthy to serve traffic"}`, "3"},
	{&group.Unserviceable{Reasons: []error{context.Canceled, context.DeadlineExceeded, group.ErrTimeout, backend.ErrOverloaded}}, 503, `{"code":-32011,"message":"no backend is currently healthy to serve traffic"}`, "1"},
	{&group.OutcomeUnknown{Hash: "0xab"}, 504, `{"code":-32015,"message":"outcome unknown: the transaction may have been accepted","data":"0xab"}`, ""},
	{&group.OutcomeUnknown{}, 504, `{"code":-32015,"message":"outcome unknown: the transaction may have been accepted"}`, ""},
	{group.ErrTimeout, 504, `{"code":-32015,"message":"gateway timeout"}`, ""},
	{context.DeadlineExceeded, 504, `{"code":-32015,"message":"gateway timeout"}`, ""},
	{group.ErrTooLarge, 500, `{"code":-32020,"message":"backend response too large"}`, ""},
	{&ratelimit.Refused{Limit: 5, Reset: 90 * time.Second}, 429, `{"code":-32016,"message":"over rate limit"}`, "90"},
	{&ratelimit.Refused{Limit: 5}, 429, `{"code":-32016,"message":"over rate limit"}`, "1"},
	{ratelimit.ErrStore, 429, `{"code":-32016,"message":"over rate limit"}`, "1"},
	{backend.ErrOverloaded, 429, `{"code":-32024,"message":"too many requests"}`, "1"},
	{context.Canceled, 499, `{"code":-32023,"message":"context canceled"}`, ""},
	{errors.New("unheard of"), 500, `{"code":-32000,"message":"internal error"}`, ""},
	{jsonrpc.ErrNotAllowed, 403, `{"code":-32601,"message":"rpc method is not whitelisted"}`, ""},
}

func TestOverCapacityHasItsBytes(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Err = group.ErrOverCapacity })
	w := f.post(chainID)
	is(t, w, 429, `{"jsonrpc":"2.0","error":{"code":-32012,"message":"backend is over capacity"},"id":1}`+"\n")
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("%v", w.Header())
	}
}

func TestRateLimitHeadersSayWhichLimit(t *testing.T) {
	f := newFront(t, func(o *Options) { o.RateLimitMessage = "slow down" }, func(_ context.Context, c *jsonrpc.Call) {
		if c.Method == "eth_stored" {
			c.Err = ratelimit.ErrStore
		} else {
			c.Err = &ratelimit.Refused{Limit: 60, Reset: 12300 * time.Millisecond}
		}
	})
	w := f.post(chainID)
	is(t, w, 429, `{"jsonrpc":"2.0","error":{"code":-32016,"message":"slow down"},"id":1}`+"\n")
	for name, value := range map[string]string{"Retry-After": "13", "RateLimit-Limit": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "13"} {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	is(t, f.post(`{"jsonrpc":"2.0","method":"eth_stored","id":1}`), 429, `{"jsonrpc":"2.0","error":{"code":-32016,"message":"slow down"},"id":1}`+"\n")
}

func TestBatchTellsTheLongestWait(t *testing.T) {
	waits := map[string]error{
		"eth_a": &ratelimit.Refused{Limit: 5, Reset: 3 * time.Second},
		"eth_b": &ratelimit.Refused{Limit: 9, Reset: 30 * time.Second},
		"eth_c": &group.Unserviceable{RetryAfter: 40 * time.Second},
		"eth_d": &ratelimit.Refused{Limit: 7, Reset: 2 * time.Second},
	}
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) { c.Err = waits[c.Method] })
	var calls []string
	for _, m := range []string{"eth_a", "eth_b", "eth_c", "eth_d"} {
		calls = append(calls, `{"jsonrpc":"2.0","method":"`+m+`","id":1}`)
	}
	h := f.post("[" + strings.Join(calls, ",") + "]").Header()
	if h.Get("Retry-After") != "40" || h.Get("RateLimit-Limit") != "9" || h.Get("RateLimit-Reset") != "30" {
		t.Errorf("%v", h)
	}
}

func TestClientFaultsAreNotLoggedAsWarnings(t *testing.T) {
	f := newFront(t, nil, func(_ context.Context, c *jsonrpc.Call) {
		if c.Method == "eth_down" {
			c.Err = &group.Unserviceable{Group: "main", Reasons: []error{errors.New("backend x: HTTP status 500")}}
		} else {
			c.Err = &ratelimit.Refused{}
		}
	})
	f.post("{")
	f.post(chainID)
	f.post(`{"jsonrpc":"2.0","method":"debug_x","id":1}`)
	f.do("POST", "/", strings.Repeat("x", 300<<10))
	if log := f.log.String(); strings.Contains(log, `"WARN"`) || !strings.Contains(log, `"DEBUG"`) {
		t.Error(log)
	}
	f.post(`{"jsonrpc":"2.0","method":"eth_down","id":1}`, "X-Request-Id", "rq1")
	if log := f.log.String(); strings.Count(log, `"WARN"`) != 1 || !strings.Contains(log, "HTTP status 500") || !strings.Contains(log, `"req_id":"rq1"`) {
		t.Error(log)
	}
	for range 100 {
		f.post(`{"jsonrpc":"2.0","method":"eth_down","id":1}`)
	}
	if n := strings.Count(f.log.String(), `"WARN"`); n > 32 {
		t.Errorf("%d warnings in one or two seconds", n)
	}
}

func TestStatusesAreCounted(t *testing.T) {
	f := newFront(t, nil, nil)
	f.post(chainID)
	f.post("{")
	f.post(`{"jsonrpc":"2.0","method":"debug_x","id":1}`)
	f.do("GET", "/healthz", "")
	f.do("POST", "/a/b", chainID)
	for _, line := range []string{
		`proxyd_http_response_codes_total{status_code="200"} 1`,
		`proxyd_http_response_codes_total{status_code="400"} 1`,
		`proxyd_http_response_codes_total{status_code="403"} 1`,
		`proxyd_http_request_duration_seconds_count 5`,
		`proxyd_rpc_calls_total{backend_name="b1",method_name="eth_chainId",status_code="200",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="method_not_allowed",status_code="403",transport="http"} 1`,
	} {
		if !strings.Contains(f.metrics(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(f.metrics(), http.StatusText(404)) || strings.Contains(f.metrics(), `status_code="404"`) {
		t.Error("404 is counted as an answer to a JSON-RPC request")
	}
}
