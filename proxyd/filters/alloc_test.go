//go:build !race

package filters

import (
	"context"
	"testing"

	"gateway.internal/proxyd/jsonrpc"
)

func TestCallsOfOtherMethodsPassWithoutAllocation(t *testing.T) {
	f, _ := stage(Options{})
	h := f.Middleware(jsonrpc.HandlerFunc(func(context.Context, []*jsonrpc.Call) {}))
	for _, calls := range [][]*jsonrpc.Call{{call("eth_call")}, {call("eth_call"), call("eth_getLogs"), call("eth_chainId")}} {
		ctx := t.Context()
		if n := testing.AllocsPerRun(200, func() { h.ServeRPC(ctx, calls) }); n != 0 {
			t.Errorf("%v allocations for %d calls", n, len(calls))
		}
	}
}
