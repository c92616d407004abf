package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway.internal/proxyd/backend"
	"gateway.internal/proxyd/group"
	"gateway.internal/proxyd/jsonrpc"
	"gateway.internal/proxyd/ratelimit"
)

// counted are the lines that count calls, without those of zero.
func (f *front) counted() string {
	var out []string
	for line := range strings.Lines(f.metrics()) {
		if strings.HasPrefix(line, "proxyd_rpc_calls_total{") || strings.HasPrefix(line, "proxyd_rpc_local_answers_total{") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// Calls of a batch that are alike are counted together; that must not show.
func TestBatchCountsAsItsCallsWouldOneByOne(t *testing.T) {
	outcomes := []func(*jsonrpc.Call){
		func(c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(`1`), Backend: "b1", Group: "main"} },
		func(c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(`1`), Backend: "b2", Group: "main"} },
		func(c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Result: []byte(`1`), Backend: "cache"} },
		func(c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Error: []byte(`{"code":3}`), Code: 3, Backend: "b1"} },
		func(c *jsonrpc.Call) { c.Answer = &jsonrpc.Answer{Error: []byte(`{"code":4}`), Code: 4, Backend: "b2"} },
		func(c *jsonrpc.Call) { c.Err = &ratelimit.Refused{Limit: 1, Reset: time.Second} },
		func(c *jsonrpc.Call) { c.Err = &group.Unserviceable{Group: "main"} },
		func(c *jsonrpc.Call) { c.Err = group.ErrTimeout },
		func(c *jsonrpc.Call) { c.Err = group.ErrTooLarge },
		func(c *jsonrpc.Call) { c.Err = backend.ErrOverloaded },
		func(c *jsonrpc.Call) { c.Err = context.Canceled },
		func(c *jsonrpc.Call) { c.Err = errors.New("?") },
		func(c *jsonrpc.Call) {}, // left open
	}
	answer := func(_ context.Context, c *jsonrpc.Call) {
		var n int
		if _, err := fmt.Sscanf(string(c.Params), "[%d]", &n); err != nil {
			t.Error(err)
		}
		outcomes[n](c)
	}
	methods := []string{"eth_call", "eth_chainId", "net_version", "eth_madeUp", "eth_other", "eth_accounts", "eth_refused", "debug_unmapped"}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 100 {
		together, apart := newFront(t, func(o *Options) { o.MaxBatch = 200 }, answer), newFront(t, nil, answer)
		few := 1 + random.IntN(len(outcomes)) // so that there are runs of equal ones
		var calls []string
		for range 1 + random.IntN(40) {
			c := fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":[%d],"id":1}`, methods[random.IntN(min(few, len(methods)))], random.IntN(few))
			if random.IntN(20) == 0 {
				c = []string{`{"jsonrpc":"1.0","method":"eth_call","id":1}`, `{"jsonrpc":"2.0","method":"eth_call"}`, `{"jsonrpc":"2.0","id":1}`, `7`, `null`, `{"jsonrpc":"2.0","method":"a b","id":1}`}[random.IntN(6)]
			}
			calls = append(calls, slices.Repeat([]string{c}, 1+random.IntN(3))...)
		}
		together.post("[" + strings.Join(calls, ",") + "]")
		for _, c := range calls {
			apart.post(c)
		}
		if a, b := together.counted(), apart.counted(); a != b || a == "" {
			t.Fatalf("round %d: %s\nas a batch\n%sone by one\n%s", round, calls, a, b)
		}
	}
}
