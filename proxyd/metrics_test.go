package proxyd

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// families are the metrics that deployed dashboards know (names and labels are the incumbent's), and our own.
var families = map[string][]string{
	"proxyd_up":                                    {},
	"proxyd_rpc_requests_total":                    {},
	"proxyd_rpc_forwards_total":                    {"auth", "backend_name", "method_name", "source"},
	"proxyd_rpc_backend_http_response_codes_total": {"auth", "backend_name", "batched", "method_name", "status_code"},
	"proxyd_rpc_errors_total":                      {"auth", "backend_name", "error_code", "method_name"},
	"proxyd_rpc_special_errors_total":              {"auth", "backend_name", "error_type", "method_name"},
	"proxyd_rpc_backend_request_duration_seconds":  {"backend_name", "batched", "method_name"},
	"proxyd_rpc_calls_total":                       {"backend_name", "method_name", "status_code", "transport"},
	"proxyd_http_response_codes_total":             {"status_code"},
	"proxyd_http_request_duration_seconds":         {},
	"proxyd_unserviceable_requests_total":          {"auth", "request_source"},
	"proxyd_request_payload_sizes":                 {"auth"},
	"proxyd_response_payload_sizes":                {"auth"},
	"proxyd_batch_size_summary":                    {},
	"proxyd_batch_rpc_short_circuits_total":        {},
	"proxyd_cache_hits_total":                      {"method"},
	"proxyd_cache_misses_total":                    {"method"},
	"proxyd_rate_limit_take_errors":                {},
	"proxyd_too_many_request_errors_total":         {"backend_name"},
	"proxyd_backend_avg_latency":                   {"backend_name"},
	"proxyd_backend_degraded":                      {"backend_name"},
	"proxyd_backend_error_rate":                    {"backend_name"},

	"proxyd_provider_errors_total":        {"backend_name", "class", "error_code", "method_name", "status_code"},
	"proxyd_rpc_call_duration_seconds":    {"method_name"},
	"proxyd_rpc_local_answers_total":      {"method_name"},
	"proxyd_rate_limited_calls_total":     {"method_name"},
	"proxyd_backend_usable":               {"backend_name"},
	"proxyd_backend_unanswered_in_row":    {"backend_name"},
	"proxyd_backend_out_of_service":       {"backend_name"},
	"proxyd_backend_out_of_service_total": {"backend_name"},
	"proxyd_backend_held_off":             {"backend_name"},
	"proxyd_backend_state":                {"backend_name", "state"},
	"proxyd_backend_in_flight":            {"backend_name"},
	"proxyd_group_failovers_total":        {"backend_group_name"},
	"proxyd_group_retries_total":          {"backend_group_name"},
	"proxyd_group_calls_total":            {"backend_group_name"},
	"proxyd_group_successes_total":        {"backend_group_name"},
	"proxyd_group_failures_total":         {"backend_group_name"},
	"proxyd_group_hedges_total":           {"backend_group_name"},
	"proxyd_group_hedges_won_total":       {"backend_group_name"},
	"proxyd_group_budget_spent_total":     {"backend_group_name", "kind"},
	"proxyd_cache_size_bytes":             {},
	"proxyd_cache_entries":                {},
	"proxyd_client_ws_slow_readers_total": {},
	"proxyd_filters":                      {},
	"proxyd_filters_expired_total":        {},
	"proxyd_filters_evicted_total":        {},
	"proxyd_filters_refused_total":        {},
	"proxyd_filters_gaps_total":           {},
}

// never are families that this test does not bring about: their labels are known from the code.
var never = map[string]bool{"proxyd_cache_errors_total": true, "proxyd_coalesced_calls_total": true, "proxyd_group_send_lookups_total": true, "proxyd_too_many_request_errors_total": true}

func TestMetricsHaveTheirNamesAndLabels(t *testing.T) {
	n := newNode(t, "one")
	failing := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "eth_sendRawTransaction") {
			_, id, _ := strings.Cut(string(body), `"id":`)
			fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"nonce too low"},"id":%s`, id)
			return
		}
		http.Error(w, "broken", 500)
	})
	g := start(t, fmt.Sprintf(`[authentication]
