package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/cache"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	d.bytes += len(p)
	return len(p), nil
}

// body is a request body that can be read again.
type body struct{ strings.Reader }

func (*body) Close() error { return nil }

// answersAtOnce stands in place of a group.
var answersAtOnce = func() jsonrpc.HandlerFunc {
	answer := &jsonrpc.Answer{Result: []byte(`"0x1234567890abcdef"`), Backend: "stub", Group: "main"}
	return func(_ context.Context, calls []*jsonrpc.Call) {
		for _, c := range calls {
			c.Answer = answer
		}
	}
}()

func newTable(b *testing.B) *jsonrpc.Table {
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		b.Fatal(err)
	}
	return table
}

// serve measures requests through the front, the limiter and the cache, to answersAtOnce.
func serve(b *testing.B, text string) {
	reg := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	limits := ratelimit.New(ratelimit.Options{Base: ratelimit.Limit{Calls: 1 << 50}, Metrics: ratelimit.NewMetrics(reg), Log: log})
	kept := cache.New(cache.Options{Store: cache.NewMemory(0), Metrics: cache.NewMetrics(reg), Log: log})
	b.Cleanup(kept.Close)
	serveWith(b, text, reg, jsonrpc.Chain(answersAtOnce, limits.Middleware, kept.Middleware))
}

// serveWith measures requests through the front to h.
func serveWith(b *testing.B, text string, reg prometheus.Registerer, h jsonrpc.Handler) {
	routes := NewRoutes(newTable(b))
	routes.Map("*", &Target{Group: "main", Handler: h})
	front := New(Options{
		Routes: routes, Ready: func(bool) (bool, []GroupStatus) { return true, nil }, Metrics: NewMetrics(reg),
		Log: slog.New(slog.DiscardHandler), CORS: CORS{Origins: []string{"*"}},
	})
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(text))
	w := &discard{header: http.Header{}}
	once := func() {
		in := new(body)
		in.Reset(text)
		r.Body = in
		clear(w.header)
		front.ServeHTTP(w, r)
	}
	once()
	if w.bytes < 40 {
		b.Fatal("no answer")
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		once()
	}
}

func BenchmarkCacheHit(b *testing.B) {
	serve(b, `{"jsonrpc":"2.0","method":"eth_chainId","params":[],"id":1}`)
}

func BenchmarkUncached(b *testing.B) {
	serve(b, `{"jsonrpc":"2.0","method":"eth_getBalance","params":["0x407d73d8a49eeb85d32cf465507dd71d507100c1","latest"],"id":1}`)
}

func batchOf100() string {
	var calls []string
	for i := range 100 {
		calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_getBalance","params":["0x%040x","latest"],"id":%d}`, i, i))
	}
	return "[" + strings.Join(calls, ",") + "]"
}

func BenchmarkBatchOf100(b *testing.B) { serve(b, batchOf100()) }

// The front alone: the batch is taken apart, routed, and its answers put together.
func BenchmarkBatchOf100SplitAndJoined(b *testing.B) {
	serveWith(b, batchOf100(), prometheus.NewRegistry(), answersAtOnce)
}

func BenchmarkBatchOf100Hits(b *testing.B) {
	var calls []string
	for i := range 100 {
		calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_getBlockByHash","params":["0x%064x",false],"id":%d}`, i, i))
	}
	serve(b, "["+strings.Join(calls, ",")+"]")
}

func BenchmarkRoute(b *testing.B) {
	routes := NewRoutes(newTable(b))
	target := &Target{Group: "main", Handler: answersAtOnce}
	for _, pattern := range []string{"eth_*", "net_*", "web3_*", "debug_trace*", "trace_*", "txpool_*", "eth_getBalance", "eth_chainId", "eth_call"} {
		routes.Map(pattern, target)
	}
	for _, test := range [][2]string{{"exact", "eth_getBalance"}, {"pattern", "eth_getStorageAt"}, {"unknown", "eth_somethingNew"}, {"refused", "admin_addPeer"}} {
		b.Run(test[0], func(b *testing.B) {
			c := &jsonrpc.Call{Method: test[1]}
			b.ReportAllocs()
			for b.Loop() {
				if (routes.route(c) == nil) != (test[0] == "refused") {
					b.Fatal(c.Label)
				}
			}
		})
	}
}

func BenchmarkRateLimit(b *testing.B) {
	limits := ratelimit.New(ratelimit.Options{
		Base: ratelimit.Limit{Calls: 1 << 50}, Methods: map[string]ratelimit.Limit{"eth_getLogs": {Calls: 1 << 50}},
		Metrics: ratelimit.NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	})
	h := limits.Middleware(answersAtOnce)
	for _, test := range [][2]string{{"base", "eth_call"}, {"base and method", "eth_getLogs"}} {
		b.Run(test[0], func(b *testing.B) {
			c := &jsonrpc.Call{Method: test[1], Label: test[1], Client: &jsonrpc.Client{Key: "192.0.2.1", Auth: "none"}}
			calls := []*jsonrpc.Call{c}
			b.ReportAllocs()
			for b.Loop() {
				c.Answer = nil
				if h.ServeRPC(b.Context(), calls); c.Answer == nil {
					b.Fatal(c.Err)
				}
			}
		})
	}
}

// What the front counts of one answered call; the sizes and the status of its request are not in it.
func BenchmarkCount(b *testing.B) {
	f := newFront(b, nil, nil)
	calls := []*jsonrpc.Call{{
		Method: "eth_call", Label: "eth_call", Client: &jsonrpc.Client{Auth: "none", Source: "http"},
		Answer: &jsonrpc.Answer{Result: []byte(`"0x"`), Backend: "b1", Group: "main"},
	}}
	started := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		f.count(f.top, calls, false, started)
	}
}
