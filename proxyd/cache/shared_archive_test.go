package cache

import (
	"testing"
	"testing/synctest"

	"gateway.internal/proxyd/jsonrpc"
)

func TestSharedAttemptOfAnArchiveCallAsksArchiveBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &upstream{}
		c := newCache(t, func(o *Options) { o.Coalesce = []string{"eth_call"} })
		h := c.Middleware(up)
		for _, method := range []string{"eth_chainId", "eth_call"} { // kept, and listed
			h.ServeRPC(t.Context(), []*jsonrpc.Call{newArchiveCall(t, method, "[1]")})
		}
		for _, call := range up.asked {
			if !call.Client.Archive {
				t.Errorf("%s was asked of any backend", call.Method)
			}
		}
		c.Close()
	})
}