thekey = "alice"
[server]
public_access = true
[cache]
enabled = true
[rate_limit.method_overrides.eth_gasPrice]
limit = 0
[backends.gone]
rpc_url = "http://127.0.0.1:1"
[backends.failing]
rpc_url = %q
[backends.good]
rpc_url = %q
[backend_groups.main]
backends = ["failing", "good"]
[backend_groups.gone]
backends = ["gone"]
retry_count = 1
retry_delay = "1ms"
[rpc_method_mappings]
"eth_*" = "main"
eth_protocolVersion = "gone"`, failing, n.URL), nil)
	for _, body := range []string{
		request("eth_chainId", "[]"), request("eth_chainId", "[]"), request("eth_accounts", "[]"), request("eth_gasPrice", "[]"), request("eth_protocolVersion", "[]"),
		request("eth_sendRawTransaction", `["0x01"]`), request("debug_x", "[]"), "{", "[" + request("eth_chainId", "[]") + "," + request("eth_blockNumber", "[]") + "]",
	} {
		if _, _, _, err := g.post("/thekey", body); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][]string{}
	gathered, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range gathered {
		if !strings.HasPrefix(f.GetName(), "proxyd_") {
			continue
		}
		labels := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		got[f.GetName()] = labels
	}
	for name, labels := range families {
		if seen, ok := got[name]; !ok && !never[name] {
			t.Errorf("%s is missing", name)
		} else if ok && !slices.Equal(seen, labels) {
			t.Errorf("%s has the labels %v, want %v", name, seen, labels)
		}
	}
	for name := range got {
		if _, ok := families[name]; !ok && !never[name] {
			t.Errorf("%s is not listed in this test", name)
		}
	}
	_, text := g.get(t, g.MetricsAddr(), "/metrics")
	for _, line := range []string{
		`proxyd_rpc_calls_total{backend_name="good",method_name="eth_chainId",status_code="200",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="cache",method_name="eth_chainId",status_code="200",transport="http"} 2`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="eth_accounts",status_code="200",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="eth_gasPrice",status_code="429",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="eth_protocolVersion",status_code="503",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="failing",method_name="eth_sendRawTransaction",status_code="400",transport="http"} 1`,
		`proxyd_rpc_calls_total{backend_name="proxyd",method_name="method_not_allowed",status_code="403",transport="http"} 1`,
		`proxyd_rpc_special_errors_total{auth="alice",backend_name="failing",error_type="nonce too low",method_name="eth_sendRawTransaction"} 1`,
		`proxyd_rpc_errors_total{auth="alice",backend_name="failing",error_code="-32000",method_name="eth_sendRawTransaction"} 1`,
		`proxyd_unserviceable_requests_total{auth="alice",request_source="http"} 1`,
		`proxyd_batch_size_summary_count 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "proxyd_rpc_") && !strings.Contains(line, "_bucket") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

func TestLabelsAreBoundedWhateverClientsAndProvidersSend(t *testing.T) {
	var asked atomic.Int64
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, id, _ := strings.Cut(string(body), `"id":`)
		n := asked.Add(1)
		w.WriteHeader([]int{200, 200, 400, 413}[n%4])
		fmt.Fprintf(w, `{"jsonrpc":"2.0","error":{"code":%d,"message":"hostile provider %d"},"id":%s`, -7919*n, n, id)
	})
	g := start(t, conf("[cache]\nenabled = true\n[[cache.rules]]\nmethods=[\"*\"]\nttl=\"1h\"", url), nil)
	series := func() int {
		_, text := g.get(t, g.MetricsAddr(), "/")
		count := 0
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "proxyd_") {
				count++
			}
			if strings.Contains(line, "hostile") {
				t.Fatalf("a client's or provider's words are a label: %s", line)
			}
		}
		return count
	}
	ask := func(from, to int) {
		for i := from; i < to; i++ {
			for _, body := range []string{
				request(fmt.Sprint("hostile_method", i), "[]"),
				request(fmt.Sprint("debug_traceHostile", i), `["hostile"]`),
				"[" + request(fmt.Sprint("hostile_batch", i), "[]") + "," + request("eth_call", fmt.Sprintf("[%d]", i)) + "]",
				request(fmt.Sprint("hostile method ", i), "[]"),
				fmt.Sprintf(`{"jsonrpc":"hostile%d","id":1}`, i),
			} {
				if _, _, _, err := g.post(fmt.Sprint("/hostilekey", i), body, "X-Request-Id", fmt.Sprint("hostile", i), "Origin", "hostile", "User-Agent", "hostile", "X-Forwarded-For", fmt.Sprintf("9.9.%d.%d", i/250, i%250)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ask(0, 60) // until the 32 codes are used up
	before := series()
	ask(60, 160)
	if after := series(); after > before+8 {
		t.Errorf("%d series became %d", before, after)
	}
}
