package proxyd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// mixed is a provider that answers each method in its own way, alone and in a
// batch.
func mixed(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var calls []struct {
		ID     json.RawMessage
		Method string
	}
	batch := body[0] == '['
	if !batch {
		body = []byte("[" + string(body) + "]")
	}
	if json.Unmarshal(body, &calls) != nil {
		panic(http.ErrAbortHandler)
	}
	answers := make([]string, len(calls))
	for i, c := range calls {
		answer := `"result":"0x1"`
		switch c.Method {
		case "eth_call":
			answer = `"error":{"code":3,"message":"execution reverted"}`
		case "eth_estimateGas":
			answer = `"error":{"code":-32000,"message":"insufficient funds"}`
		case "eth_gasPrice":
			answer = `"result":null` // which it cannot answer
		}
		answers[i] = fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,%s}`, c.ID, answer)
	}
	if answer := strings.Join(answers, ","); batch {
		fmt.Fprint(w, "["+answer+"]")
	} else {
		fmt.Fprint(w, answer)
	}
}

// Whether a client joins its calls must not change what is counted of them.
func TestBatchIsCountedAsItsCallsOneByOne(t *testing.T) {
	t.Parallel()
	var calls []string
	for i := range 60 {
		method := []string{"eth_getBalance", "eth_getBalance", "eth_call", "eth_estimateGas", "eth_gasPrice", "eth_chainId", "eth_getBlockByNumber", "debug_refused", "eth_accounts", "eth_madeUp", "eth_sendRawTransaction"}[i*i%11]
		params := fmt.Sprintf("[%d]", i) // no two are equal
		if method == "eth_chainId" {
			params = "[]" // kept already
		}
		calls = append(calls, request(method, params))
	}
	calls = append(calls, `{"jsonrpc":"1.0","method":"eth_call","id":1}`, `7`)
	var counted [2][]string
	for i, size := range []int{len(calls), 1} {
		config := fmt.Sprintf("[backends.b1]\nrpc_url = %q\n[backend_groups.main]\nbackends = [\"b1\"]\n[rpc_method_mappings]\n\"eth_*\" = \"main\"\n[cache]\nenabled = true\n[rate_limit]\nbase_rate = 1000\nbase_interval = \"1h\"\n", serving(t, mixed))
		config += "[rate_limit.method_overrides.eth_getBlockByNumber]\nlimit = 2\ninterval = \"10h\"\n"
		g := start(t, config, nil)
		if status, _, body, err := g.post("/", request("eth_chainId", "[]")); err != nil || status != 200 {
			t.Fatal(status, body, err)
		}
		for part := range slices.Chunk(calls, size) {
			body := strings.Join(part, ",")
			if size > 1 {
				body = "[" + body + "]"
			}
			if _, _, _, err := g.post("/", body); err != nil {
				t.Fatal(err)
			}
		}
		_, text := g.get(t, g.MetricsAddr(), "/")
		for line := range strings.Lines(text) {
			name, _, _ := strings.Cut(line, "{")
			switch strings.TrimPrefix(name, "proxyd_") {
			case "rpc_calls_total", "rpc_local_answers_total", "rpc_forwards_total", "rpc_errors_total", "rpc_special_errors_total", "provider_errors_total",
				"cache_hits_total", "cache_misses_total", "unserviceable_requests_total", "rate_limited_calls_total", "backend_out_of_service_total":
				if !strings.HasSuffix(line, " 0\n") {
					counted[i] = append(counted[i], line)
				}
			}
		}
	}
	if a, b := strings.Join(counted[0], ""), strings.Join(counted[1], ""); a != b || len(counted[0]) < 15 {
		t.Errorf("as a batch\n%sone by one\n%s", a, b)
	}
}
