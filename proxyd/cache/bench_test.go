package cache

import (
	"context"
	"testing"
	"time"

	"gateway.internal/proxyd/jsonrpc"
)

// asker returns a function that sends the same call through the cache, to a stage that answers at once. The call
// and its slice are made beforehand, so that only the cache's own cost is left.
func asker(t testing.TB, method, params string) (ask func() *jsonrpc.Answer) {
	t.Helper()
	answer := &jsonrpc.Answer{Result: []byte(`"0x1234567890abcdef"`), Backend: "b", Group: "g"}
	// A call that is kept for a nanosecond is never there when it is asked for again.
	c := newCache(t, func(o *Options) { o.Rules = []Rule{{"eth_gasPrice", time.Nanosecond}} })
	h := c.Middleware(jsonrpc.HandlerFunc(func(_ context.Context, calls []*jsonrpc.Call) {
		for _, c := range calls {
			c.Answer = answer
		}
	}))
	ctx, call := t.Context(), newCall(t, method, params)
	calls := []*jsonrpc.Call{call}
	return func() *jsonrpc.Answer {
		call.Answer, call.Err = nil, nil
		h.ServeRPC(ctx, calls)
		return call.Answer
	}
}

func bench(b *testing.B, method, params, by string) {
	ask := asker(b, method, params)
	ask()
	b.ReportAllocs()
	for b.Loop() {
		if a := ask(); a == nil || a.Backend != by {
			b.Fatal("answered by somebody else")
		}
	}
}

func BenchmarkHit(b *testing.B)       { bench(b, "eth_chainId", "[]", "cache") }
func BenchmarkHitByHash(b *testing.B) { bench(b, "eth_getBlockByHash", `["`+hashA+`",false]`, "cache") }
func BenchmarkMiss(b *testing.B)      { bench(b, "eth_gasPrice", "[]", "b") }
func BenchmarkNotCacheable(b *testing.B) {
	bench(b, "eth_getBalance", `["0xd8da6bf26964af9d7eed9e03e53415d37aa96045","latest"]`, "b")
}
