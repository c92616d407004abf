package backend

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gateway.internal/proxyd/classify"
	"gateway.internal/proxyd/jsonrpc"
)

// shownLines are the lines of a registry for metrics of the names, without those of
// zero.
func shownLines(reg *prometheus.Registry, names ...string) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var out []string
	for line := range strings.Lines(w.Body.String()) {
		name, _, _ := strings.Cut(line, "{")
		if slices.Contains(names, name) && !strings.HasSuffix(line, " 0\n") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// Calls that are alike are counted together; that must not show.
func TestBatchCountsAsItsCallsWouldOneByOne(t *testing.T) {
	names := []string{"proxyd_rpc_forwards_total", "proxyd_rpc_errors_total", "proxyd_rpc_special_errors_total", "proxyd_provider_errors_total"}
	clients := []*jsonrpc.Client{
		nil, {}, {Auth: "none", Source: "http"}, {Auth: "none", Source: "http"}, {Auth: "alice", Source: "http"}, {Auth: "alice", Source: "ws"}, {Auth: "alice", Source: "ws"},
	}
	methods := []string{"eth_call", "eth_chainId", "eth_*", "eth_sendRawTransaction"}
	failed := func(kind Kind, status int, code int64, class string) Result {
		return Result{Err: &Error{Backend: "b", Kind: kind, HTTP: status, RPC: code != 0, Code: code, cause: errors.New("x")}, Outcome: classify.Outcome{Class: class}}
	}
	answered := func(code int64, status int, text, class string) Result {
		return Result{Answer: &jsonrpc.Answer{Error: fmt.Appendf(nil, `{"code":%d,"message":%q}`, code, text), Code: code, Status: status}, Outcome: classify.Outcome{Class: class}}
	}
	results := []Result{
		{Answer: &jsonrpc.Answer{Result: []byte(`"0x1"`)}}, {Answer: &jsonrpc.Answer{Result: []byte(`null`), Status: 400}}, {Answer: &jsonrpc.Answer{Result: []byte(`"0x1"`)}},
		answered(3, 0, "execution reverted", "revert"), answered(-32000, 0, "nonce too low", "known_transaction"), answered(-32000, 400, "already known", "known_transaction"),
		answered(777, 0, "?", "other"), answered(778, 0, "?", "other"),
		failed(Timeout, 0, 0, "timeout"), failed(Status, 503, 0, "server"), failed(Status, 503, -32005, "rate_limit"), failed(Invalid, 200, 0, "invalid_answer"),
		failed(Canceled, 0, 0, "canceled"), failed(Overloaded, 0, 0, "overloaded"),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var text [2]string
		all, one := prometheus.NewRegistry(), prometheus.NewRegistry()
		together := newBackend(t, "http://node.memory", func(o *Options) { o.Metrics = NewMetrics(all) })
		apart := newBackend(t, "http://node.memory", func(o *Options) { o.Metrics = NewMetrics(one) })
		few := 1 + random.IntN(len(results)) // so that there are runs of equal ones
		var calls []*jsonrpc.Call
		var came []Result
		for range 1 + random.IntN(40) {
			c := &jsonrpc.Call{Method: "m", Label: methods[random.IntN(min(few, len(methods)))], Client: clients[random.IntN(min(few, len(clients)))]}
			r := results[random.IntN(few)]
			for range 1 + random.IntN(3) {
				calls, came = append(calls, c), append(came, r)
			}
		}
		together.opts.Metrics.attempt(&Attempt{Backend: together, Calls: calls, Results: came, label: attemptLabel(calls)}, 0)
		for i := range calls {
			apart.opts.Metrics.attempt(&Attempt{Backend: apart, Calls: calls[i : i+1], Results: came[i : i+1], label: calls[i].Label}, 0)
		}
		text[0], text[1] = shownLines(all, names...), shownLines(one, names...)
		if text[0] != text[1] {
			t.Fatalf("round %d, %d calls: as a batch\n%sone by one\n%s", round, len(calls), text[0], text[1])
		}
	}
}

// The same with what a provider answers.
func TestUpstreamBatchCountsAsItsCallsWouldOneByOne(t *testing.T) {
	answers := map[string]string{
		"[1]": `"result":"0x1"`, "[2]": `"error":{"code":3,"message":"execution reverted"}`, "[3]": `"error":{"code":-32000,"message":"nonce too low"}`,
		"[4]": `"result":null`, "[5]": `"error":{"code":4242,"message":"?"}`, "[6]": `"error":"none"`,
	}
	keys := slices.Sorted(maps.Keys(answers))
	var text [2]string
	for i, size := range []int{len(keys) * 2, 1} {
		onStage(t, nil, func(t *testing.T, s *stage) {
			reg := prometheus.NewRegistry()
			s.opts.Metrics = NewMetrics(reg)
			s.play = func(w *wire, request []byte) bool {
				_, body, _ := strings.Cut(string(request), "\r\n\r\n")
				var objects []string
				for n, call := range strings.SplitAfter(strings.Trim(body, "[]"), "},{") {
					_, params, _ := strings.Cut(call, `"params":`)
					objects = append(objects, fmt.Sprintf(`{"id":%d,%s}`, idIn(request)+uint64(n), answers[params[:3]]))
				}
				answer := strings.Join(objects, ",")
				if body[0] == '[' {
					answer = "[" + answer + "]"
				}
				fmt.Fprintf(w.far, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
				return true
			}
			var calls []*jsonrpc.Call
			for _, k := range keys {
				calls = append(calls, call("eth_call", k), call("eth_getBalance", k))
			}
			for part := range slices.Chunk(calls, size) {
				ask(t, s.Backend, part...)
			}
			text[i] = shownLines(reg, "proxyd_rpc_forwards_total", "proxyd_rpc_errors_total", "proxyd_rpc_special_errors_total", "proxyd_provider_errors_total")
		})
	}
	if text[0] != text[1] || strings.Count(text[0], "\n") < 10 {
		t.Errorf("as a batch\n%sone by one\n%s", text[0], text[1])
	}
}
