package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gateway.internal/proxyd/cache"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
	"gateway.internal/proxyd/server"
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

// serve measures requests through the front, the limiter and the cache, to a stub in place of a group.
func serve(b *testing.B, text string) {
	reg := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	table, err := jsonrpc.NewTable(nil)
	if err != nil {
		b.Fatal(err)
	}
	answer := &jsonrpc.Answer{Result: []byte(`"0x1234567890abcdef"`), Backend: "stub", Group: "main"}
	stub := jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
		for _, c := range calls {
			c.Answer = answer
		}
	})
	limits := ratelimit.New(ratelimit.Options{Base: ratelimit.Limit{Calls: 1 << 50}, Metrics: ratelimit.NewMetrics(reg), Log: log})
	kept := cache.New(cache.Options{Store: cache.NewMemory(0), Metrics: cache.NewMetrics(reg), Log: log})
	b.Cleanup(kept.Close)
	routes := server.NewRoutes(table)
	routes.Map("*", &server.Target{Group: "main", Handler: jsonrpc.Chain(stub, limits.Middleware, kept.Middleware)})
	front := server.New(server.Options{
		Routes: routes, Ready: func(bool) (bool, []server.GroupStatus) { return true, nil }, Metrics: server.NewMetrics(reg), Log: log,
		CORS: server.CORS{Origins: []string{"*"}},
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

func BenchmarkBatchOf100(b *testing.B) {
	var calls []string
	for i := range 100 {
		calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_getBalance","params":["0x%040x","latest"],"id":%d}`, i, i))
	}
	serve(b, "["+strings.Join(calls, ",")+"]")
}

func BenchmarkBatchOf100Hits(b *testing.B) {
	var calls []string
	for i := range 100 {
		calls = append(calls, fmt.Sprintf(`{"jsonrpc":"2.0","method":"eth_getBlockByHash","params":["0x%064x",false],"id":%d}`, i, i))
	}
	serve(b, "["+strings.Join(calls, ",")+"]")
}
